"""`python -m dumpleak`."""

from dumpleak.cli import main

main()
