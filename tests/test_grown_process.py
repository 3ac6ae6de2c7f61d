"""The dumps of any size that the benchmarks read."""

from __future__ import annotations

from pathlib import Path

from builders.grown_process import BLOCK_BYTES, STEP, write_grown

from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot


def test_every_heap_of_a_grown_process_has_its_blocks_and_pointers_among_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / "grown.dmp"
    write_grown(path, 3, 2000)
    session = Session.open(path)
    taken = take_snapshot(session, "heap", holders=True)
    assert [row.used_count for row in taken.heaps] == [2000] * 3
    assert [row.unwalked_bytes for row in taken.heaps] == [0] * 3
    assert taken.totals.bytes == 6000 * (BLOCK_BYTES - 6)
    assert len({row.address % STEP for row in taken.heaps}) == 1
    assert taken.holders is not None
    held = [one.held for one in taken.holders(list(taken.groups)).values()]
    assert all(number > 500 for number in held)


def test_a_later_dump_of_a_grown_process_has_the_same_blocks_and_more(tmp_path: Path) -> None:
    addresses = []
    for hours, blocks in enumerate((1000, 1500)):
        path = tmp_path / f"{hours}.dmp"
        write_grown(path, 2, blocks, hours)
        pieces = [piece.used.address.tolist() for _, piece in Session.open(path).blocks()]
        addresses.append({address for piece in pieces for address in piece})
    assert [len(found) for found in addresses] == [2000, 3000]
    assert addresses[0] < addresses[1]
