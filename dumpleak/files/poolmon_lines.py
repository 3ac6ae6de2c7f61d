"""The lines of a PoolMon log: what `poolmon /n` writes, and what people copy from its window.

     Memory:16468560K Avail:12072536K  PageFlts:468600648   InRam Krnl:56708K P:950888K
     Commit:4100436K Limit:17517136K Peak:11685564K            Pool N:710920K P:983564K

     Tag  Type     Allocs         Frees    Diff   Bytes    Per Alloc

     EtwB Nonp       6394      4056      2338 163418368      69896

Changes stand in parentheses behind the numbers in the window only; `/g` adds drivers. A row says two things
twice, Diff and Per Alloc: a row in which they do not agree is damaged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from dumpleak.files.live_text import decoded
from dumpleak.model.pool import Counters
from windumps.pool_tags import plain_tags

MAX_ROWS = 1 << 15  # a kernel has some thousand tags
_WORD = 1 << 32
_POSSIBLE = 1 << 56  # blocks or bytes: more is damage
_NUMBER = r"(-?\d{1,20})"
_CHANGE = r"(?:\s*\(\s*-?\d{1,20}\s*\))?"
_TYPES = {"Nonp": "nonpaged", "Paged": "paged"}
# The tag is taken by column, as it may hold blanks; a line whose blanks were cut off has none in front.
_ROW = re.compile(
    rf" ?(?P<tag>[^\n]{{4}}|\S{{1,3}}(?=\s))\s+(?P<type>Nonp|Paged)\s+{_NUMBER}{_CHANGE}\s+{_NUMBER}{_CHANGE}"
    rf"\s+{_NUMBER}\s+{_NUMBER}{_CHANGE}\s+{_NUMBER}(?P<driver>\s.*|)"
)
_HEADING = re.compile(r"\W*Tag\s+Type\s+Allocs\s+Frees\s+Diff\s+Bytes\s+Per Alloc")
_MEMORY = re.compile(r"\s*Memory:\s*(\d{1,16})K\s+Avail:\s*(\d{1,16})K")
_COMMIT = re.compile(
    r"\s*Commit:\s*(\d{1,16})K\s+Limit:\s*(\d{1,16})K.*Pool N:\s*(\d{1,16})K\s+P:\s*(\d{1,16})K"
)
_TITLE = re.compile(r"\s*(System|All sessions|Session\s+\d+)\s+pool information\s*", re.IGNORECASE)
_REST = re.compile(r"\s*(?:!\w+=|total\b|$)", re.IGNORECASE)


@dataclass
class PoolLog:
    """What was read so far.

    Attributes:
        rows: By tag and pool of `POOLS`; also those that hold nothing now.
        drivers: What the column Mapped_Driver says, by tag.
        damaged: Lines that are no rows, or rows that contradict themselves.
        repeated: A tag that is there twice in one pool.
        headings: Headings of tables; each snapshot has one.
        memory: Kilobytes by name, of the header; empty where it has none.
        in_sessions: The rows are of sessions.
    """

    rows: dict[tuple[int, str], Counters] = field(default_factory=dict)
    drivers: dict[int, str] = field(default_factory=dict)
    damaged: int = 0
    repeated: str = ""
    headings: int = 0
    memory: dict[str, int] = field(default_factory=dict)
    in_sessions: bool = False

    def total(self, pool: str) -> int:
        """Bytes of all tags in a pool."""
        return sum(row.bytes or 0 for (_, where), row in self.rows.items() if where == pool)


def is_log(head: bytes) -> bool:
    """True when the beginning of a file (some KiB) looks like a log of PoolMon."""
    return any(_HEADING.match(line) or _COMMIT.match(line) for line in decoded(head).splitlines())


def parse(lines: Iterable[str]) -> PoolLog:
    """Reads a log line by line; stops where it is two, and at more rows than any kernel has tags."""
    log = PoolLog()
    for line in lines:
        if log.repeated or len(log.rows) + log.damaged > MAX_ROWS:
            break
        if match := _ROW.fullmatch(line):
            _add_row(log, match)
        elif match := _MEMORY.match(line):
            log.memory |= {"memory": int(match[1]), "available": int(match[2])}
        elif match := _COMMIT.match(line):
            names = ("committed", "commit_limit", "nonpaged_pool", "paged_pool")
            log.memory |= dict(zip(names, map(int, match.groups()), strict=True))
        elif match := _TITLE.fullmatch(line):
            log.in_sessions = match[1].lower() != "system"
        elif _HEADING.match(line):
            log.headings += 1
        else:
            log.damaged += _REST.match(line) is None
    return log


def _add_row(log: PoolLog, match: re.Match[str]) -> None:
    try:
        raw = match["tag"].ljust(4).encode("latin-1")
    except UnicodeEncodeError:  # it was changed into another encoding, and lost its bytes
        log.damaged += 1
        return
    number = int(plain_tags(np.array([int.from_bytes(raw, "little")], np.uint32))[0])
    pool = "session" if log.in_sessions else _TYPES[match["type"]]
    counters = _counters(*(int(match[group]) for group in range(3, 8)))
    if counters is None:
        log.damaged += 1
        return
    if (number, pool) in log.rows and not log.in_sessions:
        log.repeated = match["tag"]
    log.rows[number, pool] = _sum(log.rows.get((number, pool)), counters)
    if said := match["driver"].strip():
        log.drivers[number] = said


def _counters(allocs: int, frees: int, count: int, held: int, per_alloc: int) -> Counters | None:
    """The numbers of a row; None where they contradict each other.

    Counters of 32 bits wrap; some versions print them with a sign.
    """
    allocs, frees = (n + _WORD if -_WORD // 2 <= n < 0 else n for n in (allocs, frees))
    if min(allocs, frees, count, held) < 0 or max(count, held) > _POSSIBLE:
        return None
    if max(allocs, frees) >> 64 or (allocs - frees - count) % _WORD:
        return None
    if per_alloc != (held // count if count else 0) or (held and not count):
        return None
    return Counters(allocs, frees, count, held)


def _sum(one: Counters | None, other: Counters) -> Counters:
    """Rows of one tag in several sessions, or of both types in one."""
    if one is None:
        return other
    return Counters(
        (one.allocs or 0) + (other.allocs or 0),
        (one.frees or 0) + (other.frees or 0),
        (one.count or 0) + (other.count or 0),
        (one.bytes or 0) + (other.bytes or 0),
    )
