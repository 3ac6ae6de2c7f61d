"""Processor time to find, walk and name millions of .NET objects; the dump is made.

python tests/benchmarks/bench_clr.py [OBJECTS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from builders import clr_heap_builder
from builders.clr_heap_builder import FIRST, HEAP, ClrHeapBuilder

from dumpleak.process.managed import ManagedObjects
from dumpleak.process.session import Session
from dumpleak.survey.populations.managed import held_objects
from windumps import open_dump
from windumps.heaps.clr.method_tables import MethodTables
from windumps.heaps.clr.segments import find_segments

TYPES = 200
SHARE_OF_ARRAYS = 0.3


def make(path: Path, count: int) -> None:
    """A heap of objects of many types, each with a reference, and arrays of bytes."""
    rng = np.random.default_rng(1)
    made = ClrHeapBuilder()
    bases = [24 + 8 * (number % 8) for number in range(TYPES)]
    tables = [made.type("Shop", f"Type{number}", base) for number, base in enumerate(bases)]
    array = made.array(made.type("System", "Byte", 24), 1)
    pick = rng.integers(0, TYPES, count)
    pick[rng.random(count) < SHARE_OF_ARRAYS] = TYPES
    length = np.where(pick == TYPES, rng.integers(0, 120, count), 0)
    size = (np.array([*bases, 24])[pick] + length + 7) & ~7
    start = np.cumsum(size) - size + FIRST
    room = (int(start[-1] + size[-1]) + 0x100000) & ~0xFFF
    heap = np.zeros(room // 8, np.uint64)
    heap[start // 8] = np.array([*tables, array], np.uint64)[pick]
    target = (HEAP + start[rng.integers(0, count, count)]).astype(np.uint64)
    heap[start // 8 + 1] = np.where(pick == TYPES, length.astype(np.uint64), target)
    clr_heap_builder.ROOM = room
    made.heap, made.at = bytearray(heap.tobytes()), int(start[-1] + size[-1])
    path.write_bytes(made.build().build())


def main() -> None:
    """Measures."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.dmp"
        make(path, count)
        begun = time.process_time()
        find_segments(MethodTables(open_dump(path).memory, 8))
        scan = time.process_time() - begun
        begun = time.process_time()
        held = held_objects(Session(open_dump(path)))
        told = time.process_time() - begun
        begun = time.process_time()
        groups = ManagedObjects.of(open_dump(path)).groups
        took = time.process_time() - begun
        found = sum(totals.count for _, totals in groups)
        size = path.stat().st_size >> 20
        print(f"{found:,} objects of {len(groups)} types, {size} MiB: {took:.1f} s")
        print(f"of that the scan for segments: {scan:.2f} s ({scan / took:.0%})")
        print(f"what holds them, for comparisons: {told:.1f} s, {len(held.groups)} groups")


if __name__ == "__main__":
    main()
