"""The account against an independent reader of real dumps' streams, and against itself: its rows add up."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
from plain_streams import PROCESS_VM_COUNTERS, commit, counters, handles, stream
from truth import REAL, TruthDump, truth_dumps

from dumpleak.model.account_rows import account_of
from dumpleak.process.memory_use import memory_by_use
from dumpleak.process.session import Session
from dumpleak.survey.info import process_snapshot
from windumps import open_dump
from windumps.memory.regions import MEM_COMMIT


def _raw(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def _with_streams() -> list[Path]:
    """Real dumps that list handles, or hold what Windows counted; none without the shared collection."""
    found = sorted(p for p in (REAL / "user").glob("*.dmp*")) if REAL.is_dir() else []
    return [
        path
        for path in found
        if handles(raw := _raw(path)) or stream(raw, PROCESS_VM_COUNTERS) is not None
    ]


REAL_DUMPS = _with_streams()


@pytest.mark.skipif(not REAL_DUMPS, reason="the shared dumps are not there")
def test_the_real_dumps_are_those_that_are_known() -> None:
    raws = [_raw(path) for path in REAL_DUMPS]
    assert sum(bool(handles(raw)) for raw in raws) >= 5
    assert sum(counters(raw) is not None for raw in raws) >= 12


@pytest.mark.parametrize("path", REAL_DUMPS, ids=lambda path: path.name)
def test_figures_of_real_dumps_are_those_of_an_independent_reader(path: Path) -> None:
    raw, session = _raw(path), Session(open_dump(path))
    rows = {figure.name: figure.value for figure in account_of(process_snapshot(session))}
    types, counted = handles(raw), counters(raw)
    assert rows["handles.count"] == (sum(types.values()) if types else None)
    if types and session.dump.handles is not None:
        assert dict(session.dump.handles.types.counts()) == dict(types)
    assert rows["counters.private_bytes"] == (counted and counted.private)
    assert rows["counters.virtual_bytes"] == (counted and counted.virtual)
    assert rows["counters.working_set_bytes"] == (counted and counted.working_set)
    assert session.dump.commit == commit(raw)


def _one_of_each() -> list[TruthDump]:
    """A dump of each scenario; the large one is for benchmarks."""
    found: dict[str, TruthDump] = {}
    for dump in truth_dumps("*"):
        found.setdefault(dump.scenario, dump)
    return [dump for scenario, dump in sorted(found.items()) if scenario != "big"]


@pytest.mark.parametrize("source", _one_of_each(), ids=lambda source: source.scenario)
def test_the_rows_of_an_account_add_up(source: TruthDump) -> None:
    session = Session(open_dump(source.dump))
    taken = process_snapshot(session)
    rows = {figure.name: figure.value for figure in account_of(taken)}
    regions = session.dump.memory.regions
    committed = int(regions.region_size[regions.state == MEM_COMMIT].sum())
    assert rows["regions.committed_bytes"] == committed
    uses = memory_by_use(session)
    assert uses.complete
    assert sum(use.committed_bytes for use in uses.rows) == committed
    for heap in taken.heaps:
        parts = heap.used_bytes, heap.free_bytes, heap.overhead_bytes, heap.unwalked_bytes
        assert None not in parts
        told = sum(part or 0 for part in parts) + (heap.residual_bytes or 0)
        assert told == heap.committed_bytes
    assert rows["heaps.committed_bytes"] == sum(heap.committed_bytes or 0 for heap in taken.heaps)
    assert rows["heaps.free_bytes"] == sum(heap.free_bytes or 0 for heap in taken.heaps)
    assert rows["blocks.bytes"] == sum(heap.used_bytes or 0 for heap in taken.heaps)
    truth = source.read_truth().raw
    assert rows["modules.count"] == len(truth["modules"])
    assert rows["threads.count"] == len(truth["threads"])
