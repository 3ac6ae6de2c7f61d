"""Who refers to kernel objects: how many handles an object counts, and whose handles those are.

Source: `_OBJECT_HEADER` of public kernel symbols; its first two counts and its size are those of XP to 11.
Its count of references is not told: since Windows 8 handles take references in bulk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windumps.arrays import U64
from windumps.errors import MemoryReadError
from windumps.kernel.handles import HandleTable
from windumps.kernel.kernel import Kernel

_HEADER_BYTES = {4: 0x18, 8: 0x30}
_MOST_HANDLES = 1 << 24


@dataclass(frozen=True)
class ObjectHolder:
    """One process with handles of an object.

    Attributes:
        process_id: Its id.
        name: Of its program.
        handles: How many.
    """

    process_id: int
    name: str
    handles: int


def open_handles(kernel: Kernel, address: int) -> int | None:
    """How many handles an object counts; None where its header is not in the dump or cannot be one."""
    header = address - _HEADER_BYTES[kernel.pointer_size]
    try:
        count = kernel.memory.read_uint(header + kernel.pointer_size, kernel.pointer_size)
    except MemoryReadError:
        return None
    return count if count <= _MOST_HANDLES else None


def holders_of(
    kernel: Kernel, tables: Sequence[HandleTable], addresses: Sequence[int]
) -> dict[int, tuple[ObjectHolder, ...]]:
    """Whose handles lead to objects, by the objects' addresses; most handles first."""
    size = _HEADER_BYTES[kernel.pointer_size]
    headers: U64 = np.sort(np.array([max(a - size, 0) for a in addresses], np.uint64))
    found: dict[int, list[ObjectHolder]] = {address: [] for address in addresses}
    for table in tables:
        if not len(headers) or not len(table.objects):
            continue
        place = np.minimum(np.searchsorted(headers, table.objects), len(headers) - 1)
        mine = table.objects[headers[place] == table.objects]
        kinds, counts = np.unique(mine, return_counts=True)
        for header, count in zip(kinds.tolist(), counts.tolist(), strict=True):
            holder = ObjectHolder(table.process.process_id, table.process.name, count)
            found[header + size].append(holder)
    return {
        address: tuple(sorted(holders, key=lambda h: (-h.handles, h.process_id)))
        for address, holders in found.items()
    }
