"""The heads of the kernel's lists, found by what the lists hold.

A head lies in the kernel's image and its first entry points back to it. Of the thousands of such
lists the one of drivers begins with the kernel itself, and the one of processes with the process whose
id is 4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import U64
from windumps.errors import MemoryReadError
from windumps.layouts.kernel import DRIVER_LAYOUTS
from windumps.memory import AddressSpace
from windumps.memory.lists import list_nodes

SEARCH_BYTES = 4 << 20
_SYSTEM_PROCESS_ID = 4


def list_closes(memory: AddressSpace, head: int, pointer_size: int) -> bool:
    """A LIST_ENTRY is there, and its neighbours point back to it."""
    if not head:
        return False
    try:
        after = memory.read_uint(head, pointer_size)
        before = memory.read_uint(head + pointer_size, pointer_size)
        return (
            memory.read_uint(after + pointer_size, pointer_size) == head
            and memory.read_uint(before, pointer_size) == head
        )
    except MemoryReadError:
        return False


def search_module_list(memory: AddressSpace, pointer_size: int, base: int, end: int) -> int:
    """Address of PsLoadedModuleList in a kernel's image; 0 when it is not found.

    Args:
        memory: Kernel memory.
        pointer_size: 4 or 8.
        base: Of the kernel's image: what the first entry's DllBase must be.
        end: First address behind the image.
    """
    row = DRIVER_LAYOUTS["x86" if pointer_size == 4 else "x64"]
    offset = row.offset("_KLDR_DATA_TABLE_ENTRY", "DllBase")
    for heads, first in _heads(memory, pointer_size, base, end):
        value, there = memory.gather(first + np.uint64(offset), f"<u{pointer_size}")
        found = heads[there & (value == base)]
        if len(found):
            return int(found[0])
    return 0


def search_process_list(memory: AddressSpace, pointer_size: int, base: int, end: int) -> int:
    """Address of PsActiveProcessHead in a kernel's image; 0 when it is not found.

    UniqueProcessId stands right before the links in every build.
    """
    best, longest = 0, 0
    for heads, first in _heads(memory, pointer_size, base, end):
        process_id, there = memory.gather(first - np.uint64(pointer_size), f"<u{pointer_size}")
        for head in heads[there & (process_id == _SYSTEM_PROCESS_ID)].tolist():
            nodes, _ = list_nodes(memory, head, pointer_size)
            ids, known = memory.gather(
                np.array(nodes, np.uint64) - np.uint64(pointer_size), f"<u{pointer_size}"
            )
            if known.all() and (ids % 4 == 0).all() and len(np.unique(ids)) == len(nodes) > longest:
                best, longest = head, len(nodes)
    return best


def _heads(memory: AddressSpace, pointer_size: int, start: int, end: int) -> list[tuple[U64, U64]]:
    """Addresses in a range that hold a LIST_ENTRY whose first entry points back, and that entry."""
    found = []
    for at in range(start, end, SEARCH_BYTES):
        pieces = memory.extents(at, min(at + SEARCH_BYTES, end))
        for address, size, offset in zip(*(column.tolist() for column in pieces), strict=True):
            count = size // pointer_size
            raw = memory.data[offset : offset + count * pointer_size]
            words: NDArray[np.uint64] = raw.view(f"<u{pointer_size}").astype(np.uint64)
            places = np.uint64(address) + np.arange(count, dtype=np.uint64) * np.uint64(
                pointer_size
            )
            # Entries are kernel addresses, aligned, and not the head itself (an empty list).
            half = np.uint64(1 << (8 * pointer_size - 1))
            likely = (words >= half) & (words % np.uint64(pointer_size) == 0) & (words != places)
            first, heads = words[likely], places[likely]
            back, there = memory.gather(first + np.uint64(pointer_size), f"<u{pointer_size}")
            good = there & (back == heads)
            if good.any():
                found.append((heads[good], first[good]))
    return found
