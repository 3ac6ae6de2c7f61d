"""All memory of a process is accounted for, and memory taken outside heaps is watched as well."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from truth import TESTDATA

from dumpleak.comparison import Verdict, compare
from dumpleak.memory_use import memory_by_use
from dumpleak.session import Session
from dumpleak.snapshot import take_snapshot
from windumps import open_dump
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


def test_a_dump_that_lists_no_regions_says_so() -> None:
    dump = open_dump(DUMP)
    runs = dump.memory.runs
    memory = RunMemory(dump.memory.data, runs.address, runs.size, runs.offset)
    session = Session(dataclasses.replace(dump, memory=memory))
    for _ in session.blocks():
        pass
    use = memory_by_use(session)
    assert not use.complete
    assert {row.use for row in use.rows} == {"heaps", "images", "unknown"}
    assert take_snapshot(session).private == {}
