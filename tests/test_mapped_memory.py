"""How much of a mapped file a process keeps while it reads the file's memory."""

from __future__ import annotations

import mmap
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from windumps.memory import RunMemory

SIZE = 96 << 20
START = 0x7FF0_0000_0000
LIMIT = 20 << 20


@pytest.fixture
def memory(tmp_path: Path) -> RunMemory:
    """A mapped file, a hole but for the number of each of its pages."""
    if sys.platform != "linux":
        pytest.skip("tells how much of a file is mapped on Linux only")
    path = tmp_path / "file"
    np.memmap(path, np.uint64, "w+", shape=SIZE // 8)[::512] = np.arange(SIZE >> 12)
    with path.open("rb") as file:
        data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    columns = np.array([START], np.uint64), np.array([SIZE]), np.array([0])
    return RunMemory(data, *columns)


def _mapped_bytes(memory: RunMemory) -> int:
    start = memory.data.ctypes.data
    rows = Path("/proc/self/smaps").read_text(encoding="ascii")
    found = re.search(rf"^{start:x}-.*?^Rss: +(\d+) kB", rows, re.MULTILINE | re.DOTALL)
    assert found is not None
    return int(found[1]) << 10


@pytest.mark.parametrize("order", ["ascending", "shuffled"])
def test_values_all_over_a_file_do_not_keep_it_mapped(memory: RunMemory, order: str) -> None:
    pages = np.arange(SIZE >> 12)
    if order == "shuffled":
        np.random.default_rng(1).shuffle(pages)
    addresses = (START + (pages << 12)).astype(np.uint64)
    values, present = memory.gather(addresses, "<u8")
    assert present.all()
    assert np.array_equal(values, pages)
    assert _mapped_bytes(memory) < LIMIT


def test_many_small_reads_do_not_keep_a_file_mapped(memory: RunMemory) -> None:
    for page in range(0, SIZE >> 12, 16):
        values, _ = memory.gather(np.array([START + (page << 12)], np.uint64), "<u8")
        assert values.tolist() == [page]
    assert _mapped_bytes(memory) < LIMIT


def test_absent_addresses_among_far_ones_stay_absent(memory: RunMemory) -> None:
    addresses = np.array([START, START - 8, START + SIZE - 4096, START + SIZE], np.uint64)
    values, present = memory.gather(addresses, "<u8")
    assert present.tolist() == [True, False, True, False]
    assert values.tolist() == [0, 0, (SIZE >> 12) - 1, 0]
