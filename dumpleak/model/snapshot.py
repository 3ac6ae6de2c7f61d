"""A snapshot: everything a comparison needs of one dump, and nothing of its memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.grouping import GROUPINGS, Grouping
from dumpleak.model.account import Figure, outside_figures
from dumpleak.model.block_table import BlockTable, BlockTableBuilder
from dumpleak.model.boots import Boot
from dumpleak.model.coverage import Coverage, PoolsCovered, coverage
from dumpleak.model.group_sums import DetailSums, SiteDetail
from dumpleak.model.sites import Site
from dumpleak.model.totals import Totals
from dumpleak.pointers.holders import HolderFinder, Holding
from dumpleak.pointers.references import BlockIndexBuilder
from dumpleak.process.limits import Limit, memory_limits
from dumpleak.process.memory_use import MemoryByUse, memory_by_use, private_memory
from dumpleak.process.session import HeapSource, Progress, Session, no_progress
from dumpleak.process.unread_heaps import unread_spans
from dumpleak.process.used_pieces import used_pieces
from windumps.diagnostics import Diagnostic
from windumps.images.modules import Module

POOL = "pool"  # kind of the rows that stand for the kernel's pools
BLOCKS, HANDLES = "blocks", "handles"  # what a snapshot adds up


@dataclass(frozen=True)
class HeapRow:
    """One heap of the process, read or not; byte and block numbers are None when it was not read.

    Of a heap that was not read, `committed_bytes` are known where the dump lists its regions.

    Attributes:
        label: Name that is stable across dumps, "heap 1".
        address: The handle.
        kind: "nt", "segment", …; "absent" when it is not in the dump.
        architecture: "x86" or "x64".
        flags: Creation flags as the heap keeps them.
        front_end: "lfh" or "".
        reserved_bytes: Address space it holds.
        committed_bytes: Committed of that.
        used_bytes: Asked for by the program.
        used_count: Used blocks.
        free_bytes: Free blocks.
        free_count: Free blocks.
        overhead_bytes: The heap's own structures, and headers and padding of used blocks.
        unwalked_bytes: Absent or damaged.
        residual_bytes: Unexplained; not zero only where something is damaged.
        layout: Which layout was used and how well it checked out.
        reason: Why it was not read; "" when it was.
    """

    label: str
    address: int
    kind: str
    architecture: str
    reason: str
    flags: int | None = None
    front_end: str = ""
    reserved_bytes: int | None = None
    committed_bytes: int | None = None
    used_bytes: int | None = None
    used_count: int | None = None
    free_bytes: int | None = None
    free_count: int | None = None
    overhead_bytes: int | None = None
    unwalked_bytes: int | None = None
    residual_bytes: int | None = None
    layout: str = ""

    @property
    def read(self) -> bool:
        """True when its blocks are part of the answer."""
        return not self.reason


@dataclass(frozen=True)
class SourceInfo:
    """Where a snapshot comes from.

    Attributes:
        file: As the user named it.
        kind: "minidump", …
        machine: The system, "Windows 10.0.19041 x64".
        architecture: Of the dump.
        build: Windows build number; 0 when unknown.
        time: When the dump was taken.
        process_id: None when unknown.
        program: File name of the executable; "" when unknown.
        process_created: When the process was started; None when unknown.
        program_base: Load address of the executable; None when unknown.
    """

    file: str
    kind: str
    machine: str
    architecture: str
    build: int
    time: datetime | None
    process_id: int | None
    program: str
    process_created: datetime | None
    program_base: int | None = None


@dataclass
class Snapshot:
    """One dump, added up.

    Attributes:
        source: Where it comes from.
        grouping: The `--by` key the groups were made with, "site".
        groups: Each group's identity and totals, by key.
        totals: Over all used blocks of all heaps that were read.
        private: Private memory outside heaps, by key; not part of `totals`.
        private_unknown: Why there is no telling of it; "" when there is.
        by_regions: It is what the dump's list of regions says, and not what its file holds.
        in_file: See `PrivateMemory.in_file`.
        heaps: All heaps, read or not.
        coverage: See `Coverage`.
        diagnostics: What was left out, and why.
        limits: What the process can run into, and how much is left.
        details: More about each group, by key; empty unless asked for, and for snapshots read from files.
        memory: All memory by use; None under the same conditions.
        modules: Loaded images.
        blocks: Gives the used blocks with their groups; None where they are not known or not kept.
        holders: Tells who points to the blocks of the groups with certain keys; None as `blocks`.
        held_by: What `holders` told, by key, for reports.
        stripped: Names of types, modules and functions are hashed.
        kept_names: Patterns of those that are not.
        pool: What growth of the kernel's pools is explained by; None for heaps, and for snapshots read
            from files.
        outside: Figures of the account that the rest of a snapshot does not tell, see `account`; None for
            logs, and for snapshot files that were written without.
        unreferenced: bool, one row a used block by ascending address: nothing leads to it. None where
            that was not looked for, or cannot be told.
        boot: Which run of the system it is of; None for processes, and where it was not kept.
        refuted: Of the kernel's pools, sites whose counters the blocks refute, with what these count.
        explain: Gives clauses on a site's growth since another snapshot; None where there are none.
        population: `BLOCKS`, pool memory included, or `HANDLES`, which have no bytes: theirs are all 0.
    """

    source: SourceInfo
    grouping: str
    groups: dict[str, tuple[Site, Totals]]
    totals: Totals
    private: dict[str, tuple[Site, Totals]]
    heaps: list[HeapRow]
    coverage: Coverage
    diagnostics: list[Diagnostic] = field(default_factory=list)
    limits: tuple[Limit, ...] = ()
    details: dict[str, SiteDetail] = field(default_factory=dict)
    memory: MemoryByUse | None = None
    modules: tuple[Module, ...] = ()
    blocks: Callable[[], BlockTable] | None = None
    holders: Callable[[Collection[str]], dict[str, Holding]] | None = None
    held_by: dict[str, Holding] = field(default_factory=dict)
    stripped: bool = False
    kept_names: tuple[str, ...] = ()
    pool: object | None = None
    outside: tuple[Figure, ...] | None = None
    unreferenced: NDArray[np.bool_] | None = None
    explain: Callable[[Snapshot, Site], tuple[str, ...]] | None = None
    private_unknown: str = ""
    by_regions: bool = True
    in_file: tuple[Site, Totals] | None = None
    population: str = BLOCKS
    boot: Boot | None = None
    refuted: dict[str, tuple[Site, Totals]] = field(default_factory=dict)

    @property
    def has_bytes(self) -> bool:
        """Its members have sizes; else they are only counted."""
        return self.population != HANDLES

    @property
    def members(self) -> str:
        """What is added up, as `--of` names it."""
        return POOL if self.is_pool else self.population

    @property
    def is_pool(self) -> bool:
        """It is of the kernel's pools and not of a process's heaps."""
        return any(row.kind == POOL for row in self.heaps)


def take_snapshot(
    session: Session,
    by: str = "site",
    progress: Progress = no_progress,
    details: bool = False,
    keep_blocks: bool = False,
    holders: bool = False,
) -> Snapshot:
    """Walks all heaps of a dump and adds their used blocks up.

    Args:
        session: The open dump.
        by: A key of `GROUPINGS`.
        progress: Told of each heap.
        details: Also collect what only some reports show, `Snapshot.details` and `Snapshot.memory`.
        keep_blocks: Keep what tells whether single blocks are still there in another dump.
        holders: Keep what `Snapshot.holders` needs.

    Raises:
        CannotAnswerError: no heap can be read.
    """
    session.require_heaps()
    grouping: Grouping = GROUPINGS[by](session)
    sums, more = GroupSums(), DetailSums()
    kept = BlockTableBuilder(session) if keep_blocks else None
    index = BlockIndexBuilder() if holders else None
    for source, used in used_pieces(session, progress):
        groups = grouping.assign(source, used)
        sums.add(groups, used.counted_bytes, used.block_bytes)
        if details:
            more.add(groups, used, source.view.pointer_size)
        if kept is not None:
            kept.add(source, used, groups)
        if index is not None:
            index.add(used, groups, source.view.pointer_size)
    snapshot = walked_snapshot(session, by, grouping, sums)
    sites = grouping.table.sites
    if kept is not None:
        table = kept.build(tuple(site.key for site in sites))
        snapshot.blocks = lambda: table
    if index is not None:
        snapshot.holders = HolderFinder(session, index.build(), sites)
    if details:
        found = more.details(len(sites))
        snapshot.details = dict(zip((site.key for site in sites), found, strict=True))
        snapshot.memory = memory_by_use(session)
    return snapshot


def walked_snapshot(session: Session, by: str, grouping: Grouping, sums: GroupSums) -> Snapshot:
    """The snapshot of a session whose blocks were walked and added up.

    Args:
        session: The dump.
        by: Name of the grouping.
        grouping: It, with all its groups.
        sums: Over all used blocks.
    """
    sites = grouping.table.sites
    private = private_memory(session)
    return Snapshot(
        source=source_info(session),
        grouping=by,
        groups={site.key: (site, sums.totals(index)) for index, site in enumerate(sites)},
        totals=sums.overall(),
        private=private.groups,
        private_unknown=private.unknown,
        by_regions=private.by_regions,
        in_file=private.in_file,
        heaps=heap_rows(session),
        coverage=coverage(session),
        diagnostics=session.diagnostics,
        limits=memory_limits(session),
        modules=tuple(session.dump.modules),
        outside=outside_figures(session),
    )


def source_info(session: Session) -> SourceInfo:
    """Where a session's answers come from."""
    dump, program = session.dump, session.program
    return SourceInfo(
        file=str(dump.path),
        kind=dump.kind,
        machine=session.describe_system(),
        architecture=dump.architecture,
        build=dump.build,
        time=dump.time,
        process_id=dump.process_id,
        program=program.name if program else "",
        process_created=dump.process_times[0] if dump.process_times else None,
        program_base=program.base_address if program else None,
    )


def heap_rows(session: Session) -> list[HeapRow]:
    """All heaps; complete once their blocks were walked."""
    unread = unread_spans(session)
    return [heap_row(source, unread.get(source.entry.address, ())) for source in session.heaps]


def heap_row(source: HeapSource, unread: Sequence[tuple[int, int]] = ()) -> HeapRow:
    """A heap's row; complete once its blocks were walked.

    Args:
        source: The heap.
        unread: (start, bytes) of its committed memory, where it was not read.
    """
    entry = source.entry
    heap = entry.heap
    if heap is None:
        return HeapRow(
            source.label,
            entry.address,
            entry.kind,
            entry.architecture,
            entry.reason or "not read",
            committed_bytes=sum(size for _, size in unread) or None,
        )
    account = heap.account
    return HeapRow(
        label=source.label,
        address=entry.address,
        kind=entry.kind,
        architecture=entry.architecture,
        reason="",
        flags=heap.flags,
        front_end=heap.front_end,
        reserved_bytes=account.reserved_bytes,
        committed_bytes=account.committed_bytes,
        used_bytes=account.used_bytes,
        used_count=account.used_count,
        free_bytes=account.free_block_bytes,
        free_count=account.free_count,
        overhead_bytes=account.overhead_bytes + account.used_block_bytes - account.used_bytes,
        unwalked_bytes=account.unwalked_bytes,
        residual_bytes=account.residual_bytes,
        layout=heap.layout,
    )


class GroupSums:
    """Adds used blocks up by group number, in columns that grow as groups appear."""

    def __init__(self) -> None:
        self._sums = np.zeros((4, 0), np.int64)

    def add(
        self, groups: NDArray[np.int64], counted: NDArray[np.int64], block_bytes: NDArray[np.int64]
    ) -> None:
        """Adds some blocks.

        Args:
            groups: Their numbers.
            counted: Bytes asked for where known, else block bytes.
            block_bytes: With header and padding.
        """
        size = int(groups.max()) + 1
        if size > self._sums.shape[1]:
            grown = np.zeros((4, max(size, 2 * self._sums.shape[1])), np.int64)
            grown[:, : self._sums.shape[1]] = self._sums
            self._sums = grown
        np.add.at(self._sums[0], groups, 1)
        np.add.at(self._sums[1], groups, counted)
        np.add.at(self._sums[2], groups, block_bytes)
        np.maximum.at(self._sums[3], groups, counted)

    def totals(self, group: int) -> Totals:
        """Of one group."""
        return Totals(*(int(value) for value in self._sums[:, group]))

    def overall(self) -> Totals:
        """Of all groups."""
        largest = int(self._sums[3].max()) if self._sums.size else 0
        count, counted, block_bytes = (int(value) for value in self._sums[:3].sum(axis=1))
        return Totals(count, counted, block_bytes, largest)


__all__ = [
    "BLOCKS",
    "HANDLES",
    "POOL",
    "Coverage",
    "GroupSums",
    "HeapRow",
    "PoolsCovered",
    "Snapshot",
    "SourceInfo",
    "coverage",
    "heap_row",
    "source_info",
    "take_snapshot",
    "walked_snapshot",
]
