"""Sites for the tools of others, all of them, changed or not: pprof, speedscope, collapsed stacks, UMDH."""
