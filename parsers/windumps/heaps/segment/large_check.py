"""Segment heap, large allocations: which records are believed, by the memory they describe.

A large block is an allocation of its own: where the dump lists regions, what is committed from its address on
is exactly its size. All blocks together are as large as the heap's LargeCommittedPages says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from windumps.arrays import PAGE_SIZE
from windumps.memory import AddressSpace
from windumps.memory.address_space import Presence
from windumps.memory.regions import MEM_COMMIT

ALLOCATION = 0x10000  # what VirtualAlloc aligns to


@dataclass(frozen=True, order=True)
class Block:
    """What one record describes.

    Attributes:
        address: Of its memory.
        size: Bytes of pages.
        unused: Bytes at the end nobody asked for.
        extra: Something of the heap's own lies behind the user's bytes.
    """

    address: int
    size: int
    unused: int
    extra: bool

    @property
    def end(self) -> int:
        """Behind the last byte."""
        return self.address + self.size


def block_of(word: int, pages: int, pointer_size: int) -> Block | None:
    """The block of a record's VirtualAddress and AllocatedPages; None when they make no sense."""
    address, size, unused = (
        word & ~(ALLOCATION - 1),
        pages & ~(PAGE_SIZE - 1),
        word & (ALLOCATION - 1),
    )
    if not address or not size or unused > size or address + size > 1 << 8 * pointer_size:
        return None
    return Block(address, size, unused, bool(pages & 1))


def memory_agrees(memory: AddressSpace, block: Block) -> bool | None:
    """Whether the memory of a block is what its record says; None where the dump does not tell."""
    regions = memory.regions
    row = regions.row_of(block.address)
    if len(regions):
        if row < 0 or int(regions.state[row]) != MEM_COMMIT:
            return False
        if row and int(regions.base_address[row]) < block.address:
            return False
        owner, end = regions.allocation_base[row], block.address
        while row < len(regions) and end == int(regions.base_address[row]) and end <= block.end:
            if int(regions.state[row]) != MEM_COMMIT or regions.allocation_base[row] != owner:
                break
            end += int(regions.region_size[row])
            row += 1
        return end == block.end
    if block.end % ALLOCATION and memory.presence(block.end) is Presence.PRESENT:
        return False
    return True if memory.present_bytes(block.address, block.end) == block.size else None


def doubtful(memory: AddressSpace, blocks: Iterable[Block], committed: int) -> set[Block]:
    """Blocks that are not believed: against their memory, their neighbours, or what all may be together.

    Args:
        memory: The process's memory.
        blocks: All that records describe.
        committed: Bytes of all large blocks as the heap counts them; -1 when that is not known.
    """
    ordered = sorted(blocks)
    sure = {block: memory_agrees(memory, block) for block in ordered}
    bad = {block for block, agrees in sure.items() if agrees is False}
    kept: list[Block] = []
    for block in ordered:
        if block in bad:
            continue
        if kept and block.address < kept[-1].end:
            clash = [one for one in (kept[-1], block) if not sure[one]] or [kept[-1], block]
            bad.update(clash)
            if kept[-1] in bad:
                kept.pop()
        if block not in bad:
            kept.append(block)
    if 0 <= committed < sum(block.size for block in kept):
        bad.update(block for block in kept if not sure[block])
    return bad
