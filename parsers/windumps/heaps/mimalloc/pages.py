"""mimalloc 3: pages that begin anywhere on a multiple of 64 KiB, or are described in a table of their arena.

Blocks of a page lie behind its description in the first case. In the other, which is how release builds
reserve arenas, the descriptions of all slices of an arena stand behind each other near its beginning; where
that table begins is what the place of a description and the slice of its blocks agree on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import U64
from windumps.heaps.candidates import aligned_addresses, is_private, most_common
from windumps.heaps.mimalloc.layouts import COMMON_V3, V3, PageLayout
from windumps.heaps.mimalloc.segments import SLICE_BYTES, SMALLEST_BLOCK
from windumps.memory import AddressSpace
from windumps.memory.regions import MEM_RESERVE

AGREEING_PAGES = 3  # that name one owner; single pages that look right are found by chance
MOST_BLOCK = 1 << 40
AT_ONCE = 1 << 16  # candidates
SMALLEST_ARENA = 32 << 20
TABLE_BYTES = 8 << 20  # of an arena's beginning, in which its table is looked for
_BLOCK_SIZE = 0x28
_LOWEST_POINTER = 0x10000


class Pages(NamedTuple):
    """Pages of one layout.

    Attributes:
        layout: The row.
        address: uint64, where each is described.
        pages: Their records, as `layout.dtype`.
        start: uint64, first block of each.
        secure: Links of free blocks are encoded, so that pages cannot be walked.
    """

    layout: PageLayout
    address: U64
    pages: NDArray[np.void]
    start: U64
    secure: bool


def find_pages(memory: AddressSpace) -> Pages | None:
    """All pages of the layout that most of them have; None where there are too few."""
    candidates = _candidates(memory)
    found = [
        pages
        for layout in V3
        for secure in (False, True)
        if (pages := _by_layout(memory, candidates, layout, secure=secure)) is not None
    ]
    return max(found, key=lambda pages: len(pages.address), default=None)


class _Candidates(NamedTuple):
    """Places where numbers stand that a page may have, whatever its layout.

    Attributes:
        slices: uint64, beginnings of slices.
        tables: Of each allocation that may be an arena where it begins, its bytes, and places near that.
    """

    slices: U64
    tables: list[tuple[int, int, U64]]


def _candidates(memory: AddressSpace) -> _Candidates:
    slices = aligned_addresses(memory, SLICE_BYTES)
    pieces = [
        _plausible(memory, slices[at : at + AT_ONCE]) for at in range(0, len(slices), AT_ONCE)
    ]
    tables = []
    for base, size in _arenas(memory):
        words = memory.read_available(base, TABLE_BYTES)
        sizes = np.frombuffer(words, "<u8", len(words) // 8)
        places = np.flatnonzero(_may_be_size(sizes)) * 8 - _BLOCK_SIZE
        address = np.uint64(base) + places[places >= 0].astype(np.uint64)
        tables.append((base, size, _plausible(memory, address)))
    return _Candidates(np.concatenate(pieces or [slices]), tables)


def _plausible(memory: AddressSpace, address: U64) -> U64:
    sizes, _ = memory.gather(address + np.uint64(_BLOCK_SIZE), "<u8")
    address = address[_may_be_size(sizes)]
    pages, present = memory.gather(address, COMMON_V3)
    return address[present & _may_be_page(pages)]


def _by_layout(
    memory: AddressSpace, candidates: _Candidates, layout: PageLayout, *, secure: bool
) -> Pages | None:
    dtype = layout.secure if secure else layout.dtype
    pieces = [_in_slices(memory, candidates.slices, layout, dtype)]
    pieces += [_in_table(memory, *table, layout, dtype) for table in candidates.tables]
    address = np.concatenate([a for a, _ in pieces])
    if len(address) < AGREEING_PAGES:
        return None
    pages = np.concatenate([p for _, p in pieces])
    owner = pages["owner"]
    _, most = most_common(owner[owner >= _LOWEST_POINTER].view(np.int64))
    if most < AGREEING_PAGES:
        return None
    start = _starts(layout, address, pages)
    order = np.argsort(start, kind="stable")
    return Pages(layout, address[order], pages[order], start[order], secure)


def _starts(layout: PageLayout, address: U64, pages: NDArray[np.void]) -> U64:
    start = pages["start"].astype(np.uint64)
    if layout.start_unit:
        start = address + start * np.uint64(layout.start_unit)
    return np.asarray(start)


def _in_slices(
    memory: AddressSpace, slices: U64, layout: PageLayout, dtype: np.dtype[np.void]
) -> tuple[U64, NDArray[np.void]]:
    """Pages that are described where their slices begin."""
    pages, present = memory.gather(slices, dtype)
    start = _starts(layout, slices, pages)
    behind = start - slices
    fits = present & _is_page(memory, start, pages)
    fits &= (behind >= np.uint64(dtype.itemsize)) & (behind <= np.uint64(SLICE_BYTES))
    return slices[fits], pages[fits]


def _in_table(
    memory: AddressSpace,
    base: int,
    size: int,
    places: U64,
    layout: PageLayout,
    dtype: np.dtype[np.void],
) -> tuple[U64, NDArray[np.void]]:
    """Pages that are described in a table at the beginning of an arena."""
    pages, present = memory.gather(places, dtype)
    start = _starts(layout, places, pages)
    into = start - np.uint64(base)
    fits = present & _is_page(memory, start, pages) & (into < np.uint64(size))
    places, pages, into = places[fits], pages[fits], into[fits]
    slices = (into // np.uint64(SLICE_BYTES)).astype(np.int64)
    table = (places - np.uint64(base)).astype(np.int64) - slices * dtype.itemsize
    begin, votes = most_common(table)
    rows = table == begin if votes >= AGREEING_PAGES else np.zeros(len(table), np.bool_)
    return places[rows], pages[rows]


def _arenas(memory: AddressSpace) -> list[tuple[int, int]]:
    """(start, bytes) of private allocations that are large enough for an arena."""
    regions = memory.regions
    if not len(regions):
        return []
    base, row = np.unique(regions.allocation_base, return_inverse=True)
    size = np.zeros(len(base), np.int64)
    taken = is_private(regions, regions.base_address) | (regions.state == MEM_RESERVE)
    np.add.at(size, row[taken], regions.region_size[taken].astype(np.int64))
    large = (size >= SMALLEST_ARENA) & is_private(regions, base)
    return list(zip(base[large].tolist(), size[large].tolist(), strict=True))


def damaged_pages(memory: AddressSpace, found: Pages) -> U64:
    """Beginnings of slices that are no page by their numbers, and name an owner or a neighbour of pages."""
    slices = aligned_addresses(memory, SLICE_BYTES)
    owners = found.pages["owner"]
    owners = np.unique(owners[owners >= _LOWEST_POINTER])
    pieces = [np.empty(0, np.uint64)]
    for at in range(0, len(slices), AT_ONCE):
        part = slices[at : at + AT_ONCE]
        pages, _ = memory.gather(part, found.layout.dtype)
        named = np.isin(pages["owner"], owners)
        for name in ("next", "prev"):
            named |= np.isin(pages[name], found.address)
        pieces.append(part[named])
    return np.setdiff1d(np.concatenate(pieces), found.address)


def _may_be_size(sizes: U64) -> NDArray[np.bool_]:
    fits = (sizes >= SMALLEST_BLOCK) & (sizes < MOST_BLOCK) & (sizes % np.uint64(8) == 0)
    return np.asarray(fits)


def _may_be_page(pages: NDArray[np.void]) -> NDArray[np.bool_]:
    """True for numbers that are in the order that a page's are, whatever its layout."""
    fits = (pages["reserved"] > 0) & (pages["capacity"] <= pages["reserved"])
    fits &= (pages["used"] <= pages["capacity"]) & _may_be_size(pages["block_size"])
    fits &= pages["block_size"].astype(np.float64) * pages["reserved"] < MOST_BLOCK
    return np.asarray(fits)


def _is_page(memory: AddressSpace, start: U64, pages: NDArray[np.void]) -> NDArray[np.bool_]:
    """True for descriptions of pages whose blocks, of one allocation, are where their lists begin."""
    fits = start % np.uint64(8) == 0
    last = start + pages["block_size"] * pages["reserved"].astype(np.uint64)
    fits &= last > start
    regions = memory.regions
    if len(regions):
        ends = []
        for address in (start, last - np.uint64(1)):
            row = np.maximum(np.searchsorted(regions.base_address, address, "right") - 1, 0)
            fits &= address - regions.base_address[row] < regions.region_size[row]
            ends.append(regions.allocation_base[row])
        fits &= ends[0] == ends[1]
    for name in ("free", "local_free"):
        head = pages[name]
        inside = (head - start) % np.maximum(pages["block_size"], 1) == 0
        inside &= (head >= start) & (head < last)
        fits &= (head == 0) | inside
    return np.asarray(fits)
