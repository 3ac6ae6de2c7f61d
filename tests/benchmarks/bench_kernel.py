"""How fast a kernel's address space is translated, and what opening a large dump costs.

    python tests/benchmarks/bench_kernel.py [GIB] [ROUNDS]

Makes sparse dumps of an x64 machine with GIB gibibytes (8) of kernel memory in 4 KiB pages, in a
temporary folder: complete ones, in the order of physical memory and shuffled, and a kernel dump
(bitmap) of every second page of the machine, shuffled. Printed are medians of processor time and the
peak of memory taken by Python and numpy.
"""

from __future__ import annotations

import statistics
import struct
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / "parsers"), str(TESTS.parent), str(TESTS)]

from builders.kernel_builder import PAGE, System, header, page_bytes  # noqa: E402

from windumps import open_dump  # noqa: E402
from windumps.dumps.kernel.dump import KernelDump  # noqa: E402

START = 0xFFFF_A000_0000_0000  # of the memory that is mapped, page by page
ENTRIES = 512


def make(path: Path, pages: int, shuffled: bool, bitmap: bool) -> None:
    """Writes the dump: the machine, then leaf tables, then the pages they map (a hole)."""
    system = System("x64", first_frame=0x10)
    tables = -(-pages // ENTRIES)
    for number in range(-(-tables // ENTRIES)):  # the directory above each GiB
        system.entry_at(START + number * (ENTRIES << 21), 2)
    first_table = max(system.pages) + 1
    for number in range(tables):
        place = system.entry_at(START + number * (ENTRIES * PAGE), 2)
        system.poke(place, (first_table + number) * PAGE | 0x63, 8)
    first_page = first_table + tables
    step = 2 if bitmap else 1
    frames = np.arange(first_page, first_page + step * tables * ENTRIES, step, dtype=np.uint64)
    present = [*range(min(system.pages), first_page)]
    count = len(present) + len(frames)
    raw = header(system, 6 if bitmap else 1)
    if bitmap:
        bits = np.zeros(first_page + step * tables * ENTRIES, np.bool_)
        bits[present] = bits[frames] = True
        packed = np.packbits(bits, bitorder="little").tobytes()
        start = -(-(len(raw) + 0x38 + len(packed)) // PAGE) * PAGE
        head = b"SDMPDUMP" + bytes(24) + struct.pack("<QQQ", start, count, len(bits))
        raw = bytearray((bytes(raw) + head + packed).ljust(start, b"\0"))
    else:
        struct.pack_into("<IIQQQ", raw, 0x88, 1, 0, count, present[0], count)
    if shuffled:
        np.random.default_rng(1).shuffle(frames)
    leaves = (frames * np.uint64(PAGE) | np.uint64(0x63)).tobytes()
    with path.open("wb") as file:
        file.write(bytes(raw) + page_bytes(system) + leaves)
        file.truncate(len(raw) + count * PAGE)


def median(rounds: int, work: Callable[[], object]) -> float:
    """Median processor time in seconds."""
    times = []
    for _ in range(rounds):
        before = time.process_time()
        work()
        times.append(time.process_time() - before)
    return statistics.median(times)


def peak(work: Callable[[], object]) -> int:
    """Most bytes Python and numpy held at a time."""
    tracemalloc.start()
    work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def opened(path: Path) -> KernelDump:
    dump = open_dump(path)
    if not isinstance(dump, KernelDump):
        raise TypeError(path)
    return dump


def main() -> None:
    gib = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    pages = (gib << 30) // PAGE
    with tempfile.TemporaryDirectory() as folder:
        for name, shuffled, bitmap in (
            ("complete, in order", False, False),
            ("complete, shuffled", True, False),
            ("kernel, shuffled", True, True),
        ):
            path = Path(folder) / "kernel.dmp"
            make(path, pages, shuffled, bitmap)

            def one_page(path: Path = path) -> None:
                opened(path).memory.read(START + (pages // 2) * PAGE, PAGE)

            spent = median(rounds, one_page)
            print(
                f"{name}: open {path.stat().st_size / 2**30:.1f} GiB and read a page: "
                f"{spent * 1000:.1f} ms, peak {peak(one_page) / 2**20:.1f} MiB"
            )
            memory = opened(path).memory
            end = START + pages * PAGE

            def translate(memory=memory, end=end) -> int:  # type: ignore[no-untyped-def]
                return sum(int(piece.size.sum()) for piece in memory.pieces(START, end))

            assert translate() == pages * PAGE
            spent = median(rounds, translate)
            print(
                f"{name}: translate {pages:,} pages: {spent * 1000:.0f} ms, "
                f"{pages / spent / 1e6:.1f} million pages a second, "
                f"peak {peak(translate) / 2**20:.1f} MiB"
            )
            random = np.random.default_rng(2).integers(0, pages * PAGE - 8, 1_000_000)
            places = random.astype(np.uint64) + np.uint64(START)
            spent = median(rounds, partial(memory.locate, places, 8))
            print(f"{name}: locate a million random addresses: {spent * 1000:.0f} ms")


if __name__ == "__main__":
    main()
