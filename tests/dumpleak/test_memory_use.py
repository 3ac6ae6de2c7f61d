"""All memory of a process is accounted for, and memory taken outside heaps is watched as well."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from patching import without
from truth import TESTDATA

from dumpleak.compare.answers import Verdict
from dumpleak.compare.diff import compare
from dumpleak.compare.trend import find_trend
from dumpleak.files.detect import read_snapshot
from dumpleak.process.memory_use import memory_by_use
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.recording import write_snapshot
from windumps import Dump, open_dump
from windumps.diagnostics import DiagnosticLog
from windumps.memory import Regions, RunMemory
from windumps.memory.regions import MEM_COMMIT, MEM_PRIVATE, MEM_RESERVE

TINY = sorted(TESTDATA.glob("*/tiny/dump.dmp.gz"))
DUMP = TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"


@pytest.mark.parametrize("path", TINY, ids=lambda p: p.parts[-3])
def test_uses_add_up_to_all_committed_memory(path: object) -> None:
    session = Session.open(str(path))
    for _ in session.blocks():
        pass
    use = memory_by_use(session)
    regions = session.dump.memory.regions
    assert use.complete
    assert sum(row.committed_bytes for row in use.rows) == regions.committed_bytes()
    assert sum(row.present_bytes for row in use.rows) == session.dump.memory.total_bytes
    by_name = {row.use: row for row in use.rows}
    assert by_name["stacks"].committed_bytes > 0
    assert by_name["teb-peb"].committed_bytes > 0
    if all(source.entry.heap for source in session.heaps):
        heaps = sum(s.entry.heap.account.committed_bytes for s in session.heaps if s.entry.heap)
        assert by_name["heaps"].committed_bytes == heaps


def _with_private(sizes: list[tuple[int, int]]) -> Session:
    """The tiny dump with private allocations (reserved, committed) far away from everything else."""
    dump = open_dump(DUMP)
    old = dump.memory.regions
    rows = []
    for number, (reserved, committed) in enumerate(sizes):
        base = 0x700000000000 + number * 0x100000000
        rows.append((base, base, committed, MEM_COMMIT))
        rows.append((base + committed, base, reserved - committed, MEM_RESERVE))
    table = np.array([row for row in rows if row[2]], np.uint64).reshape(-1, 4)
    wide = np.argsort(np.concatenate([old.base_address, table[:, 0]]))
    regions = Regions(
        np.concatenate([old.base_address, table[:, 0]])[wide],
        np.concatenate([old.allocation_base, table[:, 1]])[wide],
        np.concatenate([old.region_size, table[:, 2]])[wide],
        np.concatenate([old.state, table[:, 3].astype(np.uint32)])[wide],
        np.concatenate([old.protect, np.full(len(table), 4, np.uint32)])[wide],
        np.concatenate([old.type, np.full(len(table), MEM_PRIVATE, np.uint32)])[wide],
    )
    runs = dump.memory.runs
    memory = RunMemory(dump.memory.data, runs.address, runs.size, runs.offset, regions)
    return Session(dataclasses.replace(dump, memory=memory, log=DiagnosticLog()))


def test_private_memory_outside_heaps_grows_as_a_candidate_of_its_own() -> None:
    base = take_snapshot(_with_private([(0x100000, 0x10000)]))
    current = take_snapshot(
        _with_private([(0x100000, 0x30000), (0x100000, 0x8000), (0x4000, 0x4000)])
    )
    comparison = compare(base, current)
    grown = {d.site.key: (d.delta_bytes, d.delta_count) for d in comparison.private}
    assert grown == {
        "shape|private|1048576": (0x20000 + 0x8000, 1),
        "shape|private|16384": (0x4000, 1),
    }
    assert comparison.sites == ()
    assert comparison.delta_bytes == 0x20000 + 0x8000 + 0x4000, "totals are of all rows shown"
    assert comparison.verdict is Verdict.GROWTH


def _without_regions(dump: Dump) -> Dump:
    runs = dump.memory.runs
    memory = RunMemory(dump.memory.data, runs.address, runs.size, runs.offset)
    return dataclasses.replace(dump, memory=memory, log=DiagnosticLog())


def test_a_dump_that_lists_no_regions_says_so() -> None:
    session = Session(_without_regions(open_dump(DUMP)))
    for _ in session.blocks():
        pass
    use = memory_by_use(session)
    assert not use.complete
    assert {row.use for row in use.rows} >= {"heaps", "images", "stacks", "teb-peb", "unknown"}
    assert sum(row.committed_bytes for row in use.rows) == session.dump.memory.total_bytes


def test_without_a_list_of_regions_private_memory_is_what_the_file_holds_besides() -> None:
    whole = _with_private([(0x100000, 0x10000)])
    grown = _with_private([(0x100000, 0x30000)])
    data = np.zeros(0x30000, np.uint8)

    def without_list(session: Session, size: int) -> Session:
        dump = session.dump
        runs = dump.memory.runs
        memory = RunMemory(
            np.concatenate([dump.memory.data, data]),
            np.append(runs.address, np.uint64(0x700000000000)),
            np.append(runs.size, size),
            np.append(runs.offset, len(dump.memory.data)),
        )
        return Session(dataclasses.replace(dump, memory=memory, log=DiagnosticLog()))

    base = take_snapshot(without_list(whole, 0x10000))
    current = take_snapshot(without_list(grown, 0x30000))
    comparison = compare(base, current)
    (delta,) = comparison.private
    assert delta.delta_bytes == 0x20000
    assert "private-by-file" in {item.code for item in comparison.diagnostics}


@pytest.mark.parametrize("swapped", [False, True])
def test_a_list_of_regions_that_one_dump_lacks_is_no_growth(swapped: bool) -> None:
    dump = open_dump(DUMP)
    sides = [take_snapshot(Session(d)) for d in (dump, _without_regions(dump))]
    comparison = compare(*sides[::-1] if swapped else sides)
    assert comparison.verdict is Verdict.NO_GROWTH
    assert comparison.private == ()
    assert "private-by-file" in {item.code for item in comparison.diagnostics}


def test_what_only_part_of_memory_can_tell_is_not_compared() -> None:
    dump = open_dump(DUMP)
    partial = dataclasses.replace(_without_regions(dump), full_memory=False)
    lacking = take_snapshot(Session(partial))
    assert (lacking.private, bool(lacking.private_unknown)) == ({}, True)
    for sides in ((take_snapshot(Session(dump)), lacking), (lacking, lacking)):
        comparison = compare(*sides)
        assert comparison.private == ()
        assert "private-not-compared" in {item.code for item in comparison.diagnostics}


def test_a_series_of_which_one_dump_lacks_the_list_shows_no_growth() -> None:
    dump = open_dump(DUMP)
    assert dump.time is not None
    series = []
    for number in range(3):
        moved = dataclasses.replace(
            dump if number != 1 else _without_regions(dump),
            time=dump.time + timedelta(hours=number),
        )
        series.append(take_snapshot(Session(moved)))
    trend = find_trend(series)
    assert trend.private == ()
    assert "private-by-file" in {item.code for item in trend.diagnostics}


def _without_threads(dump: Dump) -> Dump:
    return dataclasses.replace(dump, threads=[], threads_whole=False, log=DiagnosticLog())


@pytest.mark.parametrize("path", TINY, ids=lambda p: p.parts[-3])
def test_stacks_and_tebs_are_found_without_a_list_of_threads(path: object) -> None:
    dump = open_dump(str(path))
    listed, lacking = Session(dump), Session(_without_threads(dump))
    assert lacking.views[0].peb == listed.views[0].peb
    tebs = {block.address for block in lacking.views[0].thread_blocks}
    assert tebs == {thread.teb for thread in dump.threads}
    before, after = take_snapshot(listed), take_snapshot(lacking)
    assert compare(before, after).verdict is Verdict.NO_GROWTH
    assert compare(after, before).verdict is Verdict.NO_GROWTH
    assert memory_by_use(lacking) == memory_by_use(listed)
    said = [item.message for item in lacking.diagnostics if item.code == "no-thread-list"]
    assert said == [
        f"the dump has no list of threads; {len(tebs)} thread environment blocks were found by their "
        "structure"
    ]
    assert "no-peb" not in {item.code for item in lacking.diagnostics}


@pytest.mark.parametrize("swapped", [False, True])
def test_threads_that_can_be_found_by_nothing_are_no_growth_either(swapped: bool) -> None:
    dump = open_dump(DUMP)
    bare = _without_threads(dump)
    for thread in dump.threads:
        bare = without(bare, thread.teb, 0x2000)
    lacking = take_snapshot(Session(bare))
    assert lacking.private_unknown
    sides = [take_snapshot(Session(dump)), lacking]
    comparison = compare(*sides[::-1] if swapped else sides)
    assert comparison.private == ()
    assert "private-not-compared" in {item.code for item in comparison.diagnostics}


def test_a_cut_list_of_threads_is_completed_and_said() -> None:
    dump = open_dump(DUMP)
    cut = dataclasses.replace(
        dump, threads=dump.threads[:1], threads_whole=False, log=DiagnosticLog()
    )
    session = Session(cut)
    assert len(session.views[0].thread_blocks) == len(dump.threads)
    assert "a cut list of threads" in " ".join(item.message for item in session.diagnostics)
    assert memory_by_use(session) == memory_by_use(Session(dump))


@pytest.mark.parametrize("lacking", ["nothing", "regions", "memory"])
def test_a_snapshot_file_keeps_what_is_known_of_private_memory(
    tmp_path: Path, lacking: str
) -> None:
    dump = open_dump(DUMP)
    if lacking != "nothing":
        dump = dataclasses.replace(_without_regions(dump), full_memory=lacking == "regions")
    expected = take_snapshot(Session(dump))
    write_snapshot(Session(dump), tmp_path / "it.dlsnap", holders=False)
    read = read_snapshot(tmp_path / "it.dlsnap", "site")
    assert read is not None
    for name in ("private", "private_unknown", "by_regions", "in_file"):
        assert getattr(read, name) == getattr(expected, name)


def test_an_image_whose_end_lies_behind_the_address_space_stops_nothing() -> None:
    dump = _without_regions(open_dump(DUMP))
    last = dump.modules[-1]
    far = dataclasses.replace(last, base_address=(1 << 64) - 0x2000, size_bytes=0x10000)
    dump.modules.append(far)
    use = memory_by_use(Session(dump))
    assert sum(row.present_bytes for row in use.rows) <= dump.memory.total_bytes
