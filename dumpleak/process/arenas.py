"""What other allocators than Windows' own hold in a process: mimalloc, rpmalloc."""

from __future__ import annotations

from collections.abc import Iterator

from dumpleak.process.known_memory import inside_spans
from dumpleak.process.memory_use import heap_ranges
from dumpleak.process.session import HeapSource, Session
from windumps.blocks import Blocks
from windumps.heaps.slabs import SlabArena


def arenas_of(session: Session) -> list[HeapSource]:
    """All arenas, those that cannot be read included; heaps have to be walked first.

    What lies in a heap is its blocks, whatever it looks like.
    """
    heaps = heap_ranges(session)
    found = []
    for source in session.arenas:
        arena = source.entry.heap
        if isinstance(arena, SlabArena) and inside_spans(arena.slabs.start, heaps).any():
            continue
        found.append(source)
    return found


def arena_pieces(session: Session) -> Iterator[tuple[HeapSource, Blocks]]:
    """Blocks of all arenas that can be read, free ones included, piece by piece.

    Their accounts are complete afterwards.
    """
    for source in arenas_of(session):
        if source.entry.heap is not None:
            for blocks in source.entry.heap.blocks():
                yield source, blocks


def arena_blocks(session: Session) -> Iterator[tuple[HeapSource, Blocks]]:
    """Used blocks of all arenas that can be read, piece by piece; their accounts are complete afterwards."""
    for source, blocks in arena_pieces(session):
        used = blocks.used
        if len(used):
            yield source, used


def arena_spans(session: Session) -> dict[str, list[tuple[int, int]]]:
    """(start, bytes) of what each allocator took from Windows, by its name."""
    return {
        source.entry.kind: source.entry.heap.ranges
        for source in arenas_of(session)
        if isinstance(source.entry.heap, SlabArena)
    }


def walked_arenas(session: Session) -> list[SlabArena]:
    """Those all of whose blocks are known; of such that were not walked yet the account is empty."""
    arenas = [source.entry.heap for source in arenas_of(session)]
    return [a for a in arenas if isinstance(a, SlabArena) and not a.account.unwalked_bytes]
