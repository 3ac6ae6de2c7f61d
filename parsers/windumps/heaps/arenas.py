"""Allocators other than Windows' own whose blocks are read, and what a process has of them.

One row each in `ARENA_KINDS`. All memory of one allocator in a process is one arena, whatever heaps the
allocator itself tells apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from windumps.diagnostics import DiagnosticLog
from windumps.heaps.kinds import ProcessHeap
from windumps.heaps.mimalloc import heap as mimalloc
from windumps.heaps.rpmalloc import heap as rpmalloc
from windumps.heaps.slabs import SlabArena
from windumps.memory import AddressSpace
from windumps.process.views import ProcessView

ARCHITECTURE = "x64"  # the only one whose layouts are known


class ArenaKind(NamedTuple):
    """One allocator.

    Attributes:
        name: The interface's word.
        find: Gives all of its memory, None where there is none, and where it is recognised only, why it
            cannot be read.
    """

    name: str
    find: Callable[[AddressSpace, int, DiagnosticLog], SlabArena | str | None]


ARENA_KINDS: tuple[ArenaKind, ...] = (
    ArenaKind(mimalloc.NAME, mimalloc.find_mimalloc),
    ArenaKind(rpmalloc.NAME, rpmalloc.find_rpmalloc),
)


def process_arenas(view: ProcessView) -> list[ProcessHeap]:
    """What a process has of other allocators; those that cannot be read come with the reason."""
    if view.architecture != ARCHITECTURE:
        return []
    arenas: list[ProcessHeap] = []
    for kind in ARENA_KINDS:
        found = kind.find(view.memory, len(arenas), view.log)
        if found is None:
            continue
        heap, reason = (None, found) if isinstance(found, str) else (found, "")
        address = heap.ranges[0][0] if heap is not None else 0
        arenas.append(ProcessHeap(address, len(arenas), view.architecture, kind.name, heap, reason))
    return arenas
