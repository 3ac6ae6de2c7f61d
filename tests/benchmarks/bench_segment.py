"""How fast segment heaps are walked: VS chunks and LFH blocks, beside NT heaps in the same run.

    python tests/benchmarks/bench_segment.py DUMP [ROUNDS]

DUMP is an uncompressed minidump whose heaps are NT heaps. The segment heaps are laid out in memory
by the tests' builder: half a million blocks of each kind, of 16 to 160 bytes as in the dump of the
README. Printed are medians of processor time; compare the ratios, not the seconds: machines differ.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / "parsers"), str(TESTS.parent), str(TESTS)]

from builders.segment_heap_builder import HEAP, SegmentHeapBuilder  # noqa: E402
from segment_heaps import context_for  # noqa: E402

from dumpleak.process.session import Session  # noqa: E402
from windumps.blocks import Blocks  # noqa: E402
from windumps.heaps.segment.heap import open_segment_heap  # noqa: E402
from windumps.memory import RunMemory  # noqa: E402

BLOCKS = 500_000


def vs_heap() -> RunMemory:
    """Full subsegments with chunks of all sizes, a tenth of them free."""
    random = np.random.default_rng(1)
    made, placed = SegmentHeapBuilder(), 0
    while placed < BLOCKS:
        requests: list[int | None] = []
        room = 0x10000 - 0x400
        while room > 0:
            size = int(random.integers(16, 160))
            free = random.random() < 0.1
            requests.append(None if free else size)
            room -= 0x100 if free else (size + 31) // 16 * 16
        made.vs(requests)
        placed += len(requests)
    return made.build()


def lfh_heap() -> RunMemory:
    """Subsegments of four pages, a tenth of the blocks free."""
    random = np.random.default_rng(2)
    made, placed = SegmentHeapBuilder(), 0
    while placed < BLOCKS:
        size = int(random.integers(1, 11)) * 16
        count = 4 * 0x1000 // size * 9 // 10 - 4
        free = random.random(count) < 0.1
        made.lfh(size, [None if f else size - 3 for f in free.tolist()], pages=4)
        placed += count
    return made.build()


def _segment_walk(memory: RunMemory) -> Iterator[Blocks]:
    return open_segment_heap(context_for(memory), HEAP, 0).blocks()


def _nt_walk(path: str) -> Iterator[Blocks]:
    for source in Session.open(path).readable_heaps:
        if source.entry.kind == "nt" and source.entry.heap:
            yield from source.entry.heap.blocks()


def main() -> None:
    """Walks each in turn and prints medians."""
    path = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    vs, lfh = vs_heap(), lfh_heap()
    walks = {
        "nt": lambda: _nt_walk(path),
        "segment-vs": lambda: _segment_walk(vs),
        "segment-lfh": lambda: _segment_walk(lfh),
    }
    seconds: dict[str, list[float]] = {name: [] for name in walks}
    blocks = dict.fromkeys(walks, 0)
    for _ in range(rounds):
        for name, walk in walks.items():
            started = time.process_time()
            blocks[name] = sum(len(piece) for piece in walk())
            seconds[name].append(time.process_time() - started)
    speed = {name: blocks[name] / statistics.median(seconds[name]) for name in walks}
    for name, count in blocks.items():
        line = f"{name:12} {count:8} blocks {speed[name] / 1e6:6.2f} M blocks/s"
        print(f"{line}  {speed[name] / speed['nt']:.2f} x the NT heap's speed")


if __name__ == "__main__":
    main()
