"""The segment heap of Windows 10 and 11: what packaged apps and many services use instead of the NT heap.

Memory comes from page segments, cut into page ranges: single blocks of whole pages, subsegments of variable
size chunks (VS), subsegments of equal blocks (LFH); what is larger than a range may be stands alone and is
kept in a tree. All of it is read without symbols: keys are found by `keys.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind, State
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import HeapError, MemoryReadError
from windumps.heaps.base import Heap, HeapAccount, HeapContext
from windumps.heaps.segment.delay import delayed_frees
from windumps.heaps.segment.fit import Fit, fit_layout, list_all
from windumps.heaps.segment.keys import (
    ImageWords,
)
from windumps.heaps.segment.large import all_records, read_large
from windumps.heaps.segment.lfh import slot_references
from windumps.heaps.segment.padding import Padding, find_padding, find_traces
from windumps.heaps.segment.pages import header_bytes
from windumps.heaps.segment.walk import RawBlocks, Walker
from windumps.layouts.rows import LayoutChoice, LayoutRow, choose_layout
from windumps.layouts.segment_heap import SEGMENT_HEAP_ROWS
from windumps.memory import AddressSpace

NAME = "segment"
SIGNATURE = 0xDDEEDDEE
SAMPLE_BLOCKS = 4096
LEAST_SCORE = 0.25
_COUNTERS = (
    "TotalReservedPages",
    "TotalCommittedPages",
    "FreeCommittedPages",
    "LfhFreeCommittedPages",
    "LargeReservedPages",
    "LargeCommittedPages",
)


def detect(memory: AddressSpace, address: int, pointer_size: int) -> bool:
    """True when a heap handle bears the segment heap's signature."""
    try:
        return memory.read_uint(address + 2 * pointer_size, 4) == SIGNATURE
    except MemoryReadError:
        return False


def open_segment_heap(
    context: HeapContext,
    address: int,
    ordinal: int,
    rows: Sequence[LayoutRow] = (),
) -> SegmentHeap:
    """Opens a segment heap, choosing the layout that fits best.

    Args:
        context: The process, or the kernel.
        address: The heap's handle.
        ordinal: Position in the heap list.
        rows: Layouts to choose from, other than those of user mode.

    Raises:
        HeapError: the heap's header is not in the dump, or no layout fits it.
    """
    image = ImageWords(context.memory, context.ntdll, context.pointer_size)

    def score(row: LayoutRow) -> tuple[float, Fit] | None:
        try:
            return fit_layout(context.memory, row, address, image)
        except MemoryReadError:
            return None

    choice = choose_layout(
        rows or SEGMENT_HEAP_ROWS,
        context.architecture,
        context.build,
        score,
        context.exact_layouts.get("segment heap"),
    )
    if choice is None or choice.score < LEAST_SCORE:
        raise HeapError(
            f"the segment heap at 0x{address:x} fits no known layout; "
            "its header is damaged, not in the dump, or of a newer Windows",
            address,
        )
    return SegmentHeap(context, address, ordinal, choice)


def introduce(heaps: Iterable[Heap | None]) -> None:
    """Lets the segment heaps of a process know each other.

    They share their keys, so one whose list of segments is lost does not take those of another for its own;
    and up to 16299 one holds records of the others.
    """
    family = Family([heap for heap in heaps if isinstance(heap, SegmentHeap)])
    best = family.surest_fit()
    for heap in family.heaps:
        heap.family = family
        guessed = heap.fit.key is not None and not heap.fit.key.from_list
        if guessed and best is not None:
            heap.fit = replace(heap.fit, key=best.key, vs_key=best.vs_key, lfh_key=best.lfh_key)


@dataclass
class Family:
    """The segment heaps of a process."""

    heaps: list[SegmentHeap]

    def surest_fit(self) -> Fit | None:
        """What was found of the heap whose key most segments of its own list agree on."""
        listed = [h.fit for h in self.heaps if h.fit.key is not None and h.fit.key.from_list]
        return max(listed, key=lambda fit: fit.key.agreeing if fit.key else 0, default=None)

    @cached_property
    def records(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Addresses of all records of large blocks, ascending, and the number of the heap each is of."""
        found = [heap.large_records() for heap in self.heaps]
        owner = np.repeat(np.arange(len(found)), [len(part) for part in found])
        records = np.concatenate([np.empty(0, np.uint64), *found])
        order = np.argsort(records)
        return records[order], owner[order]

    def holds_others_records(self, heap: SegmentHeap) -> bool:
        """True when a heap's segments hold records of another one's blocks."""
        records, owner = self.records
        if not len(records):
            return False
        mine = next(number for number, one in enumerate(self.heaps) if one is heap)
        for start, size in heap.segment_ranges():
            low, high = np.searchsorted(records, np.array([start, start + size], np.uint64))
            if (owner[low:high] != mine).any():
                return True
        return False


@dataclass
class SegmentHeap:
    """One segment heap; see `Heap` for the attributes that every kind has."""

    context: HeapContext
    address: int
    ordinal: int
    choice: LayoutChoice[Fit]
    kind: str = NAME
    architecture: str = ""
    flags: int = 0
    front_end: str = "lfh"
    layout: str = ""
    account: HeapAccount = field(default_factory=HeapAccount)
    family: Family | None = None

    def __post_init__(self) -> None:
        self.fit = self.choice.fit
        self.row = row = self.choice.row
        memory = self.context.memory
        self.architecture = self.context.architecture
        self.layout = str(self.choice)
        place = row.offset("_SEGMENT_HEAP", "SegContexts")
        found = [c.address - c.index * row.size("_HEAP_SEG_CONTEXT") for c in self.fit.contexts]
        if found and found[0] != self.address + place:
            self.layout += f", contexts found at +0x{found[0] - self.address:x}"
        self.flags = row.read_field(memory, "_SEGMENT_HEAP", "GlobalFlags", self.address)
        self.front_end = "lfh" if self.fit.lfh_key is not None else ""

    def blocks(self) -> Iterator[Blocks]:
        """Walks the heap; see `Heap.blocks`."""
        sample = self._sample()
        padding = self._padding(*sample)
        self.account = HeapAccount()
        self._header()
        self._say_how(padding)
        own = self._is_ntdlls_own(*sample)
        for raw in self._walker(self.context.log, self.account).walk():
            blocks = self._finish(self._certain(raw), padding)
            if own:
                used = blocks.state == State.USED
                self.account.overhead_bytes += int(blocks.block_bytes[used].sum())
                blocks = blocks.select(~used)
            yield self.account.count(blocks)

    def _certain(self, raw: RawBlocks) -> RawBlocks:
        """Leaves out blocks of doubtful state, and counts them as unwalked."""
        if raw.uncertain is None or not raw.uncertain.any():
            return raw
        self.account.unwalked_bytes += int(raw.committed[raw.uncertain].sum())
        return raw.select(~raw.uncertain)

    def large_records(self) -> NDArray[np.uint64]:
        """Addresses of the records that describe this heap's large allocations (uint64)."""
        return read_large(self.context.memory, self.row, self.address, DiagnosticLog()).record

    def segment_ranges(self) -> list[tuple[int, int]]:
        """(start, bytes) of its segments."""
        fit = self.fit
        listed = list_all(self.context.memory, self.row, fit.contexts, fit.key, DiagnosticLog())
        return [(segment, context.segment_bytes) for context, segment in listed]

    def _is_ntdlls_own(self, address: NDArray[np.uint64], room: NDArray[np.int64]) -> bool:
        """True when records of other heaps' large allocations lie here.

        Up to 16299 ntdll keeps them in a segment heap of its own, which the PEB lists like any other. Where
        the other heap cannot be read, what the blocks hold tells.
        """
        if self.family is not None and self.family.holds_others_records(self):
            return True
        return all_records(self.context.memory, self.row, address, room)

    def raw_blocks(self) -> Iterator[RawBlocks]:
        """Walks the heap; the allocator's blocks as they are, for the kernel's pool.

        `account` is filled but for the blocks themselves.
        """
        self.account = HeapAccount()
        self._header()
        yield from self._walker(self.context.log, self.account).walk()

    def _walker(self, log: DiagnosticLog, account: HeapAccount) -> Walker:
        fit, memory = self.fit, self.context.memory
        return Walker(
            memory,
            self.row,
            self.address,
            fit.contexts,
            fit.key,
            fit.vs_key,
            fit.lfh_key,
            log,
            account,
            delayed_frees(memory, self.row, fit.contexts, log),
            slot_references(
                memory, self.row, self.address, header_bytes(memory, self.row, self.address)[0]
            ),
            self.choice.source == "probed",
        )

    def _sample(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Addresses and sizes of the first used blocks, without regard to padding."""
        addresses, sizes = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for raw in self._walker(DiagnosticLog(), HeapAccount()).walk():
            if raw.kind != Kind.SEGMENT_LARGE or self.row.offset("constants", "LargePadding"):
                addresses.append(raw.address[raw.used])
                sizes.append(raw.room[raw.used])
            if sum(map(len, addresses)) >= SAMPLE_BLOCKS:
                break
        return np.concatenate(addresses), np.concatenate(sizes)

    def _padding(self, address: NDArray[np.uint64], room: NDArray[np.int64]) -> Padding:
        """Judges by the first blocks whether the heap pads."""
        return find_padding(self.context.memory, self.row, address, room)

    def _finish(self, raw: RawBlocks, padding: Padding) -> Blocks:
        """From the allocator's blocks to the program's."""
        # A free block's address is the one it would have: a block of no bytes ends where the next begins.
        pad = np.full(len(raw.address), padding.size, np.int64)
        if padding.marked:
            rows = np.flatnonzero(raw.used)
            held = raw.room[rows] - np.maximum(raw.unused[rows], 0)
            pad[rows] = padding.of(
                self.context.memory, self.row.pointer_size, raw.address[rows], held
            )
        size = raw.room - raw.unused - pad
        if raw.kind == Kind.SEGMENT_LARGE and not padding.before_large:
            pad[:] = 0
        unknown = (raw.unused == SIZE_UNKNOWN) | (size < 0)
        size[unknown] = SIZE_UNKNOWN
        self._say_unknown(raw, unknown & raw.used)
        trace = None
        carries = raw.used & raw.extra & (raw.unused != SIZE_UNKNOWN)
        if carries.any():
            trace = np.zeros(len(raw.address), np.uint64)
            asked = (raw.room - raw.unused)[carries].astype(np.uint64)
            trace[carries] = find_traces(
                self.context.memory, self.row.pointer_size, raw.address[carries] + asked
            )
        return Blocks.build(
            raw.address + pad.astype(np.uint64),
            size,
            raw.committed,
            raw.used,
            raw.kind,
            self.ordinal,
            trace,
        )

    def _say_unknown(self, raw: RawBlocks, unknown: NDArray[np.bool_]) -> None:
        if unknown.any():
            first = int(raw.address[unknown][0])
            self.context.log.add(
                "requested-size-unknown",
                Severity.WARNING,
                "_HEAP_VS_UNUSED_BYTES_INFO",
                first,
                f"{int(unknown.sum())} blocks from 0x{first:x} on do not say how much of them was asked for: "
                "what would say so is absent or damaged",
            )

    def _header(self) -> None:
        """The heap's own pages, and the counters it keeps."""
        row, account = self.row, self.account
        for name in _COUNTERS:
            if row.has("_SEGMENT_HEAP", name):
                account.counters[name] = self._field(name)
        committed, reserved = header_bytes(self.context.memory, row, self.address)
        account.committed_bytes += committed
        account.overhead_bytes += committed
        account.reserved_bytes += reserved
        if reserved:
            account.ranges.append((self.address, reserved))

    def _field(self, name: str) -> int:
        return self.row.read_field(self.context.memory, "_SEGMENT_HEAP", name, self.address)

    def _say_how(self, padding: Padding) -> None:
        names = (
            ("HeapKey", self.fit.key),
            ("key of chunk headers", self.fit.vs_key),
            ("LfhKey", self.fit.lfh_key),
        )
        said = "; ".join(
            f"{name} from {key.source} ({key.agreeing} of {key.samples} agree)"
            for name, key in names
            if key is not None
        )
        for code, message in (
            ("segment-heap-keys", said or "the heap has no page segment, so no key is needed"),
            ("segment-heap-padding", f"{padding.size} bytes in front of blocks: {padding.reason}"),
        ):
            self.context.log.add(code, Severity.INFO, "_SEGMENT_HEAP", self.address, message)
