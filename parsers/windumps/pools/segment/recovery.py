"""Blocks in present pages whose heap's own record of them is in an absent one.

The header of a chunk may be at the end of a page that was paged out, its block at the start of the
next; an LFH subsegment keeps the state of all its blocks in its first page. Of such blocks only the
pool header is left, and that stays as it is when a block is freed. So they are candidates: the caller takes
those whose tag the trackers miss (`accepted`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U64
from windumps.diagnostics import DiagnosticLog
from windumps.heaps.segment.chain import decode_headers
from windumps.heaps.segment.contexts import list_segments
from windumps.heaps.segment.heap import SegmentHeap
from windumps.heaps.segment.pages import read_segments
from windumps.heaps.segment.tiling import Use
from windumps.memory import AddressSpace
from windumps.memory.address_space import Presence
from windumps.pool_tags import is_printable, plain_tags
from windumps.pools.pages.chain import HeaderForm, read_headers

_IN_USE = 0x2
_KNOWN_TYPE = 0x6F  # bits that PoolType may have
LARGEST_LFH_BLOCK = 0x400
MIN_BLOCKS = 3  # of an LFH page before a block size is believed
MAX_RANGES = 1 << 16


class Candidates(NamedTuple):
    """Blocks that may be used, as columns.

    Attributes:
        header: uint64.
        size: int64, bytes.
        tag: uint32.
        type: int64, PoolType.
    """

    header: U64
    size: I64
    tag: NDArray[np.uint32]
    type: I64

    def select(self, keep: NDArray[np.bool_] | I64) -> Candidates:
        """The rows where `keep` is true, or the numbered ones."""
        return Candidates(self.header[keep], self.size[keep], self.tag[keep], self.type[keep])


def no_candidates() -> Candidates:
    """None at all."""
    nothing = np.empty(0, np.int64)
    return Candidates(nothing.astype(np.uint64), nothing, nothing.astype(np.uint32), nothing)


def find_candidates(memory: AddressSpace, heap: SegmentHeap, form: HeaderForm) -> Candidates:
    """Candidates of one heap; those of blocks that the walk gave may be among them."""
    fit, row = heap.fit, heap.row
    scratch = DiagnosticLog()
    found: list[Candidates] = []
    key = fit.key.value if fit.key is not None else None
    vs_key = fit.vs_key.value if fit.vs_key is not None else None
    for context in fit.contexts:
        segments = list_segments(memory, row, context, key, scratch)
        for batch in read_segments(memory, row, context, segments, scratch):
            ranges = batch.ranges
            chosen = (ranges.use == Use.VS) | (ranges.use == Use.LFH)
            for start, size, use in zip(
                ranges.address[chosen].tolist(),
                ranges.size[chosen].tolist(),
                ranges.use[chosen].tolist(),
                strict=True,
            ):
                if memory.present_bytes(start, start + size) >= size or len(found) > MAX_RANGES:
                    continue
                if use == Use.LFH and memory.presence(start) is Presence.ABSENT:
                    found.append(_lfh_blocks(memory, form, start, size))
                elif use == Use.VS and vs_key is not None:
                    found.append(_page_blocks(memory, form, vs_key, start, size))
    if not found:
        return no_candidates()
    return Candidates(
        np.concatenate([part.header for part in found]),
        np.concatenate([part.size for part in found]),
        np.concatenate([part.tag for part in found]),
        np.concatenate([part.type for part in found]),
    )


def _headers(memory: AddressSpace, form: HeaderForm, address: U64) -> Candidates:
    """The addresses that bear a header that could be a used block's."""
    offset = memory.locate(address, 8)
    address, offset = address[offset >= 0], offset[offset >= 0]
    headers = read_headers(memory.data, offset, form)
    tag, size = plain_tags(headers.tag), headers.size * form.unit
    into = (address & np.uint64(PAGE_SIZE - 1)).astype(np.int64)
    good = (headers.previous == 0) & (headers.size > 1) & (into + size <= PAGE_SIZE)
    good &= (headers.type & _IN_USE != 0) & (headers.type & ~_KNOWN_TYPE == 0)
    good &= is_printable(tag)
    return Candidates(address[good], size[good], tag[good], headers.type[good])


def _pages(memory: AddressSpace, start: int, size: int) -> tuple[U64, NDArray[np.bool_]]:
    """Addresses of a range's pages, and which are in the dump."""
    page = np.uint64(start) + np.arange(size // PAGE_SIZE, dtype=np.uint64) * np.uint64(PAGE_SIZE)
    return page, memory.locate(page, 1) >= 0


def _page_blocks(
    memory: AddressSpace, form: HeaderForm, key: int, start: int, size: int
) -> Candidates:
    """Blocks at the start of a page behind an absent one, confirmed by the chunk behind them.

    Their chunk's header stands two units before the page. The chunk behind names its size.
    """
    page, there = _pages(memory, start, size)
    first = page[1:][there[1:] & ~there[:-1]]
    found = _headers(memory, form, first)
    confirmed = np.zeros(len(found.header), np.bool_)
    unit = form.unit
    for slack in range(2):
        units = found.size // unit + 2 + slack
        behind = found.header + ((units - 2) * unit).astype(np.uint64)
        raw, present = memory.gather(behind, np.dtype(("V", unit)))
        bytes_ = np.frombuffer(raw.tobytes(), np.uint8)
        headers = decode_headers(bytes_, behind, key, unit // 2)
        confirmed |= present & headers.sound & (headers.previous == units)
    return found.select(confirmed)


def _lfh_blocks(memory: AddressSpace, form: HeaderForm, start: int, size: int) -> Candidates:
    """Blocks of a subsegment without its header: those that stand at equal distances."""
    page, there = _pages(memory, start, size)
    inside = np.arange(PAGE_SIZE // form.unit, dtype=np.uint64) * np.uint64(form.unit)
    found = _headers(memory, form, (page[there][:, None] + inside).ravel())
    into = (found.header - np.uint64(start)).astype(np.int64)
    best = np.empty(0, np.int64)
    for block in range(2 * form.unit, LARGEST_LFH_BLOCK + 1, form.unit):
        rows = np.flatnonzero(found.size <= block)
        if len(rows) < max(MIN_BLOCKS, len(best)):
            continue
        phase = into[rows] % block // form.unit
        counts = np.bincount(phase)
        if int(counts.max()) > len(best):
            best = rows[phase == int(counts.argmax())]
    if len(best) < MIN_BLOCKS:
        return no_candidates()
    return found.select(best)


def accepted(
    keys: I64, sizes: I64, missing: dict[int, tuple[int, int]], smallest: int
) -> NDArray[np.bool_]:
    """Which candidates the trackers count: those of tags of which as many blocks and bytes are missing.

    Args:
        keys: int64, tag and pool of each candidate.
        sizes: int64, bytes.
        missing: Blocks and bytes counted and not walked, by key, where that is known.
        smallest: Bytes of the smallest block.
    """
    good = np.zeros(len(keys), np.bool_)
    for key in np.unique(keys).tolist():
        mine = keys == key
        blocks, held = missing.get(key, (0, 0))
        count, total = int(mine.sum()), int(sizes[mine].sum())
        others = blocks - count
        if others == 0:
            good[mine] = total == held
        elif others > 0:
            good[mine] = total + others * smallest <= held
    return good
