"""Small blocks before Windows 10 1903: all pages of the kernel that chains of headers fill.

No list of the pool's pages is needed, so it works without symbols: every page of the kernel that is in the
dump and is not part of an image or a large allocation is looked at (`chain.py`), and so is what large
allocations leave of their last page (`tails.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import ADDRESS_LIMIT, I64, PAGE_SIZE, U64
from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.memory import AddressSpace, PageTableMemory
from windumps.memory.address_space import Extents, values_at
from windumps.memory.fillers import are_fillers
from windumps.pool_tags import Pool, plain_tags
from windumps.pools.coverage import (
    REGION,
    PoolCoverage,
    Ranges,
    absent_pages,
    lost_tables,
    page_rows,
)
from windumps.pools.image_words import LOWEST
from windumps.pools.pages.aligned import caller_offsets
from windumps.pools.pages.chain import (
    HeaderForm,
    PageBlocks,
    TypeRule,
    ends_in_doubt,
    resume,
    walk_pages,
)
from windumps.pools.pages.tails import LargeEnds, is_fragment, tail_starts
from windumps.pools.pool_types import pools_of_types
from windumps.pools.trackers.balance import is_paged

HEADER = "_POOL_HEADER"
PAGES_AT_ONCE = 1 << 13
KEPT_BLOCKS = 1 << 20
_NO_ROOM = 4  # units that a large block must leave of its last page at least for others to be there


class Scope(NamedTuple):
    """What is walked.

    Attributes:
        memory: The kernel's memory, or a session's.
        ranges: (start, end) parts of it.
        is_session: Blocks are of a session's pool.
        name: For people.
    """

    memory: AddressSpace
    ranges: list[tuple[int, int]]
    is_session: bool
    name: str


class Chunk(NamedTuple):
    """Pages looked at together.

    Attributes:
        page: uint64, addresses.
        offset: int64, file offsets.
        blocks: What the chains gave.
        ours: int64, rows of the pages that are the pool's.
        start: int64, byte offset of the first header in each page.
    """

    page: U64
    offset: I64
    blocks: PageBlocks
    ours: I64
    start: I64

    @property
    def header(self) -> U64:
        """uint64: address of each block's header."""
        return self.page[self.blocks.page] + self.blocks.start.astype(np.uint64)


def kernel_scope(memory: AddressSpace, pointer_size: int) -> Scope:
    """The kernel's half of memory."""
    end = 1 << 32 if pointer_size == 4 else ADDRESS_LIMIT
    return Scope(memory, [(LOWEST[pointer_size], end)], False, "kernel memory")


class PagePool:
    """Walks the small blocks of one scope.

    Args:
        scope: What to walk.
        form: How headers look.
        rule: What the types in headers say.
        others: Ranges that cannot hold small blocks.
        ends: Where large allocations end inside a page.
        cookie: ExpPoolQuotaCookie; 0 when unknown.
        coverage: Filled while the walk runs.
        log: Where damage is told.
    """

    def __init__(
        self,
        scope: Scope,
        form: HeaderForm,
        rule: TypeRule,
        others: Ranges,
        ends: LargeEnds,
        cookie: int,
        coverage: PoolCoverage,
        log: DiagnosticLog,
    ) -> None:
        self.scope = scope
        self.form = form
        self.rule = rule
        self.others = others
        self.ends = ends
        self.cookie = cookie
        self.coverage = coverage
        self.log = log
        self._pool_of = self._all_pools()
        self._kept: list[Chunk] | None = None
        self._fillers: list[int] = []
        self._strange: list[U64] = []
        self._unproven: U64 = np.empty(0, np.uint64)

    def blocks(
        self, given_back: U64 | None = None, unproven: U64 | None = None
    ) -> Iterator[Blocks]:
        """All blocks, used and free, in pieces of bounded size.

        Args:
            given_back: uint64, pages whose blocks are all freed whatever their headers say.
            unproven: uint64, those of them of which only their free lists say so.
        """
        if unproven is not None:
            self._unproven = unproven
        found: list[U64] = [np.empty(0, np.uint64)]
        for chunk in self.chunks():
            found.append(chunk.page[chunk.ours])
            self.coverage.walked_bytes += int((chunk.blocks.end - chunk.start)[chunk.ours].sum())
            yield self._columns(chunk, given_back)
            broken = chunk.ours[~chunk.blocks.whole[chunk.ours]]
            for row in broken.tolist():
                yield from self._rest(
                    int(chunk.page[row]), int(chunk.offset[row]), int(chunk.blocks.end[row])
                )
        pages = np.concatenate(found)
        self._say_absent(pages)
        if not self.scope.is_session:
            self._count_doubtful(pages)

    def chunks(self) -> Iterator[Chunk]:
        """The pages of the pool, many at a time; of a small pool they are kept for the next time."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Chunk] | None = []
        count = 0
        self._strange = []
        for page, offset in self._pages():
            for chunk in self._chains(page, offset):
                count += len(chunk.blocks.page)
                if kept is not None:
                    kept = [*kept, chunk] if count <= KEPT_BLOCKS else None
                yield chunk
        self._kept = kept

    def _chains(self, page: U64, offset: I64) -> Iterator[Chunk]:
        """Of some pages those that blocks fill from the start, then those where they fill a tail."""
        data = self.scope.memory.data
        within = self.ends.within(page)
        plain = np.flatnonzero(within < 0)
        blocks = self._walked(offset[plain])
        ours = np.flatnonzero(blocks.end > 0)
        if len(ours):
            nowhere = np.zeros(len(plain), np.int64)
            yield Chunk(page[plain], offset[plain], blocks, ours, nowhere)
        rest = np.setdiff1d(np.arange(len(page)), plain[ours], assume_unique=True)
        start = tail_starts(data, offset[rest], self.form, within[rest])
        without = rest[(start == 0) & (within[rest] <= PAGE_SIZE - _NO_ROOM * self.form.unit)]
        rest, start = rest[start > 0], start[start > 0]
        blocks = self._walked(offset[rest], start)
        # Behind no large allocation that is known, only a chain to the page's end proves a tail.
        is_tail = (blocks.end > 0) & (blocks.whole | (within[rest] >= 0))
        ours = np.flatnonzero(is_tail)
        self._strange.append(page[np.concatenate((without, rest[~is_tail]))])
        if len(ours):
            yield Chunk(page[rest], offset[rest], blocks.of_pages(ours), ours, start)

    def _walked(self, offset: I64, start: I64 | None = None) -> PageBlocks:
        """The chains of some pages, as far as they are proven."""
        data = self.scope.memory.data
        blocks = walk_pages(data, offset, self.form, start)
        doubtful = ends_in_doubt(data, offset, self.form, blocks)
        return blocks.without_last(doubtful) if len(doubtful) else blocks

    def used(self, chunk: Chunk) -> NDArray[np.bool_]:
        """Which blocks of a chunk are in use and on no list of freed ones that can be seen."""
        used, _, _ = self._states(chunk)
        return used

    def _states(self, chunk: Chunk) -> tuple[NDArray[np.bool_], ...]:
        """Which blocks are in use, which are freed and look used, and which are the pool's own."""
        found = chunk.blocks
        busy = self.rule.is_used(found.type)
        own = is_fragment(found.tag, found.size, self.form.unit)
        cached = self._is_cached(chunk)
        return busy & ~cached & ~own, busy & cached & ~own, own

    def pools(self, types: I64) -> NDArray[np.uint8]:
        """`Pool` of each PoolType of a header."""
        return self._pool_of[types]

    def _all_pools(self) -> NDArray[np.uint8]:
        """`Pool` of every PoolType there can be."""
        pool = pools_of_types(self.rule.pool_type(np.arange(self.form.type_mask + 1)))
        if not self.scope.is_session:
            return pool
        paged = (pool == Pool.PAGED) | (pool == Pool.PAGED_SESSION)
        return np.where(paged, Pool.PAGED_SESSION, Pool.NONPAGED_SESSION).astype(np.uint8)

    def _pages(self) -> Iterator[tuple[U64, I64]]:
        """(addresses, file offsets) of the pages to look at, each page of the file once."""
        memory = self.scope.memory
        seen = np.zeros(len(memory.data) // PAGE_SIZE + 1, np.bool_)
        for start, end in self.scope.ranges:
            pieces: Iterator[Extents] = (
                memory.pieces(start, end)
                if isinstance(memory, PageTableMemory)
                else iter([memory.extents(start, end)])
            )
            for piece in pieces:
                page, offset = page_rows(*piece)
                keep = ~self.others.holds(page) & ~seen[offset // PAGE_SIZE]
                page, offset = page[keep], offset[keep]
                fillers = are_fillers(memory.data, offset)
                self._fillers += page[fillers].tolist()
                page, offset = page[~fillers], offset[~fillers]
                if (offset[1:] <= offset[:-1]).any():
                    # A page mapped twice is one page; of two mappings the lower is taken.
                    _, first = np.unique(offset, return_index=True)
                    first.sort()
                    page, offset = page[first], offset[first]
                for at in range(0, len(page), PAGES_AT_ONCE):
                    part = offset[at : at + PAGES_AT_ONCE]
                    seen[part // PAGE_SIZE] = True
                    yield page[at : at + PAGES_AT_ONCE], part

    def _columns(self, chunk: Chunk, given_back: U64 | None = None) -> Blocks:
        found = chunk.blocks
        header = chunk.header
        used, cached, own = self._states(chunk)
        account = self.coverage
        if given_back is not None and len(given_back):
            gone = used & np.isin(chunk.page[found.page], given_back)
            used &= ~gone
            gone &= np.isin(chunk.page[found.page], self._unproven)
            account.doubtful_bytes += int(found.size[gone].sum())
        account.used_count += int(used.sum())
        account.used_bytes += int(found.size[used].sum())
        account.free_count += int((~used & ~own).sum())
        account.cached_count += int(cached.sum())
        self._count_fragments(chunk, np.flatnonzero(own), used)
        caller = caller_offsets(
            self.scope.memory.data,
            chunk.offset[found.page] + found.start,
            header,
            found,
            used,
            self.form,
        )
        blocks = Blocks.build(
            header + caller.astype(np.uint64),
            np.full(len(header), SIZE_UNKNOWN, np.int64),
            found.size,
            used,
            Kind.POOL_BLOCK,
            self.pools(found.type),
            tag=plain_tags(found.tag),
        )
        return blocks.select(~own) if own.any() else blocks

    def _count_fragments(self, chunk: Chunk, own: I64, used: NDArray[np.bool_]) -> None:
        """Headers of tails: the kernel counts those right behind a large block (seen on 6002 and 7601)."""
        found = chunk.blocks
        page, paged = found.page[own], is_paged(self.pools(found.type[own])).astype(np.int64)
        behind = self.ends.within(chunk.page[page]) == found.start[own]
        alive = np.bincount(found.page[used], minlength=len(chunk.page))[page] > 0
        orphan = ~behind & alive & (chunk.start[page] == found.start[own])
        for rows, counts in ((behind, self.coverage.fragments), (orphan, self.coverage.orphans)):
            for pool in paged[rows].tolist():
                counts[pool] += 1

    @property
    def has_marks(self) -> bool:
        """Freed blocks on lists are marked with the quota cookie (64-bit, Windows 8 to 10 1809)."""
        return self.form.unit == 16 and self.rule.has_marks

    def marks(self, chunk: Chunk) -> U64:
        """uint64: what each block would give as the cookie if it were freed and on a list."""
        found = chunk.blocks
        billed: U64 = values_at(
            self.scope.memory.data, chunk.offset[found.page] + found.start + 8, "<u8"
        )
        return billed ^ chunk.header

    def _is_cached(self, chunk: Chunk) -> NDArray[np.bool_]:
        """Freed blocks that wait on a list and look used."""
        if not self.has_marks or not self.cookie:
            return np.zeros(len(chunk.blocks.page), np.bool_)
        cached: NDArray[np.bool_] = self.marks(chunk) == np.uint64(self.cookie)
        return cached

    def _rest(self, page: int, offset: int, end: int) -> Iterator[Blocks]:
        """What lies behind the damage in one page."""
        data = self.scope.memory.data
        again = resume(data, offset, self.form, end)
        lost = (PAGE_SIZE if again is None else again) - end
        self.coverage.damaged_bytes += lost
        self.log.add(
            "pool-page-broken",
            Severity.WARNING,
            HEADER,
            page + end,
            "the chain of headers breaks: the blocks behind it are not known"
            if again is None
            else "the chain of headers breaks, and is taken up again further on in the page",
            lost,
        )
        if again is None:
            return
        rows = np.array([offset], np.int64)
        start = np.array([again], np.int64)
        found = walk_pages(data, rows, self.form, start, previous=None)
        self.coverage.walked_bytes += PAGE_SIZE - again
        ours = np.flatnonzero(found.end > 0)
        yield self._columns(Chunk(np.array([page], np.uint64), rows, found, ours, start))

    def _count_doubtful(self, pages: U64) -> None:
        """Pages among those of the pool that hold something else, zeros too, and tables that lead nowhere."""
        strange = np.unique(np.concatenate([np.empty(0, np.uint64), *self._strange]))
        regions = np.unique(pages & ~np.uint64(REGION - 1))
        among = np.isin(strange & ~np.uint64(REGION - 1), regions)
        lost, is_bounded = lost_tables(self.scope.memory, pages)
        # No kernel is without small blocks: where none is found, it is not known where they are.
        self.coverage.is_bounded &= is_bounded and len(pages) > 0
        self.coverage.doubtful_bytes += int(among.sum()) * PAGE_SIZE + lost

    def _say_absent(self, pages: U64) -> None:
        regions = np.unique(pages & ~np.uint64(REGION - 1))
        filled = np.array(sorted(set(self._fillers)), np.uint64)
        filled = filled[np.isin(filled & ~np.uint64(REGION - 1), regions)]
        absent = np.union1d(absent_pages(self.scope.memory, pages), filled)
        large = self.others.holds(absent)
        self.coverage.absent_pages += int((~large).sum())
        self.coverage.absent_large_pages += int(large.sum())
        if (~large).any():
            self.log.add(
                "pool-pages-absent",
                Severity.WARNING,
                HEADER,
                int(absent[~large][0]),
                f"{int((~large).sum())} pages of pool in {self.scope.name} are not in the dump "
                "(paged out, or left out of it): their blocks are not known"
                + f"; {len(filled)} of them hold a filler in place of memory"
                * bool(len(filled)),
                int((~large).sum()) * PAGE_SIZE,
            )
