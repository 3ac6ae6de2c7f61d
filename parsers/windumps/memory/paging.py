"""How each processor's page tables are built, and what Windows writes into entries without a page.

Sources: Intel SDM volume 3, chapter 4 (32-bit, PAE, 4- and 5-level paging); Arm ARM, VMSAv8-64
with a 4 KiB granule; `_MMPTE_*` of Microsoft's public kernel symbols, XP to 11 24H2, for the
entries that the processor does not read. Transition and prototype bits are the same in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import PAGE_BITS, U64

# What an entry says, where it names no page in memory.
NOT_MAPPED = -2
ABSENT = -1

_VALID = 0x1
_TABLE_ARM64 = 0x2  # at the upper levels: clear in an entry that maps memory itself
_LARGE = 0x80
_SWIZZLE = 0x10  # `_MMPTE_TRANSITION.SwizzleBit`, builds with the L1TF protection
_PROTOTYPE_MASK, _PROTOTYPE = 0x401, 0x400
_TRANSITION_MASK, _TRANSITION = 0xC01, 0x800
# An entry that is the address of a file's subsection (Windows 11 22621 and later, after MemProcFS):
# any of its bits may look like those of a page in transition.
_FILE_MASK, _FILE = 0xFFFF_8000_0000_000F, 0xFFFF_8000_0000_0000
# A prototype entry that says "ask the VAD": there is no prototype PTE behind it.
_ASK_THE_VAD = 0xFFFF_FFFF_0000


@dataclass(frozen=True)
class Paging:
    """One way of translating.

    Attributes:
        name: For people.
        entry_size: Bytes of a table entry.
        index_bits: Address bits each level takes, root first.
        large_levels: Levels, counted from the root, whose entries may map memory themselves.
        frame_mask: Bits of an entry that are a physical address.
        root_mask: Bits of a directory table base that are a physical address.
        address_bits: Bits that are translated; higher ones repeat the last (0 on 32-bit systems).
    """

    name: str
    entry_size: int
    index_bits: tuple[int, ...]
    large_levels: tuple[int, ...]
    frame_mask: int
    root_mask: int
    address_bits: int

    @property
    def is_32bit(self) -> bool:
        """Addresses end at 4 GiB."""
        return self.address_bits == 32

    def shift(self, level: int) -> int:
        """Address bits below the index of a level."""
        return PAGE_BITS + sum(self.index_bits[level + 1 :])

    def is_valid(self, entries: U64) -> NDArray[np.bool_]:
        """The processor uses the entry."""
        valid: NDArray[np.bool_] = (entries & np.uint64(_VALID)) != 0
        return valid

    def is_large(self, entries: U64, level: int) -> NDArray[np.bool_]:
        """Valid entries above the last level that map memory themselves."""
        if level not in self.large_levels:
            return np.zeros(entries.shape, np.bool_)
        if self is ARM64:
            table: NDArray[np.bool_] = (entries & np.uint64(_TABLE_ARM64)) == 0
            return table
        large: NDArray[np.bool_] = (entries & np.uint64(_LARGE)) != 0
        return large

    def frames(self, entries: U64) -> U64:
        """Physical address of the page or table each valid entry names."""
        return entries & np.uint64(self.frame_mask)

    def large_frames(self, entries: U64, level: int) -> U64:
        """Physical address of the memory each large entry maps."""
        frame = entries & np.uint64(self.frame_mask & ~((1 << self.shift(level)) - 1))
        if self is X86:  # PSE-36: bits 13 to 20 are address bits 32 to 39
            frame |= (entries & np.uint64(0x1F_E000)) << np.uint64(19)
        return frame

    def is_transition(self, entries: U64) -> NDArray[np.bool_]:
        """The page is out of the working set and still in memory."""
        moving: NDArray[np.bool_] = (entries & np.uint64(_TRANSITION_MASK)) == np.uint64(
            _TRANSITION
        )
        if not self.is_32bit:
            moving &= (entries & np.uint64(_FILE_MASK)) != np.uint64(_FILE)
        return moving

    def is_prototype(self, entries: U64) -> NDArray[np.bool_]:
        """The page is shared: another entry, in kernel memory, says where it is."""
        shared: NDArray[np.bool_] = (entries & np.uint64(_PROTOTYPE_MASK)) == np.uint64(_PROTOTYPE)
        return shared

    def transition_frames(self, entries: U64, physical_limit: int) -> U64:
        """Physical addresses of pages in transition.

        Since the protection against L1TF Windows sets bits above the machine's memory in entries
        that are not valid, unless SwizzleBit is set. Which bits depends on the machine; being above
        its memory they can be told from the address without knowing them.
        """
        frames = entries & np.uint64(self.frame_mask & 0xFFFF_FFFF_FFFF)
        if not physical_limit:
            return frames
        inside = np.uint64((1 << (physical_limit - 1).bit_length()) - 1)
        swizzled = (entries & np.uint64(_SWIZZLE)) == 0
        return np.where(swizzled, frames & inside, frames)

    def prototype_addresses(self, entries: U64) -> U64:
        """Kernel addresses of the prototype PTEs that entries name; 0 where they name none."""
        if self is X86:
            high, low = entries >> np.uint64(1), entries << np.uint64(1)
            return (
                np.uint64(0x8000_0000) | (high & np.uint64(0x7FFF_FC00)) | (low & np.uint64(0x3FF))
            )
        if self is X86_PAE:
            return entries >> np.uint64(32)
        field = entries >> np.uint64(16)
        address = field | np.uint64(0xFFFF << 48)
        named = (field != np.uint64(_ASK_THE_VAD)) & (field >> np.uint64(47) != 0)
        return np.where(named & (address & np.uint64(7) == 0), address, np.uint64(0))

    def is_untouched(self, entries: U64) -> NDArray[np.bool_]:
        """No page was ever given to the address: free, or zeros once it is touched."""
        where = entries >> np.uint64(PAGE_BITS if self is X86 else 32)  # PageFileHigh
        kept = self.is_prototype(entries) | self.is_transition(entries)
        untouched: NDArray[np.bool_] = (entries == 0) | ((where == 0) & ~kept)
        return untouched


_FRAME_52 = 0x000F_FFFF_FFFF_F000
X86 = Paging("x86", 4, (10, 10), (0,), 0xFFFF_F000, 0xFFFF_F000, 32)
X86_PAE = Paging("x86 with PAE", 8, (2, 9, 9), (1,), 0xFF_FFFF_F000, 0xFFFF_FFE0, 32)
X64 = Paging("x64, four levels", 8, (9, 9, 9, 9), (1, 2), _FRAME_52, _FRAME_52, 48)
X64_LA57 = Paging("x64, five levels", 8, (9, 9, 9, 9, 9), (2, 3), _FRAME_52, _FRAME_52, 57)
ARM64 = Paging(
    "ARM64, 4 KiB granule", 8, (9, 9, 9, 9), (1, 2), 0x0003_FFFF_FFFF_F000, 0xFFFF_FFFF_F000, 48
)

# What may be tried for each architecture, the likeliest first.
PAGINGS: dict[str, tuple[Paging, ...]] = {
    "x86": (X86_PAE, X86),
    "x64": (X64, X64_LA57),
    "arm64": (ARM64,),
}
