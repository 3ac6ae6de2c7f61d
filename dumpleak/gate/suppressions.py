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
from typing import Any

from dumpleak.model.sites import Site
from windumps.files import read_head

MAX_FILE_BYTES = 1 << 20
_KEYS = {"site", "reason", "expires"}


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
    entries = document.get("suppress", [])
    if set(document) - {"suppress"} or not isinstance(entries, list):
        raise ValueError(
            f"{path}: write one [[suppress]] with site, reason and expires for each site"
        )
    day = today or datetime.now(UTC).date()
    return [_entry(entry, f"{path}: entry {n}", day) for n, entry in enumerate(entries, start=1)]


def _entry(entry: Any, where: str, today: date) -> Suppression:
    if not isinstance(entry, dict) or set(entry) != _KEYS:
        raise ValueError(f"{where}: a [[suppress]] has site, reason and expires, and nothing else")
    site, reason, expires = entry["site"], entry["reason"], entry["expires"]
    if not isinstance(site, str) or not isinstance(reason, str) or not site or not reason.strip():
        raise ValueError(f"{where}: site and reason are texts that say something")
    if isinstance(expires, datetime) or not isinstance(expires, date):
        raise ValueError(f"{where}: expires is a day, 2027-01-31 (without quotes)")
    return Suppression(site, reason.strip(), expires, expires < today)
