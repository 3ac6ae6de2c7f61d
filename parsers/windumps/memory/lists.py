"""Walks Windows' doubly linked lists with a limit and a visited set, from both ends when cut."""

from __future__ import annotations

from typing import Protocol

from windumps.errors import MemoryReadError

MAX_NODES = 1 << 20


class UintReader(Protocol):
    """Memory that gives little-endian integers; an `AddressSpace`, say."""

    def read_uint(self, address: int, size: int, /) -> int:
        """See `AddressSpace.read_uint`."""
        ...


def list_nodes(memory: UintReader, head: int, pointer_size: int) -> tuple[list[int], str | None]:
    """Addresses of the LIST_ENTRYs of a circular list, without its head.

    Args:
        memory: Where the list lies.
        head: Address of the list's head.
        pointer_size: 4 or 8.

    Returns:
        The nodes in order, and None when the list closed; else why it did not. When the chain
        breaks, it is followed backwards from the head as well, so that one bad link costs as little
        as can be.
    """
    forward, trouble = _follow(memory, head, 0, pointer_size, set())
    if trouble is None:
        return forward, None
    backward, _ = _follow(memory, head, pointer_size, pointer_size, set(forward))
    return forward + backward[::-1], trouble


def _follow(
    memory: UintReader, head: int, link: int, pointer_size: int, known: set[int]
) -> tuple[list[int], str | None]:
    nodes: list[int] = []
    seen = set(known)
    previous = head
    while len(nodes) < MAX_NODES:
        try:
            node = memory.read_uint(previous + link, pointer_size)
            if node == head:
                return nodes, None
            if node in seen:
                return nodes, f"the list runs in a circle at 0x{node:x}"
            back = memory.read_uint(node + (pointer_size - link), pointer_size)
        except MemoryReadError as error:
            return nodes, str(error)
        if back != previous:
            return nodes, f"the entry at 0x{node:x} does not point back to 0x{previous:x}"
        seen.add(node)
        nodes.append(node)
        previous = node
    return nodes, f"the list has more than {MAX_NODES} entries (MAX_NODES)"
