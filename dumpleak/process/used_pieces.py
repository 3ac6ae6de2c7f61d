"""The used blocks of a walk, small pieces put together.

A process may have thousands of heaps of a few blocks each, and a column of ten blocks costs as much as one
of a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dumpleak.model.errors import Progress, no_progress
from dumpleak.process.session import HeapSource, Session
from windumps.blocks import Blocks

JOINED_BLOCKS = 1024  # of one joined piece, at most


def used_pieces(
    session: Session, progress: Progress = no_progress
) -> Iterator[tuple[HeapSource, Blocks]]:
    """Walks all readable heaps as `Session.blocks` does and leaves free blocks out.

    A piece may hold blocks of several heaps of one view; `Blocks.heap` tells which. The source it comes
    with is one of these heaps. No piece is empty.
    """
    return joined_used(session.blocks(progress))


def joined_used(
    walk: Iterable[tuple[HeapSource, Blocks]],
) -> Iterator[tuple[HeapSource, Blocks]]:
    """The used blocks of a walk in its order, as `used_pieces` has them.

    Names of sites depend on which blocks are looked at together: answers that are to agree take these.
    """
    waiting: list[Blocks] = []
    held, last = 0, None
    for source, blocks in walk:
        full = held + len(blocks) > JOINED_BLOCKS
        if last is not None and (full or source.view is not last.view):
            yield from _joined(last, waiting)
            waiting, held, last = [], 0, None
        if len(blocks) > JOINED_BLOCKS:
            yield from _joined(source, [blocks])
        else:
            waiting.append(blocks)
            held, last = held + len(blocks), source
    if last is not None:
        yield from _joined(last, waiting)


def _joined(source: HeapSource, pieces: list[Blocks]) -> Iterator[tuple[HeapSource, Blocks]]:
    blocks = pieces[0] if len(pieces) == 1 else Blocks.concatenate(pieces)
    used = blocks.used
    if len(used):
        yield source, used
