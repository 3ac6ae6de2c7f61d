"""The shape of what a block holds, as a number that tells nothing of its contents.

Two blocks at one address and of one size are taken for one block that is still there when their shapes
agree too. What does not change while an object lives is where its first words point into images: its
vftable, its callbacks. Everything else may be written to at any time, and says nothing about reuse.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.contents import NO_TEXT, first_words, text_kind
from dumpleak.attribution.shape import image_pointers
from dumpleak.model.block_table import NO_SHAPE, shape_identity
from dumpleak.process.session import HeapSource, Session
from windumps.blocks import Blocks

_SPREAD = np.uint64(
    0x9E3779B97F4A7C15
)  # 2**64 / golden ratio: spreads neighbouring values over all bits
_MIX = np.uint64(0xD6E8FEB86659FD93)


def content_shapes(session: Session, source: HeapSource, blocks: Blocks) -> NDArray[np.uint16]:
    """A hash of which of a block's first four words point into images, and where in them.

    Args:
        session: The dump.
        source: The heap; gives memory and pointer size.
        blocks: Blocks of that heap.

    Returns:
        uint16, shape (n,); the same wherever images are loaded. `NO_SHAPE` for blocks without such a
        word, with text, or not in the dump.
    """
    words = first_words(source.view, blocks)
    shapes = np.zeros(len(blocks), np.uint64)
    rows, columns = image_pointers(session, words)
    if not len(rows):
        return shapes.astype(np.uint16)
    text = text_kind(words, source.view.pointer_size, blocks.counted_bytes) != NO_TEXT
    rows, columns = rows[~text[rows]], columns[~text[rows]]
    images = session.images.modules
    numbers = session.images.index_of(words[rows, columns])
    bases = np.array([image.base_address for image in images], np.uint64)
    identities = np.array(
        [
            int.from_bytes(
                blake2b(shape_identity(image).encode(), digest_size=8).digest(), "little"
            )
            for image in images
        ],
        np.uint64,
    )
    place = words[rows, columns] - bases[numbers] + (columns.astype(np.uint64) << np.uint64(48))
    np.bitwise_xor.at(shapes, rows, (place * _SPREAD ^ identities[numbers]) * _MIX)
    folded = (shapes >> np.uint64(48)).astype(np.uint16)
    folded[(folded == NO_SHAPE) & (shapes != 0)] = 1
    return folded
