"""Known leaks: named, tracked, and muted where somebody decided to live with them for a time.

A TOML file:

    [[known]]
    site = "app.exe!Cache::*"        # pattern of the leak's name, in any case; or:
    # fingerprint = "stack-0f3a…"
    name = "JIRA-123: the cache is never trimmed"
    muted = true                      # no gate fails for it
    expires = 2027-01-31              # the last day on which that counts
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from dumpleak.files.checked_json import Absent, Decoder, WrongMemberError
from windumps.files import read_head

MAX_FILE_BYTES = 1 << 20


@dataclass
class _Entry:
    site: Annotated[str, Absent("")]
    fingerprint: Annotated[str, Absent("")]
    name: str
    muted: Annotated[bool, Absent(False)]
    expires: Annotated[date | None, Absent(None)]


@dataclass
class _File:
    known: Annotated[list[Any], Absent([])]


_decode = Decoder(closed=(_Entry, _File))


@dataclass(frozen=True)
class KnownLeak:
    """One entry.

    Attributes:
        site: Pattern of names with `*`, `?` and `[...]`; "" where the fingerprint says it.
        fingerprint: Of the leak, or ""; one beginning is enough.
        name: What to call it.
        muted: It does not count.
        is_expired: It counts again.
    """

    site: str
    fingerprint: str
    name: str
    muted: bool = False
    is_expired: bool = False

    def matches(self, fingerprint: str, name: str) -> bool:
        """True for the leak it means."""
        if self.fingerprint and not fingerprint.startswith(self.fingerprint):
            return False
        return not self.site or fnmatchcase(name.lower(), self.site.lower())


@dataclass(frozen=True)
class Known:
    """All entries of a file."""

    leaks: tuple[KnownLeak, ...] = ()

    def of(self, fingerprint: str, name: str) -> KnownLeak | None:
        """The first entry for a leak; None where there is none."""
        return next((leak for leak in self.leaks if leak.matches(fingerprint, name)), None)


def read_known(path: Path | str, today: date | None = None) -> Known:
    """Reads a file of known leaks.

    Args:
        path: The file.
        today: The day to hold expiry dates against; the current one (UTC) unless given.

    Raises:
        ValueError: says where the file is wrong and what can be written.
        OSError: it cannot be read.
    """
    raw = read_head(path, MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"{path}: a file of known leaks has at most {MAX_FILE_BYTES} bytes")
    try:
        document = tomllib.loads(raw.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from error
    day = today or datetime.now(UTC).date()
    try:
        entries = _decode(_File, document, "the file").known
        return Known(tuple(_leak(entry, f"entry {n}", day) for n, entry in enumerate(entries, 1)))
    except WrongMemberError as error:
        raise ValueError(
            f"{path}: {error}; write one [[known]] with name, and site or fingerprint, for each leak"
        ) from error


def _leak(entry: object, where: str, today: date) -> KnownLeak:
    read = _decode(_Entry, entry, where)
    site, fingerprint = read.site.strip(), read.fingerprint.strip()
    if not read.name.strip():
        raise WrongMemberError("a text that says something", f"{where}.name")
    if not site and not fingerprint:
        raise WrongMemberError("a pattern of names, or a fingerprint beside it", f"{where}.site")
    is_expired = read.expires is not None and read.expires < today
    return KnownLeak(site, fingerprint, read.name.strip(), read.muted, is_expired)
