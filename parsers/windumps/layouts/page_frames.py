"""Entries of the PFN database: one `_MMPFN` for each page frame of the machine, XP to 10 22H2.

Source: public kernel symbols of each build named (48 of them, XP SP2 to 19041). Before Windows 8 an x86
kernel runs with or without PAE, whose entries of page tables are eight bytes and not four; what follows them
moves.
"""

from __future__ import annotations

from typing import NamedTuple


class Bit(NamedTuple):
    """One bit of an entry: the byte it is in, and its place there."""

    byte: int
    place: int


class FrameLayout(NamedTuple):
    """One row.

    Attributes:
        architecture: "x86" or "x64".
        first_build, last_build: Builds it is of.
        pae: Kernels with PAE only, or without only; None for both, and where there is but one.
        size: Bytes of an entry.
        pte: Where `PteAddress` is.
        location: Byte whose lowest three bits are `PageLocation`.
        references: Where `ReferenceCount` is, two bytes.
        shared: `PrototypePte`: another entry than one of a page table maps the page.
        awe: `AweAllocation`: physical pages given to a program or a driver; None where it is kept elsewhere.
    """

    architecture: str
    first_build: int
    last_build: int
    pae: bool | None
    size: int
    pte: int
    location: int
    references: int
    shared: Bit
    awe: Bit | None = None


FRAME_LAYOUTS = (
    FrameLayout("x86", 2600, 2600, False, 0x18, 0x4, 0xD, 0xE, Bit(0xC, 3), Bit(0x17, 4)),
    FrameLayout("x86", 3790, 3790, False, 0x18, 0x4, 0xF, 0xC, Bit(0xE, 3), Bit(0x17, 3)),
    FrameLayout("x86", 6000, 7601, False, 0x18, 0x8, 0xE, 0xC, Bit(0x17, 3), Bit(0x17, 2)),
    FrameLayout("x86", 6000, 7601, True, 0x1C, 0x8, 0xE, 0xC, Bit(0x1B, 3), Bit(0x1B, 2)),
    FrameLayout("x86", 9200, 9600, None, 0x1C, 0x8, 0xE, 0xC, Bit(0x1B, 3)),
    FrameLayout("x86", 10240, 18363, None, 0x1C, 0x4, 0x16, 0x14, Bit(0x1B, 3)),
    FrameLayout("x86", 19041, 19045, None, 0x1C, 0x4, 0x16, 0x14, Bit(0x1B, 7)),
    FrameLayout("x64", 3790, 3790, None, 0x30, 0x8, 0x1B, 0x18, Bit(0x1A, 3), Bit(0x2F, 3)),
    FrameLayout("x64", 6000, 7601, None, 0x30, 0x10, 0x1A, 0x18, Bit(0x2F, 1), Bit(0x2F, 0)),
    FrameLayout("x64", 9200, 9600, None, 0x30, 0x10, 0x1A, 0x18, Bit(0x2F, 1)),
    FrameLayout("x64", 10240, 18363, None, 0x30, 0x8, 0x22, 0x20, Bit(0x2F, 1)),
    FrameLayout("x64", 19041, 19045, None, 0x30, 0x8, 0x22, 0x20, Bit(0x2F, 7)),
)


def frame_layouts(architecture: str, build: int, *, pae: bool) -> list[FrameLayout]:
    """The rows of a kernel: none where its build is not known here."""
    return [
        row
        for row in FRAME_LAYOUTS
        if row.architecture == architecture
        and row.first_build <= build <= row.last_build
        and row.pae in (None, pae)
    ]
