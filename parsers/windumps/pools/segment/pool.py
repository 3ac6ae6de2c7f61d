"""Small blocks from Windows 10 1903 on: the kernel's segment heaps, and the pool header in each block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U32, U64
from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import HeapError, MemoryReadError
from windumps.heaps.base import HeapContext
from windumps.heaps.segment.heap import SegmentHeap, open_segment_heap
from windumps.heaps.segment.walk import RawBlocks
from windumps.kernel.kernel import Kernel
from windumps.layouts.pool import LOOKASIDE_LAYOUTS, POOL_HEAP_LAYOUTS
from windumps.layouts.rows import candidates
from windumps.pool_tags import Pool, plain_and_named
from windumps.pools.coverage import PoolCoverage, Ranges, absent_pages
from windumps.pools.image_words import LOWEST
from windumps.pools.pages.chain import TAG_AT, HeaderForm, Headers, form_of, read_headers
from windumps.pools.pool_types import PAGED_BIT
from windumps.pools.segment.lookasides import lookaside_blocks
from windumps.pools.segment.recovery import Candidates, find_candidates
from windumps.pools.segment.roots import PoolHeap

HEADER = "_POOL_HEADER"
_IN_USE = 0x2
_CACHE_ALIGNED = 0x4
_MOST_SLACK = 2  # units behind a block of a chain; one was seen
_EXACT = 0x400  # bytes up to which the buckets of a heap are a unit apart
_FEW = 0.1
LINE_UNITS = 4  # of the smallest cache line
MAX_GAP_UNITS = 16  # in front of a block aligned to the largest, 256 bytes on 64 bits


class Found(NamedTuple):
    """Blocks of one piece of a heap, as columns.

    Attributes:
        header: uint64, address of the (first) pool header.
        user: uint64, what the caller got.
        size: int64, bytes charged.
        tag: uint32.
        pool: uint8, `Pool`.
        used: bool.
        cached: bool, freed, on a look-aside list, and busy for the heap.
    """

    header: U64
    user: U64
    size: I64
    tag: NDArray[np.uint32]
    pool: NDArray[np.uint8]
    used: NDArray[np.bool_]
    cached: NDArray[np.bool_]

    def select(self, keep: NDArray[np.bool_]) -> Found:
        """The rows where `keep` is true."""
        return Found(
            self.header[keep],
            self.user[keep],
            self.size[keep],
            self.tag[keep],
            self.pool[keep],
            self.used[keep],
            self.cached[keep],
        )


@dataclass
class HeapPool:
    """Walks the pool's heaps.

    Attributes:
        kernel: The kernel.
        heaps: Its pool's heaps.
        large: uint64, ascending: addresses of large allocations, which have no header.
        others: Ranges of these.
        coverage: Filled while the walk runs.
        log: Where damage is told.
        known_tags: uint32: tags the trackers count, which are tags whatever their bytes are.
    """

    kernel: Kernel
    heaps: list[PoolHeap]
    large: U64
    others: Ranges
    coverage: PoolCoverage
    log: DiagnosticLog
    known_tags: U32 = field(default_factory=lambda: np.empty(0, np.uint32))

    def __post_init__(self) -> None:
        self.form: HeaderForm = form_of(self.kernel.architecture)
        self.unlisted: list[tuple[int, int, int]] = []  # large blocks no table lists
        self.candidates: list[tuple[PoolHeap, Candidates]] = []
        # Busy for the heap, but perhaps on a chain of free ones that breaks.
        self.uncertain: list[tuple[PoolHeap, Candidates]] = []

    def blocks(self) -> Iterator[Blocks]:
        """All blocks, used and free, in pieces of bounded size."""
        kernel = self.kernel
        context = HeapContext(
            kernel.memory, kernel.architecture, kernel.build, kernel.image, 0, self.log
        )
        opened: list[tuple[PoolHeap, SegmentHeap]] = []
        for number, root in enumerate(self.heaps):
            try:
                heap = open_segment_heap(context, root.address, number, POOL_HEAP_LAYOUTS)
            except HeapError as error:
                self._say_unread(root, str(error))
                continue
            opened.append((root, heap))
        claimed: list[tuple[int, int]] = []
        self._share_keys(opened)
        for root, heap in opened:
            yield from self._heap(heap, root, Ranges(claimed))
            claimed += heap.account.ranges

    def _share_keys(self, opened: list[tuple[PoolHeap, SegmentHeap]]) -> None:
        """All heaps of the pool share their keys; one that has others was read from segments not its own."""
        votes: Counter[int] = Counter()
        for _, heap in opened:
            if heap.fit.key is not None:
                votes[heap.fit.key.value] += heap.fit.key.agreeing
        if len(votes) < 2:
            return
        ((key, _),) = votes.most_common(1)
        best = next(h.fit for _, h in opened if h.fit.key is not None and h.fit.key.value == key)
        for root, heap in opened:
            if heap.fit.key is not None and heap.fit.key.value != key:
                heap.fit = replace(heap.fit, key=best.key, vs_key=best.vs_key, lfh_key=best.lfh_key)
                self.log.add(
                    "pool-heap-damaged",
                    Severity.WARNING,
                    "_SEGMENT_HEAP",
                    root.address,
                    f"the list of segments of the heap of the pool at 0x{root.address:x} is damaged or not "
                    "in the dump; the keys of the other heaps are taken",
                )

    def _say_unread(self, root: PoolHeap, reason: str) -> None:
        self.coverage.is_bounded = False
        self.log.add(
            "pool-heap-not-read",
            Severity.ERROR,
            "_SEGMENT_HEAP",
            root.address,
            f"the heap of the pool at 0x{root.address:x} is left out: {reason}",
        )

    def _heap(self, heap: SegmentHeap, root: PoolHeap, claimed: Ranges) -> Iterator[Blocks]:
        """One heap; what lies in segments that an earlier one has is that one's."""
        cached = self._cached(heap)
        pages: list[U64] = []
        seen: list[U64] = []
        for raw in heap.raw_blocks():
            taken = claimed.holds(raw.address)
            if taken.any():
                raw = raw.select(~taken)
            if raw.kind in (Kind.SEGMENT_PAGES, Kind.SEGMENT_LARGE):
                self._note_large(raw, root)
                continue
            found = self._read(raw, root, cached)
            page = raw.address & ~np.uint64(PAGE_SIZE - 1)
            pages.append(page[np.append(True, page[1:] != page[:-1])[: len(page)]])
            seen.append(found.header)
            account = self.coverage
            account.used_count += int(found.used.sum())
            account.used_bytes += int(found.size[found.used].sum())
            account.free_count += int((~found.used).sum())
            account.cached_count += int(found.cached.sum())
            yield Blocks.build(
                found.user,
                np.full(len(found.user), SIZE_UNKNOWN, np.int64),
                found.size,
                found.used,
                Kind.POOL_BLOCK,
                found.pool,
                tag=found.tag,
            )
        own = heap.account
        self.coverage.walked_bytes += own.committed_bytes - own.unwalked_bytes
        self.coverage.damaged_bytes += max(own.unwalked_bytes - own.absent_bytes, 0)
        if pages:
            self._absent(heap, root, np.unique(np.concatenate(pages)), seen)

    def _absent(self, heap: SegmentHeap, root: PoolHeap, pages: U64, seen: list[U64]) -> None:
        """Counts pages that are not in the dump, and keeps blocks whose record is in one of them."""
        memory = self.kernel.memory
        lost = absent_pages(memory, pages)
        if not len(lost):
            return
        large = self.others.holds(lost)
        self.coverage.absent_pages += int((~large).sum())
        self.coverage.absent_large_pages += int(large.sum())
        found = find_candidates(memory, heap, self.form)
        fresh = ~np.isin(found.header, np.concatenate(seen)) & ~np.isin(found.header, self.large)
        if fresh.any():
            self.candidates.append((root, found.select(fresh)))

    def decided(
        self, root: PoolHeap, found: Candidates, used: NDArray[np.bool_], lost: bool
    ) -> Blocks:
        """Candidates as blocks, used and free; `lost` when their heap's record is not in the dump."""
        address = found.header
        headers, _ = self._headers(address)
        account = self.coverage
        account.used_count += int(used.sum())
        account.used_bytes += int(found.size[used].sum())
        account.free_count += int((~used).sum())
        account.recovered_count += int(used.sum()) if lost else 0
        return Blocks.build(
            self._user(address, headers, used),
            np.full(len(address), SIZE_UNKNOWN, np.int64),
            found.size,
            used,
            Kind.POOL_BLOCK,
            self.pools(root, found.type),
            tag=found.tag,
        )

    def _cached(self, heap: SegmentHeap) -> U64:
        """Headers of freed blocks on the heap's look-aside lists."""
        memory = self.kernel.memory
        try:
            address = heap.row.read_field(memory, "_SEGMENT_HEAP", "UserContext", heap.address)
        except MemoryReadError:
            address = 0
        if not address:
            return np.empty(0, np.uint64)
        row = candidates(LOOKASIDE_LAYOUTS, self.kernel.architecture, self.kernel.build)[0]
        return lookaside_blocks(memory, row, address, self.log)

    def _note_large(self, raw: RawBlocks, root: PoolHeap) -> None:
        """Large allocations come from their own table; what that does not list is kept aside."""
        fresh = raw.used & ~np.isin(raw.address, self.large)
        self.coverage.doubtful_bytes += int(raw.room[fresh].sum())
        for address, size in zip(
            raw.address[fresh].tolist(), raw.room[fresh].tolist(), strict=True
        ):
            self.unlisted.append((address, size, int(root.pool)))

    def _read(self, raw: RawBlocks, root: PoolHeap, cached: U64) -> Found:
        """From the heap's blocks to the pool's."""
        unit = np.uint64(self.form.unit)
        address, room = raw.address.copy(), raw.room.copy()
        if raw.kind == Kind.SEGMENT_VS:
            # A chunk whose block would begin a unit before a page begins it with the page.
            over = (address & np.uint64(PAGE_SIZE - 1)) == np.uint64(PAGE_SIZE - self.form.unit)
            address[over] += unit
            room[over] -= self.form.unit
        else:
            # What would lie in two pages is withheld: busy for the heap, never given out.
            inside = ((address & np.uint64(PAGE_SIZE - 1)).astype(np.int64) + room) <= PAGE_SIZE
            keep = inside | ~raw.used
            raw = raw.select(keep)
            address, room = address[keep], room[keep]
        large = np.isin(address, self.large)
        headers, present = self._headers(address)
        on_list = raw.used & np.isin(address, cached)
        busy = raw.used & ~on_list & ~large
        tag, named = plain_and_named(headers.tag)
        named |= np.isin(tag, self.known_tags)
        valid = present & (headers.type & _IN_USE != 0) & (headers.size > 0) & named
        slack = room - headers.size * self.form.unit
        valid &= (slack >= 0) & self._is_tight(raw.kind, room, slack, busy & valid)
        used = busy & valid
        keep = ~large  # large ones come from their table
        if raw.uncertain is not None and (used & raw.uncertain).any():
            # A link of the chain stands where a used block's header has its zero PreviousSize.
            used &= ~raw.uncertain | (headers.previous == 0)
            apart = used & raw.uncertain
            keep &= ~apart
            sizes = headers.size * self.form.unit
            found = Candidates(address, sizes, tag, headers.type).select(apart)
            self.uncertain.append((root, found))
        odd = busy & present & ~valid
        self.coverage.doubtful_bytes += int(room[odd].sum())
        # The link of a look-aside list stands where size, type and tag were.
        linked = odd & self._is_link(address)
        on_list |= linked
        self._say_odd(address, room, odd & ~linked)
        user = self._user(address, headers, used)
        size = np.where(used, headers.size * self.form.unit, room)
        pool = self.pools(root, headers.type)
        blocks = Found(address, user, size, tag, pool, used, on_list)
        return blocks if keep.all() else blocks.select(keep)

    def _is_tight(
        self, kind: int, room: I64, slack: I64, busy: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Which blocks leave no more of their room unused than heaps do: others have no true header."""
        # Buckets are a unit apart, from some size on an eighth at most.
        of_buckets = np.where(room <= _EXACT, 0, room >> 3)
        most = of_buckets if kind != Kind.SEGMENT_VS else _MOST_SLACK * self.form.unit
        tight: NDArray[np.bool_] = slack <= most
        loose = int((busy & ~tight).sum())
        # Where many do, it is this kernel that leaves more.
        return tight if loose <= _FEW * int(busy.sum()) or loose == 1 else np.ones_like(tight)

    def _headers(self, address: U64) -> tuple[Headers, NDArray[np.bool_]]:
        memory = self.kernel.memory
        offset = memory.locate(address, 8)
        present = offset >= 0
        return read_headers(memory.data, np.where(present, offset, 0), self.form), present

    def _is_link(self, address: U64) -> NDArray[np.bool_]:
        """Which blocks begin with null or the address of another block."""
        size = self.kernel.pointer_size
        values, present = self.kernel.memory.gather(address, f"<u{size}")
        link = values.astype(np.uint64)
        aligned = link & np.uint64(self.form.unit - 1) == 0
        linked: NDArray[np.bool_] = present & (
            (link == 0) | (aligned & (link >= np.uint64(LOWEST[size])))
        )
        return linked

    def _user(self, address: U64, headers: Headers, used: NDArray[np.bool_]) -> U64:
        """What the caller got: behind the header, or the second one of a cache-aligned block.

        A cache-aligned request may leave a gap in front. Then a second header stands before what the
        caller got: it has the bit for cache-aligned, the gap as PreviousSize and what is left as BlockSize.
        """
        unit = self.form.unit
        gap = np.zeros(len(address), np.int64)
        # What the caller got is aligned to a cache line: one place in four units can be it.
        line = np.uint64(LINE_UNITS * unit - 1)
        first = ((-(address + np.uint64(unit)) & line) // np.uint64(unit)).astype(np.int64)
        for more in range(0, MAX_GAP_UNITS, LINE_UNITS):
            units = first + more
            rows = np.flatnonzero(used & (gap == 0) & (units > 0) & (headers.size > units + 1))
            units = units[rows]
            place = address[rows] + (units * unit).astype(np.uint64)
            # Few have the tag there, and only those are looked at in full.
            tags, present = self.kernel.memory.gather(place + np.uint64(TAG_AT), "<u4")
            alike = present & (tags == headers.tag[rows])
            rows, units = rows[alike], units[alike]
            second, present = self._headers(place[alike])
            fits = present & (second.previous == units)
            fits &= (second.type & _CACHE_ALIGNED != 0) & (second.type & _IN_USE != 0)
            fits &= second.size == headers.size[rows] - units
            gap[rows[fits]] = units[fits]
        return address + ((gap + 1) * unit).astype(np.uint64)

    def pools(self, root: PoolHeap, types: I64) -> NDArray[np.uint8]:
        """`Pool` of each block: its heap's, or where that is not known what its header says."""
        if root.pool != Pool.UNKNOWN:
            return np.full(len(types), root.pool, np.uint8)
        paged = (types & PAGED_BIT) != 0
        return np.where(paged, Pool.PAGED, Pool.NONPAGED).astype(np.uint8)

    def _say_odd(self, address: U64, room: I64, odd: NDArray[np.bool_]) -> None:
        """Blocks that are busy for the heap and bear no pool header are not counted as used."""
        if odd.any():
            first = int(address[odd][0])
            self.log.add(
                "pool-header-missing",
                Severity.WARNING,
                HEADER,
                first,
                f"{int(odd.sum())} busy blocks of the heap, the first at 0x{first:x}, bear no pool header: "
                "freed and cached, or damaged; they count as free",
                int(room[odd].sum()),
            )
