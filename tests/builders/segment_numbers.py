"""Where the builder of segment heaps puts things, by build: its own numbers, typed from published types.

Sources: Microsoft's PDBs of ntdll 19041 and 22621, the kernel's types of 17763, 20348 and 22000
(volatility's tables), ntdll's types of 10240 to 17134 and of a preview of 17763 (ntdiff).
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Numbers:
    """Offsets and values of one build.

    Attributes:
        build: Windows build.
        pointer: 4 or 8.
        tree: `_SEGMENT_HEAP.LargeAllocMetadata`; LargeReservedPages and LargeCommittedPages follow it.
        stats: `_SEGMENT_HEAP.MemStats`, or TotalReservedPages.
        end: `_SEGMENT_HEAP.UncommittedBase`; ReservedLimit follows it.
        contexts: `_SEGMENT_HEAP.SegContexts`; 0 where the heap is its only context.
        context: Size of `_HEAP_SEG_CONTEXT`, and offsets in it of VsContext, Heap and SegmentListHead.
        second_shift: UnitShift of the second context.
        delayed: Offset of DelayFreeContext from the heap; 0 where there is none.
        constant: What page segments' signatures are XORed with, and by how much their address is shifted.
        descriptor: Size of a page range descriptor, and offsets in it of UnusedBytes, RangeFlags,
            UnitOffset, UnitSize.
        unused_bits: Of UnusedBytes.
        commit: Offset and shift of the committed pages of a unit.
        flags: RangeFlags of blocks of pages, LFH, VS, further units, free ranges.
        vs: Offsets of Size, Signature and the first chunk; the constant of the signature.
        lfh: Offsets of FreeCount, BlockOffsets, CommitUnitShift and the bitmap.
        padding: Bytes in front of blocks.
        marked: They hold their size.
        vs_by_lfh_key: Chunk headers are encoded with the key of the low fragmentation heap.
    """

    build: int
    pointer: int
    tree: int
    stats: int
    end: int
    contexts: int
    context: tuple[int, int, int, int]
    second_shift: int = 16
    delayed: int = 0
    constant: tuple[int, int] = (0xA2E64EADA2E64EAD, 0)
    descriptor: tuple[int, int, int, int, int] = (0x20, 0x4, 0x18, 0x1F, 0x1F)
    unused_bits: int = 32
    commit: tuple[int, int] = (0x19, 0)
    flags: tuple[int, int, int, int, int] = (0x3, 0xB, 0xF, 0x1, 0x2)
    vs: tuple[int, int, int, int] = (0x20, 0x22, 0x30, 0x2BED)
    lfh: tuple[int, int, int, int] = (0x20, 0x28, 0x2C, 0x30)
    padding: int = 0
    marked: bool = False
    vs_by_lfh_key: bool = False

    @property
    def architecture(self) -> str:
        """The interface's word."""
        return "x64" if self.pointer == 8 else "x86"


X64_19041 = Numbers(19041, 8, 0x48, 0x80, 0xF0, 0x100, (0xC0, 0x20, 0x38, 0x48), delayed=0x2C0)
_X64_EARLY = Numbers(
    10240,
    8,
    0x38,
    0x0,
    0xA0,
    0,
    (0, 0, 0, 0x60),
    constant=(0xA2E64EADA2E64EAD, 20),
    descriptor=(0x20, 0x6, 0x18, 0x1B, 0x1B),
    unused_bits=16,
    commit=(0x18, 1),
    flags=(0xC, 0xD, 0x2C, 0x4, 0x8),
    padding=16,
    vs_by_lfh_key=True,
)
_X64_16299 = Numbers(
    16299,
    8,
    0x50,
    0x18,
    0x158,
    0x70,
    (0x68, 0x58, 0x60, 0x20),
    flags=(0x3, 0x7, 0xB, 0x1, 0x2),
    padding=16,
)
X86_19041 = Numbers(
    19041,
    4,
    0x44,
    0x80,
    0xBC,
    0x100,
    (0x80, 0x18, 0x24, 0x44),
    second_shift=12,
    delayed=0x240,
    constant=(0xA2E64EAD, 0),
    descriptor=(0x10, 0x4, 0xC, 0xF, 0xF),
    commit=(0xC, 5),
    vs=(0x14, 0x16, 0x18, 0x2BED),
    lfh=(0x10, 0x18, 0x1C, 0x20),
)
_X86_EARLY = replace(
    X86_19041,
    build=10240,
    tree=0x24,
    stats=0x0,
    end=0x58,
    contexts=0,
    context=(0, 0, 0, 0x38),
    delayed=0,
    constant=(0xA2E64EAD, 20),
    descriptor=(0x10, 0x6, 0xC, 0xF, 0xF),
    unused_bits=16,
    commit=(0xC, 1),
    flags=(0xC, 0xD, 0x2C, 0x4, 0x8),
    padding=8,
    vs_by_lfh_key=True,
)
_X86_16299 = replace(
    X86_19041,
    build=16299,
    tree=0x30,
    stats=0x10,
    end=0xBC,
    contexts=0x40,
    context=(0x38, 0x30, 0x34, 0x14),
    second_shift=16,
    delayed=0,
    flags=(0x3, 0x7, 0xB, 0x1, 0x2),
    padding=8,
)

ALL: tuple[Numbers, ...] = (
    _X64_EARLY,
    replace(_X64_EARLY, build=10586, end=0x98),
    replace(_X64_EARLY, build=14393),
    replace(_X64_EARLY, build=15063, vs_by_lfh_key=False),
    _X64_16299,
    replace(
        X64_19041,
        build=17134,
        tree=0x50,
        stats=0x18,
        end=0x178,
        contexts=0x70,
        context=(0x78, 0x58, 0x70, 0x20),
        delayed=0,
        padding=16,
        marked=True,
    ),
    replace(
        X64_19041,
        build=17692,
        tree=0x88,
        stats=0x18,
        end=0x210,
        contexts=0xA8,
        context=(0x98, 0x78, 0x90, 0x20),
        delayed=0,
        padding=16,
        marked=True,
    ),
    replace(X64_19041, build=17763, padding=16, marked=True),
    X64_19041,
    replace(X64_19041, build=20348, contexts=0x140, delayed=0x300),
    replace(X64_19041, build=22000, contexts=0x140, delayed=0x300),
    replace(X64_19041, build=22621, contexts=0x140, delayed=0x300),
    _X86_EARLY,
    replace(_X86_EARLY, build=10586, end=0x54),
    replace(_X86_EARLY, build=14393),
    replace(_X86_EARLY, build=15063, vs_by_lfh_key=False),
    _X86_16299,
    replace(
        X86_19041,
        build=17134,
        tree=0x34,
        stats=0x10,
        end=0xD0,
        contexts=0x44,
        context=(0x40, 0x30, 0x3C, 0x14),
        delayed=0,
        padding=8,
        marked=True,
    ),
    replace(
        X86_19041,
        build=17692,
        tree=0x50,
        stats=0x10,
        end=0x11C,
        contexts=0x60,
        context=(0x50, 0x40, 0x4C, 0x14),
        delayed=0,
        padding=8,
        marked=True,
    ),
    replace(X86_19041, build=17763, padding=8, marked=True),
    X86_19041,
)
