"""PoolMon's log, read: the pools of a live system by tag, in place of a dump of its kernel.

PoolMon shows the counters that the kernel's trackers have in a dump, so a log and a dump of one machine give
the same keys. It never shows blocks.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from dumpleak.files.live_text import lines_of
from dumpleak.files.poolmon_lines import MAX_ROWS, PoolLog, parse
from dumpleak.model.account import Figure
from dumpleak.model.boots import Boot
from dumpleak.model.coverage import PoolsCovered
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.memory import Limit
from dumpleak.model.owners import Ownership
from dumpleak.model.pool import POOLS, TRACKERS, Counters, TagRow, sited
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.pool_blocks import PoolBlocks
from dumpleak.model.pool_sites import Groups, driver_of, tag_site
from dumpleak.model.pool_source import OpenObjects
from dumpleak.model.populations import POOL
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.model.subject import Subject
from dumpleak.model.totals import Totals, sum_of
from dumpleak.owners.by_table import owner_by_notes
from dumpleak.owners.tag_table import (
    PoolTagFileError,
    TagNote,
    TagTable,
    built_in_table,
    find_pooltag,
    parse_drivers,
    read_pooltag,
)
from windumps.diagnostics import Diagnostic, DiagnosticLog, Severity
from windumps.pool_tags import tag_text

KIND = "poolmon log"
GROUPINGS = ("site", "tag", "driver")
TAGS_UNKNOWN = "pool-tags-unknown"  # code: tags are missing, nobody knows how much of the pool
_HEADER = {
    "memory.available_bytes": "available",
    "memory.committed_bytes": "committed",
    "memory.commit_limit_bytes": "commit_limit",
}
_NEVER = "a PoolMon log counts the blocks of each tag and shows none of them: no sizes, no contents"


class PoolLogCoverage(PoolsCovered):
    """Coverage of a log: all that it counts is known, and none of it was walked."""

    never: ClassVar[str] = _NEVER


class LoggedPools:
    """The pools of one log, a `PoolSource`.

    Args:
        path: The log.
        pooltag: A `pooltag.txt`; one that lies beside the log is found without.

    Raises:
        CannotAnswerError: it is several logs in one, or cut before its first tag.
        PoolTagFileError: `pooltag` says nothing.
        OSError: a file cannot be read.
    """

    counter_bits = 32
    has_trackers = True
    handles: list[OpenObjects] | None = None  # a log tells of none

    def __init__(self, path: Path | str, pooltag: Path | None = None) -> None:
        self.file = str(path)
        self.log = DiagnosticLog()
        self.read = parse(lines_of(path))
        self.absent_entries = self.read.damaged
        self._refuse()
        self._written = self._pooltag(Path(path), pooltag)
        self._say()
        self._rows = self._by_tag()
        if any((row.total("allocs") or 0) >> 32 for row in self._rows):
            self.counter_bits = 64

    @property
    def slack(self) -> int | None:
        """What the memory manager counts of the pools and no tag does; None without a header."""
        header = [self.read.memory.get(f"{pool}_pool") for pool in POOLS[:2]]
        known = [kilobytes << 10 for kilobytes in header if kilobytes is not None]
        if len(known) < len(header) or self.read.in_sessions:
            return None
        return sum(known) - sum(self.read.total(pool) for pool in POOLS[:2])

    @property
    def source(self) -> SourceInfo:
        """Where it comes from. No log tells its time."""
        system = Subject.SYSTEM
        return SourceInfo(
            self.file, KIND, "Windows", "", 0, None, None, "System", None, subject=system
        )

    @property
    def boot(self) -> Boot:
        """Which run of the system it is of: nothing tells."""
        return Boot(0, None, None, self.file)

    @property
    def has_session_pool(self) -> bool:
        """The log is of sessions."""
        return self.read.in_sessions

    @property
    def why_no_session_pool(self) -> str:
        """Why there is no session pool; "" where there is."""
        return "" if self.read.in_sessions else "PoolMon shows it only with /s"

    @property
    def blocks(self) -> PoolBlocks:
        """None: a log shows no block."""
        return PoolBlocks(())

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """What is missing, and what a log never tells."""
        return self.log.collect()

    def account(self, walk: bool) -> PoolAccount:
        """What is known of the pools as a whole; there is nothing to walk."""
        return PoolAccount(
            ranking=TRACKERS,
            reason=_NEVER,
            trackers="the kernel's counters by tag, as PoolMon shows them",
            walk="",
            tracked_bytes=sum(row.total("bytes") or 0 for row in self._rows),
            tag_count=len(self._rows) + self.read.damaged,
            unknown_tags=self.read.damaged,
            walked_bytes=None,
            walked_count=None,
            uncounted_bytes=0,
            matched_bytes=None,
            absent_bytes=0,
            damaged_bytes=0,
            missing_bytes=0,
            residuals=(),
            pool_count=len({pool for _, pool in self.read.rows}),
        )

    def rows(self) -> list[TagRow]:
        """One row a tag, those included that hold nothing now."""
        return self._rows

    def owner(self, tag: int) -> Ownership | None:
        """Whose tag it is, by tables."""
        text = tag_text(tag)
        notes = [self._mapped(tag, text), built_in_table().find(text)]
        if self._written is not None:
            notes.insert(0, self._written.find(text))
        return owner_by_notes(text, notes)

    def _by_tag(self) -> list[TagRow]:
        pools: dict[int, dict[str, Counters]] = {}
        for (number, pool), counters in sorted(self.read.rows.items()):
            pools.setdefault(number, {})[pool] = counters
        return [
            TagRow(
                number, tag_text(number), held, TRACKERS, self.owner(number) or Ownership("    ")
            )
            for number, held in pools.items()
        ]

    def _mapped(self, tag: int, text: str) -> TagNote | None:
        """What the column Mapped_Driver says: "[ntfs.sys  -  Create.c]", of drivers alone "[ipsec]"."""
        said = self.read.drivers.get(tag, "")
        if not said.startswith("["):
            return None
        entry = said.rsplit("[", 1)[1].rstrip("]")
        driver, _, description = entry.partition(" - ")
        drivers, component = parse_drivers(driver)
        if not drivers and driver.strip().isalnum():
            drivers = (f"{driver.strip()}.sys",)
        return TagNote(
            text, drivers, component, description.strip(), "the log's Mapped_Driver column"
        )

    def _pooltag(self, path: Path, given: Path | None) -> TagTable | None:
        if given is not None:
            return read_pooltag(given)
        found = find_pooltag(path.parent)
        if found is None:
            return None
        try:
            return read_pooltag(found)
        except (PoolTagFileError, OSError) as error:
            self._warn("pooltag-file", f"{error}; it is not used")
            return None

    def _refuse(self) -> None:
        log, file = self.read, self.file
        if len(log.rows) + log.damaged > MAX_ROWS:
            raise CannotAnswerError(
                f"{file}: more than {MAX_ROWS} lines, no log of PoolMon has so many"
            )
        if log.headings > 1 or log.repeated:
            what = (
                f"the tag {log.repeated} is there twice"
                if log.repeated
                else "it has several tables"
            )
            raise CannotAnswerError(
                f"{file}: {what}: several snapshots in one file; write each to a file of its own, "
                "`poolmon /n FILE`"
            )
        if not log.rows:
            raise CannotAnswerError(f"{file}: a PoolMon log that is cut before its first tag")

    def _say(self) -> None:
        log = self.read
        self.log.add("poolmon-log", Severity.INFO, KIND, None, _NEVER)
        if log.damaged:
            self._warn(
                TAGS_UNKNOWN,
                f"{log.damaged} lines are damaged and were left out: they are no rows, or contradict "
                "themselves",
            )
        if not log.memory and not log.in_sessions:
            self._warn(
                "poolmon-no-header",
                "the log lacks its header, so that nothing tells whether it has all tags",
            )
        for pool in POOLS[:2]:
            header, told = log.memory.get(f"{pool}_pool", 0) << 10, log.total(pool)
            if not log.in_sessions and told * 2 < header:
                self._warn(
                    "poolmon-part",
                    f"its tags come to {told} of {header} bytes of {pool} pool: it is cut, or was "
                    "filtered (/i, /x, /p)",
                )

    def _warn(self, code: str, message: str) -> None:
        self.log.add(code, Severity.WARNING, KIND, None, message)


def read_log(path: Path | str, by: str = "site", skip_frames: tuple[str, ...] = ()) -> Snapshot:
    """Reads a PoolMon log into a snapshot of the pools, with the keys that a kernel dump gives.

    Args:
        path: The log.
        by: Of `GROUPINGS`.
        skip_frames: Not used: pools have no stacks.

    Raises:
        CannotAnswerError: the log cannot be used, or cannot be grouped so.
    """
    if by not in GROUPINGS:
        raise CannotAnswerError(
            f"{path}: a PoolMon log counts blocks by tag and shows none; it can be grouped by "
            f"{', '.join(GROUPINGS)}, not by {by}"
        )
    pools = LoggedPools(path)
    groups = _grouped(pools.rows(), by)
    totals = sum_of(totals for _, totals in groups.values())
    heaps = _heaps(pools.read)
    covered = PoolLogCoverage(
        0, totals.bytes, totals.bytes, len(heaps), len(heaps), counted_bytes=totals.bytes
    )
    return Snapshot(
        source=pools.source,
        grouping=by,
        groups=groups,
        totals=totals,
        private={},
        heaps=heaps,
        coverage=covered,
        diagnostics=pools.diagnostics,
        limits=_limits(pools.read),
        pool=pools,
        outside=_account(pools.read, totals),
        population=POOL,
    )


def _grouped(rows: list[TagRow], by: str) -> Groups:
    groups: Groups = {}
    for row, number in sited(rows):
        counters = row.pools[POOLS[number]]
        held = counters.bytes or 0
        site = _site(row, number, by)
        before = groups.get(site.key, (site, Totals()))[1]
        groups[site.key] = site, before + Totals(counters.count or 0, held, held)
    return groups


def _site(row: TagRow, number: int, by: str) -> Site:
    if by == "driver":
        return driver_of(row.owner.driver)
    return tag_site(row, number if by == "site" else None)


def _heaps(log: PoolLog) -> list[HeapRow]:
    heaps = []
    for pool in POOLS:
        rows = [row for (_, where), row in log.rows.items() if where == pool]
        if rows:
            kilobytes = None if log.in_sessions else log.memory.get(f"{pool}_pool")
            heaps.append(
                HeapRow(
                    label=f"{pool} pool",
                    address=0,
                    kind=POOL,
                    architecture="",
                    reason="",
                    committed_bytes=None if kilobytes is None else kilobytes << 10,
                    used_bytes=log.total(pool),
                    used_count=sum(row.count or 0 for row in rows),
                )
            )
    return heaps


def _account(log: PoolLog, totals: Totals) -> tuple[Figure, ...]:
    """The system as a whole, by its tags and the log's header."""
    figures = [Figure("pool.count", totals.count), Figure("pool.bytes", totals.bytes)]
    for pool in POOLS[:2]:
        listed = any(where == pool for _, where in log.rows)
        name, why = f"pool.{pool}_bytes", f"the log lists no tags of {pool} pool"
        figures.append(Figure(name, log.total(pool)) if listed else Figure(name, None, why))
    for name, key in _HEADER.items():
        size = log.memory.get(key)
        why = "" if size is not None else "the log lacks its header"
        figures.append(Figure(name, None if size is None else size << 10, why))
    return tuple(figures)


def _limits(log: PoolLog) -> tuple[Limit, ...]:
    """Pool of both kinds is committed memory."""
    committed, limit = log.memory.get("committed"), log.memory.get("commit_limit")
    if committed is None or limit is None or limit < committed:
        return ()
    return (Limit("commit limit", (limit - committed) << 10, limit << 10),)
