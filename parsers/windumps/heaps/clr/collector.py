"""Words of the garbage collector's own, by the table that it keeps of them for debuggers.

`GcDacVars` (gcinterface.dacvars.def of dotnet/runtime) has pointers to them, in one order from 2.1 to 10.
No symbol tells where it is, so it is known by what it leads to: a segment of the heap, and where objects
end in it; with server collection, an array of as many heaps as a number says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import U64
from windumps.heaps.clr.method_tables import MethodTables
from windumps.heaps.clr.segments import Segment, writable_words

# Words of the table behind that of ephemeral_heap_segment.
_ALLOC_ALLOCATED, _QUEUE, _HEAPS_COUNT, _HEAPS, _INVALID = 5, 8, 12, 13, 14
_WORDS = _INVALID + 1
MAX_HEAPS = 1024
HEAP_WORDS = 1024  # of a gc_heap, where its segment is looked for
_PARTS = (6, 7)  # of a finalizer queue, before 5 and since
LEAST_QUEUE, MAX_QUEUE = 100, 1 << 40  # words that one has room for at first; bytes at most
LOWEST = 0x10000  # address that anything has


@dataclass(frozen=True)
class Collector:
    """What the collector says of itself.

    Attributes:
        collecting: It was at work when the dump was taken, and objects may be in two places.
        alloc_allocated: Where the word stands that says where objects end; 0 with server collection.
        heaps: How many heaps there are.
        finalizable: Objects with a finalizer; None where their queues are not found.
        to_finalize: Of those that nothing leads to any more, how many wait for their finalizer to run.
    """

    collecting: bool
    alloc_allocated: int
    heaps: int
    finalizable: int | None = None
    to_finalize: int | None = None


def find_collector(
    tables: MethodTables, segments: list[Segment], images: Sequence[tuple[int, int]]
) -> Collector | None:
    """Looks for the table; None where it is not there, or not exactly once.

    Args:
        tables: The MethodTables.
        segments: The heap.
        images: (start, end) of the runtime's; of a collector in a file of its own the table is elsewhere.
    """
    found = {
        collector
        for address, words in _joined(writable_words(tables))
        if any(start <= address < end for start, end in images)
        for collector in _in_words(tables, segments, words, images)
    }
    return found.pop() if len(found) == 1 else None


def _joined(pieces: Iterable[tuple[int, NDArray[np.unsignedinteger]]]) -> list[tuple[int, U64]]:
    """Neighbours as one: the table may go on in a page that was written to."""
    found: list[tuple[int, U64]] = []
    for address, words in pieces:
        if found and found[-1][0] + len(found[-1][1]) * words.itemsize == address:
            start, before = found.pop()
            found.append((start, np.concatenate([before, words.astype(np.uint64)])))
        else:
            found.append((address, words.astype(np.uint64)))
    return found


def _in_words(
    tables: MethodTables,
    segments: list[Segment],
    words: U64,
    images: Sequence[tuple[int, int]],
) -> list[Collector]:
    count = len(words) - _WORDS + 1
    if count <= 0:
        return []
    leads_here = np.zeros(len(words), np.bool_)
    for start, end in images:
        leads_here |= (words >= np.uint64(start)) & (words < np.uint64(end))
    # A number and a counter are always there, one heap's words or an array of heaps is.
    rows = np.flatnonzero(leads_here[:count] | leads_here[_HEAPS_COUNT : count + _HEAPS_COUNT])
    rows = rows[leads_here[rows + _INVALID]]
    return [
        found
        for row in rows.tolist()
        if (found := _check(tables, segments, words[row : row + _WORDS].tolist()))
    ]


def _check(tables: MethodTables, segments: list[Segment], table: list[int]) -> Collector | None:
    invalid = _number(tables, table[_INVALID])
    if invalid is None or not 0 <= invalid <= MAX_HEAPS:
        return None
    entry, end = _word(tables, table[0]), _word(tables, table[_ALLOC_ALLOCATED])
    segment = next((each for each in segments if each.entry == entry), None)
    if segment is not None and segment.start <= end <= segment.committed:
        queues = _queues(tables, np.array([_word(tables, table[_QUEUE])], np.uint64))
        return Collector(invalid != 0, table[_ALLOC_ALLOCATED], 1, *_lengths(queues, 1))
    many, heaps = _number(tables, table[_HEAPS_COUNT]), _word(tables, table[_HEAPS])
    if table[0] or not many or not 0 < many <= MAX_HEAPS or not heaps:
        return None
    entries = np.array([each.entry for each in segments], np.uint64)
    places = heaps + np.arange(many, dtype=np.uint64) * np.uint64(tables.pointer_size)
    word = f"<u{tables.pointer_size}"
    each, there = tables.memory.gather(places.astype(np.uint64), word)
    heaps_words = [_words(tables, int(one), HEAP_WORDS) for one in each] if there.all() else []
    if not heaps_words or not np.isin(heaps_words[0], entries).any():
        return None
    queues = [queue for own in heaps_words for queue in _queues(tables, own)]
    return Collector(invalid != 0, 0, many, *_lengths(queues, many))


def _queues(tables: MethodTables, places: U64) -> list[tuple[int, int]]:
    """(registered, waiting) of the finalizer queues that some words lead to.

    `CFinalize` begins with where the part of each generation and then those that wait end in its array; the
    array's bounds follow. Large objects have one generation before 5, two since.
    """
    width, found = tables.pointer_size, []
    for place in np.unique(places[places > np.uint64(LOWEST)]).tolist():
        words = _words(tables, place, max(_PARTS) + 2).tolist()
        for parts in _PARTS:
            if len(words) < parts + 2:
                continue
            ends, start, end = words[:parts], words[parts], words[parts + 1]
            in_order = LOWEST < start <= ends[0] and ends == sorted(ends) and ends[-1] <= end
            if in_order and width * LEAST_QUEUE <= end - start <= MAX_QUEUE:
                waiting = (ends[-1] - ends[-3]) // width
                found.append(((ends[-3] - start) // width, waiting))
    return found


def _lengths(queues: list[tuple[int, int]], heaps: int) -> tuple[int | None, int | None]:
    """All queues together; None where they are not one a heap."""
    if len(queues) != heaps:
        return None, None
    return sum(queue[0] for queue in queues), sum(queue[1] for queue in queues)


def _words(tables: MethodTables, address: int, count: int) -> U64:
    width = tables.pointer_size
    raw = tables.memory.read_available(address, count * width)
    return np.frombuffer(raw[: len(raw) // width * width], f"<u{width}").astype(np.uint64)


def _word(tables: MethodTables, address: int) -> int:
    raw = tables.memory.read_available(address, tables.pointer_size)
    return int.from_bytes(raw, "little") if len(raw) == tables.pointer_size else 0


def _number(tables: MethodTables, address: int) -> int | None:
    raw = tables.memory.read_available(address, 4)
    return int.from_bytes(raw, "little", signed=True) if len(raw) == 4 else None
