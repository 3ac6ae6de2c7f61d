"""Memory in a minidump: Memory64List, MemoryList and MemoryInfoList, as columns.

Descriptors are never objects: a full dump has tens of thousands of ranges, a hostile one claims
2**64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from windumps.arrays import I64, U64
from windumps.diagnostics import MEMORY_CUT
from windumps.dumps.minidump import structures as c
from windumps.dumps.minidump.streams import Streams, exact_sum
from windumps.memory import Regions, RunMemory


class Ranges(NamedTuple):
    """Memory ranges that are wholly inside the file: address, size and file offset."""

    address: U64
    size: I64
    offset: I64


def read_memory(streams: Streams) -> RunMemory:
    """All memory of the file; a MemoryList beside a Memory64List adds what that one lacks."""
    lists = [_memory64_list(streams), _memory_list(streams)]
    address, size, offset = (np.concatenate(columns) for columns in zip(*lists, strict=True))
    memory = RunMemory(streams.data, address, size, offset, _regions(streams))
    # Writers put thread stacks into both lists; only ranges of one list should be disjoint.
    if memory.overlapping_bytes and not all(len(ranges.address) for ranges in lists):
        streams.say(
            "overlapping-memory",
            c.MEMORY_DESCRIPTOR64.name if len(lists[0].address) else c.MEMORY_DESCRIPTOR.name,
            None,
            "memory ranges overlap: for each address the range that starts first is used",
            memory.overlapping_bytes,
        )
    return memory


def _memory64_list(streams: Streams) -> Ranges:
    layout = c.MEMORY_DESCRIPTOR64
    stream = streams.find(c.StreamType.MEMORY64_LIST, c.MEMORY64_LIST.size)
    if stream is None:
        return _clip(streams, layout.name, np.empty(0, layout.dtype), np.empty(0, np.uint64))
    head = c.MEMORY64_LIST.record(streams.data, stream.offset)
    start = stream.offset + c.MEMORY64_LIST.size
    rows = streams.rows(layout, start, stream.end, head.NumberOfMemoryRanges, layout.size)
    # Ranges lie one behind the other from BaseRva on. A size beyond the file's puts all later
    # ranges outside whatever it is, so sizes are capped first and the running sum cannot overflow.
    beyond = len(streams.data) + 1
    sizes = np.minimum(rows["DataSize"], np.uint64(beyond))
    offsets = np.cumsum(sizes, dtype=np.uint64) - sizes + np.uint64(min(head.BaseRva, beyond))
    return _clip(streams, layout.name, rows, offsets)


def _memory_list(streams: Streams) -> Ranges:
    layout = c.MEMORY_DESCRIPTOR
    place = streams.counted(c.StreamType.MEMORY_LIST, layout.size)
    if place is None:
        return _clip(streams, layout.name, np.empty(0, layout.dtype), np.empty(0, np.uint64))
    rows = streams.rows(layout, *place, layout.size)
    return _clip(streams, layout.name, rows, rows["Rva"].astype(np.uint64))


def _clip(streams: Streams, structure: str, rows: Any, offsets: U64) -> Ranges:
    """Cuts ranges at the end of the address space and of the file, and says how much is lost."""
    file_size = np.uint64(len(streams.data))
    starts: U64 = rows["StartOfMemoryRange"].astype(np.uint64)
    claimed: U64 = rows["DataSize"].astype(np.uint64)
    zero, one = np.uint64(0), np.uint64(1)
    # The room is 2**64 - start, which may not fit in 64 bits: so both are compared less one.
    possible = np.where(claimed > 0, np.minimum(claimed - (claimed > 0), ~starts) + one, zero)
    _say_cut(
        streams,
        "bad-memory-range",
        structure,
        starts,
        claimed - possible,
        "memory ranges run past the end of the address space and are cut there",
        hides_memory=False,
    )
    inside = np.minimum(offsets, file_size)
    there = np.minimum(possible, file_size - inside)
    _say_cut(
        streams,
        MEMORY_CUT,
        structure,
        starts,
        possible - there,
        "memory ranges reach past the end of the file: the dump is cut; "
        "compare its size with the original",
    )
    # Ranges that share bytes of the file could make any amount of memory out of a small file.
    shared = np.cumsum(there, dtype=np.uint64) > file_size
    _say_cut(
        streams,
        "bad-memory-range",
        structure,
        starts,
        np.where(shared, there, zero),
        "memory ranges are more than the whole file holds and are left out",
    )
    keep = (there > 0) & ~shared
    return Ranges(starts[keep], there[keep].astype(np.int64), inside[keep].astype(np.int64))


def _say_cut(
    streams: Streams,
    code: str,
    structure: str,
    starts: U64,
    cut: U64,
    message: str,
    *,
    hides_memory: bool = True,
) -> None:
    """One diagnostic for all rows of which `cut` bytes were taken away."""
    hit = np.flatnonzero(cut)
    if len(hit):
        lost = exact_sum(cut) if hides_memory else 0
        streams.say(code, structure, int(starts[hit[0]]), f"{len(hit)} {message}", lost)


def _regions(streams: Streams) -> Regions:
    stream = streams.find(c.StreamType.MEMORY_INFO_LIST, c.MEMORY_INFO_LIST.size)
    if stream is None:
        return Regions.empty()
    head = c.MEMORY_INFO_LIST.record(streams.data, stream.offset)
    if head.SizeOfEntry < c.MEMORY_INFO.size or head.SizeOfHeader < c.MEMORY_INFO_LIST.size:
        streams.say(
            "bad-entry-size",
            c.MEMORY_INFO_LIST.name,
            stream.offset,
            f"a header of {head.SizeOfHeader} and entries of {head.SizeOfEntry} bytes cannot be; "
            "the stream is ignored",
        )
        return Regions.empty()
    rows = streams.rows(
        c.MEMORY_INFO,
        stream.offset + head.SizeOfHeader,
        stream.end,
        head.NumberOfEntries,
        head.SizeOfEntry,
    )
    rows = rows[np.argsort(rows["BaseAddress"], kind="stable")]
    base: U64 = rows["BaseAddress"].astype(np.uint64)
    claimed: U64 = rows["RegionSize"].astype(np.uint64)
    # A region ends where the next begins at the latest, so a damaged size costs its own row only.
    size = np.minimum(claimed, np.append(base[1:], ~np.uint64(0)) - base)
    _say_cut(
        streams,
        "bad-region",
        c.MEMORY_INFO.name,
        base,
        claimed - size,
        "memory regions reach into the next one, or beyond the address space, and are cut there",
        hides_memory=False,
    )
    keep = size > 0
    return Regions(
        base_address=base[keep],
        allocation_base=rows["AllocationBase"][keep].astype(np.uint64),
        region_size=size[keep],
        state=rows["State"][keep].astype(np.uint32),
        protect=rows["Protect"][keep].astype(np.uint32),
        type=rows["Type"][keep].astype(np.uint32),
        whole=len(rows) == head.NumberOfEntries
        and streams.lists_all(
            stream, stream.offset + head.SizeOfHeader, head.NumberOfEntries, head.SizeOfEntry
        ),
    )
