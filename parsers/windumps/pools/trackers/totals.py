"""What each tag holds, from the kernel's own counters.

Every allocation and free is counted by tag in a table of its processor; a block freed on another
processor makes that one's counters negative, so only the sum over all processors means anything.
Tags that found no slot stand in one more, shared table. `table.py` reads a single table, and
`search.py` finds tables without symbols.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U32
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.kernel.kernel import Kernel
from windumps.layouts.pool import TRACKER_FIELDS
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace
from windumps.pool_tags import OVERFLOW_TAG, is_printable, plain_tags, tag_text
from windumps.pools.image_words import KernelWords
from windumps.pools.trackers.search import (
    TrackerTables,
    expansion_table,
    find_layout,
    processor_tables,
)
from windumps.pools.trackers.table import TRACKER, Entries, read_entries

COUNTERS = (
    "nonpaged_allocs",
    "nonpaged_frees",
    "nonpaged_bytes",
    "paged_allocs",
    "paged_frees",
    "paged_bytes",
)
_COLUMN_OF = dict(zip(TRACKER_FIELDS, COUNTERS, strict=True))


@dataclass(frozen=True)
class TagTotals:
    """Counters by tag, as columns of equal length; a tag comes once, in ascending order.

    Attributes:
        tag: uint32, the four characters (`tag_text`).
        nonpaged_allocs: int64, allocations ever made; 32-bit kernels and 64-bit ones before 16299
            count in 32 bits, which wrap.
        nonpaged_frees: int64, frees.
        nonpaged_bytes: int64, bytes held now.
        paged_allocs: int64, allocations ever made of paged pool.
        paged_frees: int64, its frees.
        paged_bytes: int64, bytes of it held now.
        complete: bool; false where some part of the sum is not in the dump: such a row's numbers
            are not the tag's totals and must not be shown as such.
        is_doubtful: bool; some processor's table has a page without any key where this tag has its slot:
            either that processor never counted it, or the page could not be read. Only the blocks
            can tell.
        counter_bits: 32 or 64: width of allocs and frees.
        is_found: A tracker table was found; without one all columns are empty and say nothing.
        source: How the tables were found, for people.
        layout: Which layout was used and how it was found, for people.
        table_count: Tables added up: one a processor, and the expansion table.
        absent_entries: Entries of these tables that are not in the dump.
    """

    tag: U32
    nonpaged_allocs: I64
    nonpaged_frees: I64
    nonpaged_bytes: I64
    paged_allocs: I64
    paged_frees: I64
    paged_bytes: I64
    complete: NDArray[np.bool_]
    is_doubtful: NDArray[np.bool_]
    counter_bits: int = 64
    is_found: bool = True
    source: str = ""
    layout: str = ""
    table_count: int = 0
    absent_entries: int = 0

    @classmethod
    def nothing(cls, source: str) -> TagTotals:
        """No tables, with the reason."""
        none, unsaid = np.empty(0, np.int64), np.empty(0, np.bool_)
        columns: dict[str, Any] = dict.fromkeys(COUNTERS, none)
        return cls(
            np.empty(0, np.uint32),
            **columns,
            complete=unsaid,
            is_doubtful=unsaid,
            is_found=False,
            source=source,
        )

    def __len__(self) -> int:
        return len(self.tag)

    @property
    def nonpaged_count(self) -> I64:
        """int64: blocks of nonpaged pool held now (allocs less frees, in the counters' width)."""
        return self._held(self.nonpaged_allocs, self.nonpaged_frees)

    @property
    def paged_count(self) -> I64:
        """int64: blocks of paged pool held now."""
        return self._held(self.paged_allocs, self.paged_frees)

    def _held(self, allocs: I64, frees: I64) -> I64:
        return _signed((allocs - frees).view(np.uint64), self.counter_bits)

    @property
    def is_consistent(self) -> NDArray[np.bool_]:
        """bool: nothing is negative, and bytes are held exactly where blocks are.

        True for every tag when all tables were added up; on a live dump a tag that was counted
        while it was copied may fail.
        """
        good = np.ones(len(self), np.bool_)
        for count, held in (
            (self.nonpaged_count, self.nonpaged_bytes),
            (self.paged_count, self.paged_bytes),
        ):
            good &= (count >= 0) & (held >= 0) & ((count == 0) == (held == 0))
        return good

    @property
    def is_negative(self) -> NDArray[np.bool_]:
        """bool: more was freed than was ever allocated."""
        counts = self.nonpaged_count, self.paged_count, self.nonpaged_bytes, self.paged_bytes
        negative: NDArray[np.bool_] = np.minimum.reduce(counts) < 0
        return negative

    def row(self, tag: int) -> int | None:
        """Row of a tag; None when it has none."""
        at = int(np.searchsorted(self.tag, np.uint32(tag)))
        return at if at < len(self) and int(self.tag[at]) == tag else None


@dataclass(frozen=True)
class SessionTotals:
    """Counters of one session's paged pool (systems before 11 24H2).

    Attributes:
        directory_table_base: Root of page tables of a process in it.
        totals: The counters.
    """

    directory_table_base: int
    totals: TagTotals = field(repr=False)


def read_trackers(
    kernel: Kernel,
    words: KernelWords,
    log: DiagnosticLog,
    base: int | None,
    table_bytes: dict[int, int] | None = None,
) -> TagTotals:
    """Adds up all tracker tables of a kernel.

    Args:
        kernel: The kernel.
        words: Its image, for what must be searched.
        log: Where it is told how tables were found and what is missing.
        base: Address of the first processor's table (`search.tracker_table`); None when it was
            not found.
        table_bytes: Bytes of big pool allocations tagged "Pool", by address, where known: the
            tables are among them.
    """
    if base is None:
        return _not_found(log, "PoolTrackTable was not found: neither KDBG nor symbols name it")
    choice = find_layout(kernel, base)
    if choice is None:
        return _not_found(
            log, f"the tracker table at 0x{base:x} is not in the dump, or is none", base
        )
    tables = processor_tables(kernel, words, base, choice, table_bytes or {})
    expansion = expansion_table(kernel, words, tables, table_bytes or {}, log)
    parts = [_sum(kernel.memory, tables, log)]
    if expansion is not None:
        entries = read_entries(kernel.memory, choice.row, *expansion)
        parts.append(_columns(choice.row, _without_tail(entries)))
    totals = _merge(parts)
    totals = replace(
        totals,
        counter_bits=8 * choice.row.field_size(TRACKER, "NonPagedAllocs"),
        source=tables.source,
        layout=str(choice),
        table_count=len(tables.addresses) + (expansion is not None),
        absent_entries=sum(part.absent_entries for part in parts),
    )
    return _judged(totals, tables, kernel.processor_count, log)


def read_table(
    memory: AddressSpace, row: LayoutRow, address: int, count: int, source: str
) -> TagTotals:
    """One table on its own, as sessions have it."""
    entries = read_entries(memory, row, address, count)
    totals = _merge([_columns(row, entries)])
    return replace(
        totals,
        counter_bits=8 * row.field_size(TRACKER, "NonPagedAllocs"),
        source=source,
        layout=row.name,
        table_count=1,
        absent_entries=int((~entries.present).sum()),
    )


def _not_found(log: DiagnosticLog, message: str, address: int | None = None) -> TagTotals:
    log.add("trackers-not-found", Severity.ERROR, TRACKER, address, message)
    return TagTotals.nothing(message)


def _sum(memory: AddressSpace, tables: TrackerTables, log: DiagnosticLog) -> TagTotals:
    """Slot by slot over all processors."""
    row, count = tables.row, tables.entry_count
    parts = [read_entries(memory, row, address, count) for address in tables.addresses]
    key = np.zeros(count, np.uint32)
    for part in parts:
        key = np.where(key == 0, part.key, key)
    complete = np.ones(count, np.bool_)
    doubtful = np.zeros(count, np.bool_)
    sums = {name: np.zeros(count, np.uint64) for name in TRACKER_FIELDS}
    strange = 0
    for part, address in zip(parts, tables.addresses, strict=True):
        doubtful |= part.on_empty_pages(row, address)
        other = (part.key != 0) & (part.key != key)
        strange += int(other.sum())
        complete &= part.present & ~other
        for name in TRACKER_FIELDS:
            # Columns of a slot without a key are zero, so nothing of another tag comes in.
            sums[name] += np.where(other | ~part.present, 0, part.records[name]).astype(np.uint64)
    if strange:
        log.add(
            "tracker-keys-differ",
            Severity.WARNING,
            TRACKER,
            tables.addresses[0],
            f"{strange} slots have another tag for one processor than for the first: these counters "
            "are damaged and the tags' totals unknown",
        )
    absent = sum(int((~part.present).sum()) for part in parts)
    return _build(row, key, sums, complete, doubtful, absent)


def _columns(row: LayoutRow, entries: Entries) -> TagTotals:
    sums = {name: entries.records[name].astype(np.uint64) for name in TRACKER_FIELDS}
    absent = int((~entries.present).sum())
    doubtful = np.zeros(len(entries.key), np.bool_)
    return _build(row, entries.key, sums, entries.present, doubtful, absent)


def _build(
    row: LayoutRow,
    key: U32,
    sums: dict[str, NDArray[np.uint64]],
    complete: NDArray[np.bool_],
    doubtful: NDArray[np.bool_],
    absent: int,
) -> TagTotals:
    """Columns of the slots that have a key and count something."""
    used = key != 0
    used &= is_printable(key) | is_printable(plain_tags(key)) | _counts(sums)
    used &= (key != OVERFLOW_TAG) | _counts(sums)
    columns: dict[str, Any] = {}
    for name, values in sums.items():
        bits = 8 * row.field_size(TRACKER, name)
        # A sum that is negative shows that some table is missing; bytes are signed for that reason.
        signed = name.endswith("Bytes")
        columns[_COLUMN_OF[name]] = (_signed(values, bits) if signed else _unsigned(values, bits))[
            used
        ]
    return TagTotals(
        tag=key[used],
        complete=complete[used],
        is_doubtful=doubtful[used],
        absent_entries=absent,
        **columns,
    )


def _counts(sums: dict[str, NDArray[np.uint64]]) -> NDArray[np.bool_]:
    counts: NDArray[np.bool_] = np.logical_or.reduce([values != 0 for values in sums.values()])
    return counts


def _signed(values: NDArray[np.uint64], bits: int) -> I64:
    """Two's complement of the counters' width."""
    shift = np.uint64(64 - bits)
    return (values << shift).view(np.int64) >> np.int64(64 - bits)


def _unsigned(values: NDArray[np.uint64], bits: int) -> I64:
    mask = np.uint64((1 << bits) - 1)
    return (values & mask).view(np.int64)


def _without_tail(entries: Entries) -> Entries:
    """An expansion table is filled from the front: what lies behind the first empty entry is none."""
    empty = np.flatnonzero((entries.key == 0) & entries.present)
    end = int(empty[0]) if len(empty) else len(entries.key)
    return Entries(entries.key[:end], entries.records[:end], entries.present[:end])


def _merge(parts: Iterable[TagTotals]) -> TagTotals:
    """One row a tag."""
    parts = list(parts)
    tags = plain_tags(np.concatenate([part.tag for part in parts]))
    unique, index = np.unique(tags, return_inverse=True)
    columns: dict[str, Any] = {}
    for name in COUNTERS:
        total = np.zeros(len(unique), np.int64)
        np.add.at(total, index, np.concatenate([getattr(part, name) for part in parts]))
        columns[name] = total
    complete = np.ones(len(unique), np.bool_)
    np.logical_and.at(complete, index, np.concatenate([part.complete for part in parts]))
    doubtful = np.zeros(len(unique), np.bool_)
    np.logical_or.at(doubtful, index, np.concatenate([part.is_doubtful for part in parts]))
    return TagTotals(tag=unique, complete=complete, is_doubtful=doubtful, **columns)


def _judged(
    totals: TagTotals, tables: TrackerTables, processors: int, log: DiagnosticLog
) -> TagTotals:
    """Says what the numbers are worth, and takes back what cannot be complete."""
    bad = totals.complete & ~totals.is_consistent
    number = len(tables.addresses)
    if not tables.is_whole and not bad.any() and not totals.absent_entries:
        log.add(
            "tracker-tables-not-listed",
            Severity.INFO,
            "ExPoolTagTables",
            tables.addresses[0],
            f"{number} tracker table(s) were found for {processors or 'an unknown number of'} "
            "processor(s); their counters add up for every tag, so there are no others",
        )
    elif not tables.is_whole:
        log.add(
            "trackers-incomplete",
            Severity.ERROR,
            "ExPoolTagTables",
            tables.addresses[0],
            f"only {number} tracker table(s) were found for {processors or 'an unknown number of'} "
            "processor(s), and their counters do not add up or are not all in the dump: no tag's "
            "total is known",
        )
        return replace(totals, complete=np.zeros(len(totals), np.bool_))
    # Less than nothing is never held: no such number is shown.
    totals = replace(totals, complete=totals.complete & ~totals.is_negative)
    if bad.any():
        names = ", ".join(repr(tag_text(tag)) for tag in totals.tag[bad][:5].tolist())
        log.add(
            "trackers-inconsistent",
            Severity.WARNING,
            TRACKER,
            None,
            f"{int(bad.sum())} tags ({names}{' …' if bad.sum() > 5 else ''}) hold bytes without blocks, "
            "blocks without bytes or less than nothing: counted while the dump was written, or damaged",
        )
    if totals.absent_entries:
        log.add(
            "trackers-absent",
            Severity.WARNING,
            TRACKER,
            None,
            f"{totals.absent_entries} entries of the tracker tables are not in the dump: the totals of "
            f"{int((~totals.complete).sum())} tags are unknown, and others may be missing altogether",
            totals.absent_entries * tables.row.size(TRACKER),
        )
    overflow = totals.row(OVERFLOW_TAG)
    if overflow is not None:
        log.add(
            "trackers-overflow",
            Severity.INFO,
            TRACKER,
            None,
            "some tags found no slot of their own and are counted together as 'Ovfl'",
        )
    return totals


def rows_of(totals: TagTotals, keep: NDArray[np.bool_]) -> TagTotals:
    """The rows where `keep` is true."""
    columns = {
        f.name: getattr(totals, f.name)[keep]
        for f in fields(totals)
        if isinstance(getattr(totals, f.name), np.ndarray)
    }
    return replace(totals, **columns)
