"""Libraries that only some answers need; each belongs to an extra of the package."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

from windumps.errors import WindumpsError

# What pipx leaves in each environment it makes.
PIPX_MARK = "pipx_metadata.json"
PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:\\@%+~-]+")  # what no shell takes apart


class MissingExtraError(WindumpsError):
    """A library that an answer needs is not installed; the message says how to install it."""


def missing_extra(what: str, library: str, extra: str) -> MissingExtraError:
    """The error for a library that could not be imported.

    Args:
        what: What needs it, "trends".
        library: Its name for people.
        extra: The extra of the package that brings it.
    """
    return MissingExtraError(
        f"{what} need {library}, which is not installed: {install_command(extra)}"
    )


def install_command(extra: str) -> str:
    """The command that adds an extra to the environment that runs, not to any other Python's."""
    wanted = f'"{_place()}[{extra}]"'
    environment = Path(sys.prefix)
    if (environment / PIPX_MARK).is_file():
        return f"pipx runpip {in_quotes(environment.name)} install {wanted}"
    if (
        importlib.util.find_spec("pip") is None
    ):  # as in the environments of uv, those of its tools too
        return f"uv pip install --python {in_quotes(sys.executable)} {wanted}"
    return f"{in_quotes(sys.executable)} -m pip install {wanted}"


def in_quotes(word: str) -> str:
    """A word as it stands in a command line: in quotes where a shell would take it apart."""
    return word if PLAIN_WORD.fullmatch(word) else f'"{word}"'


def _place() -> str:
    """What to install: the package by name, or the clone that it runs from."""
    from importlib.metadata import PackageNotFoundError, distribution  # slow, and seldom asked

    try:
        return distribution("dumpleak").name
    except PackageNotFoundError:
        return str(Path(__file__).resolve().parents[2])
