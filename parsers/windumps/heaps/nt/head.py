"""A heap's first page, read once: it holds the heap's own structures and most ends of its lists."""

from __future__ import annotations

from windumps.arrays import PAGE_SIZE
from windumps.memory import AddressSpace


class Head:
    """Memory that gives integers, with one page at hand.

    Args:
        memory: Where the heap lies.
        address: The heap's handle.

    Attributes:
        raw: As much of the page as the dump has.
    """

    def __init__(self, memory: AddressSpace, address: int) -> None:
        self.raw = memory.read_available(address, PAGE_SIZE)
        self._memory = memory
        self._address = address

    def read_uint(self, address: int, size: int) -> int:
        """See `AddressSpace.read_uint`."""
        offset = address - self._address
        if 0 <= offset <= len(self.raw) - size:
            return int.from_bytes(self.raw[offset : offset + size], "little")
        return self._memory.read_uint(address, size)
