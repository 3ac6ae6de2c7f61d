"""Many small heaps are looked at together, and the answer is the one of each alone."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from builders.image_builder import ImageBuilder
from builders.minidump_builder import MinidumpBuilder
from builders.nt_heap_builder import NtHeapBuilder
from builders.opening import open_bytes
from truth import REAL

from dumpleak.attribution.grouping import GROUPINGS
from dumpleak.files.reader import SnapshotFile
from dumpleak.model.snapshot import Snapshot
from dumpleak.process import used_pieces as joining
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.recording import write_snapshot

FIRST, STEP = 0x20000000, 0x10000
TEB, PEB, ARRAY = 0x7FFDF000, 0x7FFDD000, 0x7FFD0000


def process(heaps: int) -> bytes:
    """Heaps of up to five blocks: objects, pointers to objects, text, and what says nothing."""
    image = ImageBuilder(0x7FF600000000, 8)
    node = struct.pack("<2Q", image.msvc_class(b".?AVNode@app@@\0"), 0)
    teb_page, peb_page = bytearray(0x2000), bytearray(0x1000)
    struct.pack_into("<Q", teb_page, 0x30, TEB)
    struct.pack_into("<Q", teb_page, 0x60, PEB)
    struct.pack_into("<Q", peb_page, 0x10, image.base)
    struct.pack_into("<Q", peb_page, 0x30, FIRST)
    struct.pack_into("<IIQ", peb_page, 0xE8, heaps, heaps, ARRAY)
    dump = image.add_to(MinidumpBuilder(architecture="x64", build=19041)).thread(teb=TEB)
    dump.memory(TEB, bytes(teb_page)).memory(PEB, bytes(peb_page))
    handles = [FIRST + number * STEP for number in range(heaps)]
    dump.memory(ARRAY, struct.pack(f"<{heaps}Q", *handles))
    for number, handle in enumerate(handles):
        heap = NtHeapBuilder("8", True, handle, pages=1)
        place = heap.used_block(16, node)
        for kind in range(number % 5):
            content = (struct.pack("<2Q", 0, place), b"plain text here.", bytes(16))[kind % 3]
            heap.used_block(16 + 8 * (number % 2), content)
        for address, memory in heap.build().items():
            dump.memory(address, memory)
    return dump.build()


def told(snapshot: Snapshot) -> tuple[object, ...]:
    assert snapshot.blocks is not None
    table = snapshot.blocks()
    rows = zip(
        table.address.tolist(),
        table.size.tolist(),
        [table.keys[group] for group in table.group.tolist()],
        table.shape.tolist(),
        strict=True,
    )
    return (
        snapshot.groups,
        snapshot.totals,
        snapshot.details,
        snapshot.heaps,
        snapshot.coverage,
        list(rows),
        {(item.code, item.address, item.message) for item in snapshot.diagnostics},
    )


@pytest.mark.parametrize("by", GROUPINGS)
def test_joined_pieces_give_the_snapshot_of_single_ones(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for blocks in (0, 7, joining.JOINED_BLOCKS):
        monkeypatch.setattr(joining, "JOINED_BLOCKS", blocks)
        session = Session(open_bytes(process(40)))
        answers.append(told(take_snapshot(session, by, details=True, keep_blocks=True)))
    assert answers[1] == answers[0]
    assert answers[2] == answers[0]


@pytest.mark.skipif(
    not REAL.is_dir(), reason="the real dumps may not be copied into the repository"
)
def test_heaps_of_the_two_halves_of_a_process_are_never_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(joining, "JOINED_BLOCKS", 1 << 20)
    path = REAL / "user" / "lldb-fizzbuzz_wow64.dmp.xz"
    pieces = list(joining.used_pieces(Session.open(path)))
    assert [source.view.architecture for source, _ in pieces] == ["x64", "x86"]
    assert [sorted(set(used.heap.tolist())) for _, used in pieces] == [[0], [0, 1]]
    found = told(take_snapshot(Session.open(path), details=True, keep_blocks=True))
    monkeypatch.setattr(joining, "JOINED_BLOCKS", 0)
    assert found == told(take_snapshot(Session.open(path), details=True, keep_blocks=True))


def test_each_heap_of_a_joined_piece_keeps_its_name_and_its_sites() -> None:
    session = Session(open_bytes(process(40)))
    pieces = list(joining.used_pieces(session))
    assert len(pieces) == 1
    snapshot = take_snapshot(Session(open_bytes(process(40))), "heap")
    assert {site.name: totals.count for site, totals in snapshot.groups.values()} == {
        f"heap {number} (nt)": 1 + number % 5 for number in range(40)
    }
    sites = take_snapshot(Session(open_bytes(process(40)))).groups
    names = {site.name for site, _ in sites.values()}
    assert "16 bytes in heap 2 (nt)" in names
    assert "24 bytes in heap 39 (nt)" in names
    assert "24 bytes in heap 1 (nt), points to app::Node" in names


def test_a_snapshot_file_names_the_heap_of_each_block(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_snapshot(Session(open_bytes(process(40))), tmp_path / "a.parquet")
    file = SnapshotFile(tmp_path / "a.parquet")
    by_heap = file.snapshot("heap").groups
    assert {site.name: totals.count for site, totals in by_heap.values()} == {
        f"heap {number} (nt)": 1 + number % 5 for number in range(40)
    }
