"""The account against an independent reader of real dumps' streams, and against itself: its rows add up."""

from __future__ import annotations

import lzma
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from plain_streams import PROCESS_VM_COUNTERS, commit, counters, handles, stream
from truth import REAL, SHARED, TruthDump, truth_dumps

from dumpleak.compare.answers import Verdict
from dumpleak.compare.diff import compare
from dumpleak.model.account_rows import account_of, what_grew
from dumpleak.model.snapshot import Snapshot
from dumpleak.process.account import outside_figures
from dumpleak.process.memory_use import memory_by_use
from dumpleak.process.session import Session
from dumpleak.survey.info import process_snapshot
from dumpleak.survey.populations import all_populations
from dumpleak.survey.populations.members import members_snapshot
from windumps import open_dump
from windumps.memory.regions import MEM_COMMIT, MEM_PRIVATE

FOLDERS = ("managed", "arenas", "real/user", "real/other-systems", "real/malformed")
ROWS_OF_USES = ("private.bytes", "mapped.bytes", "modules.bytes", "stacks.bytes")


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


def _process_dumps() -> list[Path]:
    """Every dump of a process: testdata, and the shared collection where it is."""
    user = [dump.dump for dump in truth_dumps("*")]
    others = [p for folder in FOLDERS for p in sorted((SHARED / folder).rglob("*.dmp*"))]
    return [path for path in (*user, *others) if path.suffix != ".json"]


def _name(path: Path) -> str:
    return "/".join(path.parts[-3:])


Taken = tuple[Path, Session, Snapshot]


def _taken(path: Path) -> Taken:
    session = Session(open_dump(path))
    return path, session, process_snapshot(session)


@pytest.fixture(scope="module", params=_process_dumps(), ids=_name)
def walked(request: pytest.FixtureRequest) -> Taken:
    """Each dump once, for all tests of it."""
    return _taken(request.param)


def _a_minute_later(snapshot: Snapshot) -> Snapshot:
    """The same under another name and time, since one file twice is refused by a gate."""
    time = snapshot.source.time
    source = replace(snapshot.source, file="later", time=time and time + timedelta(minutes=1))
    return replace(snapshot, source=source)


def _inside(session: Session, spans: list[tuple[int, int]]) -> int:
    """Committed bytes that the dump's list of regions has in spans."""
    regions, total = session.dump.memory.regions, 0
    low = regions.base_address.astype(object)
    high = low + regions.region_size.astype(object)
    for start, size in spans:
        inside = np.minimum(high, start + size) - np.maximum(low, start)
        total += int(np.maximum(inside[regions.state == MEM_COMMIT], 0).sum())
    return total


def test_the_rows_of_an_account_add_up(walked: Taken) -> None:
    _, session, taken = walked
    rows = {figure.name: figure for figure in account_of(taken)}
    value = {name: figure.value for name, figure in rows.items()}
    assert all((figure.value is None) == bool(figure.reason) for figure in rows.values())
    regions, uses = session.dump.memory.regions, memory_by_use(session)
    by_use = {use.use: use.committed_bytes for use in uses.rows}
    if not len(regions) or not regions.whole:
        assert not uses.complete
        assert value["regions.committed_bytes"] is None
    else:
        committed = int(regions.region_size[regions.state == MEM_COMMIT].sum())
        assert uses.complete
        assert value["regions.committed_bytes"] == committed == sum(by_use.values())
        # Each use has a row of its own, but for the blocks of process and threads.
        parts = [value[name] for name in ROWS_OF_USES]
        if None not in parts and value["heaps.committed_bytes"] is not None:
            shared = by_use.get("heaps", 0) - value["heaps.committed_bytes"]
            assert shared >= 0
            told = sum(part or 0 for part in (*parts, value["heaps.committed_bytes"]))
            assert told + shared + by_use.get("teb-peb", 0) == committed
    assert value["blocks.bytes"] in (None, sum(heap.used_bytes or 0 for heap in taken.heaps))
    for name, of_heaps in (
        ("heaps.committed_bytes", [heap.committed_bytes for heap in taken.heaps]),
        ("heaps.free_bytes", [heap.free_bytes for heap in taken.heaps]),
    ):
        unread = taken.coverage.heaps_read < max(taken.coverage.heaps_listed, 1)
        assert value[name] == (None if unread else sum(each or 0 for each in of_heaps))


def test_blocks_free_memory_and_overhead_of_a_heap_are_what_it_has_committed(
    walked: Taken,
) -> None:
    _, session, taken = walked
    regions = session.dump.memory.regions
    for row, source in zip(taken.heaps, session.heaps, strict=False):
        heap = source.entry.heap
        if heap is None:
            continue
        parts = row.used_bytes, row.free_bytes, row.overhead_bytes, row.unwalked_bytes
        assert None not in parts
        assert all(part >= 0 for part in parts if part is not None)
        assert sum(part or 0 for part in parts) == row.committed_bytes
        assert not row.residual_bytes
        spans = heap.account.ranges
        if len(regions) and regions.whole and not row.unwalked_bytes:
            kinds = {int(regions.type[regions.row_of(start)]) for start, _ in spans}
            windows = _inside(session, spans)
            # A section shared with the system is committed as a whole, whatever its heap says.
            if kinds == {MEM_PRIVATE}:
                assert row.committed_bytes == windows
            else:
                assert row.committed_bytes is not None
                assert row.committed_bytes <= windows


def test_a_dump_against_itself_shows_no_growth_in_anything(walked: Taken) -> None:
    path, one, before = walked
    _, other, after = _taken(path)
    pairs = [(before, _a_minute_later(after))]
    older, newer = all_populations(one, before), all_populations(other, after)
    for of, kept in older.items():
        for by in kept.groups:
            base = members_snapshot(before, of, by, kept)
            current = members_snapshot(after, of, by, newer[of])
            pairs.append((base, _a_minute_later(current)))
    for base, current in pairs:
        compared = compare(base, current)
        assert compared.sites == compared.private == ()
        assert what_grew(compared.account) == []
        assert all(not row.delta for row in compared.account)
        if compared.verdict is not Verdict.NO_GROWTH:
            # Then the heaps are not in the dump, and what they do is not known.
            assert compared.verdict is Verdict.NOT_COMPARABLE
            assert base.shortfall


@pytest.mark.parametrize("source", truth_dumps("*"), ids=lambda source: source.name)
def test_modules_and_threads_are_those_of_the_truth(source: TruthDump) -> None:
    session = Session(open_dump(source.dump))
    rows = {figure.name: figure.value for figure in outside_figures(session)}
    truth = source.read_truth().raw
    assert rows["modules.count"] == len(truth["modules"])
    assert rows["threads.count"] == len(truth["threads"])
