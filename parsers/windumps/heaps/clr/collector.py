"""Words of the garbage collector's own, by the table that it keeps of them for debuggers.

`GcDacVars` (gcinterface.dacvars.def of dotnet/runtime) has pointers to them, in one order from 2.1 to 10.
No symbol tells where it is, so it is known by what it leads to: a segment of the heap, and where objects
end in it; with server collection, an array of as many heaps as a number says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windumps.arrays import U64
from windumps.heaps.clr.method_tables import MethodTables
from windumps.heaps.clr.segments import Segment, writable_words

# Words of the table behind that of ephemeral_heap_segment.
_ALLOC_ALLOCATED, _HEAPS_COUNT, _HEAPS, _INVALID = 5, 12, 13, 14
_WORDS = _INVALID + 1
MAX_HEAPS = 1024
HEAP_WORDS = 1024  # of a gc_heap, where its segment is looked for


@dataclass(frozen=True)
class Collector:
    """What the collector says of itself.

    Attributes:
        collecting: It was at work when the dump was taken, and objects may be in two places.
        alloc_allocated: Where the word stands that says where objects end; 0 with server collection.
        heaps: How many heaps there are.
    """

    collecting: bool
    alloc_allocated: int
    heaps: int


def find_collector(tables: MethodTables, segments: list[Segment]) -> Collector | None:
    """Looks for the table; None where it is not there, or not exactly once."""
    found = {
        collector
        for address, words in writable_words(tables)
        for collector in _in_words(tables, segments, address, words.astype(np.uint64))
    }
    return found.pop() if len(found) == 1 else None


def _in_words(
    tables: MethodTables, segments: list[Segment], address: int, words: U64
) -> list[Collector]:
    count = len(words) - _WORDS + 1
    if count <= 0:
        return []
    width = np.uint64(tables.pointer_size)
    low, high = np.uint64(address), np.uint64(address) + np.uint64(len(words)) * width

    def leads_here(offset: int) -> np.ndarray:
        """Words that may be in the table where their value may be one of the image's data."""
        values = words[offset : offset + count]
        return (values >= low) & (values < high)

    # A number and a counter are always there, one heap's words or an array of heaps is.
    rows = np.flatnonzero(leads_here(_HEAPS_COUNT) | leads_here(0))
    rows = rows[leads_here(_INVALID)[rows]]
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
        return Collector(invalid != 0, table[_ALLOC_ALLOCATED], 1)
    many, heaps = _number(tables, table[_HEAPS_COUNT]), _word(tables, table[_HEAPS])
    if table[0] or not many or not 0 < many <= MAX_HEAPS or not heaps:
        return None
    entries = np.array([each.entry for each in segments], np.uint64)
    places = heaps + np.arange(many, dtype=np.uint64) * np.uint64(tables.pointer_size)
    word = f"<u{tables.pointer_size}"
    each, there = tables.memory.gather(places.astype(np.uint64), word)
    first = int(each[0]) if there.all() else 0
    raw = tables.memory.read_available(first, HEAP_WORDS * tables.pointer_size)
    own = np.frombuffer(raw[: len(raw) // tables.pointer_size * tables.pointer_size], word)
    if not np.isin(own.astype(np.uint64), entries).any():
        return None
    return Collector(invalid != 0, 0, many)


def _word(tables: MethodTables, address: int) -> int:
    raw = tables.memory.read_available(address, tables.pointer_size)
    return int.from_bytes(raw, "little") if len(raw) == tables.pointer_size else 0


def _number(tables: MethodTables, address: int) -> int | None:
    raw = tables.memory.read_available(address, 4)
    return int.from_bytes(raw, "little", signed=True) if len(raw) == 4 else None
