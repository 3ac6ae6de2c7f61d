"""Session space: the part of the kernel's half that each session has for itself (until 11 24H2).

It is not in the kernel's own page tables. What a process maps there is seen by comparing its root
of page tables with the kernel's: entries that differ and do not point back at its own tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from windumps.arrays import PAGE_SIZE, U64
from windumps.kernel.kernel import Kernel
from windumps.memory import AddressSpace, PageTableMemory
from windumps.memory.paging import X86, X86_PAE
from windumps.pools.coverage import page_rows
from windumps.pools.trackers.search import Layout
from windumps.pools.trackers.table import score_layout, table_size
from windumps.pools.trackers.totals import SessionTotals, TagTotals, read_table

MAX_PROCESSES = 4096
_SURE = 0.95


@dataclass(frozen=True)
class SessionSpace:
    """One session's part of memory.

    Attributes:
        directory_table_base: Root of page tables of a process in it.
        memory: That process's address space.
        ranges: (start, end) of what is the session's own.
    """

    directory_table_base: int
    memory: AddressSpace
    ranges: list[tuple[int, int]]


def session_spaces(
    kernel: Kernel,
    address_space: Callable[[int], AddressSpace] | None,
    directory_bases: Sequence[int],
) -> list[SessionSpace]:
    """The sessions, each once; none where only the kernel's own tables are known."""
    own = kernel.memory
    if address_space is None or not isinstance(own, PageTableMemory):
        return []
    known = _entries(own, own.directory_base)
    groups: dict[tuple[int, int], list[int]] = {}
    for base in list(dict.fromkeys(directory_bases))[:MAX_PROCESSES]:
        for part in _differing(own, base, known):
            groups.setdefault(part, []).append(base)
    # What one process alone has there (hyperspace) is no session's: in a session there are several.
    shared = {part: bases for part, bases in groups.items() if len(bases) > 1}
    by_base: dict[int, list[tuple[int, int]]] = {}
    size = 1 << _shift(own)
    for (start, _), bases in (shared or groups).items():
        by_base.setdefault(bases[0], []).append((start, start + size))
    spaces = []
    for base, ranges in by_base.items():
        memory = address_space(base)
        spaces.append(SessionSpace(base, memory, sorted(ranges)))
    return spaces


def _shift(memory: PageTableMemory) -> int:
    """Address bits below an entry of the level that is compared."""
    return memory.paging.shift(1 if memory.paging is X86_PAE else 0)


def _entries(memory: PageTableMemory, root: int) -> tuple[U64, set[int]]:
    """Entries of the kernel's half under a root (0 where absent), and the frames of the tables."""
    paging = memory.paging
    root &= paging.root_mask
    size = paging.entry_size
    if paging is X86_PAE:
        tops, _ = memory.physical.gather(
            np.uint64(root) + np.arange(4, dtype=np.uint64) * np.uint64(8), "<u8"
        )
        frames = paging.frames(tops)
        index = np.arange(512, dtype=np.uint64) * np.uint64(8)
        entries, _ = memory.physical.gather(frames[2:, None] + index, "<u8")
        valid = np.where(tops[2:, None] & np.uint64(1), entries, 0)
        return valid.ravel().astype(np.uint64), set(frames.tolist())
    count = 1 << paging.index_bits[0]
    index = np.arange(count // 2, count, dtype=np.uint64) * np.uint64(size)
    raw, _ = memory.physical.gather(np.uint64(root) + index, f"<u{size}")
    return raw.astype(np.uint64), {root}


def _differing(
    memory: PageTableMemory, base: int, known: tuple[U64, set[int]]
) -> list[tuple[int, int]]:
    """(first address, physical address of the table) of a process's own parts of the kernel's half."""
    entries, tables = _entries(memory, base)
    paging = memory.paging
    valid = (entries & np.uint64(1)) != 0
    frames = paging.frames(entries)
    at = np.flatnonzero(valid & (frames != paging.frames(known[0])))
    shift = _shift(memory)
    lowest = 1 << 31 if paging in (X86, X86_PAE) else (1 << 64) - (1 << (paging.address_bits - 1))
    return [
        (lowest + (number << shift), frame)
        for number, frame in zip(at.tolist(), frames[at].tolist(), strict=True)
        if frame not in tables
    ]


def session_trackers(
    kernel: Kernel, spaces: Sequence[SessionSpace], layout: Layout
) -> list[SessionTotals]:
    """Counters of every session whose tracker table is in the dump."""
    row = layout.row
    named = kernel.value("ExpSessionPoolTrackTable")
    found = []
    for space in spaces:
        memory = space.memory
        places = [named] if named else _tracker_places(space, layout)
        for place in places:
            inside = any(start <= place < end for start, end in space.ranges)
            entries = table_size(memory, row, place) if inside else None
            if entries is None:
                continue
            source = "ExpSessionPoolTrackTable" if named else "found by what it holds"
            totals: TagTotals = read_table(memory, row, place, entries - 1, source)
            found.append(SessionTotals(space.directory_table_base, totals))
            break
    return found


def _tracker_places(space: SessionSpace, layout: Layout) -> list[int]:
    """Pages of a session that a tracker table could begin."""
    memory, row = space.memory, layout.row
    step = np.uint64(row.size("_POOL_TRACKER_TABLE"))
    places: list[int] = []
    for start, end in space.ranges:
        page, _ = page_rows(*memory.extents(start, end))
        if not len(page):
            continue
        count = PAGE_SIZE // int(step)
        keys, _ = memory.gather(page[:, None] + np.arange(count, dtype=np.uint64) * step, "<u4")
        for address in page[(keys != 0).any(axis=1)].tolist():
            score = score_layout(memory, row, address)
            if score is not None and score >= _SURE:
                places.append(address)
    return places
