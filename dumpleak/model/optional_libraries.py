"""Libraries that only some answers need; each belongs to an extra of the package."""

from __future__ import annotations

from windumps.errors import WindumpsError


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
        f"{what} need {library}, which is not installed: pip install 'dumpleak[{extra}]'"
    )
