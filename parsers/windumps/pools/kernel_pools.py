"""All that a kernel says of its pools, read once each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np

from windumps.arrays import I64, PAGE_SIZE
from windumps.blocks import Blocks
from windumps.builds import PAGE_POOLS, SEGMENT_HEAP_POOLS
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.kernel.counters import read_counters
from windumps.kernel.kernel import Kernel
from windumps.memory import AddressSpace
from windumps.pool_tags import POOL_TAG
from windumps.pools.coverage import PoolCoverage, Ranges, lost_tables
from windumps.pools.image_words import KernelWords, kernel_words
from windumps.pools.large.blocks import BigPages, read_big_pages
from windumps.pools.pages.chain import FRAGMENT_TAG, form_of, type_rule
from windumps.pools.pages.pool import PagePool, Scope, kernel_scope
from windumps.pools.pages.special import special_blocks
from windumps.pools.pages.survey import PageSurvey
from windumps.pools.pages.tails import LargeEnds
from windumps.pools.segment.pool import HeapPool
from windumps.pools.segment.recovery import accepted
from windumps.pools.segment.roots import PoolHeap, pool_heaps
from windumps.pools.sessions import SessionSpace, session_spaces, session_trackers
from windumps.pools.trackers.audit import Evidence, PoolAudit, make_audit
from windumps.pools.trackers.balance import Balance, is_paged, pool_keys
from windumps.pools.trackers.search import find_layout, tracker_table
from windumps.pools.trackers.totals import SessionTotals, TagTotals, read_trackers
from windumps.pools.verifier.records import VerifierData, read_verifier
from windumps.pools.verifier.settings import VerifierSettings, read_settings
from windumps.pools.verifier.trace_log import AllocationLog, read_allocation_log

_MAX_VARIABLES = 16  # words that hold the tracker table's address and are looked around
_NO_TAGGING = (
    "this kernel keeps no tags (pool tagging is off, as Windows XP is delivered; gflags /r +ptg and a "
    "restart turn it on): there are no counters, and large blocks are in no table, so that they are unknown"
)


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
        self._walk_log = self.log
        self.coverage = PoolCoverage()
        self._walked: Balance | None = None
        self._address_space = address_space
        self._directory_bases = directory_bases

    @cached_property
    def words(self) -> KernelWords:
        """The kernel's image as words."""
        return kernel_words(self.kernel)

    @cached_property
    def big_pages(self) -> BigPages:
        """Large allocations."""
        if self.keeps_no_tags:
            self.log.add("no-pool-tagging", Severity.WARNING, "PoolTrackTable", None, _NO_TAGGING)
            return BigPages.nothing(_NO_TAGGING)
        return read_big_pages(self.kernel, self.words, self.log, self._track_variables())

    @cached_property
    def _track_table(self) -> int | None:
        """Address of the first processor's tracker table."""
        return tracker_table(self.kernel, self.words, self.log)

    @property
    def keeps_no_tags(self) -> bool:
        """The kernel was started without pool tagging, as Windows XP is delivered.

        It has neither trackers nor a table of large allocations, and blocks that are charged to a process's
        quota hold the process's object in place of a tag.
        """
        return (
            self.kernel.find_symbol("PoolTrackTable") is not None
            and self.kernel.value("PoolTrackTable") == 0
        )

    def _track_variables(self) -> list[int]:
        """Addresses of words of the image that may be PoolTrackTable."""
        variable = self.kernel.symbol("PoolTrackTable")
        if variable is not None:
            return [variable]
        table = self._track_table
        return self.words.holding(table)[:_MAX_VARIABLES] if table is not None else []

    @cached_property
    def trackers(self) -> TagTotals:
        """What each tag holds."""
        if self.keeps_no_tags:
            return TagTotals.nothing(_NO_TAGGING)
        tables = self.big_pages.bytes_of_tag(POOL_TAG)
        return read_trackers(self.kernel, self.words, self.log, self._track_table, tables)

    def blocks(self) -> Iterator[Blocks]:
        """All blocks, small and large, in pieces of bounded size.

        `coverage` tells of the walk; what was missing is logged by the first walk only.
        """
        self.coverage = PoolCoverage()
        walked = Balance()
        for blocks in self._all_blocks():
            yield walked.add(blocks)
        self._count_fragments(walked)
        self._walked = walked
        self._walk_log = DiagnosticLog()

    def _count_fragments(self, walked: Balance) -> None:
        """What begins the tails of large blocks is no block, and is counted by the trackers.

        Whether it still is where the large block is gone is not known: as far as they are missed.
        """
        keys = pool_keys(np.full(2, FRAGMENT_TAG, np.uint32), np.array([False, True]))
        missing, unit = walked.missing(self.trackers), form_of(self.kernel.architecture).unit
        counts = zip(keys.tolist(), self.coverage.fragments, self.coverage.orphans, strict=True)
        for key, found, orphans in counts:
            count = min(max(found, missing.get(key, (0, 0))[0]), found + orphans)
            walked.count(np.full(count, key), np.full(count, unit))

    @cached_property
    def audit(self) -> PoolAudit:
        """Trackers against blocks; walks the pools unless `blocks` ran to its end before."""
        if self._walked is None:
            deque(self.blocks(), maxlen=0)
        return make_audit(self.trackers, self._walked or Balance(), self.coverage, self._evidence())

    @property
    def is_walked(self) -> bool:
        """`blocks` ran to its end, so that `audit` costs no walk."""
        return self._walked is not None

    @property
    def is_whole(self) -> bool:
        """All places where blocks can be are known, once they were walked."""
        return self.big_pages.is_whole and self.coverage.is_whole

    def _evidence(self) -> Evidence:
        coverage = self.coverage
        unseen = coverage.absent_bytes + coverage.damaged_bytes if self.is_whole else None
        # A counter of which only the build says where it stands is held against the trackers elsewhere.
        most = {c.name: c.bytes for c in read_counters(self.kernel) if c.bytes and not c.by_build}
        return Evidence(
            unseen,
            form_of(self.kernel.architecture).unit,
            self.trackers.table_count + 1,  # and the table of large allocations
            (most.get("nonpaged_pool"), most.get("paged_pool")),
            len(self.kernel.memory.data),
        )

    @cached_property
    def verifier(self) -> VerifierData | None:
        """What Driver Verifier recorded; None when it was off, or nothing tells whether it was on."""
        settings = self.verifier_settings
        if settings.why_unknown and settings.address is not None:
            self.log.add(
                "verifier-absent",
                Severity.INFO,
                "MmVerifierData",
                settings.address,
                settings.why_unknown,
            )
        return read_verifier(self.kernel, self.big_pages, settings)

    @cached_property
    def verifier_settings(self) -> VerifierSettings:
        """Whether Driver Verifier was on, and what it was told to do."""
        return read_settings(self.kernel)

    @cached_property
    def allocation_log(self) -> AllocationLog | None:
        """The stacks Driver Verifier logged; None when it was off or no log was found."""
        data = self.verifier
        return read_allocation_log(self.kernel, self.big_pages, data) if data is not None else None

    def _special_blocks(self) -> Iterator[Blocks]:
        """Special pool, where something says that there is any."""
        tag = self.kernel.value("MmSpecialPoolTag", 4)
        level = self.verifier.level if self.verifier is not None else 0
        if not tag and not level & 1:
            return
        scope = kernel_scope(self.kernel.memory, self.kernel.pointer_size)
        form = form_of(self.kernel.architecture)
        found = special_blocks(scope.memory, scope.ranges, form, self._other_ranges())
        if len(found.address):
            self.coverage.used_count += len(found.address)
            self.coverage.used_bytes += len(found.address) * PAGE_SIZE
            self.coverage.notes.append(
                f"{len(found.address)} blocks are in special pool, a page each"
            )
            yield found.blocks()

    def _all_blocks(self) -> Iterator[Blocks]:
        yield from self._small_blocks()
        yield from self._special_blocks()
        if len(self.big_pages):
            yield self.big_pages.blocks()

    @cached_property
    def session_spaces(self) -> list[SessionSpace]:
        """Sessions that have memory of their own."""
        return session_spaces(self.kernel, self._address_space, self._directory_bases)

    @cached_property
    def sessions(self) -> list[SessionTotals]:
        """What each tag holds in the pool of each session."""
        base = self._track_table
        choice = find_layout(self.kernel, base) if base else None
        if choice is None or not self.session_spaces:
            return []
        return session_trackers(self.kernel, self.session_spaces, choice)

    @cached_property
    def heaps(self) -> list[PoolHeap]:
        """The pool's segment heaps; none before Windows 10 1903."""
        if self.kernel.build in PAGE_POOLS:
            return []
        return pool_heaps(self.kernel, self.words)

    def _small_blocks(self) -> Iterator[Blocks]:
        if self.kernel.build in SEGMENT_HEAP_POOLS or self.heaps:
            yield from self._heap_blocks()
        else:
            yield from self._page_blocks()

    def _heap_blocks(self) -> Iterator[Blocks]:
        self.coverage.method = f"segment heaps of the pool ({len(self.heaps)})"
        if not self.heaps:
            self._walk_log.add(
                "pool-heaps-not-found",
                Severity.ERROR,
                "ExPoolState",
                None,
                "the heaps of the pool were not found: small blocks are not known",
            )
            self.coverage.is_whole = False
        large = self.big_pages
        walk = HeapPool(
            self.kernel,
            self.heaps,
            large.address,
            self._other_ranges(),
            self.coverage,
            self._walk_log,
            self.trackers.tag,
        )
        balance = Balance()
        for blocks in walk.blocks():
            yield balance.add(blocks)
        _, is_bounded = lost_tables(self.kernel.memory, np.empty(0, np.uint64))
        self.coverage.is_bounded &= is_bounded
        self._tell_unlisted(walk)
        if not walk.candidates and not walk.uncertain:
            return
        balance.add(large.blocks())
        for blocks in self._uncertain(walk, balance):
            yield balance.add(blocks)
        if walk.candidates and self.trackers.is_found:
            yield from self._recovered(walk, balance)

    def _uncertain(self, walk: HeapPool, balance: Balance) -> Iterator[Blocks]:
        """Blocks of which the heap does not tell whether they are used: free where none is missing."""
        missing = balance.missing(self.trackers)
        free = total = 0
        for root, found in walk.uncertain:
            keys = pool_keys(found.tag, is_paged(walk.pools(root, found.type))).tolist()
            used = np.array([missing.get(key, (1, 0))[0] > 0 for key in keys], np.bool_)
            free += int((~used).sum())
            total += len(used)
            yield walk.decided(root, found, used, lost=False)
        if total:
            self.coverage.notes.append(
                f"of {total} blocks the heap does not tell whether they are used, for a chain of free ones "
                f"breaks: {total - free} count as used; {free} do not, for no block of their tags is "
                "missing"
            )

    def _tell_unlisted(self, walk: HeapPool) -> None:
        """Says what large blocks of the heaps no table names: no tag is known, so they are in no row."""
        if not walk.unlisted:
            return
        if self.big_pages.is_whole:
            why = "are not in the table of large allocations: freed while the dump was written, or damaged"
        else:
            why = "have no tag: the table that would name it is not in the dump"
        self._walk_log.add(
            "large-blocks-unlisted",
            Severity.WARNING,
            "_HEAP_PAGE_RANGE_DESCRIPTOR",
            walk.unlisted[0][0],
            f"{len(walk.unlisted)} large blocks of the heaps {why}; they are left out",
            sum(size for _, size, _ in walk.unlisted),
        )

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
                yield walk.decided(
                    root, found.select(mine), np.ones(int(mine.sum()), np.bool_), lost=True
                )
        left = int((~good).sum())
        if good.any() or left:
            self.coverage.notes.append(
                f"of {len(good)} blocks the heap's own record is not in the dump: "
                f"{int(good.sum())} count as used, because the trackers miss as many of their tags, "
                f"{left} do not"
            )

    def _page_blocks(self) -> Iterator[Blocks]:
        self.coverage.method = "pages filled by chains of pool headers"
        size = self.kernel.pointer_size
        kernel = self._page_pool(kernel_scope(self.kernel.memory, size))
        yield from PageSurvey(kernel, self.trackers, self.big_pages, size).blocks()
        if self.session_spaces:
            self.coverage.notes.append(
                "of session pool only small blocks are listed; its large ones are in tables of the sessions"
            )
        for number, space in enumerate(self.session_spaces):
            scope = Scope(space.memory, space.ranges, True, f"session space {number}")
            yield from self._page_pool(scope).blocks()

    def _page_pool(self, scope: Scope) -> PagePool:
        form, large = form_of(self.kernel.architecture), self.big_pages
        form = form._replace(has_processes=self.keeps_no_tags)
        return PagePool(
            scope,
            form,
            type_rule(self.kernel.build),
            Ranges(self._images + _spans(large, large.size_bytes & ~(PAGE_SIZE - 1))),
            LargeEnds(large.address, large.size_bytes, form.unit),
            self.kernel.value("ExpPoolQuotaCookie") or 0,
            self.coverage,
            self._walk_log,
        )

    @property
    def _images(self) -> list[tuple[int, int]]:
        return [(driver.base_address, driver.size_bytes) for driver in self.kernel.drivers]

    def _other_ranges(self) -> Ranges:
        """Images and large allocations: there are no small blocks in them."""
        large = self.big_pages
        pages = (large.size_bytes + (PAGE_SIZE - 1)) & ~(PAGE_SIZE - 1)
        return Ranges(self._images + _spans(large, pages))


def _spans(large: BigPages, size: I64) -> list[tuple[int, int]]:
    """(start, bytes) of large allocations, cut or rounded to the sizes given."""
    return list(zip(large.address.tolist(), size.tolist(), strict=True))
