"""How commands end: 0 done, 2 wrong usage (click's), and these."""

EXIT_GATE = 1  # a condition of `--fail-on` held
EXIT_CANNOT_ANSWER = 3  # the question cannot be answered from this input
