"""What commands say beside their answer: on stderr, in one line."""

from __future__ import annotations

import click

from dumpleak.reports.names import visible


def say(message: str) -> None:
    """Writes a line; a name from a dump that is part of it cannot move the cursor."""
    click.echo(visible(message), err=True)
