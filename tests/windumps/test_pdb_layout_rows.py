"""An exact PDB of ntdll takes the place of a row of the table, and says the same."""

from __future__ import annotations

import struct

import pytest
from builders.pdb_builder import PdbBuilder
from pdb_samples import as_array, microsoft_pdbs, sample_bytes

from windumps.layouts.nt_heap import NT_HEAP_ROWS
from windumps.layouts.rows import LayoutRow, candidates
from windumps.layouts.segment_heap import SEGMENT_HEAP_ROWS
from windumps.layouts.stack_trace import STACK_TRACE_LAYOUTS
from windumps.symbols.errors import LayoutNotInSymbolsError
from windumps.symbols.layout_rows import Component, exact_rows, layout_row_from_symbols
from windumps.symbols.pdb import Pdb

# Read with llvm-pdbutil. The tables' own sizes of these are how far the code reads, or rounded.
SIZES = {
    "x64": {"_LFH_HEAP": 0xCF0, "_LFH_BLOCK_ZONE": 0x18},
    "x86": {"_LFH_HEAP": 0x7E8, "_LFH_BLOCK_ZONE": 0xC},
}
TABLES = (NT_HEAP_ROWS, SEGMENT_HEAP_ROWS, STACK_TRACE_LAYOUTS)


@pytest.mark.skipif(
    not microsoft_pdbs(), reason="Microsoft's PDBs may not be copied into the repository"
)
def test_the_rows_of_microsofts_pdbs_equal_the_built_in_rows_of_their_builds() -> None:
    for (architecture, build), path in microsoft_pdbs().items():
        found, missing = exact_rows(Pdb.open(path), architecture, build)
        assert found.keys() == {"NT heap", "segment heap", "stack traces"}
        for table in TABLES:
            built_in = candidates(table, architecture, build)[0]
            row = found[built_in.component]
            assert built_in.first_build <= build <= built_in.last_build
            assert row.structures.keys() == built_in.structures.keys()
            for name, fields in built_in.structures.items():
                expected = dict(fields)
                if name in SIZES[architecture]:
                    expected["sizeof"] = SIZES[architecture][name], ""
                assert row.structures[name] == expected, name
            assert (row.first_build, row.last_build) == (build, build)
        # verifier.dll has page heap in these builds, and its blocks are of another form.
        assert list(missing) == ["page heap"]


def test_a_pdb_without_the_heaps_types_gives_no_row() -> None:
    pdb = Pdb(as_array(sample_bytes("x64")), "sample.pdb")
    found, missing = exact_rows(pdb, "x64", 19041)
    assert found == {}
    assert missing["NT heap"] == "the symbols do not describe _HEAP"
    assert len(missing) == 4


def _row(fields: dict[str, tuple[int, str]], first: int = 1) -> LayoutRow:
    return LayoutRow("test", "x64", first, first, {"_A": {"sizeof": (64, ""), **fields}}, "")


def _pdb(*fields: tuple[str, int, int]) -> Pdb:
    builder = PdbBuilder()
    inner = builder.structure("_INNER", 16, builder.field_list(builder.member("Deep", 0x23, 8)))
    members = [
        builder.member(name, inner if type_ == 0 else type_, at) for name, type_, at in fields
    ]
    builder.structure("_A", 48, builder.field_list(*members))
    return Pdb(as_array(builder.build()), "built.pdb")


def _derive(pdb: Pdb, *rows: LayoutRow) -> dict[str, tuple[int, str]]:
    alternatives = {("_A", "Moved"): ("Inner.Deep",)}
    component = Component(rows, alternatives, every_builds_fields=True)
    return layout_row_from_symbols(pdb, component, "x64", 7, "test").structures["_A"]


def test_a_field_that_moved_into_a_structure_of_its_own_is_found_there() -> None:
    found = _derive(_pdb(("Inner", 0, 24)), _row({"Moved": (0, "ptr")}))
    assert found == {"sizeof": (48, ""), "Moved": (32, "ptr")}


def test_a_field_that_only_some_builds_have_may_be_absent() -> None:
    rows = _row({"Old": (0, "u4"), "Both": (4, "u4")}), _row({"Both": (4, "u4")}, 2)
    assert _derive(_pdb(("Both", 0x22, 12)), *rows) == {"sizeof": (48, ""), "Both": (12, "u4")}


def test_a_field_that_every_build_has_must_be_there() -> None:
    with pytest.raises(LayoutNotInSymbolsError, match=r"_A\.Both"):
        _derive(_pdb(("Other", 0x22, 12)), _row({"Both": (4, "u4")}))


@pytest.mark.parametrize("kind", ["u8", "ptr", "list", "S8"])
def test_a_field_narrower_than_what_is_read_gives_no_row(kind: str) -> None:
    with pytest.raises(LayoutNotInSymbolsError, match="4 bytes"):
        _derive(_pdb(("Field", 0x22, 0)), _row({"Field": (0, kind)}))


def test_a_bit_field_is_not_read_as_a_number() -> None:
    builder = PdbBuilder()
    bits = builder.type(0x1205, struct.pack("<IBBH", 0x22, 3, 5, 0))
    builder.structure("_A", 8, builder.field_list(builder.member("Field", bits, 0)))
    pdb = Pdb(as_array(builder.build()), "built.pdb")
    with pytest.raises(LayoutNotInSymbolsError):
        _derive(pdb, _row({"Field": (0, "u4")}))


def test_a_bit_field_may_be_part_of_a_number_that_is_read() -> None:
    builder = PdbBuilder()
    bits = builder.type(0x1205, struct.pack("<IBBH", 0x22, 3, 5, 0))
    builder.structure("_A", 8, builder.field_list(builder.member("Field", bits, 4)))
    pdb = Pdb(as_array(builder.build()), "built.pdb")
    component = Component([_row({"Field": (0, "u4")})], bit_fields=True)
    row = layout_row_from_symbols(pdb, component, "x64", 7, "test")
    assert row.structures["_A"]["Field"] == (4, "u4")


def test_what_no_symbols_know_comes_from_the_nearest_row() -> None:
    rows = [
        LayoutRow(
            "test",
            "x64",
            build,
            build,
            {**_row({"A": (0, "u4")}).structures, "constants": {"K": (k, "")}},
            "",
        )
        for build, k in ((10, 1), (20, 2))
    ]
    component = Component(rows, from_table=frozenset(("constants",)))
    for build, value in ((9, 1), (19, 2), (500, 2)):
        row = layout_row_from_symbols(_pdb(("A", 0x22, 4)), component, "x64", build, "test")
        assert row.structures["constants"] == {"K": (value, "")}
        assert row.structures["_A"]["A"] == (4, "u4")


@pytest.mark.parametrize("nearest_only", [False, True])
def test_the_nearest_row_whose_fields_are_all_there_says_what_is_read(nearest_only: bool) -> None:
    rows = _row({"Old": (0, "u4")}, 10), _row({"New": (0, "u4")}, 20)
    component = Component(rows, nearest_row_only=nearest_only)
    pdb = _pdb(("Old", 0x22, 4))
    if nearest_only:
        with pytest.raises(LayoutNotInSymbolsError, match=r"_A\.New"):
            layout_row_from_symbols(pdb, component, "x64", 19, "test")
    else:
        row = layout_row_from_symbols(pdb, component, "x64", 19, "test")
        assert row.structures["_A"] == {"sizeof": (48, ""), "Old": (4, "u4")}


def test_the_part_that_is_read_may_end_before_an_array() -> None:
    component = Component(
        [_row({"Count": (0, "u4"), "Array": (8, "")})], {("_A", "sizeof"): ("Array",)}
    )
    pdb = _pdb(("Count", 0x22, 4), ("Array", 0x23, 24))
    row = layout_row_from_symbols(pdb, component, "x64", 7, "test")
    assert row.size("_A") == 24


def test_a_field_behind_the_part_that_is_read_gives_no_row() -> None:
    component = Component(
        [_row({"Count": (0, "u4"), "Array": (8, "")})], {("_A", "sizeof"): ("Array",)}
    )
    pdb = _pdb(("Count", 0x22, 24), ("Array", 0x23, 16))
    with pytest.raises(LayoutNotInSymbolsError, match="behind the part"):
        layout_row_from_symbols(pdb, component, "x64", 7, "test")


def test_a_structure_of_impossible_size_gives_no_row() -> None:
    builder = PdbBuilder()
    builder.structure("_A", 1 << 20, builder.field_list(builder.member("Field", 0x22, 0)))
    pdb = Pdb(as_array(builder.build()), "built.pdb")
    with pytest.raises(LayoutNotInSymbolsError, match="outside"):
        _derive(pdb, _row({"Field": (0, "u4")}))
