"""Types in ntdll's own symbols go before the built-in tables, and have to pass the same checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders.types_builder import types_pdb, types_table
from made_symbols import identity, put_in_store
from pdb_samples import SHARED_SYMBOLS
from truth import TruthDump, truth_dumps

from dumpleak.process.session import Session
from windumps import open_dump
from windumps.blocks import Blocks
from windumps.heaps.nt import heap as nt_heap
from windumps.heaps.segment import heap as segment_heap
from windumps.layouts.nt_heap import NT_HEAP_ROWS
from windumps.layouts.rows import LayoutRow, candidates
from windumps.layouts.segment_heap import SEGMENT_HEAP_ROWS
from windumps.symbols import layout_rows
from windumps.symbols.paths import parse_symbol_path
from windumps.symbols.provider import Symbols

SMALL = [
    d for d in truth_dumps("tiny") if not d.build.startswith("5.") and "shared" not in str(d.dump)
]
BUILDS = ("10.0.19041.1288-x64", "10.0.19041.2130-x86", "10.0.22621.4245-x64")
WITH_PDB = [
    dump
    for dump in truth_dumps("mixed", "nt-ust", "page-heap-full", "page-heap-light", "big")
    if dump.build in BUILDS
]
Walk = dict[int, np.ndarray]


def _walk(session: Session) -> Walk:
    """All that is known of each block, by heap."""
    found = {}
    for source in session.readable_heaps:
        assert source.entry.heap is not None
        blocks = Blocks.concatenate(source.entry.heap.blocks())
        columns = (
            blocks.address,
            blocks.size,
            blocks.block_bytes,
            blocks.state,
            blocks.kind,
            blocks.trace,
        )
        found[source.entry.address] = np.stack([c.astype(np.int64) for c in columns], axis=1)
    return found


def _same(first: Walk, second: Walk) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[heap], second[heap]) for heap in first
    )


def _layouts(session: Session, kind: str) -> set[str]:
    return {s.entry.heap.layout for s in session.heaps if s.entry.heap and s.entry.kind == kind}


def _build(dump: TruthDump) -> int:
    return int(dump.build.split("-")[0].split(".")[2])


def _row(dump: TruthDump) -> LayoutRow:
    architecture = dump.build.rpartition("-")[2]
    return candidates(NT_HEAP_ROWS, architecture, _build(dump))[0]


def _truth(dump: TruthDump) -> dict[int, dict[int, int]]:
    truth = dump.read_truth()
    return {
        heap["address"]: truth.used_blocks(heap["address"])
        for heap in truth.heaps
        if heap["kind"] == "nt"
    }


def _used(session: Session) -> dict[int, dict[int, int]]:
    found = {}
    for source in session.heaps:
        if source.entry.kind == "nt" and source.entry.heap is not None:
            used = Blocks.concatenate(source.entry.heap.blocks()).used
            found[source.entry.address] = dict(
                zip(used.address.tolist(), used.size.tolist(), strict=True)
            )
    return found


def _only_the_oldest_row(monkeypatch: pytest.MonkeyPatch, dump: TruthDump) -> None:
    """Leaves a table that does not know the build, nor one like it."""
    architecture = dump.build.rpartition("-")[2]
    oldest = candidates(NT_HEAP_ROWS, architecture, 6000)[:1]
    monkeypatch.setattr(nt_heap, "NT_HEAP_ROWS", oldest)


def _put_types(store: Path, dump: TruthDump, form: str, row: LayoutRow) -> None:
    wanted = identity(open_dump(dump.dump), "ntdll.dll")
    pointer = 4 if dump.build.endswith("x86") else 8
    types = row.structures, pointer, wanted.guid, wanted.age
    if form == "pdb":
        put_in_store(store, wanted, types_pdb(*types))
    else:
        table = store / wanted.name / f"{wanted.guid}-{wanted.age}.json"
        table.parent.mkdir(parents=True)
        table.write_text(types_table(*types))


def _open(dump: TruthDump, store: Path) -> Session:
    return Session.open(dump.dump, Symbols.along(parse_symbol_path(str(store))))


@pytest.mark.parametrize("form", ["pdb", "volatility3 table"])
@pytest.mark.parametrize("dump", SMALL, ids=lambda d: d.name)
def test_types_of_this_very_ntdll_read_a_build_that_the_table_does_not_know(
    dump: TruthDump, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_types(tmp_path, dump, form, _row(dump))
    _only_the_oldest_row(monkeypatch, dump)
    session = _open(dump, tmp_path)
    layouts = _layouts(session, "nt")
    assert layouts
    assert all("from symbols" in layout for layout in layouts)
    read, truth = _used(session), _truth(dump)
    assert {heap: read[heap] for heap in truth} == truth


@pytest.mark.parametrize("form", ["pdb", "volatility3 table"])
def test_types_of_another_ntdll_are_not_used(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump, other = SMALL[0], SMALL[-1]
    wanted, owner = (identity(open_dump(d.dump), "ntdll.dll") for d in (dump, other))
    pointer = 4 if dump.build.endswith("x86") else 8
    types = _row(dump).structures, pointer, owner.guid, owner.age
    if form == "pdb":
        put_in_store(tmp_path, wanted, types_pdb(*types))
    else:
        table = tmp_path / wanted.name / f"{wanted.guid}-{wanted.age}.json"
        table.parent.mkdir(parents=True)
        table.write_text(types_table(*types))
    session = _open(dump, tmp_path)
    assert not any("from symbols" in layout for layout in _layouts(session, "nt"))
    said = [d for d in session.diagnostics if d.code == "symbols-not-used"]
    assert [d.structure for d in said] == ["ntdll.dll"]
    assert owner.guid in said[0].message


@pytest.mark.parametrize("dump", SMALL, ids=lambda d: d.name)
def test_types_that_do_not_fit_the_memory_lose_to_the_table(
    dump: TruthDump, tmp_path: Path
) -> None:
    row = _row(dump)
    wrong = {
        structure: {
            field: (offset + 8 if field != "sizeof" else offset + 16, kind)
            for field, (offset, kind) in fields.items()
        }
        for structure, fields in row.structures.items()
    }
    made = LayoutRow(row.component, row.architecture, 0, 0, wrong, "")
    _put_types(tmp_path, dump, "pdb", made)
    plain, session = Session.open(dump.dump), _open(dump, tmp_path)
    assert all("the build's own row" in layout for layout in _layouts(session, "nt"))
    assert _same(_walk(session), _walk(plain))


def test_a_pdb_without_types_changes_nothing(tmp_path: Path) -> None:
    dump = SMALL[0]
    _put_types(tmp_path, dump, "pdb", LayoutRow("", "x64", 0, 0, {}, ""))
    assert _same(_walk(_open(dump, tmp_path)), _walk(Session.open(dump.dump)))


# -- Microsoft's PDBs, beside the checkout --------------------------------------------------------


@pytest.mark.parametrize("dump", WITH_PDB, ids=lambda d: d.name)
def test_microsofts_pdb_and_the_table_give_the_same_blocks(dump: TruthDump) -> None:
    plain, exact = Session.open(dump.dump), _open(dump, SHARED_SYMBOLS)
    assert _same(_walk(exact), _walk(plain))
    for kind in ("nt", "segment"):
        assert all("from symbols" in layout for layout in _layouts(exact, kind))


@pytest.mark.parametrize(
    "dump", [d for d in WITH_PDB if d.scenario == "mixed"], ids=lambda d: d.name
)
def test_without_the_tables_row_microsofts_pdb_gives_the_exact_result(
    dump: TruthDump, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _walk(Session.open(dump.dump))
    build = _build(dump)

    def without(rows: tuple[LayoutRow, ...]) -> tuple[LayoutRow, ...]:
        return tuple(row for row in rows if not row.first_build <= build <= row.last_build)

    _only_the_oldest_row(monkeypatch, dump)
    monkeypatch.setattr(segment_heap, "SEGMENT_HEAP_ROWS", without(SEGMENT_HEAP_ROWS))
    monkeypatch.setattr(
        layout_rows,
        "COMPONENTS",
        tuple(
            component._replace(rows=without(tuple(component.rows)))
            for component in layout_rows.COMPONENTS
        ),
    )
    assert not _same(_walk(Session.open(dump.dump)), expected)
    assert _same(_walk(_open(dump, SHARED_SYMBOLS)), expected)
