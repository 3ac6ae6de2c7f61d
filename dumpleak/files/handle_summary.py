"""What `handle.exe -s` (Sysinternals) writes, read: handles by type.

    Handle type summary:
      ALPC Port       : 11
      Event           : 108
    Total handles: 119

The last line adds them up, so a summary that was cut or damaged is known by it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from dumpleak.files.live_text import decoded, lines_of
from dumpleak.model.account import Figure
from dumpleak.model.coverage import ListCovered
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.populations import HANDLES
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import Snapshot, SourceInfo
from dumpleak.model.subject import Subject
from dumpleak.model.totals import Totals
from windumps.diagnostics import Diagnostic, Severity

KIND = "handle summary"
GROUPINGS = ("site", "type")  # the first is what is asked for when nobody asks
MAX_TYPES = 4096  # Windows has some seventy
_HEADING = re.compile(r"\s*Handle type summary:\s*")
_TYPE = re.compile(r"\s+(\S[^:\n]{0,99}?)\s*:\s*(\d{1,10})\s*")
_TOTAL = re.compile(r"\s*Total handles:\s*(\d{1,10})\s*")
_UNKNOWN = "<Unknown type>"
_NEVER = "a summary of handle.exe counts handles by type: no names, and not of which process it is"


class HandlesCovered(ListCovered):
    """Coverage of a summary."""

    never: ClassVar[str] = _NEVER


def is_log(head: bytes) -> bool:
    """True when the beginning of a file looks like such a summary."""
    return any(_HEADING.fullmatch(line) for line in decoded(head).splitlines())


def read_log(path: Path | str, by: str = "site") -> Snapshot:
    """Reads a summary into a snapshot of handles, with the keys that a dump's handles have.

    Args:
        path: The file.
        by: Of `GROUPINGS`.

    Raises:
        CannotAnswerError: it is cut, or damaged, or cannot be grouped so.
        OSError: it cannot be read.
    """
    if by not in GROUPINGS:
        raise CannotAnswerError(f"{path}: a summary tells of handles, by type, and knows no {by}")
    counts, total = _counts(path)
    groups = {}
    for text, count in counts.items():
        known = "" if text == _UNKNOWN else text
        site = Site(SiteKind.GROUP, f"handle|type|{known}", text, type=known or None)
        groups[site.key] = site, Totals(count)
    return Snapshot(
        SourceInfo(
            file=str(path),
            kind=KIND,
            machine="Windows",
            architecture="",
            build=0,
            time=None,
            process_id=None,
            program="",
            process_created=None,
            subject=Subject.LOG,
        ),
        "type",
        groups,
        Totals(total),
        {},
        [],
        HandlesCovered(0, 0, 0, 0, 0),
        [Diagnostic("handle-summary", Severity.INFO, KIND, None, _NEVER)],
        outside=(Figure("handles.count", total),),
        population=HANDLES,
        sized=False,
    )


def _counts(path: Path | str) -> tuple[dict[str, int], int]:
    """Handles by type, and all of them.

    Raises:
        CannotAnswerError: they do not add up.
    """
    counts: dict[str, int] = {}
    total: int | None = None
    headings = 0
    for line in lines_of(path, "utf-8"):
        if _HEADING.fullmatch(line):
            headings += 1
        elif match := _TOTAL.fullmatch(line):
            total = int(match[1])
        elif headings and total is None and (match := _TYPE.fullmatch(line)):
            counts[match[1]] = counts.get(match[1], 0) + int(match[2])
        if headings > 1 or len(counts) > MAX_TYPES:
            raise CannotAnswerError(
                f"{path}: several summaries in one file; write each to a file of its own, handle -s -p PID"
            )
    if total is None:
        raise CannotAnswerError(
            f"{path}: the summary is cut: its last line, Total handles, is not there"
        )
    found = sum(counts.values())
    if found != total:
        raise CannotAnswerError(
            f"{path}: the summary is damaged: its types come to {found} handles, and it says {total} in all"
        )
    return counts, total
