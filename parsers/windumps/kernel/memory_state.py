"""nt!MiState found by what it holds, where no symbols name it.

Since Windows 10 1703 it has a byte for each 512 GiB of the kernel's addresses that says what is there. Where
processes lie there is nonpaged pool, and the kernel's own image is what the boot loader loaded: so the kernel
itself tells what two bytes of that map must be. The counts of pool pages beside it must be possible; whether
they are those of the pools, the pools' trackers say.

Sources: public kernel symbols of each build (offsets of Vs.SystemVaType); the meaning of the bytes, which is
not in them, is from published work on the kernel's address space. Later builds than these gave the bytes
other meanings, which nothing proves yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from windumps.arrays import U64
from windumps.errors import MemoryReadError
from windumps.kernel.kernel import Kernel
from windumps.memory.lists import list_nodes

_SHIFT, _ENTRIES = 39, 256
_ALIGNED = 0x40  # the variable begins a line of the cache
_MAX_IMAGE = 64 << 20
_MOST_TYPE = 0x20
_PROBED = 16  # processes
_MOST_PAGES = 1 << 36


class _Map(NamedTuple):
    """Where the map is in the variable, and what its bytes are for nonpaged pool and for boot images."""

    offset: int
    nonpaged: int
    boot: int


# (first build, last build), x64.
_MAPS = {
    (15063, 15063): _Map(0x1940, 5, 3),
    (16299, 16299): _Map(0x1910, 5, 3),
    (17134, 17134): _Map(0x1E90, 5, 3),
    (17763, 17763): _Map(0x2F90, 5, 3),
    (18362, 18363): _Map(0x2F40, 5, 3),
    (19041, 19045): _Map(0x3088, 5, 3),
}


def find_state(kernel: Kernel, offsets: Mapping[str, int]) -> int | None:
    """Address of the variable; None unless exactly one place fits.

    Args:
        kernel: The kernel.
        offsets: Of its counters in this build, by the names that `counters` gives them.
    """
    rows = (row for (first, last), row in _MAPS.items() if first <= kernel.build <= last)
    row = next(rows, None)
    if row is None or kernel.architecture != "x64" or kernel.image is None:
        return None
    nodes = list_nodes(kernel.memory, kernel.process_list, 8)[0][:_PROBED]
    nonpaged = {index for node in nodes if (index := _index(node)) is not None}
    boot = _index(kernel.base)
    if not nonpaged or boot is None or boot in nonpaged:
        return None
    must_be = {boot: row.boot, **dict.fromkeys(nonpaged, row.nonpaged)}
    steps = np.arange(0, min(kernel.image.size_bytes, _MAX_IMAGE), _ALIGNED, dtype=np.uint64)
    places: U64 = np.uint64(kernel.base) + steps
    for index, value in must_be.items():
        told, present = kernel.memory.gather(places + np.uint64(row.offset + index), "<u1")
        places = places[present & (told == value)]
    names = [name for name in ("nonpaged_pool", "paged_pool") if offsets.get(name)]
    for name in names:
        count, present = kernel.memory.gather(places + np.uint64(offsets[name]), "<u8")
        places = places[present & (count > 0) & (count < _MOST_PAGES)]
    found = [place for place in places.tolist() if _is_map(kernel, place + row.offset)]
    return found[0] if len(found) == 1 and names else None


def _index(address: int) -> int | None:
    """Which byte of the map is an address's; None for addresses of programs."""
    number = (address >> _SHIFT & 0x1FF) - _ENTRIES
    return number if number >= 0 else None


def _is_map(kernel: Kernel, place: int) -> bool:
    try:
        kinds = kernel.memory.read(place, _ENTRIES)
    except MemoryReadError:
        return False
    return max(kinds) <= _MOST_TYPE and len(set(kinds)) > 2
