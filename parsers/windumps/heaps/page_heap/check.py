"""Full page heap keeps what it knows of a block twice: in a node, and in the header in front of the block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from windumps.arrays import I64, PAGE_SIZE
from windumps.blocks import SIZE_UNKNOWN
from windumps.heaps.base import HeapContext
from windumps.heaps.nt.entries import Mask
from windumps.heaps.page_heap.light import FULL_END, FULL_START, STRUCTURE, read_headers
from windumps.heaps.page_heap.nodes import Nodes, length
from windumps.layouts.rows import LayoutRow

MOST_FILLER = 16  # a block ends that close to its guard page: its size is rounded up to 8 or 16


class Checked(NamedTuple):
    """Busy nodes and what their headers say, as columns of equal length.

    Attributes:
        nodes: With the header's sizes where those fit and the node's do not, `SIZE_UNKNOWN` where nothing
            decides, and no trace where the two disagree on it.
        agrees: True where node and header say the same.
        readable: True where the header is in the dump.
        possible: False where there is no such block: neither a header nor a fitting end.
    """

    nodes: Nodes
    agrees: Mask
    readable: Mask
    possible: Mask


def check_headers(context: HeapContext, row: LayoutRow, root: int, nodes: Nodes) -> Checked:
    """Compares nodes with the headers in front of their blocks, and repairs what one of them knows."""
    at = nodes.user - np.uint64(row.size(STRUCTURE))
    headers = read_headers(context, row, at, root)
    alive = headers.present & headers.owned
    alive &= (headers.start == FULL_START) & (headers.end == FULL_END)
    requested, access = length(headers.requested), length(headers.actual)
    sizes_differ = alive & ((requested != nodes.requested) | (access != nodes.access))
    traces_differ = alive & (headers.trace != nodes.trace)
    node_fits = _ends_at_guard(nodes, nodes.requested, nodes.access)
    header_fits = _ends_at_guard(nodes, requested, access)
    repaired = sizes_differ & header_fits & ~node_fits
    unclear = sizes_differ & (header_fits == node_fits)
    access = np.where(repaired, access, nodes.access)
    mended = nodes._replace(
        requested=np.where(unclear, SIZE_UNKNOWN, np.where(repaired, requested, nodes.requested)),
        access=access,
        size=np.where(repaired, access + PAGE_SIZE, nodes.size),
        trace=np.where(traces_differ, np.uint64(0), nodes.trace),
    )
    return Checked(
        mended,
        alive & ~sizes_differ & ~traces_differ,
        headers.present,
        ~headers.present | alive | node_fits,
    )


def _ends_at_guard(nodes: Nodes, requested: I64, access: I64) -> Mask:
    end = nodes.block + np.maximum(access, 0).astype(np.uint64)
    filler = (end - nodes.user).astype(np.int64) - requested
    whole = (access > 0) & (access & (PAGE_SIZE - 1) == 0)
    return np.asarray(whole & (requested >= 0) & (filler >= 0) & (filler < MOST_FILLER))
