"""Segment heap, what may lie in front of a block's user bytes, and behind them.

In front: `_RTLP_HP_PADDING_HEADER`. ntdll 17134 to 19045 writes its size to its first word: two pointers,
or eight for large blocks with pages of their own. Before, the space is kept but not written to; then the
heap's own pointers tell: they name the user's address of what they point to.

Behind, where the block's unused-bytes record says so: `_SEGMENT_HEAP_EXTRA`, and behind that what the
interceptor it names has recorded; interceptor 1 records stacks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64
from windumps.blocks import SIZE_UNKNOWN
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace
from windumps.memory.fillers import on_fillers

Bools = NDArray[np.bool_]

UNMARKED, MARKED = 1, 2
FEW = 16  # blocks; below, what a build is known to do outweighs them
SCAN_BYTES = 4 << 20
# Blocks of more bytes have the wider padding; in the NT heap these had memory of their own.
_WIDE_ABOVE = {4: 0x7F000, 8: 0xFF000}


@dataclass(frozen=True)
class Padding:
    """How a heap pads.

    Attributes:
        size: Bytes in front of every block; 0 for none.
        marked: The first word of a block's padding holds its size.
        before_large: Large allocations have it in front too; without, only behind.
        reason: For people.
    """

    size: int
    marked: bool
    before_large: bool
    reason: str

    def of(self, memory: AddressSpace, pointer_size: int, address: U64, held: I64) -> I64:
        """Bytes of padding of marked blocks; `held` is what was asked for and the padding, or more."""
        words, _ = memory.gather(address, f"<u{pointer_size}")
        wide = words == 4 * self.size
        # Where the mark is absent or overwritten, the size tells.
        wide |= (words != self.size) & (held > _WIDE_ABOVE[pointer_size])
        return np.where(wide, 4 * self.size, self.size).astype(np.int64)


def find_padding(memory: AddressSpace, row: LayoutRow, address: U64, block_bytes: I64) -> Padding:
    """Decides whether a heap pads.

    Args:
        memory: The process's memory.
        row: The heap's layout; says what its build is known to do.
        address: uint64, used blocks of the heap without regard to padding.
        block_bytes: int64, their sizes.
    """
    pointer = row.pointer_size
    size = 2 * pointer
    known = row.offset("constants", "FrontPadding")
    large = bool(row.offset("constants", "LargePadding"))
    words, present = memory.gather(address, f"<u{pointer}")
    marks = int(np.count_nonzero(present & ((words == size) | (words == 4 * size))))
    count = int(np.count_nonzero(present))
    needed = 0.5 if known == MARKED else 0.9
    if count and (count >= FEW or known == MARKED) and marks >= needed * count:
        return Padding(
            size, True, large, f"{marks} of {count} blocks are marked with their padding"
        )
    if known != UNMARKED:
        return Padding(0, False, False, f"{marks} of {count} blocks look padded")
    plain, padded = _pointed_at(memory, address, block_bytes, pointer)
    if plain > 2 * padded and plain >= FEW:
        return Padding(
            0, False, False, f"{plain} pointers name blocks as they are, {padded} behind a padding"
        )
    return Padding(
        size, False, large, f"{padded} pointers name blocks behind a padding, {plain} as they are"
    )


def _pointed_at(
    memory: AddressSpace, address: U64, block_bytes: I64, pointer: int
) -> tuple[int, int]:
    """How many words in the blocks name a block's first byte, and how many the byte behind its padding."""
    total = np.cumsum(block_bytes)
    keep = total <= max(SCAN_BYTES, int(total[0]) if len(total) else 0)
    starts, words_in = address[keep], block_bytes[keep] // pointer
    if not len(starts):
        return 0, 0
    owner = np.repeat(np.arange(len(starts)), words_in)
    number = np.arange(len(owner), dtype=np.int64) - (np.cumsum(words_in) - words_in)[owner]
    where = starts[owner] + (number * pointer).astype(np.uint64)
    values, present = memory.gather(where, f"<u{pointer}")
    targets = values[present].astype(np.uint64)
    known = np.unique(address)
    plain = np.isin(targets, known)
    padded = np.isin(targets, known + np.uint64(2 * pointer))
    # A block's end can be the next one's start: what could be either tells nothing.
    return int(np.count_nonzero(plain & ~padded)), int(np.count_nonzero(padded & ~plain))


def last_words(memory: AddressSpace, end: U64) -> tuple[NDArray[np.uint16], Bools]:
    """The last two bytes of blocks, and which of them are in the dump.

    Of a page that holds one repeated word, where nothing could be read, no such word is one of the heap's.

    Args:
        memory: The process's memory.
        end: uint64, first address behind each block; blocks have eight bytes at least.
    """
    tails, present = memory.gather(end - np.uint64(8), "<u8")
    tails = tails.astype(np.uint64)
    alike = np.flatnonzero(present & (tails.astype(np.uint32) == tails >> np.uint64(32)))
    present[alike] &= ~on_fillers(memory, end[alike] - np.uint64(2), 2)
    return (tails >> np.uint64(48)).astype(np.uint16), present


def unused_bytes(words: NDArray[np.uint16], room: I64, present: Bools) -> tuple[I64, Bools]:
    """What the last two bytes of blocks that have unused ones say: how many, and whether more is behind them.

    A single unused byte is the word's upper one: its first bit is set, its second says what is behind, the
    others are 0. Else both bytes count.

    Args:
        words: The last two bytes of each block.
        room: int64, bytes the program can have of each.
        present: bool, the words are in the dump.

    Returns:
        int64, `SIZE_UNKNOWN` where a word cannot be right; bool, something of the heap's own lies behind.
    """
    single = words >= 0x8000
    count = words & 0x3FFF
    good = present & ~(single & (count >= 0x100))
    count[single] = 1
    good &= (count > 0) & (count <= room)
    return np.where(good, count.astype(np.int64), SIZE_UNKNOWN), good & ((words & 0x4000) != 0)


STACK_INTERCEPTOR = 1  # low four bits of the third byte of _SEGMENT_HEAP_EXTRA


def find_traces(memory: AddressSpace, pointer_size: int, end: U64) -> U64:
    """The stack records of blocks with extra data.

    Args:
        memory: The process's memory.
        pointer_size: 4 or 8.
        end: uint64, the first byte behind what was asked for (padding included) of each block.

    Returns:
        uint64, the pointer to each block's record; 0 where it has none.
    """
    granule = 2 * pointer_size
    extra = (end + np.uint64(granule - 1)) & ~np.uint64(granule - 1)
    head, _ = memory.gather(extra, "<u4")
    kind, units = head >> np.uint32(16) & np.uint32(0xF), head >> np.uint32(24)
    trace, _ = memory.gather(extra + np.uint64(granule), f"<u{pointer_size}")
    return np.where((kind == STACK_INTERCEPTOR) & (units > 0), trace, 0).astype(np.uint64)
