"""Processor time of `dumpleak pool` and `dumpleak info` on a kernel dump of 2 GiB with code pages.

    python tests/benchmarks/bench_pool_dump.py [DUMP ...]

Without DUMP a complete dump of a 32-bit system is made in a temporary folder, sparse: the pools of a dump of
`testdata/`, all pages of the kernel's image filled with bytes as of code (among them thousands of words
that could be addresses of tables, of memory that is not mapped), 256 MiB of other memory in the kernel's
half, and the variable of the table of large allocations moved away from where it is looked for first, so
that the whole image is searched. With DUMP those files are read instead.
"""

from __future__ import annotations

import json
import lzma
import resource
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "testdata/kernel/7601-x86pae/leak-pair/after"
PAGE = 0x1000
FRAMES = (2 << 30) // PAGE
HEADER = 0x1000
TYPE, ROOT_AT, RUNS, SPACE = 0xF88, 0x10, 0x64, 0xFA0  # in the header
BITMAP_FIRST, BITMAP_COUNT, BITMAP_BITS = 0xC, 0x10, 0x20  # behind it
TABLE, TABLE_SIZE = -0x14, -0x18  # from PoolTrackTable
OTHER, OTHER_BYTES = 0x9000_0000, 256 << 20
UNMAPPED = 0xC800_0000
WORDS = 4000


class Memory:
    """The file of the dump as physical memory, with PAE tables in it."""

    def __init__(self, file: np.memmap[tuple[int], np.dtype[np.uint8]], root: int) -> None:
        self.file, self.root = file, root
        self.next_frame = FRAMES // 2

    def frame(self) -> int:
        self.next_frame += 1
        return self.next_frame - 1

    def page(self, frame: int) -> np.ndarray:
        start = HEADER + frame * PAGE
        return self.file[start : start + PAGE]

    def _entry(self, table: int, index: int) -> np.ndarray:
        start = HEADER + table + 8 * index
        return self.file[start : start + 8].view("<u8")

    def map(self, address: int) -> int:
        """The frame of a page, which is mapped to a fresh one where it is not."""
        table = self.root
        for shift, bits in ((30, 2), (21, 9), (12, 9)):
            entry = self._entry(table, address >> shift & (1 << bits) - 1)
            if not int(entry[0]) & 1:
                entry[0] = self.frame() * PAGE | 0x63
            elif shift == 21 and int(entry[0]) & 0x80:
                return (int(entry[0]) & 0xFFFF_FFE0_0000) // PAGE + (address >> 12 & 511)
            table = int(entry[0]) & 0xFFFF_FFFF_F000
        return table // PAGE

    def write(self, address: int, data: bytes) -> None:
        at = address % PAGE
        self.page(self.map(address))[at : at + len(data)] = np.frombuffer(data, np.uint8)


def make(path: Path) -> None:
    """Writes the dump."""
    raw = lzma.decompress(SOURCE.with_suffix(".dmp.xz").read_bytes())
    known = json.loads(lzma.decompress(SOURCE.with_suffix(".truth.json.xz").read_bytes()))
    first, bits = struct.unpack_from("<II", raw, HEADER + BITMAP_FIRST)
    packed = np.frombuffer(raw, np.uint8, bits // 8, HEADER + BITMAP_BITS)
    frames = np.flatnonzero(np.unpackbits(packed, bitorder="little"))
    head = bytearray(raw[:HEADER])
    struct.pack_into("<I", head, TYPE, 1)
    struct.pack_into("<IIII", head, RUNS, 1, FRAMES, 0, FRAMES)
    struct.pack_into("<Q", head, SPACE, HEADER + FRAMES * PAGE)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(HEADER + FRAMES * PAGE)
    memory = Memory(np.memmap(path, np.uint8, "r+"), *struct.unpack_from("<I", head, ROOT_AT))
    for number, frame in enumerate(frames.tolist()):
        start = first + number * PAGE
        memory.page(frame)[:] = np.frombuffer(raw, np.uint8, PAGE, start)
    base, size = int(known["kernel_base"], 16), known["kernel_size"]
    spare = fill_image(memory, base, size)
    hide_table(memory, known, spare)
    noise = np.random.default_rng(2).integers(0, 256, PAGE, np.uint8)
    for address in range(OTHER, OTHER + OTHER_BYTES, PAGE):
        frame = memory.map(address)
        if frame % 16 == 0:  # the others stay holes of the file
            memory.page(frame)[:] = noise
    memory.file.flush()


def fill_image(memory: Memory, base: int, size: int) -> int:
    """Code in all pages of the image that hold nothing; the address of one of them."""
    random = np.random.default_rng(1)
    mapped = [(address, memory.map(address)) for address in range(base, base + size, PAGE)]
    empty = [(a, f) for a, f in mapped if not memory.page(f).any()]
    for _, frame in empty:
        memory.page(frame)[:] = random.integers(0, 256, PAGE, np.uint8)
    for word in range(WORDS):
        _, frame = empty[word % len(empty)]
        at = int(random.integers(PAGE // 4)) * 4
        value = UNMAPPED + int(random.integers(1 << 15)) * PAGE
        memory.page(frame)[at : at + 4] = np.frombuffer(struct.pack("<I", value), np.uint8)
    print(f"{len(empty)} of {len(mapped)} pages of the kernel's image filled with code")
    return empty[len(empty) // 2][0]


def hide_table(memory: Memory, known: dict[str, Any], spare: int) -> None:
    """Moves PoolBigPageTable to another place of the image."""
    variable = int(known["tracker"]["variable"], 16)
    memory.write(variable + TABLE, bytes(4))
    memory.write(variable + TABLE_SIZE, bytes(4))
    table = int(known["big_table"]["table"], 16)
    memory.write(spare + 0x800, struct.pack("<II", table, known["big_table"]["size"]))


def measure(path: Path) -> None:
    """Prints what each command takes, start of Python included."""
    for command in ("pool", "info"):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = subprocess.run(
            [sys.executable, "-m", "dumpleak", command, str(path)], capture_output=True, text=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        name = f"{path.parent.name}/{path.name}"
        print(f"{command:4} {name}: {seconds:.1f} s, exit code {ended.returncode}", flush=True)


def main() -> None:
    """The command line."""
    for given in sys.argv[1:]:
        measure(Path(given))
    if len(sys.argv) == 1:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "2g.dmp"
            make(path)
            measure(path)


if __name__ == "__main__":
    main()
