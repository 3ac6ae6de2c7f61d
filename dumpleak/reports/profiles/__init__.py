"""Profiles for other tools: pprof, speedscope, collapsed stacks, UMDH."""
