"""Virtual memory behind page tables: whole ranges translated at once, by level and not by page.

The unit is a leaf table (2 MiB of addresses; 4 MiB without PAE): many of them are read as one
matrix of entries and turned into file offsets together (`page_walk`). Single reads go through a
bounded cache of such rows. Nothing in a table is trusted: a table that is not in the dump costs its
range, and the number of tables followed in one walk is bounded by the size of the physical memory,
so tables that name themselves end.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import ADDRESS_LIMIT, I64, PAGE_BITS, PAGE_SIZE, U8, U64
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.memory.address_space import AddressSpace, Extents, Presence
from windumps.memory.page_walk import CHUNK_TABLES, Leaves, PageTables
from windumps.memory.paging import ABSENT, NOT_MAPPED, Paging
from windumps.memory.regions import Regions

CACHED_ROWS = 2048  # 4 KiB each
DIRECT_ROWS = 64  # ranges of up to so many leaf tables are looked up without a walk
SPARE_TABLES = 1 << 14  # followed at least in one walk, however small the dump
_PAGE_MASK = PAGE_SIZE - 1


class PageTableMemory(AddressSpace):
    """An address space as the processor translates it.

    Args:
        physical: Physical memory: its addresses are physical ones.
        paging: How to translate.
        directory_base: Physical address of the root (CR3, DirectoryTableBase); flag bits are
            ignored.
        physical_limit: First physical address above the machine's memory; 0 when unknown.
        log: Where damaged tables are told.
        end: First address that is not looked at: of a process the end of the user half; None for the
            whole address space.
        regions: What the process had mapped, where known.

    Attributes:
        paging: As given.
        directory_base: Without flag bits.
    """

    def __init__(
        self,
        physical: AddressSpace,
        paging: Paging,
        directory_base: int,
        physical_limit: int = 0,
        log: DiagnosticLog | None = None,
        end: int | None = None,
        regions: Regions | None = None,
    ) -> None:
        self.regions = regions if regions is not None else Regions.empty()
        self._runs: Extents | None = None
        self.data: U8 = physical.data
        self.physical = physical
        self.paging = paging
        self.directory_base = directory_base & paging.root_mask
        self.physical_limit = physical_limit
        self._log = log if log is not None else DiagnosticLog()
        self._limit = 1 << 32 if paging.is_32bit else ADDRESS_LIMIT
        self._limit = min(self._limit, end if end is not None else ADDRESS_LIMIT)
        self._tables = PageTables(
            physical, paging, self.directory_base, physical_limit, self._prototypes
        )
        # The same without prototypes, to read prototypes through.
        self._plain = PageTables(physical, paging, self.directory_base, physical_limit, None)
        self._region_bits = self._tables.region_bits
        self._index_mask = self._tables.pages_per_region - 1
        self._page = np.arange(self._index_mask + 1, dtype=np.uint64) << np.uint64(PAGE_BITS)
        self._rows: dict[int, I64] = {}
        self._is_cut = False

    # --- AddressSpace -------------------------------------------------------------------------

    @property
    def end(self) -> int:
        """First address that is not looked at."""
        return self._limit

    @property
    def runs(self) -> Extents:
        """All pages; the first call translates the whole address space."""
        if self._runs is None:
            self._runs = self.extents(0, self._limit)
        return self._runs

    @property
    def total_bytes(self) -> int:
        """Bytes of all pages; one that is mapped twice counts twice."""
        return int(self.runs.size.sum())

    def extents(self, start: int, end: int) -> Extents:
        """See `AddressSpace.extents`. For ranges of unknown extent `pieces` needs less memory."""
        found = list(self.pieces(start, end))
        if not found:
            return Extents(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
        joined = [np.concatenate(column) for column in zip(*found, strict=True)]
        return _merged(joined[0], joined[1], joined[2])

    def pieces(self, start: int, end: int) -> Iterator[Extents]:
        """As `extents`, a bounded part at a time; neighbours may be contiguous in the file."""
        start, end = max(start, 0), min(end, self._limit)
        for starts, rows in self._walk(start, end):
            there = rows >= 0
            address = (starts[:, None] + self._page)[there]
            offset = rows[there]
            inside = (address >= np.uint64(start & ~_PAGE_MASK)) & (address <= np.uint64(end - 1))
            yield _cut(
                _merged(
                    address[inside],
                    np.full(int(inside.sum()), PAGE_SIZE, np.int64),
                    offset[inside],
                ),
                start,
                end,
            )

    def locate(self, addresses: U64, size: int) -> I64:
        """See `AddressSpace.locate`."""
        flat = np.ascontiguousarray(addresses, np.uint64).ravel()
        into = (flat & np.uint64(_PAGE_MASK)).astype(np.int64)
        pages = self._page_offsets(flat)
        found = np.where(pages >= 0, pages + into, -1)
        # What runs over pages must be contiguous in the file.
        reach = into + max(size, 1) - 1
        for number in range(1, int(reach.max(initial=0) >> PAGE_BITS) + 1):
            over = np.flatnonzero((found >= 0) & (reach >> PAGE_BITS >= number))
            behind = flat[over] + np.uint64(number * PAGE_SIZE)
            follow = self._page_offsets(behind)
            broken = (behind < flat[over]) | (follow != pages[over] + number * PAGE_SIZE)
            found[over[broken]] = -1
        return found.reshape(np.shape(addresses))

    def presence(self, address: int) -> Presence:
        """See `AddressSpace.presence`.

        An address that was never touched is not mapped: the system had no page for it either.
        """
        if not 0 <= address < self._limit:
            return Presence.NOT_MAPPED
        offset = self._offset_of(address)
        if offset >= 0:
            return Presence.PRESENT
        return Presence.ABSENT if offset == ABSENT else Presence.NOT_MAPPED

    def view(self, address: int, size: int) -> U8:
        """See `AddressSpace.view`; reads within one page take a short way."""
        into = address & _PAGE_MASK
        if 0 < size <= PAGE_SIZE - into and 0 <= address < self._limit:
            offset = self._offset_of(address)
            if offset >= 0:
                return self.data[offset + into : offset + into + size]
        return super().view(address, size)

    def present_bytes(self, start: int, end: int) -> int:
        """See `AddressSpace.present_bytes`."""
        return sum(int(piece.size.sum()) for piece in self.pieces(start, end))

    # --- more than AddressSpace ---------------------------------------------------------------

    def absent_bytes(self, start: int, end: int) -> int:
        """Bytes in whole pages of [start, end) that were mapped and are not in the dump.

        A leaf table that is not in the dump counts with all it could map, a higher one not at all.
        """
        start, end = max(start, 0), min(end, self._limit)
        absent = 0
        for starts, rows in self._walk(start, end):
            address = (starts[:, None] + self._page)[rows == ABSENT]
            low, high = np.uint64(start & ~_PAGE_MASK), np.uint64(end - 1)
            absent += int(((address >= low) & (address <= high)).sum()) * PAGE_SIZE
        return absent

    def leaf_tables(self) -> tuple[U64, NDArray[np.bool_]]:
        """First address of what each leaf table of the kernel maps, and whether it reads like a table.

        One that was overwritten leads to no page, or most of its entries to pages that are not in the dump.
        Without those that only map tables, as Windows maps its own.
        """
        upper = self._tables.upper_tables()[0]
        address = [np.empty(0, np.uint64)]
        good: list[NDArray[np.bool_]] = [np.empty(0, np.bool_)]
        for leaves in self._leaves(self._tables.half, self._limit):
            plain = ~np.isin(leaves.base, upper)
            rows = self._tables.offsets(leaves)[plain]
            address.append(leaves.first[plain])
            sound = (rows >= 0).any(axis=1)
            good.append(sound & (2 * (rows == ABSENT).sum(axis=1) <= rows.shape[1]))
        return np.concatenate(address), np.concatenate(good)

    @property
    def table_bytes(self) -> int:
        """Bytes of memory that one leaf table maps."""
        return 1 << self._region_bits

    def lost_upper_tables(self) -> bool:
        """Some table of kernel memory above the last level leads nowhere, or is not in the dump; or a walk
        ended early, for tables map more than this memory can need.
        """
        return self._is_cut or self._tables.upper_tables()[1]

    def translate(self, address: int) -> int | None:
        """Physical address of one virtual address, in the dump or not; None where no page is.

        For people and checks; readers use `view` and `locate`.
        """
        if not 0 <= address < self._limit:
            return None
        start = np.array([address >> self._region_bits << self._region_bits], np.uint64)
        frames, states = self._tables.frames(self._tables.resolve(start))
        index = address >> PAGE_BITS & self._index_mask
        if states[0, index] < 0:
            return None
        return int(frames[0, index]) | address & _PAGE_MASK

    # --- rows: one leaf table, or its like, as file offsets -------------------------------------

    def _offset_of(self, address: int) -> int:
        """File offset of the page that holds `address`, or its state."""
        region = address >> self._region_bits
        row = self._rows.get(region)
        if row is None:
            row = self._cached_rows(np.array([region], np.uint64))[0]
        return int(row[address >> PAGE_BITS & self._index_mask])

    def _page_offsets(self, addresses: U64) -> I64:
        """File offset of the page of each address, or its state."""
        regions, inverse = np.unique(addresses >> np.uint64(self._region_bits), return_inverse=True)
        index = (addresses >> np.uint64(PAGE_BITS)) & np.uint64(self._index_mask)
        found = np.full(addresses.shape, NOT_MAPPED, np.int64)
        order = np.argsort(inverse, kind="stable")
        bounds = np.searchsorted(
            inverse[order], np.arange(0, len(regions) + CHUNK_TABLES, CHUNK_TABLES)
        )
        for number, first in enumerate(range(0, len(regions), CHUNK_TABLES)):
            rows = self._cached_rows(regions[first : first + CHUNK_TABLES])
            mine = order[bounds[number] : bounds[number + 1]]
            found[mine] = rows[inverse[mine] - first, index[mine].astype(np.int64)]
        return found

    def _cached_rows(self, regions: U64) -> I64:
        """Rows of at most `CHUNK_TABLES` regions, through the cache."""
        keys = regions.tolist()
        rows = np.empty((len(keys), self._index_mask + 1), np.int64)
        missing = []
        for number, key in enumerate(keys):
            row = self._rows.get(key)
            if row is None:
                missing.append(number)
            else:
                rows[number] = row
        if missing:
            starts = regions[missing] << np.uint64(self._region_bits)
            fresh = self._tables.offsets(self._tables.resolve(starts))
            rows[missing] = fresh
            while len(self._rows) > CACHED_ROWS - len(missing):
                del self._rows[next(iter(self._rows))]
            self._rows.update(
                (keys[number], row) for number, row in zip(missing, fresh, strict=True)
            )
        return rows

    # --- walks over whole ranges ----------------------------------------------------------------

    def _walk(self, start: int, end: int) -> Iterator[tuple[U64, I64]]:
        """(first addresses, rows) of all regions of [start, end) that have any table, ascending."""
        if end <= start:
            return
        first, last = start >> self._region_bits, (end - 1) >> self._region_bits
        if last - first < DIRECT_ROWS:
            regions = np.array(range(first, last + 1), np.uint64)
            yield regions << np.uint64(self._region_bits), self._cached_rows(regions)
            return
        for leaves in self._leaves(start, end):
            yield leaves.first, self._tables.offsets(leaves)

    def _leaves(self, start: int, end: int) -> Iterator[Leaves]:
        """All leaf tables of [start, end), as many as this memory can need."""
        budget = SPARE_TABLES + 4 * (self.physical.total_bytes >> PAGE_BITS)
        for leaves in self._tables.walk(start, end):
            budget -= len(leaves)
            if budget < 0:
                self._is_cut = True
                self._log.add(
                    "page-tables-without-end",
                    Severity.ERROR,
                    "_MMPTE",
                    int(leaves.first[0]),
                    f"the page tables at 0x{self.directory_base:x} map more than this memory can "
                    "need: they are damaged, and what lies above is left out",
                )
                return
            yield leaves

    def _prototypes(self, addresses: U64) -> tuple[U64, NDArray[np.bool_]]:
        """Prototype PTEs, read through page tables whose own prototypes are not followed."""
        regions, inverse = np.unique(addresses >> np.uint64(self._region_bits), return_inverse=True)
        index = (addresses >> np.uint64(PAGE_BITS)) & np.uint64(self._index_mask)
        frames = np.zeros(addresses.shape, np.uint64)
        there = np.zeros(addresses.shape, np.bool_)
        for first in range(0, len(regions), CHUNK_TABLES):
            part = regions[first : first + CHUNK_TABLES] << np.uint64(self._region_bits)
            pages, states = self._plain.frames(self._plain.resolve(part))
            mine = np.flatnonzero((inverse >= first) & (inverse < first + CHUNK_TABLES))
            row, column = inverse[mine] - first, index[mine].astype(np.int64)
            frames[mine], there[mine] = pages[row, column], states[row, column] == 0
        into = addresses & np.uint64(_PAGE_MASK)
        values, read = self._plain.entries(frames + into)
        return values, there & read


def _merged(address: U64, size: I64, offset: I64) -> Extents:
    """Ascending pieces, with those joined that are contiguous in memory and in the file."""
    if not len(address):
        return Extents(address, size, offset)
    new = np.ones(len(address), np.bool_)
    new[1:] = (address[1:] != address[:-1] + size[:-1].astype(np.uint64)) | (
        offset[1:] != offset[:-1] + size[:-1]
    )
    first = np.flatnonzero(new)
    return Extents(address[first], np.add.reduceat(size, first), offset[first])


def _cut(pieces: Extents, start: int, end: int) -> Extents:
    """Cuts the first and the last piece to [start, end)."""
    address, size, offset = pieces
    if len(address) and int(address[0]) < start:
        cut = start - int(address[0])
        address[0] += np.uint64(cut)
        size[0] -= cut
        offset[0] += cut
    if len(address):
        size[-1] = min(int(size[-1]), end - int(address[-1]))
    return pieces
