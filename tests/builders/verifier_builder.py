"""A truth dump with Driver Verifier on: its settings, the blocks it tracks, its log of stacks, its stop code.

Truth dumps have Verifier off. What is written here goes by its own numbers, from published headers, into
large blocks, whose contents mean nothing to anybody.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

from builders.filled_system import PAGE, FilledSystem

SETTINGS = 0x9BB  # as `verifier /standard` of Windows 7
NAME = 0x80  # where an entry's name stands behind it
RECORDS = 127  # of a page, behind its header


@dataclass(frozen=True)
class Offsets:
    """Where a driver's counters are by build: blocks, bytes; where the name is in the entry of the list.

    Further how many frames a record of the log has, and how far the counters over all drivers were moved.
    """

    blocks: int
    bytes: int
    name: int = 0x18
    frames: int = 13
    shift: int = 0


OFFSETS = {
    "7601-x64": Offsets(0x50, 0x60),
    "14393-x64": Offsets(0x50, 0x60),
    "22621-x64": Offsets(0x70, 0x80, frames=50, shift=4),
    "26100-x64": Offsets(0x70, 0x80, 0x28, frames=50, shift=4),
}


@dataclass
class Tracked:
    """One block: where, how large, of what tag and pool, who called, and from where."""

    address: int
    size: int
    tag: str
    is_paged: bool
    stack: tuple[int, ...]  # return addresses, the caller's first

    @property
    def caller(self) -> int:
        return self.stack[0]


@dataclass
class Watched:
    """One driver, and what it holds."""

    name: str
    loads: int = 1
    unloads: int = 0
    blocks: list[Tracked] = field(default_factory=list)

    def held(self, *, paged: bool) -> tuple[int, int]:
        """(blocks, bytes) of a pool."""
        mine = [block.size for block in self.blocks if block.is_paged == paged]
        return len(mine), sum(mine)


class VerifiedSystem(FilledSystem):
    """One dump of `testdata/kernel/<build>/tiny-pair`, with Verifier on.

    `watched` is filled by `watch`; `write` puts everything into the dump.
    """

    def __init__(self, folder: Path, build: str = "14393-x64", which: str = "after") -> None:
        super().__init__(folder, build, which)
        self.offsets = OFFSETS[build]
        self.settings = int(self.truth["kernel_base"], 16)
        self.watched: list[Watched] = []
        self.logged: list[
            tuple[int, int, tuple[int, ...]]
        ] = []  # (address, size, stack), oldest first
        large = [block for block in self.truth["big_allocations"] if not block.get("absent")]
        usual = [b for b in large if b["kind"].startswith("NonPaged") and b["tag"] != "Pool"]
        self._pages = [int(b["address"], 16) for b in usual if b["charged"] == PAGE]
        self._rings = [int(b["address"], 16) for b in usual if b["charged"] == 0x10000]
        self.modules = {m["name"]: int(m["base"], 16) for m in self.truth["modules"]}
        self.pages: list[int] = []
        self.ring = self.data = self._data = self._pages.pop()

    def watch(
        self, name: str, *tags: str, stacks: int = 2, loads: int = 1, unloads: int = 0
    ) -> Watched:
        """Watches a driver that holds all blocks of these tags, allocated from so many places of it."""
        base, kernel = self.modules.get(name, 0), self.modules["ntoskrnl.exe"]
        driver = Watched(name, loads, unloads)
        rows = [
            block
            for block in (*self.truth["small_blocks"], *self.truth["big_allocations"])
            if block["tag"] in tags and block["state"] == "allocated"
        ]
        for number, block in enumerate(rows):
            # One of ten comes from the last place: a leak beside something that is in use.
            place = stacks - 1 if number % 10 == 9 else number % max(stacks - 1, 1)
            stack = (base + 0x1230 + 0x60 * place, base + 0x1510 + 0x10 * place, kernel + 0x2040)
            is_paged = block["kind"] == "Paged"
            tracked = Tracked(
                int(block["user"], 16), block["requested"], block["tag"], is_paged, stack
            )
            driver.blocks.append(tracked)
        self.watched.append(driver)
        return driver

    def log_allocation(self, block: Tracked) -> None:
        """Verifier's own frame first, then the caller's."""
        routine = self.modules["ntoskrnl.exe"] + 0x1500
        self.logged.append((block.address, block.size, (routine, *block.stack)))

    def log_free(self, address: int, size: int, place: int) -> None:
        """A free by a driver at a place: no frame of Verifier, a size rounded up."""
        kernel = self.modules["ntoskrnl.exe"]
        self.logged.append((address, -(-size // 16) * 16, (place, place + 0x200, kernel + 0x2040)))

    def write(self) -> VerifiedSystem:
        """Puts settings, entries, records and the log into the dump."""
        self._settings()
        entries = [self._entry(driver) for driver in self.watched]
        head = self.room(16)
        circle = [head, *(address for address, _ in entries)]
        for number, node in enumerate(circle):
            self.pointer(node, circle[(number + 1) % len(circle)])
            self.pointer(node + 8, circle[number - 1])
        for driver, (_, counters) in zip(self.watched, entries, strict=True):
            self._records(driver, counters)
        if self.logged:
            self._log()
        return self

    def room(self, size: int) -> int:
        """New bytes in the page of small things."""
        place, self._data = self._data, self._data + -(-size // 16) * 16
        assert self._data <= self.data + PAGE
        self.put(place, bytes(size))
        return place

    def string(self, text: str) -> int:
        """Address of a UNICODE_STRING."""
        place, raw = self.room(16 + 2 * len(text)), text.encode("utf-16-le")
        self.put(place, struct.pack("<HHxxxxQ", len(raw), len(raw), place + 16) + raw)
        return place

    def stop(self, code: int, *parameters: int) -> None:
        """The stop code of the header."""
        struct.pack_into("<I", self.raw, 0x38, code)
        struct.pack_into("<4Q", self.raw, 0x40, *parameters)

    def _settings(self) -> None:
        paged, nonpaged = ([d.held(paged=p) for d in self.watched] for p in (True, False))
        sums = [sum(column) for column in (*zip(*paged, strict=True), *zip(*nonpaged, strict=True))]
        paged_blocks, paged_bytes, nonpaged_blocks, nonpaged_bytes = sums
        raw, more = bytearray(0x80), self.offsets.shift
        struct.pack_into("<I", raw, 0, SETTINGS)
        attempted = paged_blocks + nonpaged_blocks + 90_000
        struct.pack_into("<II", raw, 0x10, attempted, attempted - 3)
        struct.pack_into("<I", raw, 0x28, 3)
        loads = sum(driver.loads for driver in self.watched)
        struct.pack_into(
            "<II", raw, 0x30 + more, loads, sum(driver.unloads for driver in self.watched)
        )
        peaks = paged_blocks + 5, nonpaged_blocks + 7
        struct.pack_into("<4I", raw, 0x40 + more, paged_blocks, nonpaged_blocks, *peaks)
        peaks = paged_bytes + 5000, nonpaged_bytes + 7000
        struct.pack_into("<4Q", raw, 0x50 + 2 * more, paged_bytes, nonpaged_bytes, *peaks)
        (kdbg,) = struct.unpack("<Q", self.bytes_at(int(self.truth["kdbg"], 16) + 0x248, 8))
        self.put(kdbg, bytes(raw))

    def bytes_at(self, address: int, size: int) -> bytes:
        return bytes(self.memory.read(address, size))

    def _entry(self, driver: Watched) -> tuple[int, int]:
        """(entry in the list, counters) of a driver."""
        entry = self.room(self.offsets.name + 16)
        self.put(entry + 16, struct.pack("<II", driver.loads, driver.unloads))
        if self.offsets.name > 0x18:  # the full name stands before
            self.put(entry + 0x18, self.bytes_of_string(rf"\SystemRoot\drivers\{driver.name}"))
        self.put(entry + self.offsets.name, self.bytes_of_string(driver.name))
        counters = self.room(self.offsets.bytes + 0x20)
        self.pointer(counters, entry)
        if driver.blocks:
            paged, nonpaged = driver.held(paged=True), driver.held(paged=False)
            most = [
                n + more * bool(n)
                for n, more in zip((*paged, *nonpaged), (2, 300) * 2, strict=True)
            ]
            blocks = paged[0], nonpaged[0], most[0], most[2]
            self.put(counters + self.offsets.blocks, struct.pack("<4I", *blocks))
            held = paged[1], nonpaged[1], most[1], most[3]
            self.put(counters + self.offsets.bytes, struct.pack("<4Q", *held))
        return entry, counters

    def bytes_of_string(self, text: str) -> bytes:
        """A UNICODE_STRING whose text lies elsewhere."""
        place = self.string(text)
        return struct.pack("<HHxxxxQ", 2 * len(text), 2 * len(text), place + 16)

    def _records(self, driver: Watched, counters: int) -> None:
        for first in range(0, len(driver.blocks), RECORDS):
            page = self._pages.pop()
            more = first + RECORDS < len(driver.blocks)
            raw = struct.pack("<QQQ8x", self._pages[-1] if more else 0, counters, 0x98761940)
            for block in driver.blocks[first : first + RECORDS]:
                tag = int.from_bytes(block.tag.encode(), "little")
                raw += struct.pack("<QQQI4x", block.address, block.caller, block.size, tag)
            self.put(page, raw.ljust(PAGE, b"\0"))
            self.pages.append(page)

    def _log(self) -> None:
        """The newest records of the ring; it has 512, and the first turn begins with the second.

        A ring of records with 50 frames has no place here.
        """
        assert self.offsets.frames == 13
        self.ring = self._rings.pop()
        slots, thread = 512, self.data
        ring = bytearray(0x10000)
        for number, (address, size, stack) in enumerate(self.logged, start=1):
            raw = struct.pack("<QQQ", address, size, thread)
            raw += b"".join(struct.pack("<Q", frame) for frame in stack)
            at = number % slots * 0x80
            ring[at : at + 0x80] = raw.ljust(0x80, b"\0")
        for at in range(0, len(ring), PAGE):
            self.put(self.ring + at, bytes(ring[at : at + PAGE]))
