"""All that a kernel says of its pools, read once each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np

from windumps.blocks import Blocks
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.memory import AddressSpace
from windumps.pools.balance import Balance, is_paged, pool_keys
from windumps.pools.big_pages import BigPages, read_big_pages
from windumps.pools.coverage import PAGE, PoolCoverage, Ranges
from windumps.pools.heap_pool import HeapPool
from windumps.pools.heap_recovery import Candidates, accepted
from windumps.pools.heap_roots import PoolHeap, pool_heaps
from windumps.pools.kernel_words import KernelWords, kernel_words
from windumps.pools.page_chain import form_of
from windumps.pools.page_pool import PagePool, Scope, kernel_scope
from windumps.pools.page_survey import PageSurvey
from windumps.pools.sessions import SessionSpace, session_spaces, session_trackers
from windumps.pools.tags import tag_number
from windumps.pools.tracker_search import find_layout
from windumps.pools.trackers import SessionTotals, TagTotals, read_trackers
from windumps.windows.kernel import Kernel

POOL_TAG = tag_number("Pool")  # of the pool's own tables
SEGMENT_HEAP_FROM = 18362  # Windows 10 1903


class KernelPools:
    """The pools of one kernel.

    Args:
        kernel: The kernel.
        log: Where it is told how things were found and what is missing.
        address_space: Gives the memory below a directory table base; None when there is none but
            the kernel's.
        directory_bases: Roots of the processes' page tables.
    """

    def __init__(
        self,
        kernel: Kernel,
        log: DiagnosticLog | None = None,
        address_space: Callable[[int], AddressSpace] | None = None,
        directory_bases: Sequence[int] = (),
    ) -> None:
        self.kernel = kernel
        self.log = log if log is not None else DiagnosticLog()
        self.coverage = PoolCoverage()
        self._address_space = address_space
        self._directory_bases = directory_bases

    @cached_property
    def words(self) -> KernelWords:
        """The kernel's image as words."""
        return kernel_words(self.kernel)

    @cached_property
    def big_pages(self) -> BigPages:
        """Large allocations."""
        return read_big_pages(self.kernel, self.words, self.log)

    @cached_property
    def trackers(self) -> TagTotals:
        """What each tag holds."""
        tables = self.big_pages.bytes_of_tag(POOL_TAG)
        return read_trackers(self.kernel, self.words, self.log, tables)

    def blocks(self) -> Iterator[Blocks]:
        """All blocks, small and large, in pieces of bounded size; `coverage` tells of the walk."""
        self.coverage = PoolCoverage()
        yield from self._small_blocks()
        if len(self.big_pages):
            yield self.big_pages.blocks()

    @cached_property
    def session_spaces(self) -> list[SessionSpace]:
        """Sessions that have memory of their own."""
        return session_spaces(self.kernel, self._address_space, self._directory_bases)

    @cached_property
    def sessions(self) -> list[SessionTotals]:
        """What each tag holds in the pool of each session."""
        base = self.kernel.value("PoolTrackTable")
        choice = find_layout(self.kernel, base) if base else None
        if choice is None or not self.session_spaces:
            return []
        return session_trackers(self.kernel, self.session_spaces, choice)

    @cached_property
    def heaps(self) -> list[PoolHeap]:
        """The pool's segment heaps; none before Windows 10 1903."""
        if self.kernel.build and self.kernel.build < SEGMENT_HEAP_FROM:
            return []
        return pool_heaps(self.kernel, self.words)

    def _small_blocks(self) -> Iterator[Blocks]:
        if self.kernel.build >= SEGMENT_HEAP_FROM or self.heaps:
            yield from self._heap_blocks()
        else:
            yield from self._page_blocks()

    def _heap_blocks(self) -> Iterator[Blocks]:
        self.coverage.method = f"segment heaps of the pool ({len(self.heaps)})"
        if not self.heaps:
            self.log.add(
                "pool-heaps-not-found",
                Severity.ERROR,
                "ExPoolState",
                None,
                "the heaps of the pool were not found: small blocks are not known",
            )
        large = self.big_pages
        walk = HeapPool(
            self.kernel, self.heaps, large.address, self._other_ranges(), self.coverage, self.log
        )
        balance = Balance()
        for blocks in walk.blocks():
            yield balance.add(blocks)
        if walk.candidates and self.trackers.is_found:
            balance.add(large.blocks())
            yield from self._recovered(walk, balance)

    def _recovered(self, walk: HeapPool, balance: Balance) -> Iterator[Blocks]:
        """Blocks whose heap's record is not in the dump, where the trackers miss them."""
        missing = balance.missing(self.trackers)
        keys = [
            pool_keys(found.tag, is_paged(walk.pools(root, found.type)))
            for root, found in walk.candidates
        ]
        sizes = [found.size for _, found in walk.candidates]
        unit = form_of(self.kernel.architecture).unit
        good = accepted(np.concatenate(keys), np.concatenate(sizes), missing, 2 * unit)
        start = 0
        for root, found in walk.candidates:
            mine = good[start : start + len(found.size)]
            start += len(found.size)
            if mine.any():
                yield walk.recovered(root, Candidates(*(column[mine] for column in found)))
        left = int((~good).sum())
        if good.any() or left:
            self.coverage.notes.append(
                f"of {len(good)} blocks the heap's own record is not in the dump: {int(good.sum())} count as used, "
                f"because the trackers miss as many of their tags, {left} do not"
            )

    def _page_blocks(self) -> Iterator[Blocks]:
        self.coverage.method = "pages filled by chains of pool headers"
        size = self.kernel.pointer_size
        kernel = self._page_pool(kernel_scope(self.kernel.memory, size))
        yield from PageSurvey(kernel, self.trackers, self.big_pages, size).blocks()
        for number, space in enumerate(self.session_spaces):
            scope = Scope(space.memory, space.ranges, True, f"session space {number}")
            yield from self._page_pool(scope).blocks()

    def _page_pool(self, scope: Scope) -> PagePool:
        return PagePool(
            scope,
            form_of(self.kernel.architecture),
            self.kernel.build,
            self._other_ranges(),
            self.kernel.value("ExpPoolQuotaCookie") or 0,
            self.coverage,
            self.log,
        )

    def _other_ranges(self) -> Ranges:
        """Images and large allocations: there are no small blocks in them."""
        images = [(driver.base_address, driver.size_bytes) for driver in self.kernel.drivers]
        large = self.big_pages
        pages = (large.size_bytes + (PAGE - 1)) & ~(PAGE - 1)
        return Ranges(images + list(zip(large.address.tolist(), pages.tolist(), strict=True)))
