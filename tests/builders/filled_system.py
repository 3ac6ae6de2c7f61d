"""A truth dump whose processes hold something: commit, threads, pool quota, handles; or have ended.

Truth dumps have bare processes. What is written here goes by its own numbers, from published headers.
"""

from __future__ import annotations

import lzma
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from truth import TESTDATA, load_json

from windumps import open_dump

PAGE = 0x1000


@dataclass(frozen=True)
class Numbers:
    """Offsets in _EPROCESS and _HANDLE_TABLE; whether entries of handle tables are packed."""

    links: int
    created: int
    ended: int
    commit: int
    threads: int
    quota: int
    table: int
    code: int
    packed: bool


NUMBERS = {
    "7601-x64": Numbers(0x188, 0x168, 0x170, 0x1B8, 0x328, 0x198, 0x200, 0x0, False),
    "14393-x64": Numbers(0x2F0, 0x308, 0x690, 0x4F0, 0x498, 0x310, 0x418, 0x8, True),
    "22621-x64": Numbers(0x448, 0x468, 0x840, 0x648, 0x5F0, 0x470, 0x570, 0x8, True),
    "26100-x64": Numbers(0x1D8, 0x1F8, 0x5C0, 0x3D8, 0x380, 0x200, 0x300, 0x8, True),
}


class FilledSystem:
    """One dump of `testdata/kernel/<build>/tiny-pair`, to be written anew.

    Args:
        folder: Where it goes.
        build: A key of `NUMBERS`.
        which: "before" or "after".
    """

    def __init__(self, folder: Path, build: str = "22621-x64", which: str = "before") -> None:
        source = TESTDATA / "kernel" / build / "tiny-pair" / f"{which}.dmp.xz"
        self.path = folder / f"{build}-{which}.dmp"
        self.raw = bytearray(lzma.decompress(source.read_bytes()))
        self.path.write_bytes(self.raw)
        self.n = NUMBERS[build]
        self.memory = open_dump(self.path).memory
        truth = load_json(source.with_name(f"{which}.truth.json.xz"))
        self.truth: dict[str, Any] = truth
        # Contents of large blocks mean nothing to anybody: handle tables are put there.
        self._spare = [
            int(block["address"], 16)
            for block in truth["big_allocations"]
            if block["tag"] != "Pool" and block["kind"].startswith("NonPaged")
        ]
        self._tables: dict[int, int] = {}
        self._rest = (0, 0)
        self.processes = [(p["name"], int(p["eprocess"], 16)) for p in truth["processes"]]
        self.thread_of = {int(p["eprocess"], 16): int(p["thread"], 16) for p in truth["processes"]}

    def module(self, name: str) -> int:
        """Load address of a driver."""
        rows = {row["name"]: int(row["base"], 16) for row in self.truth["modules"]}
        return rows[name]

    def address(self, name: str) -> int:
        """Of the first process with a name."""
        return next(address for each, address in self.processes if each == name)

    def put(self, address: int, data: bytes) -> None:
        """Bytes at an address of the kernel, inside one page."""
        (offset,) = self.memory.locate(np.array([address], np.uint64), len(data)).tolist()
        assert offset >= 0, f"0x{address:x} is not in the dump"
        self.raw[offset : offset + len(data)] = data

    def pointer(self, address: int, value: int) -> None:
        self.put(address, struct.pack("<Q", value))

    def get(self, address: int) -> int:
        """A pointer as it is now."""
        (offset,) = self.memory.locate(np.array([address], np.uint64), 8).tolist()
        return int(struct.unpack_from("<Q", self.raw, offset)[0])

    def holds(
        self,
        name: str,
        *,
        pages: int = 0x100,
        threads: int = 1,
        nonpaged: int = 0x4000,
        paged: int = 0x8000,
    ) -> None:
        """What the first process with a name holds."""
        at = self.address(name)
        self.pointer(at + self.n.commit, pages)
        self.put(at + self.n.threads, struct.pack("<I", threads))
        self.put(at + self.n.quota, struct.pack("<QQ", nonpaged, paged))

    def fill(self, handles: int = 4) -> FilledSystem:
        """All processes hold a little; each has some handles of processes."""
        objects = [address - 0x30 for _, address in self.processes]
        for name, at in self.processes:
            self.pointer(at + self.n.commit, 0x100)
            self.put(at + self.n.threads, struct.pack("<I", 1))
            self.put(at + self.n.quota, struct.pack("<QQ", 0x4000, 0x8000))
            self._handles(at, objects[:handles])
            assert name
        return self

    def handles(self, name: str, count: int) -> None:
        """So many handles of the process objects, for the first process with a name."""
        objects = [address - 0x30 for _, address in self.processes]
        self._handles(self.address(name), [objects[n % len(objects)] for n in range(count)])

    def stack(self, process: int, pages: int) -> None:
        """The kernel stack of a process's thread, by the process's address."""
        thread = self.thread_of[process]
        base = 0xFFFFF88000000000 + (process & 0xFFFFF) * 0x1000
        old = self.path.name.startswith("7601")
        initial, limit, current, end = (
            (0x28, 0x30, 0x38, 0x278) if old else (0x28, 0x30, 0x58, 0x38)
        )
        self.put(thread, b"\x06")  # DISPATCHER_HEADER.Type of a thread
        self.pointer(thread + end, base)
        self.pointer(thread + limit, base - pages * PAGE)
        self.pointer(thread + initial, base - 0x80)
        self.pointer(thread + current, base - 0x400)

    def room(self, size: int) -> int:
        """Some bytes of the kernel that mean nothing else; objects and texts are put there."""
        if self._rest[1] < size:
            self._rest = (self._spare.pop(), PAGE)
        start, left = self._rest
        self._rest = (start + (size + 15 & ~15), left - (size + 15 & ~15))
        return start

    def block(self, tag: str) -> int:
        """Where a block of a tag lets an object begin, with room for headers in front of it."""
        users = (int(b["user"], 16) for b in self.truth["small_blocks"] if b["tag"] == tag)
        return next(users) + 0x70

    def text(self, place: int, text: str, buffer: int = 0) -> None:
        """A UNICODE_STRING."""
        raw = text.encode("utf-16-le")
        if not buffer:
            buffer = self.room(len(raw) + 2)
            self.put(buffer, raw + b"\0\0")
        self.put(place, struct.pack("<HHI", len(raw), len(raw) + 2, 0))
        self.pointer(place + 8, buffer)

    def kernel_object(
        self, name: str | None, directory: int = 0, body: int = 0, *, creator: bool = False
    ) -> int:
        """The headers of an object, with a name in a directory; returns the object's address."""
        body = body or self.room(0x200) + 0x70
        header = body - 0x30
        self.put(header, struct.pack("<QQ", 1, 1))
        mask = 2 * (name is not None) + creator
        self.put(header + 0x18, bytes((0, 0, mask, 0)))
        if name is not None:
            info = header - (0x40 if creator else 0x20)
            self.pointer(info, directory)
            self.text(info + 8, name)
        return body

    def leads(self, name: str, objects: list[int]) -> None:
        """Handles of objects, by the addresses of these, for the first process with a name."""
        self._handles(self.address(name), [address - 0x30 for address in objects])

    def _handles(self, process: int, objects: list[int]) -> None:
        assert len(objects) < PAGE // 16
        code = self.get(process + self.n.table) + self.n.code
        if process not in self._tables:
            self._tables[process] = self._spare.pop()
            self.put(self._tables[process], bytes(PAGE - 8) + struct.pack("<Q", 1))  # a free entry
            self.pointer(code, self._tables[process])
        page = self._tables[process]
        for number, header in enumerate(objects, 1):
            packed = (header >> 4 & (1 << 44) - 1) << 20 | 0x1234 << 1 | 1
            self.pointer(page + 16 * number, packed if self.n.packed else header | 1)

    def lose_handles(self, name: str, *, whole: bool = False) -> None:
        """The page of a process's handle table is not in the dump, or all of the table."""
        at = self.address(name) + self.n.table
        self.pointer(at if whole else self.get(at) + self.n.code, 0xFFFFE0FFFFFF0000)

    def end(self, process: int, *, listed: bool) -> None:
        """A process ended and is kept alive; by its address."""
        self.pointer(process + self.n.ended, self.get(process + self.n.created) + 10**9)
        if not listed:
            after, before = self.get(process + self.n.links), self.get(process + self.n.links + 8)
            self.pointer(before, after)
            self.pointer(after + 8, before)

    def minutes_later(self, minutes: int) -> None:
        """The dump was taken so much later, in one run of the system: the header's two times say so."""
        for offset in (0xFA8, 0x1030):
            (before,) = struct.unpack_from("<Q", self.raw, offset)
            struct.pack_into("<Q", self.raw, offset, before + minutes * 60 * 10**7)

    def named(self, name: str) -> list[int]:
        """Addresses of all processes with a name."""
        return [address for each, address in self.processes if each == name]

    def save(self) -> Path:
        self.path.write_bytes(self.raw)
        return self.path


def rebuild(system: FilledSystem, name: str) -> None:
    """Makes a driver another build: the GUID of its PDB is another one."""
    base = system.module(name)
    for page in range(base, base + 4 * PAGE, PAGE):
        at = system.memory.read_available(page, PAGE).find(b"RSDS")
        if at >= 0:
            system.put(page + at + 4, b"\x77" * 16)
            return
    raise AssertionError(f"{name} has no PDB record")
