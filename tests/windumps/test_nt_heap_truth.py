"""The NT heap against heaps that Microsoft's own allocator laid out."""

from __future__ import annotations

import pytest
from truth import TruthDump, pairs, truth_dumps

from dumpleak.process.session import Session
from windumps.blocks import Blocks, State
from windumps.diagnostics import Severity
from windumps.heaps.nt import heap as nt_heap
from windumps.layouts.nt_heap import NT_HEAP_ROWS

SCENARIOS = ("tiny", "nt-*", "mixed", "leak-pair-*", "series-*", "segment-*")
DUMPS = [d for d in truth_dumps(*SCENARIOS) if not d.build.startswith("5.")]


@pytest.mark.parametrize("dump", DUMPS, ids=lambda d: d.name)
def test_used_blocks_are_exactly_the_busy_entries_of_the_genuine_walk(dump: TruthDump) -> None:
    truth = dump.read_truth()
    session = Session.open(dump.dump)
    read = {s.entry.address: s for s in session.heaps if s.entry.kind == "nt"}
    expected_heaps = [h["address"] for h in truth.heaps if h["kind"] == "nt"]
    assert expected_heaps == [a for a in read if a in expected_heaps]
    for address in expected_heaps:
        heap = read[address].entry.heap
        assert heap is not None
        blocks = Blocks.concatenate(heap.blocks())
        used = blocks.used
        found = dict(zip(used.address.tolist(), used.size.tolist(), strict=True))
        assert len(found) == len(used), "a block came twice"
        assert found == truth.used_blocks(address)
        assert not truth.freed & found.keys()
        free = set(blocks.address[blocks.state == State.FREE].tolist())
        assert not free & found.keys()
        account = heap.account
        assert account.residual_bytes == 0
        assert account.unwalked_bytes == 0
        assert account.used_count == len(found)
    noise = [d for d in session.diagnostics if d.severity is Severity.WARNING]
    assert noise == []


@pytest.mark.parametrize("dump", DUMPS, ids=lambda d: d.name)
def test_heaps_come_in_the_order_the_process_made_them(dump: TruthDump) -> None:
    truth = dump.read_truth()
    session = Session.open(dump.dump)
    listed = [source.entry.address for source in session.heaps]
    expected = [heap["address"] for heap in truth.heaps]
    # Early Windows 10 keeps a heap of its own behind the program's; it may come last, never
    # between.
    assert listed[: len(expected)] == expected
    assert [source.entry.ordinal for source in session.heaps] == list(range(len(listed)))


@pytest.mark.parametrize(
    "dump",
    [d for d in DUMPS if d.scenario in ("tiny", "mixed", "nt-lfh", "nt-debugflags")],
    ids=lambda d: d.name,
)
def test_without_the_row_of_a_build_a_neighbour_gives_the_same_blocks(
    dump: TruthDump, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = dump.read_truth()
    version, architecture = dump.build.split("-")
    build = int(version.split(".")[2])
    others = tuple(
        row
        for row in NT_HEAP_ROWS
        if row.architecture != architecture or not row.first_build <= build <= row.last_build
    )
    assert len(others) < len(NT_HEAP_ROWS)
    monkeypatch.setattr(nt_heap, "NT_HEAP_ROWS", others)
    read = {s.entry.address: s.entry.heap for s in Session.open(dump.dump).heaps}
    for entry in truth.heaps:
        heap = read[entry["address"]]
        if entry["kind"] == "nt":
            assert heap is not None
            used = Blocks.concatenate(heap.blocks()).used
            found = dict(zip(used.address.tolist(), used.size.tolist(), strict=True))
            assert found == truth.used_blocks(entry["address"])
            assert "probed" in heap.layout


def test_there_are_truth_dumps_of_every_form_of_the_nt_heap() -> None:
    builds = {dump.build.split("-")[0] for dump in DUMPS}
    # One build of each layout row; tests that find no dumps prove nothing.
    assert {"6.1.7601.24545", "6.3.9600.18438", "10.0.14393.1715", "10.0.19041.3324"} <= builds
    assert {"10.0.22621.4541", "10.0.26100.5074", "6.1.7601.24384", "10.0.17134.556"} <= builds
    assert pairs("leak-pair-*")
