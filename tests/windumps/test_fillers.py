"""Pages of one repeated word, which tools write where they could not read memory."""

from __future__ import annotations

import numpy as np
import pytest

from windumps.arrays import PAGE_SIZE
from windumps.heaps.segment.padding import last_words
from windumps.memory import RunMemory
from windumps.memory.fillers import are_fillers, on_fillers

BASE = 0x7FF0_0000_0000


def memory(*pages: bytes) -> RunMemory:
    data = np.frombuffer(b"".join(pages), np.uint8)
    size = np.array([len(data)], np.int64)
    return RunMemory(data, np.array([BASE], np.uint64), size, np.zeros(1, np.int64))


def repeated(word: int) -> bytes:
    return word.to_bytes(4, "little") * (PAGE_SIZE // 4)


MIXED = bytes(range(256)) * (PAGE_SIZE // 256)
ALMOST = repeated(0xDEADFEED)[:-4] + bytes(4)


@pytest.mark.parametrize(
    ("page", "known", "any_word"),
    [
        (repeated(0xDEADFEED), True, True),
        (repeated(0xCCCCCCCC), False, True),
        (bytes(PAGE_SIZE), False, False),
        (MIXED, False, False),
        (ALMOST, False, False),
    ],
)
def test_a_page_of_one_word_is_a_filler(page: bytes, known: bool, any_word: bool) -> None:
    data = np.frombuffer(MIXED + page, np.uint8)
    offsets = np.array([0, PAGE_SIZE, -1], np.int64)
    assert are_fillers(data, offsets).tolist() == [False, known, False]
    assert are_fillers(data, offsets, None).tolist() == [False, any_word, False]


def test_a_record_is_on_a_filler_with_its_first_or_its_last_byte() -> None:
    made = memory(MIXED, repeated(7), MIXED)
    at = np.array(
        [0, PAGE_SIZE - 8, PAGE_SIZE - 4, PAGE_SIZE, 2 * PAGE_SIZE - 4, 2 * PAGE_SIZE], np.uint64
    ) + np.uint64(BASE)
    assert on_fillers(made, at, 8).tolist() == [False, False, True, True, True, False]


def test_a_filler_does_not_say_how_long_a_block_is() -> None:
    tail = MIXED[:-2] + b"\x05\x00"
    made = memory(tail, repeated(0x00050005), MIXED)
    end = np.array([PAGE_SIZE, 2 * PAGE_SIZE, 4 * PAGE_SIZE], np.uint64) + np.uint64(BASE)
    words, present = last_words(made, end)
    assert present.tolist() == [True, False, False]
    assert words[0] == 5
