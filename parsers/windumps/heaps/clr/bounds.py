"""Where objects end, and where threads have taken memory of the heap that they have not used yet.

The end of objects stands in a segment's entry, but for the segment that new objects come from: there it is
`alloc_allocated`, a static of the runtime, or, with server collection, the word before
`ephemeral_heap_segment` in a `gc_heap`. A thread's allocation context is two words, pointer and limit;
objects go on behind the limit and the smallest object. No symbols tell where all these words are: they are
known by their values and by the chain of objects that meets them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64
from windumps.heaps.clr.method_tables import MethodTables
from windumps.heaps.clr.segments import Segment, object_at, private_words, writable_words
from windumps.heaps.clr.walk import Span, Walk
from windumps.memory.regions import MEM_IMAGE

MAX_CONTEXT = 1 << 28  # bytes of the heap that a thread takes in one go, at most
MAX_TAKEN = 1 << 48  # bytes that it takes in its life
LEAST_WORDS = 3  # of an object


class Pointers(NamedTuple):
    """Words outside the heap that point into it, as columns.

    Attributes:
        place: uint64, where each stands.
        value: uint64, what it is.
        following: uint64, the word behind it.
        segment: int64, the segment it points into, its committed end included.
        of_runtime: bool, it stands in the data of the runtime's image.
    """

    place: U64
    value: U64
    following: U64
    segment: I64
    of_runtime: NDArray[np.bool_]


class End(NamedTuple):
    """Where the objects of a segment end.

    Attributes:
        address: The end.
        unsure: From there on there may be more objects, up to here; the same where it is known.
        by_word: A word of the runtime tells, or what threads have taken does.
    """

    address: int
    unsure: int
    by_word: bool = False


def heap_pointers(
    tables: MethodTables, segments: list[Segment], images: Sequence[tuple[int, int]]
) -> Pointers:
    """All words outside the heap that point into it.

    Args:
        tables: The MethodTables.
        segments: The heap.
        images: (start, end) of the runtime's; any may be where there are none.
    """
    starts = np.array([segment.start for segment in segments], np.uint64)
    ends = np.array([segment.committed for segment in segments], np.uint64)
    low, high = starts.min(), ends.max()
    width = np.uint64(tables.pointer_size)
    columns: list[Pointers] = []
    for address, words in _outside(tables):
        near = np.flatnonzero((words >= low) & (words <= high))
        near = near[near < len(words) - 1]
        value = words[near].astype(np.uint64)
        segment = np.searchsorted(starts, value, "right") - 1
        place = np.uint64(address) + near.astype(np.uint64) * width
        own = np.maximum(np.searchsorted(starts, place, "right") - 1, 0)
        keep = (value <= ends[segment]) & ~((place >= starts[own]) & (place < ends[own]))
        following = words[near[keep] + 1].astype(np.uint64)
        own_data = _in_images(tables, place[keep], images)
        columns.append(Pointers(place[keep], value[keep], following, segment[keep], own_data))
    nothing = np.empty(0, np.uint64)
    none = Pointers(nothing, nothing, nothing, nothing.astype(np.int64), nothing.astype(np.bool_))
    return Pointers(*(np.concatenate(column) for column in zip(none, *columns, strict=True)))


def _in_images(
    tables: MethodTables, places: U64, images: Sequence[tuple[int, int]]
) -> NDArray[np.bool_]:
    regions = tables.memory.regions
    if not images and len(regions):
        row = np.maximum(np.searchsorted(regions.base_address, places, "right") - 1, 0)
        return np.asarray(regions.type[row] == MEM_IMAGE)
    mine = np.zeros(len(places), np.bool_)
    for start, end in images:
        mine |= (places >= np.uint64(start)) & (places < np.uint64(end))
    return mine


def _outside(tables: MethodTables) -> Iterator[tuple[int, NDArray[np.unsignedinteger]]]:
    yield from private_words(tables, 1)
    yield from writable_words(tables)


def contexts(tables: MethodTables, segments: list[Segment], found: Pointers) -> dict[int, int]:
    """Where objects stop for memory that a thread has taken and not used, with where they go on.

    `gc_alloc_context` is pointer, limit and how many bytes the thread has taken so far; what is not used yet
    was cleared.
    """
    memory, width = tables.memory, tables.pointer_size
    ends = np.array([segment.committed for segment in segments], np.uint64)
    small = np.array([segment.kind == "small" for segment in segments], np.bool_)
    size = found.following - found.value
    pairs = (found.following >= found.value) & (size <= MAX_CONTEXT)
    pairs &= (found.following < ends[found.segment]) & small[found.segment]
    pairs &= ((found.value | found.following) & np.uint64(width - 1)) == 0
    rows = np.flatnonzero(pairs)
    taken, there = memory.gather(found.place[rows] + np.uint64(2 * width), "<u8")
    rows = rows[there & (taken >= size[rows]) & (taken < MAX_TAKEN) & (taken > 0)]
    # One word twice is a context that is used up, where no object begins.
    full = size[rows] == 0
    full[full] = object_at(tables, found.value[rows[full]])
    rows = rows[~full]
    jumps = {}
    for start, end in zip(found.value[rows].tolist(), found.following[rows].tolist(), strict=True):
        size_there = memory.bytes_from(start, end - start)
        if size_there == end - start and not memory.view(start, size_there).any():
            jumps[start] = end + LEAST_WORDS * width
    return jumps


def ends_of_objects(
    tables: MethodTables,
    segments: list[Segment],
    found: Pointers,
    jumps: dict[int, int],
    alloc_allocated: int = 0,
) -> list[End]:
    """Where the objects of each segment end.

    Args:
        tables: The MethodTables.
        segments: The heap.
        found: Pointers into it.
        jumps: What threads have taken of it.
        alloc_allocated: Where this word stands; 0 where that is not known.
    """
    if alloc_allocated:
        found = found._replace(of_runtime=found.place == np.uint64(alloc_allocated))
    ends = [_end(tables, segments, number, found, jumps) for number in range(len(segments))]
    if any(end.by_word for end in ends):
        return ends
    # New objects come from one of them, and nothing tells from which; what no chain met may still be an end.
    return [
        _unless_told(tables, segment, end, jumps) if _may_grow(segment) else end
        for segment, end in zip(segments, ends, strict=True)
    ]


def _unless_told(tables: MethodTables, segment: Segment, end: End, jumps: dict[int, int]) -> End:
    found = _end_by(tables, segment, np.empty(0, np.uint64), [], jumps)
    return found._replace(unsure=max(found.unsure, end.unsure))


def _may_grow(segment: Segment) -> bool:
    return segment.kind == "small" and segment.committed > segment.allocated


def _end(
    tables: MethodTables,
    segments: list[Segment],
    number: int,
    found: Pointers,
    jumps: dict[int, int],
) -> End:
    segment = segments[number]
    mine = (found.segment == number) & (found.value >= np.uint64(segment.allocated))
    named = found.following == np.uint64(segment.entry)
    candidates = np.unique(found.value[mine & (named | found.of_runtime)])
    # What a thread has taken lies before the end.
    taken = [end for start, end in jumps.items() if segment.allocated <= start < segment.committed]
    if not _may_grow(segment) or not (len(candidates) or taken):
        return End(segment.allocated, segment.allocated)
    return _end_by(tables, segment, candidates, taken, jumps)


def _end_by(
    tables: MethodTables,
    segment: Segment,
    candidates: U64,
    taken: list[int],
    jumps: dict[int, int],
) -> End:
    """Where objects end behind `allocated`: at the first candidate that the chain of objects meets."""
    span = Span(segment.allocated, segment.committed, tables.pointer_size, jumps)
    walk = Walk(tables, span)
    met = np.empty(0, np.uint64)
    behind = segment.allocated  # the last object, as far as one can tell
    used = np.array(taken, np.uint64)
    seen = np.empty(0, np.uint64)
    for piece in walk.pieces():
        met = np.union1d(met, candidates[_among(candidates, piece.address)])
        seen = np.union1d(seen, used[_among(used, piece.address)])
        behind = int(piece.address[-1]) + int(piece.size[-1])
    stops = np.array([*walk.stops, walk.reached], np.uint64)
    met = np.union1d(met, candidates[np.isin(candidates, stops)])
    seen = np.union1d(seen, used[np.isin(used, stops)])
    least = max(seen.tolist(), default=segment.allocated)
    met = met[met >= np.uint64(least)]
    if len(met):
        return End(int(met[0]), int(met[-1]), True)
    unsure = max(behind, least, *candidates.tolist())
    # Objects may go on in memory that is not in the dump.
    if tables.memory.present_bytes(unsure, segment.committed) < segment.committed - unsure:
        unsure = segment.committed
    return End(least, unsure, len(seen) > 0)


def _among(values: U64, ascending: U64) -> NDArray[np.bool_]:
    """Which values are in a column; `np.isin` would sort that anew."""
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[place] == values)
