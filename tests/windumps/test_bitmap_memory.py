"""Memory behind a bitmap against the same memory as a list of runs."""

from __future__ import annotations

import numpy as np
import pytest

from windumps.memory import Presence, RunMemory
from windumps.memory import bitmap as bitmap_module
from windumps.memory.bitmap import BitmapMemory, popcount

PAGE = 0x1000
START = 0x2038  # where the bitmap begins in the file


def both(
    bits: np.ndarray[tuple[int], np.dtype[np.bool_]], cut_pages: int = 0
) -> tuple[BitmapMemory, RunMemory]:
    """A file with a bitmap and its pages, the last of them cut off, read in both ways."""
    packed = np.packbits(bits, bitorder="little").tobytes()
    first = -(-(START + len(packed)) // PAGE) * PAGE
    pages = np.flatnonzero(bits)
    kept = max(len(pages) - cut_pages, 0)
    body = np.arange(kept, dtype="<u8").repeat(PAGE // 8).tobytes()
    data = np.frombuffer((bytes(START) + packed).ljust(first, b"\xff") + body, np.uint8)
    runs = RunMemory(
        data,
        pages[:kept].astype(np.uint64) * np.uint64(PAGE),
        np.full(kept, PAGE, np.int64),
        first + np.arange(kept, dtype=np.int64) * PAGE,
    )
    return BitmapMemory(data, START, len(bits), first), runs


CASES = [
    (1, 1.0),
    (63, 0.5),
    (64, 0.5),
    (65, 0.5),
    (100, 0.0),
    (512, 1.0),
    (3001, 0.3),
    (4096, 0.97),
]


@pytest.mark.parametrize("cut", [0, 1, 7, 1 << 20])
@pytest.mark.parametrize(("count", "share"), CASES)
def test_a_bitmap_and_runs_say_the_same(
    monkeypatch: pytest.MonkeyPatch, count: int, share: float, cut: int
) -> None:
    monkeypatch.setattr(bitmap_module, "CHUNK_BITS", 256)  # so that runs go over ends of chunks
    random = np.random.default_rng(count)
    memory, runs = both(random.random(count) < share, cut)
    assert memory.total_bytes == runs.total_bytes
    for theirs, ours in zip(runs.runs, memory.runs, strict=True):
        assert ours.tolist() == theirs.tolist()
    addresses = random.integers(0, (count + 3) * PAGE, 4000).astype(np.uint64)
    addresses[:2] = 0, np.uint64((1 << 64) - 1)
    for size in (1, 8, PAGE, 3 * PAGE):
        assert memory.locate(addresses, size).tolist() == runs.locate(addresses, size).tolist()
    for _ in range(60):
        start, end = sorted(random.integers(0, (count + 3) * PAGE, 2).tolist())
        theirs, ours = runs.extents(start, end), memory.extents(start, end)
        assert [c.tolist() for c in ours] == [c.tolist() for c in theirs]
        assert memory.presence(start) is runs.presence(start)
        assert memory.read_available(start, 64) == runs.read_available(start, 64)


def test_bits_behind_the_last_are_no_pages() -> None:
    # The file goes on behind the bitmap with ones.
    memory, _ = both(np.ones(10, np.bool_))
    assert memory.present_pages == 10
    assert memory.presence(10 * PAGE) is Presence.ABSENT
    assert memory.presence(9 * PAGE) is Presence.PRESENT
    assert memory.presence(-1) is Presence.NOT_MAPPED


@pytest.mark.parametrize("first_page", [1 << 50, (1 << 64) - PAGE])
def test_a_bitmap_that_is_cut_holds_nothing(first_page: int) -> None:
    data = np.frombuffer(bytes(START) + b"\xff" * 5, np.uint8)
    memory = BitmapMemory(data, START, 1 << 40, first_page)
    assert memory.present_pages == 40
    assert memory.total_bytes == 0
    assert len(memory.runs.address) == 0
    assert memory.locate(np.array([0, PAGE], np.uint64), 8).tolist() == [-1, -1]
    empty = BitmapMemory(data, len(data) + 5, 64, 0)
    assert (empty.present_pages, empty.presence(0)) == (0, Presence.ABSENT)


def test_bits_are_counted_without_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.random.default_rng(1).integers(0, 1 << 63, 1000, np.uint64)
    expected = [int(word).bit_count() for word in words]
    assert popcount(words).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert popcount(words).tolist() == expected
