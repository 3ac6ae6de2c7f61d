"""Driver Verifier's structures in bare kernel memory, written byte by byte from published headers."""

from __future__ import annotations

import struct

from builders.pool_builder import PAGE, PoolMemory, home, tag
from windumps.images.modules import Module

DRIVERS = {"x64": 0xFFFF_F800_1000_0000, "x86": 0x8A00_0000}
# Where a driver's own counters are, by build: blocks of paged pool, then bytes of it.
COUNTERS = {
    ("x64", 7601): (0x50, 0x60),
    ("x64", 17763): (0x60, 0x70),
    ("x64", 19041): (0x68, 0x78),
    ("x64", 26100): (0x70, 0x80),
    ("x86", 7601): (0x28, 0x38),
}


def watched(layout: tuple[str, int], blocks: dict[str, list[tuple[int, int, str]]]) -> PoolMemory:
    """Two drivers watched; blocks of each as (address, bytes, tag), all of nonpaged pool."""
    architecture, build = layout
    made = PoolMemory(architecture, build)
    base = DRIVERS[architecture]
    word = "<I" if architecture == "x86" else "<Q"
    width = struct.calcsize(word)
    pages, entries = [], []
    for number, (name, rows) in enumerate(blocks.items()):
        image = base + number * 0x10000
        made.drivers.append(Module(name, name, image, 0x8000, 1))
        entry = made.pool + 0x700000 + number * 0x1000
        counts, held = COUNTERS[layout]
        raw = bytearray(0x200)
        # Blocks of paged and nonpaged pool, then their peaks; so with the bytes.
        total = sum(size for _, size, _ in rows)
        struct.pack_into("<IIII", raw, counts, 0, len(rows), 3, len(rows) + 2)
        most = b"".join(struct.pack(word, value) for value in (0, total, 999, total + 888))
        raw[held : held + 4 * width] = most
        suspect(made, raw, name, entry + 0x400)
        made.put(entry, bytes(raw.ljust(0x400, b"\0")) + made.pieces.pop(entry + 0x400)[:0x200])
        page = struct.pack(word, 0) + struct.pack(word, entry) + struct.pack(word, 0x98761940)
        page += b"\0" * (-len(page) % (4 * width))
        for index, (address, size, text) in enumerate(rows):
            caller = image + 0x1000 + index
            record = b"".join(struct.pack(word, v) for v in (address, caller, size))
            page += record + struct.pack("<I", tag(text)) + b"\0" * (width - 4)
        # A freed record: it names the next free one and nobody called.
        page += struct.pack(word, made.pool + 0x720000) + b"\0" * (3 * width)
        place = made.put(made.pool + 0x600000 + number * 0x10000, page)
        pages.append(place)
        entries.append(entry)
    head, more = bytearray(0x80), 4 * (layout[1] >= 22000)  # one counter more stands before these
    struct.pack_into("<I", head, 0, 9)
    count, total = len(rows_of(blocks)), sum(size for _, size, _ in rows_of(blocks))
    struct.pack_into("<IIII", head, 0x40 + more, 0, count, 7, count + 7)
    most = b"".join(struct.pack(word, value) for value in (0, total, 999, total + 999))
    head[0x50 + 2 * more : 0x50 + 2 * more + 4 * width] = most
    made.variables["MmVerifierData"] = made.put(made.pool + 0x740000, bytes(head))
    large_table(made, pages)
    return made


def rows_of(blocks: dict[str, list[tuple[int, int, str]]]) -> list[tuple[int, int, str]]:
    """The blocks of all drivers."""
    return [row for rows in blocks.values() for row in rows]


def suspect(made: PoolMemory, counters: bytearray, name: str, entry: int) -> None:
    """An entry of the list of drivers, alone in it, which a driver's counters begin with."""
    word = "<I" if made.architecture == "x86" else "<Q"
    width = struct.calcsize(word)
    raw = bytearray(0x200)
    raw[: 2 * width] = struct.pack(word, entry) * 2
    struct.pack_into("<II", raw, 2 * width, 3, 1)  # loads, unloads
    names = [name] if made.build < 26100 else [rf"\SystemRoot\{name}", name]
    at = 2 * width + 8
    for number, text in enumerate(names):
        place = 0x80 + 0x80 * number
        head = struct.pack("<HH", 2 * len(text), 2 * len(text)).ljust(width, b"\0")
        raw[at : at + 2 * width] = head + struct.pack(word, entry + place)
        at += 2 * width
        raw[place : place + 2 * len(text)] = text.encode("utf-16-le")
    made.put(entry, bytes(raw))
    counters[:width] = struct.pack(word, entry)


def large_table(made: PoolMemory, pages: list[int], more: dict[int, int] | None = None) -> None:
    """A table of large allocations: the Verifier's pages, some that are not, and more of other sizes."""
    is_32bit = made.architecture == "x86"
    bits = 8 if made.build >= 10240 else 0
    kind = 0x40 if made.build >= 26100 else 0
    size = 16 if is_32bit else 32 if made.build >= 20348 else 24

    def entry(va: int, key: int, length: int) -> bytes:
        if is_32bit:
            return struct.pack("<IIII", va, key, kind << bits, length)
        return struct.pack("<QIIQ", va, key, kind << bits, length) + b"\0" * (size - 24)

    table = bytearray(entry(1, 0, 0) * 256)
    taken: set[int] = set()
    others = [made.put(made.pool + 0x800000 + n * PAGE, b"\x90" * PAGE) for n in range(8)]
    sizes = dict.fromkeys(pages + others, PAGE) | (more or {})
    for va, length in sizes.items():
        at = home(va >> 12 & 0xFFFFFFFF, 256)
        while at in taken:
            at = (at + 1) % 256
        taken.add(at)
        table[at * size : (at + 1) * size] = entry(va, tag("VfPT"), length)
    place = made.put(made.pool + 0x500000, bytes(table))
    made.variable("PoolBigPageTable", place)
    made.variable("PoolBigPageTableSize", 256)
