"""How fast pools are read: trackers of two dumps, and walks of small blocks.

    python tests/benchmarks/bench_pool.py BEFORE AFTER [ROUNDS]

BEFORE and AFTER are kernel dumps (compressed ones are unpacked first, which is not timed). The
pools walked are made in memory: 256 MiB of pages filled with chains, as before Windows 10 1903, and a
segment heap with half a million blocks. Beside each walk stands a plain numpy pass (a sum of all
words) over the same pages. Printed are medians of processor time.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / "parsers"), str(TESTS.parent), str(TESTS)]

from builders.pool_builder import PAGE, PoolMemory, pool_header, tag  # noqa: E402
from builders.segment_heap_builder import HEAP, SegmentHeapBuilder  # noqa: E402

from windumps import open_dump  # noqa: E402
from windumps.diagnostics import DiagnosticLog  # noqa: E402
from windumps.dumps.kernel.dump import KernelDump  # noqa: E402
from windumps.heaps.base import HeapContext  # noqa: E402
from windumps.heaps.segment.heap import open_segment_heap  # noqa: E402
from windumps.kernel.kernel import Kernel  # noqa: E402
from windumps.memory import RunMemory  # noqa: E402
from windumps.pool_tags import Pool  # noqa: E402
from windumps.pools.coverage import PoolCoverage, Ranges  # noqa: E402
from windumps.pools.kernel_pools import KernelPools  # noqa: E402
from windumps.pools.segment.pool import HeapPool  # noqa: E402
from windumps.pools.segment.roots import PoolHeap  # noqa: E402

MEBIBYTES = 256
HEAP_BLOCKS = 500_000


def median(work: Callable[[], object], rounds: int) -> float:
    """Processor seconds."""
    seconds = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def page_pool() -> Kernel:
    """Pages of blocks of 32 to 1024 bytes, a fifth of them free."""
    random = np.random.default_rng(3)
    pages = []
    for _ in range(512):
        page, previous = b"", 0
        while len(page) < PAGE:
            size = min(int(random.integers(2, 65)) * 16, PAGE - len(page))
            kind = 0 if random.random() < 0.2 else 2
            page += pool_header("x64", previous, size, kind, tag("Acme")) + bytes(size - 16)
            previous = size
        pages.append(page)
    made = PoolMemory("x64", 9600)
    made.put(made.pool, b"".join(pages) * (MEBIBYTES * (1 << 20) // (len(pages) * PAGE)))
    return made.kernel()


def heap_pool() -> Kernel:
    """Chunks of 48 to 512 bytes with a pool header in each, a tenth of them free."""
    random = np.random.default_rng(4)
    made, placed = SegmentHeapBuilder(), 0
    while placed < HEAP_BLOCKS:
        requests: list[int | None] = []
        room = 0x10000 - 0x400
        while room > 0:
            size = int(random.integers(3, 33)) * 16
            free = random.random() < 0.1
            requests.append(None if free else size)
            room -= 0x100 if free else size + 16
        made.vs(requests)
        placed += len(requests)
    memory = made.build()
    kernel = PoolMemory("x64", 19041).kernel()
    kernel.memory = _with_headers(memory, kernel)
    return kernel


def _with_headers(memory: RunMemory, kernel: Kernel) -> RunMemory:
    """The same memory with a pool header where each used block begins."""
    data = memory.data.copy()
    runs = memory.runs
    copy = RunMemory(data, runs.address, runs.size, runs.offset, memory.regions)
    context = HeapContext(copy, "x64", kernel.build, None, 0, DiagnosticLog())
    heap = open_segment_heap(context, HEAP, 0)
    for raw in heap.raw_blocks():
        for address, room in zip(
            raw.address[raw.used].tolist(), raw.room[raw.used].tolist(), strict=True
        ):
            if address % PAGE == PAGE - 16:
                address, room = address + 16, room - 16
            (offset,) = copy.locate(np.array([address], np.uint64), 16).tolist()
            size = min(room, 0xFF0)
            data[offset : offset + 16] = np.frombuffer(
                pool_header("x64", 0, size, 2, tag("Acme")), np.uint8
            )
    return copy


def walk_heap(kernel: Kernel) -> int:
    """Blocks of the made heap."""
    pools = KernelPools(kernel)
    root = PoolHeap(HEAP, Pool.NONPAGED_NX, "made")
    nothing = np.empty(0, np.uint64)
    walk = HeapPool(kernel, [root], nothing, Ranges([]), PoolCoverage(), pools.log)
    return sum(len(piece) for piece in walk.blocks())


def walk_pages(kernel: Kernel) -> int:
    """Blocks of the made pages."""
    return sum(len(piece) for piece in KernelPools(kernel).blocks())


def show(name: str, kernel: Kernel, walk: Callable[[Kernel], int], rounds: int) -> None:
    """One line: blocks and bytes a second, beside a plain pass."""
    data = kernel.memory.data
    blocks = walk(kernel)
    seconds = median(lambda: walk(kernel), rounds)
    words = data[: len(data) // 8 * 8].view(np.uint64)
    plain = median(lambda: int(words.sum()), rounds)
    size = len(data) / 1e9
    print(
        f"{name:14} {blocks:9} blocks {blocks / seconds / 1e6:6.2f} M blocks/s  "
        f"{size / seconds:6.2f} GB/s; plain numpy pass {size / plain:6.2f} GB/s"
    )


def main() -> None:
    """Times each and prints medians."""
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 7
    dumps = [open_dump(path) for path in sys.argv[1:3]]
    kernels = [dump.kernel for dump in dumps if isinstance(dump, KernelDump)]

    def difference() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        before, after = (KernelPools(kernel).trackers for kernel in kernels)
        tags = np.union1d(before.tag, after.tag)
        growth = np.zeros(len(tags), np.int64)
        for totals, sign in ((before, -1), (after, 1)):
            held = totals.nonpaged_bytes + totals.paged_bytes
            growth[np.searchsorted(tags, totals.tag)] += sign * held
        return growth

    seconds = median(difference, rounds)
    print(f"trackers of two dumps, added up and compared: {seconds * 1e3:.0f} ms")
    show("pages", page_pool(), walk_pages, rounds)
    show("segment heap", heap_pool(), walk_heap, rounds)


if __name__ == "__main__":
    main()
