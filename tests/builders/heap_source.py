"""Blocks at chosen addresses of a made dump, without a heap around them."""

from __future__ import annotations

import numpy as np

from builders.minidump_builder import MinidumpBuilder
from builders.opening import open_bytes
from dumpleak.process.session import HeapSource, Session
from windumps.blocks import Blocks, Kind
from windumps.heaps.kinds import ProcessHeap


def opened(dump: MinidumpBuilder) -> tuple[Session, HeapSource]:
    """A session over a made dump, and a heap that is only a name."""
    session = Session(open_bytes(dump.build()))
    view = session.views[0]
    source = HeapSource(view, ProcessHeap(0, 1, view.architecture, "nt", None))
    session.heaps.append(source)
    return session, source


def blocks_at(addresses: list[int], sizes: int | list[int], used: bool = True) -> Blocks:
    """Blocks of the program; one size for all, or one each."""
    address = np.array(addresses, np.uint64)
    size = np.broadcast_to(np.array(sizes, np.int64), address.shape)
    states = np.full(len(address), used)
    return Blocks.build(address, size, size + 16, states, Kind.NT_BACKEND, 1)
