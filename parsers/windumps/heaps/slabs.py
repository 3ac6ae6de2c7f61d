"""Pages of equal blocks with lists of free ones: what allocators other than Windows' own are made of.

A page says where its blocks begin, how large each is, how many it has handed out so far, and where lists of
free blocks begin; each free block begins with the address of the next. A used block is one that no list has.

Lists are followed for many pages at once by doubling: after n rounds every block knows whether it lies
within 2**n steps of a head. That ends after as many rounds as a page's count has bits, whatever the links
say. A list that does not end, leaves its page or has another length than the page says makes the whole page
unwalked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U64
from windumps.blocks import Blocks, Kind
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.heaps.base import HeapAccount
from windumps.memory import AddressSpace
from windumps.memory.regions import MEM_COMMIT, MEM_FREE

SLOTS_AT_ONCE = 1 << 18
_LINK = "<u8"


class FreeLists(NamedTuple):
    """Lists of free blocks that each page has.

    Attributes:
        heads: uint64, shape (pages, lists): the first block of each; 0 for an empty one.
        lengths: int64, shape (pages,): how many blocks they hold together; -1 where the page does not say.
    """

    heads: U64
    lengths: I64


@dataclass(frozen=True)
class Slabs:
    """Pages, one row each, ascending by `start`.

    Attributes:
        start: uint64, first block.
        size: int64, bytes of a block, as the allocator tells its program.
        count: int64, blocks handed out so far; memory behind them was never used.
        lists: Their lists of free blocks.
        doubtful: The page cannot be believed, or whether its blocks are free is not known.
        free_elsewhere: uint64, ascending: blocks on lists that go from page to page.
    """

    start: U64
    size: I64
    count: I64
    lists: tuple[FreeLists, ...]
    doubtful: NDArray[np.bool_]
    free_elsewhere: U64

    def __len__(self) -> int:
        return len(self.start)

    def rows(self, keep: slice) -> Slabs:
        """Some of the pages."""
        lists = tuple(FreeLists(each.heads[keep], each.lengths[keep]) for each in self.lists)
        columns = self.start[keep], self.size[keep], self.count[keep]
        return Slabs(*columns, lists, self.doubtful[keep], self.free_elsewhere)

    def page_of(self, addresses: U64) -> I64:
        """The page that has a block at each address; -1 where none does."""
        page = np.searchsorted(self.start, addresses, "right") - 1
        safe = np.maximum(page, 0)
        if not len(self):
            return np.full(len(addresses), -1, np.int64)
        slot, rest = np.divmod(addresses - self.start[safe], self.size[safe].astype(np.uint64))
        fits = (page >= 0) & (rest == 0) & (slot < self.count[safe].astype(np.uint64))
        return np.where(fits, page, -1)


@dataclass
class SlabArena:
    """All memory of one allocator in a process, read.

    Attributes:
        memory: The process's memory.
        kind: What holds its blocks.
        layout: Which layout it has, and what proves that, for people.
        ordinal: Among the arenas of the process, from 0.
        slabs: Its pages.
        ranges: (start, bytes) of the memory it took from Windows.
        lost_bytes: Of that, known to hold blocks that cannot be told.
        log: Where diagnostics go.
    """

    memory: AddressSpace
    kind_of_blocks: Kind
    layout: str
    ordinal: int
    slabs: Slabs
    ranges: list[tuple[int, int]]
    lost_bytes: int
    log: DiagnosticLog
    address: int = 0
    architecture: str = "x64"
    flags: int = 0
    front_end: str = ""
    account: HeapAccount = field(default_factory=HeapAccount)

    @property
    def kind(self) -> str:
        """The allocator's name."""
        return self.kind_of_blocks.label

    def blocks(self) -> Iterator[Blocks]:
        """All blocks, used and free, in pieces; the account is complete at the end."""
        account = self.account = HeapAccount(ranges=list(self.ranges))
        account.reserved_bytes = sum(size for _, size in self.ranges)
        account.committed_bytes = _committed(self.memory, self.ranges)
        account.unwalked_bytes = self.lost_bytes
        for piece in _pieces(self.slabs):
            for blocks in self._of(piece):
                yield account.count(blocks)
        rest = max(account.committed_bytes - account.block_bytes, 0)
        account.unwalked_bytes = min(account.unwalked_bytes, rest)
        account.overhead_bytes = rest - account.unwalked_bytes

    def _of(self, pages: Slabs) -> Iterator[Blocks]:
        """The blocks of some pages; a page with more blocks than are looked at once comes alone."""
        slots = _Slots(pages)
        free, bad = slots.free(self.memory)
        bad |= pages.doubtful
        if bad.any():
            self._tell(pages, bad)
        keep = ~bad[slots.page]
        page = slots.page[keep]
        size = pages.size[page]
        blocks = Blocks.build(
            slots.address[keep], size, size, ~free[keep], self.kind_of_blocks, self.ordinal
        )
        yield blocks

    def _tell(self, pages: Slabs, bad: NDArray[np.bool_]) -> None:
        for start, size, count in zip(
            pages.start[bad].tolist(),
            pages.size[bad].tolist(),
            pages.count[bad].tolist(),
            strict=True,
        ):
            self.account.unwalked_bytes += size * count
            self.log.add(
                "arena-page-not-walked",
                Severity.WARNING,
                f"{self.kind} page",
                start,
                f"{count} blocks of {size} bytes are left out: the lists of free blocks do not add up or are "
                "not in the dump",
                size * count,
            )


class _Slots:
    """The blocks of some pages, one row each.

    Attributes:
        page: int64, row of the page of each.
        address: uint64.
    """

    def __init__(self, pages: Slabs) -> None:
        self._pages = pages
        ends = np.cumsum(pages.count)
        self._first = ends - pages.count
        self.page: I64 = np.repeat(np.arange(len(pages)), pages.count)
        slot = np.arange(len(self.page)) - self._first[self.page]
        self.address: U64 = pages.start[self.page] + (slot * pages.size[self.page]).astype(
            np.uint64
        )
        self._end = len(self.page)  # where lists end properly; the row behind it is for all others

    def free(self, memory: AddressSpace) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which blocks are free, and of which pages that cannot be told."""
        pages = self._pages
        free = np.zeros(len(self.page), np.bool_)
        bad = np.zeros(len(pages), np.bool_)
        heads = [lists.heads.any(axis=1) for lists in pages.lists]
        links = self._links(memory, np.logical_or.reduce([bad, *heads]))
        for lists in pages.lists:
            told = lists.lengths >= 0
            bad |= told & (lists.lengths > 0) & ~lists.heads.any(axis=1)
            rows, which = np.nonzero(lists.heads)
            if not len(rows):
                continue
            first = self._numbers(lists.heads[rows, which], rows)
            found, ends = _follow(links, first, self._end, int(pages.count[rows].max()))
            bad[rows[ends != self._end]] = True
            # Two lists that meet, and one that runs in a circle, are shorter than the page says.
            if not told.all():
                bad[self._ends_blank(memory, links, found, ~told)] = True
            length = np.bincount(self.page[found], minlength=len(pages))
            bad |= told & (length != lists.lengths)
            bad[self.page[found & free]] = True
            free |= found
        elsewhere = pages.page_of(pages.free_elsewhere)
        there = elsewhere >= 0
        number = self._numbers(pages.free_elsewhere[there], elsewhere[there])
        bad[elsewhere[there][free[number]]] = True
        free[number] = True
        return free, bad

    def _ends_blank(
        self, memory: AddressSpace, links: I64, found: NDArray[np.bool_], pages: NDArray[np.bool_]
    ) -> I64:
        """Pages of which a list ends where memory is all zeros: nothing else tells how long it is."""
        last = found & (links[:-2] == self._end) & pages[self.page]
        rows = np.flatnonzero(last)
        return self.page[rows[is_blank(memory, self.address[rows])]]

    def _numbers(self, addresses: U64, pages: I64) -> I64:
        """The row of each block, one behind the end for what is no block of its page."""
        start, size = self._pages.start[pages], self._pages.size[pages].astype(np.uint64)
        slot, rest = np.divmod(addresses - start, size)
        fits = (addresses >= start) & (rest == 0)
        fits &= slot < self._pages.count[pages].astype(np.uint64)
        return np.where(fits, self._first[pages] + slot.astype(np.int64), self._end + 1)

    def _links(self, memory: AddressSpace, listed: NDArray[np.bool_]) -> I64:
        """The block that each one leads to, if it is free; only of pages that have lists."""
        links = np.full(self._end + 2, self._end + 1, np.int64)
        links[self._end] = self._end
        rows = np.flatnonzero(listed[self.page])
        words, present = memory.gather(self.address[rows], _LINK)
        there = self._numbers(words, self.page[rows])
        links[rows] = np.where(words == 0, self._end, there)
        links[rows[~present]] = self._end + 1
        return links


def _follow(links: I64, heads: I64, end: int, longest: int) -> tuple[NDArray[np.bool_], I64]:
    """The rows that lists have, and where each list is after as many steps as it can have."""
    reached = np.zeros(len(links), np.bool_)
    reached[heads] = True
    jump, ends = links, heads
    for _ in range(max(longest, 1).bit_length()):
        reached[jump[reached]] = True
        ends = jump[ends]
        jump = jump[jump]
    return reached[:end], ends


def _pieces(slabs: Slabs) -> Iterator[Slabs]:
    """Pages that are looked at together: of so many blocks, or a single page of more."""
    group = np.cumsum(slabs.count) // SLOTS_AT_ONCE
    cuts = (np.flatnonzero(np.diff(group)) + 1).tolist()
    for start, end in zip([0, *cuts], [*cuts, len(slabs)], strict=True):
        if end > start:
            yield slabs.rows(slice(start, end))


def chain(memory: AddressSpace, head: int, slabs: Slabs) -> tuple[U64, bool]:
    """The blocks of a list that goes from page to page, and whether all of it is known.

    Args:
        memory: The process's memory.
        head: Its first block; 0 for an empty list.
        slabs: The pages whose blocks it has.
    """
    seen: set[int] = set()
    limit = int(slabs.count.sum())
    at = last = head
    while at and at not in seen and len(seen) < limit:
        seen.add(at)
        last = at
        try:
            at = memory.read_uint(at, 8)
        except MemoryReadError:
            break
    found = np.array(sorted(seen), np.uint64)
    known = slabs.page_of(found) >= 0
    ends = at == 0 and not (seen and is_blank(memory, np.array([last], np.uint64))[0])
    return found[known], ends and bool(known.all())


def is_blank(memory: AddressSpace, addresses: U64) -> NDArray[np.bool_]:
    """True for addresses whose whole page is zeros, as pages are that a writer could not read."""
    pages, number = np.unique(addresses & ~np.uint64(PAGE_SIZE - 1), return_inverse=True)
    places = pages[:, None] + np.arange(0, PAGE_SIZE, 8, dtype=np.uint64)
    words, _ = memory.gather(places, _LINK)
    used: NDArray[np.bool_] = np.asarray(words.any(axis=1))
    return ~used[number]


def allocations_of(memory: AddressSpace, addresses: U64) -> list[tuple[int, int]]:
    """(start, bytes) of the allocations of address space that addresses lie in, ascending.

    Empty where the dump does not list its regions.
    """
    regions = memory.regions
    row = np.searchsorted(regions.base_address, addresses, "right") - 1
    bases = np.unique(regions.allocation_base[row[row >= 0]])
    taken = np.isin(regions.allocation_base, bases) & (regions.state != MEM_FREE)
    rows = np.flatnonzero(taken)
    base = regions.allocation_base[rows]
    last = rows[np.flatnonzero(np.append(base[1:] != base[:-1], True)[: len(base)])]
    start = regions.allocation_base[last]
    size = regions.base_address[last] + regions.region_size[last] - start
    return list(zip(start.tolist(), size.tolist(), strict=True))


def _committed(memory: AddressSpace, ranges: Sequence[tuple[int, int]]) -> int:
    """Committed bytes in ranges; what is in the dump where it does not list its regions."""
    regions = memory.regions
    if not len(regions):
        return memory.present_in(ranges)
    total = 0
    rows = regions.state == MEM_COMMIT
    start, size = regions.base_address[rows], regions.region_size[rows]
    for low, length in ranges:
        first, last = np.searchsorted(start, [low, low + length])
        total += int(size[first:last].sum())
    return total
