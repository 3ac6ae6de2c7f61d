"""The PFN database: what each page frame of the machine is used for.

Its entries say on which list a frame is, and which entry of a page table maps it. What is read is believed
only when the pages that are known to be page tables are in use by it, as they must be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import PAGE_SIZE, U64
from windumps.kernel.kernel import Kernel
from windumps.kernel.physical_runs import memory_runs
from windumps.layouts.page_frames import FrameLayout, frame_layouts
from windumps.memory import AddressSpace
from windumps.memory.paging import X86, X86_PAE, Paging

LISTS = ("zeroed", "free", "standby", "modified", "modified", "bad", "active", "active")
_ACTIVE = 6  # and 7, on the way into use or out of it
_AT_ONCE = 1 << 16  # frames
MAX_FRAMES = 1 << 25  # 128 GiB of memory, which takes some ten seconds
_MIN_FIT = 0.95  # of known page tables that have to be in use
_SELF_MAP_X86 = 0xC000_0000


@dataclass(frozen=True)
class PageUse:
    """Pages by use.

    Attributes:
        lists: Pages of each of `LISTS`.
        uses: Pages in use: "private" (of processes), "shared" (mapped files, images, sections), "tables",
            "awe" (None where the kernel keeps that elsewhere), "system" (all others).
        locked: Pages in use with more than one reference: locked for a transfer, or by a driver.
        unknown: Why all this is not known; "" when it is.
    """

    lists: dict[str, int]
    uses: dict[str, int]
    locked: int
    unknown: str = ""


def no_page_use(unknown: str) -> PageUse:
    """Nothing is known, and why."""
    return PageUse({}, {}, 0, unknown)


@dataclass(frozen=True)
class _SelfMap:
    """Where page tables are mapped into memory: an entry's address tells which address it maps."""

    start: int
    size: int
    shift: int

    def is_in(self, addresses: U64) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = addresses - np.uint64(self.start) < np.uint64(self.size)
        return inside

    def mapped(self, entries: U64, *, wide: bool) -> U64:
        """Which address each entry maps."""
        found = (entries - np.uint64(self.start)) << np.uint64(self.shift)
        if not wide:
            return found & np.uint64(0xFFFF_FFFF)
        return np.where(
            found >> np.uint64(47) & np.uint64(1), found | np.uint64(0xFFFF << 48), found
        )


def read_page_use(
    kernel: Kernel, physical: AddressSpace, paging: Paging, root: int, tables: U64
) -> PageUse:
    """What all frames of the machine are used for.

    Args:
        kernel: The kernel.
        physical: Physical memory.
        paging: How addresses are translated.
        root: Physical address of the kernel's root of page tables.
        tables: uint64, ascending: physical addresses of all pages that are page tables.
    """
    base = kernel.value("MmPfnDatabase")
    runs = memory_runs(kernel)
    rows = frame_layouts(kernel.architecture, kernel.build, pae=paging is X86_PAE)
    mapping = _self_map(physical, paging, root)
    if not base or not runs:
        return no_page_use("the PFN database, or the list of the machine's memory, was not found")
    if not rows or mapping is None:
        return no_page_use(
            f"entries of the PFN database of build {kernel.build} are not known here"
        )
    if sum(size for _, size in runs) > MAX_FRAMES * PAGE_SIZE:
        return no_page_use("the machine has more memory than is looked at")
    frames = tables // np.uint64(PAGE_SIZE)
    for row in rows:
        found, fits = _fit(kernel.memory, base, row, frames)
        if not found:
            return no_page_use("the PFN database is not in the dump")
        if fits >= _MIN_FIT * len(frames):
            return _counted(kernel, base, row, runs, frames, mapping)
    return no_page_use("the PFN database does not have the page tables in use: it is not believed")


def _fit(memory: AddressSpace, base: int, row: FrameLayout, frames: U64) -> tuple[int, int]:
    """How many entries of frames in use are there, and how many of them say so."""
    places = np.uint64(base) + frames * np.uint64(row.size) + np.uint64(row.location)
    location, there = memory.gather(places, "<u1")
    return int(there.sum()), int(((location & 7 >= _ACTIVE) & there).sum())


def _self_map(physical: AddressSpace, paging: Paging, root: int) -> _SelfMap | None:
    if paging is X86:
        return _SelfMap(_SELF_MAP_X86, 4 << 20, 10)
    if paging is X86_PAE:
        return _SelfMap(_SELF_MAP_X86, 8 << 20, 9)
    if len(paging.index_bits) != 4:
        return None
    places = np.uint64(root) + np.arange(256, 512, dtype=np.uint64) * np.uint64(8)
    entries, there = physical.gather(places, "<u8")
    own = there & paging.is_valid(entries) & (paging.frames(entries) == np.uint64(root))
    if not own.any():
        return None
    return _SelfMap(0xFFFF << 48 | (256 + int(np.argmax(own))) << 39, 1 << 39, 9)


def _chunks(runs: list[tuple[int, int]]) -> Iterator[U64]:
    """Numbers of all frames, in pieces."""
    for start, size in runs:
        first, last = start // PAGE_SIZE, (start + size) // PAGE_SIZE
        for begin in range(first, last, _AT_ONCE):
            yield np.arange(begin, min(begin + _AT_ONCE, last), dtype=np.uint64)


def _record(row: FrameLayout, width: int) -> np.dtype[np.void]:
    """What is read of an entry, at once."""
    fields = {
        "pte": (f"<u{width}", row.pte),
        "location": ("u1", row.location),
        "references": ("<u2", row.references),
        "shared": ("u1", row.shared.byte),
        "awe": ("u1", row.awe.byte if row.awe else row.shared.byte),
    }
    formats, offsets = zip(*fields.values(), strict=True)
    return np.dtype(
        {"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": row.size}
    )


def _counted(
    kernel: Kernel,
    base: int,
    row: FrameLayout,
    runs: list[tuple[int, int]],
    tables: U64,
    mapping: _SelfMap,
) -> PageUse:
    record = _record(row, kernel.pointer_size)
    lists = dict.fromkeys(LISTS, 0)
    names = ("tables", *(["awe"] if row.awe else []), "shared", "private", "system")
    uses = dict.fromkeys(names, 0)
    locked = absent = 0
    for frames in _chunks(runs):
        entries, there = kernel.memory.gather(
            np.uint64(base) + frames * np.uint64(row.size), record
        )
        absent += int(np.count_nonzero(~there))
        location = entries["location"] & 7
        for number, name in enumerate(LISTS):
            lists[name] += int(np.count_nonzero(location[there] == number))
        in_use = there & (location >= _ACTIVE)
        used, frames = entries[in_use], frames[in_use]
        locked += int(np.count_nonzero(used["references"] > 1))
        left = np.ones(len(frames), np.bool_)
        for name, mine in (
            ("tables", _among(frames, tables)),
            ("awe", used["awe"] >> (row.awe.place if row.awe else 0) & 1 != 0),
            ("shared", used["shared"] >> row.shared.place & 1 != 0),
            ("private", _is_private(kernel, used["pte"].astype(np.uint64), mapping)),
            ("system", left),
        ):
            if name in uses:
                uses[name] += int(np.count_nonzero(mine & left))
                left = left & ~mine
    if absent:
        return no_page_use(f"{absent:,} entries of the PFN database are not in the dump")
    return PageUse(lists, uses, locked)


def _among(frames: U64, tables: U64) -> NDArray[np.bool_]:
    place = np.minimum(np.searchsorted(tables, frames), max(len(tables) - 1, 0))
    found: NDArray[np.bool_] = tables[place] == frames
    return found


def _is_private(kernel: Kernel, entries: U64, mapping: _SelfMap) -> NDArray[np.bool_]:
    """Pages that an entry of a page table maps below the end of what processes have.

    Args:
        kernel: The kernel.
        entries: Addresses of the entries that map the pages.
        mapping: Where page tables are mapped into memory.
    """
    wide, low = kernel.pointer_size == 8, np.uint64(kernel.pointer_size - 1)
    entries = entries & ~low
    inside = mapping.is_in(entries)
    address = mapping.mapped(entries, wide=wide)
    # An entry above the last level maps a large page: it lies where the tables themselves are mapped.
    large = inside & mapping.is_in(address)
    address = np.where(large, mapping.mapped(address & ~low, wide=wide), address)
    found: NDArray[np.bool_] = inside & (address < np.uint64(kernel.user_end))
    return found
