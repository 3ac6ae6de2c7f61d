"""What blocks begin with: their first words, and whether those are text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import U64
from windumps.blocks import Blocks
from windumps.memory.address_space import values_at
from windumps.process.views import ProcessView

WORDS = 4
TEXT_BYTES = 8  # what is looked at
NO_TEXT, ASCII_TEXT, UTF16_TEXT = 0, 1, 2

_LENGTH_BYTES = 4
LENGTH_SLACK = 32  # bytes behind the text: its end, and what sizes are rounded up to
_LOW_HALF = np.uint64(0xFFFFFFFF)
_BYTES = np.uint64(0x0101010101010101)
_HIGH_BITS = np.uint64(0x80) * _BYTES
_UTF16_ZEROS = np.uint64(0xFF00FF00FF00FF00)
_UTF16_SPACES = np.uint64(0x2000200020002000)  # put in place of the zeros


def first_words(view: ProcessView, blocks: Blocks) -> NDArray[np.uint64]:
    """The first four pointer-sized words of each block.

    Args:
        view: Gives memory and pointer size.
        blocks: Blocks of its heaps.

    Returns:
        uint64, shape (n, 4); 0 for words that are behind the block's end or not in the dump.
    """
    memory, width = view.memory, view.pointer_size
    # All four words at once, also of smaller blocks: that costs little more than one word.
    offsets = memory.locate(blocks.address, WORDS * width)
    torn = np.flatnonzero(offsets < 0)
    if len(torn) == len(blocks):
        words = np.zeros((len(blocks), WORDS), np.uint64)
    else:
        offsets[torn] = 0
        rows = values_at(memory.data, offsets, np.dtype(f"V{WORDS * width}"))
        words = rows.view(f"<u{width}").reshape(-1, WORDS).astype(np.uint64, copy=False)
    if len(torn):  # partly in the dump, or not at all
        places = blocks.address[torn, None] + np.arange(WORDS, dtype=np.uint64) * np.uint64(width)
        words[torn] = memory.gather(places, f"<u{width}")[0]
    room = blocks.counted_bytes
    small = np.flatnonzero(room < WORDS * width)
    if len(small):
        ends = np.arange(1, WORDS + 1) * width
        words[small] = np.where(ends <= room[small, None], words[small], 0)
    return words


def text_kind(words: NDArray[np.uint64], width: int, room: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Whether blocks begin with eight bytes of text, though they may look like pointers on x86.

    Args:
        words: As `first_words` gives them.
        width: Pointer size.
        room: Bytes of each block (int64). On x86, where any four letters may be a pointer, the
            first word alone decides for blocks of less than eight.

    Returns:
        uint8, shape (n,): `ASCII_TEXT` for printable ASCII, `UTF16_TEXT` for the same as UTF-16,
        else `NO_TEXT`.
    """
    octets = words[:, 0]
    if width < TEXT_BYTES:
        second = np.where(room < TEXT_BYTES, words[:, 0], words[:, 1])
        octets = octets | second << np.uint64(32)
    wide = (octets & _UTF16_ZEROS) == 0
    kind = np.where(wide, UTF16_TEXT, ASCII_TEXT).astype(np.uint8)
    kind[~_printable(np.where(wide, octets | _UTF16_SPACES, octets))] = NO_TEXT
    return kind


def begins_with_length(
    words: NDArray[np.uint64], width: int, room: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """True for UTF-16 text behind its length in bytes, as a BSTR has it.

    The length has to fit the block, and in 64-bit processes may stand behind four bytes that pad it.

    Args:
        words: As `first_words` gives them.
        width: Pointer size.
        room: Bytes of each block (int64).
    """
    if width == TEXT_BYTES:
        low = words & _LOW_HALF
        first, second = words[:, 0], words[:, 1]
        forms: tuple[tuple[U64, U64], ...] = (
            (low[:, 0], first >> np.uint64(32) | second << np.uint64(32)),
            (first >> np.uint64(32), second),
        )
    else:
        forms = ((words[:, 0], words[:, 1] | words[:, 2] << np.uint64(32)),)
    found = np.zeros(len(words), np.bool_)
    for place, (length, octets) in enumerate(forms, start=1):
        left = room - length.astype(np.int64) - _LENGTH_BYTES * place
        fits = (length >= TEXT_BYTES) & (left >= 0) & (left <= LENGTH_SLACK)
        wide = (octets & _UTF16_ZEROS) == 0
        found |= fits & wide & _printable(octets | _UTF16_SPACES)
    return found


def _printable(octets: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """True where all eight bytes are 0x20 to 0x7E."""
    below_space = (octets - np.uint64(0x20) * _BYTES) & ~octets
    above_tilde = (octets + _BYTES) | octets
    printable: NDArray[np.bool_] = (below_space | above_tilde) & _HIGH_BITS == 0
    return printable
