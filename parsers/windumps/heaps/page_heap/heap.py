"""Page heap, full and light: what verifier.dll, on XP ntdll, puts in front of the NT heap to find overruns.

A heap handle of the program is a page filled with EE; the `_DPH_HEAP_ROOT` follows it. A block lies either at
the end of pages of its own (full), or inside a block of the root's normal heap (light); both kinds occur in
one heap. Blocks of the normal heap are shown as what they hold and never as blocks of their own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from windumps.arrays import U64
from windumps.blocks import Blocks, Kind, State
from windumps.diagnostics import Severity
from windumps.errors import HeapError, MemoryReadError
from windumps.heaps.base import Heap, HeapAccount, HeapContext
from windumps.heaps.committed import committed_at
from windumps.heaps.nt import heap as nt_heap
from windumps.heaps.nt.entries import Mask
from windumps.heaps.page_heap.light import (
    STRUCTURE,
    SUFFIX_FILL,
    Headers,
    classify,
    read_headers,
)
from windumps.heaps.page_heap.pages import ROOT, PageBlocks
from windumps.heaps.page_heap.score import SIGNATURE, score_root
from windumps.heaps.page_heap.stamps import Stamps
from windumps.heaps.segment import heap as segment_heap
from windumps.heaps.xp import heap as xp_heap
from windumps.layouts.page_heap import PAGE_HEAP_ROWS
from windumps.layouts.rows import LayoutChoice, Record, candidates, choose_layout
from windumps.memory import AddressSpace

NAME = "page-heap"
HANDLE_FILL = 0xEEEEEEEE
ROOT_OFFSET = 0x1000
Opener = Callable[[HeapContext, int, int], Heap]
LEAST_SCORE = 0.7  # below this a heap is not read
NORMAL_HEAPS: tuple[tuple[Callable[[AddressSpace, int, int], bool], Opener], ...] = (
    (nt_heap.detect, nt_heap.open_nt_heap),
    (xp_heap.detect, xp_heap.open_xp_heap),
    (segment_heap.detect, segment_heap.open_segment_heap),
)


def detect(memory: AddressSpace, address: int, pointer_size: int) -> bool:
    """True for a page filled with EE, and for any that a `_DPH_HEAP_ROOT` follows.

    The filling alone is enough: so a heap with a damaged or absent root is still known for what it is; and
    so is the root alone, where the page is erased or not in the dump. XP keeps heap flags in the page, at
    0Ch and 10h.
    """

    def word(at: int) -> int | None:
        try:
            return memory.read_uint(address + at, 4)
        except MemoryReadError:
            return None

    if not word(0):
        return word(ROOT_OFFSET) == SIGNATURE
    return all(word(at) == HANDLE_FILL for at in (0, 4, 8, 0x800, 0xFFC))


def choose(context: HeapContext, address: int) -> LayoutChoice[Record]:
    """The layout that fits the root of a handle best, and the root read with it.

    Raises:
        HeapError: the root is not in the dump, or no layout fits it.
    """
    choice = choose_layout(
        PAGE_HEAP_ROWS,
        context.architecture,
        context.build,
        lambda row: score_root(context, row, address + ROOT_OFFSET),
        context.exact_layouts.get("page heap"),
    )
    if choice is None or choice.score < LEAST_SCORE:
        raise HeapError(
            f"the page heap at 0x{address:x} fits no known layout; its root is damaged or not in the dump",
            address,
        )
    return choice


def open_page_heap(context: HeapContext, address: int, ordinal: int) -> PageHeap:
    """Opens a page heap and the normal heap it uses.

    Raises:
        HeapError: its root cannot be read.
    """
    return PageHeap(context, address, ordinal, choose(context, address))


@dataclass
class PageHeap:
    """One page heap; see `windumps.heaps.base.Heap`.

    Its account holds that of its normal heap, whose used blocks count as the blocks they hold. `normal_heap`
    is what the root names, and may be corrected before the walk.

    Without a root (`choice` is None) the blocks are those that name it: light ones, since of those with pages
    of their own only the root tells whether they are used.
    """

    context: HeapContext
    address: int
    ordinal: int
    choice: LayoutChoice[Record] | None
    kind: str = NAME
    front_end: str = ""
    account: HeapAccount = field(default_factory=HeapAccount)
    normal_heap: int = 0
    stamps: Stamps = field(init=False)

    def __post_init__(self) -> None:
        self.root_address = self.address + ROOT_OFFSET
        self.root = self.choice.fit if self.choice is not None else None
        rows = candidates(PAGE_HEAP_ROWS, self.context.architecture, self.context.build)
        self.row = self.choice.row if self.choice is not None else rows[0]
        self.stamps = Stamps(self.context, self.row)
        if self.root is None:
            return
        self.normal_heap = self.root["NormalHeap"]
        self.account.counters = {
            name: self.root[name]
            for name in (
                "nBusyAllocations",
                "nBusyAllocationBytesCommitted",
                "nBusyAllocationBytesAccessible",
            )
        }

    @property
    def architecture(self) -> str:
        """See `Heap`."""
        return self.context.architecture

    @property
    def flags(self) -> int:
        """See `Heap`."""
        return self.root["HeapFlags"] if self.root is not None else 0

    @property
    def layout(self) -> str:
        """See `Heap`."""
        return str(self.choice) if self.choice is not None else "by stamps, its root is lost"

    def blocks(self) -> Iterator[Blocks]:
        """See `Heap`."""
        self.account = HeapAccount(counters=self.account.counters)
        if self.root is not None:
            yield from self._full_blocks(self.root)
        else:
            self._leave_full_blocks()
        normal = self._open_normal_heap() if self.normal_heap else None
        if normal is not None:
            yield from self._light_blocks(normal)
        else:
            yield from self._stamped_blocks()

    def _full_blocks(self, root: Record) -> Iterator[Blocks]:
        busy, free = PageBlocks(self.context, self.row, root, self.account).read()
        for nodes, used in ((busy, True), (free, False)):
            yield self.account.count(
                Blocks.build(
                    nodes.user,
                    nodes.requested,
                    nodes.access,
                    np.full(len(nodes.node), used),
                    Kind.PAGE_HEAP,
                    self.ordinal,
                    nodes.trace,
                )
            )

    def _leave_full_blocks(self) -> None:
        """Counts the memory of full blocks, of which without the root nobody knows which are used."""
        self._say(
            "page-heap-root-lost",
            ROOT,
            self.root_address,
            "it is damaged or not in the dump; which blocks with pages of their own are used is not known",
        )
        headers = self.stamps.full(self.root_address)
        places = np.append(headers, np.uint64(self.address))
        committed = self._add_allocations(committed_at(self.context.memory, places))
        self.account.unwalked_bytes += committed

    def _stamped_blocks(self) -> Iterator[Blocks]:
        """Light blocks without their normal heap: those whose headers say all that is needed."""
        account = self.account
        at = self.stamps.light(self.root_address)
        for start, size in account.ranges:  # those of full blocks
            at = at[at - np.uint64(start) >= np.uint64(size)]
        headers = read_headers(self.context, self.row, at, self.root_address)
        apart = _apart(at, headers.actual)
        at, headers = at[apart], headers.take(apart)
        places = np.append(at, np.uint64(self.normal_heap)) if self.normal_heap else at
        committed = self._add_allocations(committed_at(self.context.memory, places))
        actual = headers.actual.astype(np.int64)
        account.unwalked_bytes += max(committed - int(actual.sum()), 0)
        account.committed_bytes += max(int(actual.sum()) - committed, 0)
        yield account.count(
            Blocks.build(
                at + np.uint64(self.row.size(STRUCTURE)),
                headers.requested.astype(np.int64),
                actual,
                np.ones(len(at), bool),
                Kind.PAGE_HEAP,
                self.ordinal,
                headers.trace,
            )
        )

    def _add_allocations(self, parts: list[tuple[int, int]]) -> int:
        """Takes committed parts of allocations for this heap's, and gives their bytes."""
        account = self.account
        known = sorted(account.ranges)
        starts = [start for start, _ in known]
        total = 0
        for start, end in parts:
            before = bisect_right(starts, start) - 1
            if before >= 0 and start < sum(known[before]):
                continue
            total += end - start
            account.ranges.append((start, end - start))
        account.committed_bytes += total
        account.reserved_bytes += total
        return total

    def _open_normal_heap(self) -> Heap | None:
        address = self.normal_heap
        try:
            for detects, opens in NORMAL_HEAPS:
                if detects(self.context.memory, address, self.context.pointer_size):
                    return opens(self.context, address, self.ordinal)
            reason = "what is there is no heap of a known kind"
        except HeapError as error:
            reason = str(error)
        self._say(
            "page-heap-normal-heap-unread",
            f"{ROOT}.NormalHeap",
            address,
            f"{reason}; light blocks of the page heap at 0x{self.address:x} are found by their stamps",
        )
        return None

    def _light_blocks(self, normal: Heap) -> Iterator[Blocks]:
        """The normal heap's blocks as the program sees them."""
        account = self.account
        header = self.row.size(STRUCTURE)
        for piece in normal.blocks():
            yield account.count(piece.select(piece.state == State.FREE))
            inner = piece.used
            if isinstance(normal, xp_heap.XpHeap):
                tables = normal.are_lookaside_tables(inner)
                account.overhead_bytes += int(inner.block_bytes[tables].sum())
                inner = inner.select(~tables)
            headers = read_headers(self.context, self.row, inner.address, self.root_address)
            light = classify(headers, inner.size, header, self._ends(inner.address, headers))
            for index in np.flatnonzero(light.damaged)[: self.context.log.limit + 1].tolist():
                told = light.used[index] or light.free[index]
                self._say(
                    "page-heap-stamp-damaged"
                    if headers.present[index]
                    else "page-heap-block-absent",
                    STRUCTURE,
                    int(inner.address[index]),
                    "the header in front of this light block is "
                    + ("damaged" if headers.present[index] else "not in the dump")
                    + (
                        "; what is left of it tells its state" if told else "; its state is unknown"
                    ),
                    0 if told else int(inner.block_bytes[index]),
                )
            known = light.used | light.free
            account.unwalked_bytes += int(inner.block_bytes[~known].sum())
            yield account.count(
                Blocks.build(
                    inner.address[known] + np.uint64(header),
                    np.where(light.requested + header <= inner.block_bytes, light.requested, -1)[
                        known
                    ],
                    inner.block_bytes[known],
                    light.used[known],
                    Kind.PAGE_HEAP,
                    self.ordinal,
                    light.trace[known],
                )
            )
        for name in (
            "reserved_bytes",
            "committed_bytes",
            "overhead_bytes",
            "unwalked_bytes",
            "absent_bytes",
        ):
            setattr(account, name, getattr(account, name) + getattr(normal.account, name))
        account.ranges += normal.account.ranges

    def _ends(self, address: U64, headers: Headers) -> Mask:
        """Where the filling behind a light block begins at the size that its header tells."""
        behind = address + np.uint64(self.row.size(STRUCTURE)) + headers.requested
        word, _ = self.context.memory.gather(behind, "<u4")
        return np.asarray(word == SUFFIX_FILL)

    def _say(self, code: str, structure: str, address: int, message: str, lost: int = 0) -> None:
        self.context.log.add(code, Severity.WARNING, structure, address, message, lost)


def _apart(address: U64, size: U64) -> Mask:
    """Where a block, of those ascending by address, begins behind all before it."""
    end = np.maximum.accumulate(address + size) if len(address) else address
    return np.append(np.ones(min(len(address), 1), bool), address[1:] >= end[:-1])
