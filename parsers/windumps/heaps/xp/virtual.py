"""Large blocks of the XP heap: allocations of their own on `_HEAP.VirtualAllocdBlocks`.

Nothing counts them, so only the list tells whether all were found. Where it is cut, the entries behind the
damage are looked for at the beginning of allocations: one belongs to the heap when a loose end of the list
names it, or when it names that end or the list's head itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from windumps.arrays import I64, PAGE_SIZE, U64
from windumps.blocks import SIZE_UNKNOWN
from windumps.diagnostics import Severity
from windumps.heaps.base import HeapContext
from windumps.heaps.committed import allocation_starts, committed_around
from windumps.heaps.nt.entries import FLAG_BUSY, Mask
from windumps.heaps.nt.virtual import STRUCTURE, VirtualBlocks, say_list_cut
from windumps.layouts.rows import LayoutRow, Record
from windumps.memory.lists import list_nodes

FLAG_VIRTUAL = 0x08
MAX_RESERVE = np.uint64(1 << 48)


class _Entries(NamedTuple):
    """Entries as they are stored, as columns; `sound` where they can be large blocks."""

    entry: U64
    following: U64
    before: U64
    header: U64
    unused: I64
    commit: U64
    reserve: U64
    sound: Mask


def read_virtual_blocks(
    context: HeapContext, row: LayoutRow, heap: Record
) -> tuple[VirtualBlocks, int]:
    """Reads the large blocks, and the committed bytes of those that are left out.

    Size of the entry's header counts the bytes that are not the program's, as on Vista. `trace` is an index,
    and stands in the entry whether or not the header's flags say so.
    """
    head = heap.address_of("VirtualAllocdBlocks")
    nodes, trouble = list_nodes(context.memory, head, context.pointer_size)
    unnamed: list[int] = []
    if trouble is not None:
        say_list_cut(context, heap, trouble)
        more, unnamed = _behind_the_cut(context, row, head, nodes)
        nodes += more
    found = _read(context, row, np.array(nodes, np.uint64))
    for address in found.entry[~found.sound].tolist():
        context.log.add(
            "virtual-block-damaged",
            Severity.WARNING,
            STRUCTURE,
            address,
            "its header or sizes do not check out; this large block is left out",
        )
    lost = sum(_committed(context, a) for a in found.entry[~found.sound].tolist() + unnamed)
    return _decoded(context, row, found), lost


def _decoded(context: HeapContext, row: LayoutRow, found: _Entries) -> VirtualBlocks:
    sound = _Entries._make(column[found.sound] for column in found)
    entry, header = sound.entry, sound.header
    commit, reserve = sound.commit.astype(np.int64), sound.reserve.astype(np.int64)
    size = commit - sound.unused
    for index, address in enumerate(entry.tolist() if len(context.memory.regions) else []):
        committed = _committed(context, address)
        if committed != commit[index]:
            context.log.add(
                "virtual-size-unclear",
                Severity.WARNING,
                f"{STRUCTURE}.CommitSize",
                address,
                f"the large block says {commit[index]} bytes, of which {committed} are committed",
            )
            commit[index], size[index] = committed, SIZE_UNKNOWN
    trace, _ = context.memory.gather(entry + np.uint64(row.offset(STRUCTURE, "ExtraStuff")), "<u2")
    user = header + np.uint64(context.granularity)
    reserve = np.maximum(reserve, commit)
    return VirtualBlocks(entry, header, user, size, commit, reserve, trace.astype(np.uint64))


def _read(context: HeapContext, row: LayoutRow, entry: U64) -> _Entries:
    def column(at: int) -> U64:
        address = entry + np.uint64(at)
        values, there = context.memory.gather(address, f"<u{context.pointer_size}")
        np.logical_and(present, there, out=present)
        return values.astype(np.uint64)

    present = np.ones(len(entry), bool)
    following, before = column(0), column(context.pointer_size)
    commit = column(row.offset(STRUCTURE, "CommitSize"))
    reserve = column(row.offset(STRUCTURE, "ReserveSize"))
    header = entry + np.uint64(row.offset(STRUCTURE, "BusyBlock"))
    raw, there = context.memory.gather(header + np.uint64(context.granularity - 8), "<u8")
    words = raw.astype(np.uint64)
    unused = (words & np.uint64(0xFFFF)).astype(np.int64)
    flags = (words >> np.uint64(40)).astype(np.uint8)
    least = row.size(STRUCTURE)
    # Without a checksum bounds are all there is: whole pages, none of them spare.
    sound = present & there & ((flags & (FLAG_BUSY | FLAG_VIRTUAL)) == FLAG_BUSY | FLAG_VIRTUAL)
    sound &= (entry | commit | reserve) & np.uint64(PAGE_SIZE - 1) == 0
    sound &= (unused >= least) & (unused < 2 * PAGE_SIZE) & (unused <= commit.astype(np.int64))
    sound &= (commit > 0) & (commit <= reserve) & (reserve < MAX_RESERVE)
    return _Entries(entry, following, before, header, unused, commit, reserve, sound)


def _behind_the_cut(
    context: HeapContext, row: LayoutRow, head: int, nodes: list[int]
) -> tuple[list[int], list[int]]:
    """Entries that loose ends of the list lead to; and addresses it names where no entry can be read."""
    pointer = context.pointer_size
    ring = np.array([head, *nodes], np.uint64)
    following, there = context.memory.gather(ring, f"<u{pointer}")
    before, here = context.memory.gather(ring + np.uint64(pointer), f"<u{pointer}")
    if ((following == np.roll(ring, -1)) | (np.roll(before, -1) == ring)).all():
        return [], []  # links in one direction are damaged, and none is missing
    ends = [head, *following[there].tolist(), *before[here].tolist()]
    starts = np.setdiff1d(allocation_starts(context.memory), np.array(nodes, np.uint64))
    others = _read(context, row, starts)
    names = np.stack([others.entry, others.following, others.before])[:, others.sound].tolist()
    who: dict[int, list[int]] = {}
    for index, named in enumerate(zip(*names, strict=True)):
        for address in named:
            who.setdefault(address, []).append(index)
    # Who names a loose end, or is one, is on the list, and what it names is an end in turn.
    seen: set[int] = set()
    found: dict[int, None] = {}
    while ends:
        end = ends.pop()
        if end in seen:
            continue
        seen.add(end)
        for index in who.get(end, ()):
            found[names[0][index]] = None
            ends += [column[index] for column in names]
    for address in found:
        context.log.add(
            "virtual-block-found",
            Severity.WARNING,
            STRUCTURE,
            address,
            "the heap's list does not lead to this large block any more; found by its header and links",
        )
    return list(found), sorted(seen - {head, *nodes, *found})


def _committed(context: HeapContext, address: int) -> int:
    """Committed bytes of the allocation that begins at an address; a page where nothing is known of it."""
    parts = committed_around(context.memory, address)
    if len(context.memory.regions) and (not parts or parts[0][0] != address):
        return PAGE_SIZE
    return sum(end - start for start, end in parts)
