"""Writes a PFN database into made machines, with numbers of its own (public kernel symbols)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from builders.kernel_builder import PAGE, System, full
from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.memory.table_pages import count_table_pages

PFN_AT, BLOCK_AT = 0x4300, 0x4310  # of the kernel's variables: MmPfnDatabase, MmPhysicalMemoryBlock
KDBG_PFN, KDBG_BLOCK = 0xC0, 0x270
ZEROED, FREE, STANDBY, MODIFIED, NO_WRITE, BAD, ACTIVE, TRANSITION = range(8)


@dataclass(frozen=True)
class Entry:
    """Where things are in an `_MMPFN`: of 19041 (x64), and of 7601 (x86 with PAE)."""

    size: int
    pte: int
    location: int
    references: int
    shared: tuple[int, int]
    awe: tuple[int, int] | None
    database: int


ENTRIES = {
    "x64": Entry(0x30, 8, 0x22, 0x20, (0x2F, 7), None, 0xFFFFFA8000000000),
    "pae": Entry(0x1C, 8, 0xE, 0xC, (0x1B, 3), (0x1B, 2), 0x83000000),
}


class Frames(System):
    """A machine whose kernel keeps a PFN database: all frames that have contents, and some more."""

    def begin(self) -> None:
        self.e = ENTRIES[self.kind]
        self.variables |= {KDBG_PFN: self.kernel + PFN_AT, KDBG_BLOCK: self.kernel + BLOCK_AT}
        self.write(self.kdbg, self.kdbg_bytes())
        self.last = self.first_frame + 0x180
        for page in range(0, self.last * self.e.size + PAGE, PAGE):
            self.write(self.e.database + page, bytes(PAGE))
        assert max(self.pages) < self.last
        self.pointer(self.kernel + PFN_AT, self.e.database)
        self.pointer(self.kernel + BLOCK_AT, self.kernel + 0x4400)
        n, word = self.n, f"<{'Q' if self.n.pointer == 8 else 'I'}"
        count = self.last - self.first_frame
        self.write(
            self.kernel + 0x4400,
            struct.pack("<I", 1).ljust(n.pointer, b"\0")
            + b"".join(struct.pack(word, value) for value in (count, self.first_frame, count)),
        )

    def entry(
        self,
        frame: int,
        location: int,
        *,
        pte: int = 0,
        references: int = 1,
        bits: tuple[int, int] = (0, 0),
    ) -> None:
        e, raw = self.e, bytearray(self.e.size)
        raw[e.pte : e.pte + self.n.pointer] = pte.to_bytes(self.n.pointer, "little")
        raw[e.references : e.references + 2] = references.to_bytes(2, "little")
        raw[e.location] = location | 0x58  # cached, and not only the list
        raw[bits[0]] |= 1 << bits[1] if any(bits) else 0
        self.write(e.database + frame * e.size, bytes(raw))


def tables_of(dump: KernelDump) -> tuple[int, np.ndarray]:
    assert dump.physical is not None
    assert dump.paging is not None
    mask = dump.paging.root_mask
    roots = [process.directory_table_base & mask for process in dump.processes]
    return roots[0], count_table_pages(dump.physical, dump.paging, roots).frames


def opened(system: System, path: Path) -> KernelDump:
    path.write_bytes(full(system))
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    return dump


def self_map(system: Frames) -> int:
    return 0xC0000000 if system.kind == "pae" else 0xFFFF << 48 | 0x1ED << 39


def made(kind: str, folder: Path) -> tuple[Frames, dict[int, int]]:
    """A machine and the frames it does not use otherwise, all its page tables in use."""
    system = Frames(kind)
    system.begin()
    _, tables = tables_of(opened(system, folder / "first.dmp"))
    pages = (tables // PAGE).astype(int).tolist()
    for frame in pages:
        system.entry(frame, ACTIVE, pte=self_map(system))
    others = [f for f in range(system.first_frame, system.last) if f not in set(pages)]
    return system, dict(enumerate(others))
