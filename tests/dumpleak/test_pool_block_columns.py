"""The table of all blocks of the pools: in order, exact, and small."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from dumpleak.model import block_columns
from dumpleak.model.block_columns import sorted_columns
from dumpleak.model.pool_blocks import PoolBlocks

ROWS = 400_000
MOST_BYTES_A_ROW = 30


def made(rows: int, low: int, step: int, keys: int) -> block_columns.Columns:
    dice = np.random.default_rng(7)
    address = low + step * dice.permutation(rows).astype(np.uint64)
    key = dice.integers(0, keys, rows).astype(np.uint64) << np.uint64(20)
    size = dice.integers(1, 1 << 20, rows)
    return key, address.astype(np.uint64), size, dice.integers(0, 9, rows).astype(np.uint8)


@pytest.mark.parametrize(
    ("low", "step"),
    [(0xFFFF800000000000, 16), (0x80000000, 8), (3, 1), (0, 1 << 44)],
    ids=["x64", "x86", "unaligned", "too wide to pack"],
)
def test_rows_are_in_order_of_key_and_address_and_keep_their_values(
    low: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_columns, "CHUNK", 700)
    key, address, size, kind = made(5000, low, step, 300)
    pieces = [
        (key[a:b], address[a:b], size[a:b], kind[a:b]) for a, b in ((0, 10), (10, 10), (10, 5000))
    ]
    found = sorted_columns(pieces)
    order = np.lexsort((address, key))
    assert np.array_equal(np.repeat(found.keys, np.diff(found.starts)), key[order])
    assert np.array_equal(found.address, address[order])
    assert np.array_equal(found.size, size[order])
    assert np.array_equal(found.kind, kind[order])


def test_a_size_beyond_32_bits_is_kept() -> None:
    key, address = np.array([8, 4], np.uint64), np.array([16, 32], np.uint64)
    blocks = PoolBlocks.of_columns(key, address, np.array([1 << 40, 16]), np.zeros(2, np.uint8))
    assert blocks.total == (2, (1 << 40) + 16)
    assert [column.tolist() for column in blocks.of(2)] == [[16], [1 << 40]]
    assert PoolBlocks(()).total == (0, 0)
    assert len(PoolBlocks(()).of(1)[0]) == 0


def test_a_million_blocks_take_less_than_thirty_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    step = 10_000
    monkeypatch.setattr(block_columns, "CHUNK", step)
    key, address, size, kind = made(ROWS, 0xFFFF800000000000, 16, 2000)
    places = [slice(at, at + step) for at in range(0, ROWS, step)]
    tracemalloc.start()
    try:
        blocks = sorted_columns((key[at], address[at], size[at], kind[at]) for at in places)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(blocks.address) == ROWS
    assert kept <= 14 * ROWS
    assert peak <= MOST_BYTES_A_ROW * ROWS
