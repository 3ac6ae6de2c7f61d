"""Suppressions: sites that may grow, for a reason and for a time.

A TOML file:

    [[suppress]]
    site = "app.exe!Cache::*"      # pattern of the site's name, in any case
    reason = "fills up to 64 MiB, JIRA-123"
    expires = 2027-01-31
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from dumpleak.files.checked_json import Absent, Decoder, WrongMemberError
from dumpleak.model.sites import Site
from windumps.files import read_head

MAX_FILE_BYTES = 1 << 20


@dataclass
class _Entry:
    site: str
    reason: str
    expires: date


@dataclass
class _File:
    suppress: Annotated[list[Any], Absent([])]


_decode = Decoder(closed=(_Entry, _File))


@dataclass(frozen=True)
class Suppression:
    """One entry.

    Attributes:
        site: Pattern of names of sites, with `*`, `?` and `[...]`.
        reason: Why it may grow.
        expires: The last day on which it counts.
        is_expired: That day is over.
    """

    site: str
    reason: str
    expires: date
    is_expired: bool

    def matches(self, site: Site) -> bool:
        """True for sites with such a name."""
        return fnmatchcase(site.name.lower(), self.site.lower())

    @property
    def told(self) -> str:
        """Pattern and reason, for people."""
        return f"{self.site}: {self.reason} (until {self.expires})"


def read_suppressions(path: Path | str, today: date | None = None) -> list[Suppression]:
    """Reads a suppressions file.

    Args:
        path: The file.
        today: The day to hold expiry dates against; the current one (UTC) unless given.

    Raises:
        ValueError: says where the file is wrong and what can be written.
        OSError: it cannot be read.
    """
    raw = read_head(path, MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"{path}: a suppressions file has at most {MAX_FILE_BYTES} bytes")
    try:
        document = tomllib.loads(raw.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from error
    day = today or datetime.now(UTC).date()
    try:
        entries = _decode(_File, document, "the file").suppress
        return [_suppression(entry, f"entry {n}", day) for n, entry in enumerate(entries, start=1)]
    except WrongMemberError as error:
        raise ValueError(
            f"{path}: {error}; write one [[suppress]] with site, reason and expires for each site"
        ) from error


def _suppression(entry: object, where: str, today: date) -> Suppression:
    read = _decode(_Entry, entry, where)
    for name in ("site", "reason"):
        if not getattr(read, name).strip():
            raise WrongMemberError("a text that says something", f"{where}.{name}")
    return Suppression(read.site, read.reason.strip(), read.expires, read.expires < today)
