"""An exact PDB of ntdll takes the place of a row of the table, and says the same."""

from __future__ import annotations

import struct

import pytest
from builders.pdb_builder import PdbBuilder
from pdb_samples import as_array, microsoft_pdbs, sample_bytes

from windumps.symbols.errors import LayoutNotInSymbolsError
from windumps.symbols.layout_rows import layout_row_from_pdb, layout_row_from_symbols
from windumps.symbols.pdb import Pdb
from windumps.windows.layouts import LayoutRow, candidates
from windumps.windows.nt_heap_layouts import NT_HEAP_ROWS

# Read with llvm-pdbutil. The table's own sizes of these two are how far the code reads, or rounded.
SIZES = {
    "x64": {"_LFH_HEAP": 0xCF0, "_LFH_BLOCK_ZONE": 0x18},
    "x86": {"_LFH_HEAP": 0x7E8, "_LFH_BLOCK_ZONE": 0xC},
}


@pytest.mark.skipif(
    not microsoft_pdbs(), reason="Microsoft's PDBs may not be copied into the repository"
)
def test_the_rows_of_microsofts_pdbs_equal_the_built_in_rows_of_their_builds() -> None:
    for (architecture, build), path in microsoft_pdbs().items():
        row = layout_row_from_pdb(Pdb.open(path), architecture, build)
        table = candidates(NT_HEAP_ROWS, architecture, build)[0]
        assert table.first_build <= build <= table.last_build
        assert row.structures.keys() == table.structures.keys()
        for name, fields in table.structures.items():
            expected = dict(fields)
            if name in SIZES[architecture]:
                expected["sizeof"] = SIZES[architecture][name], ""
            assert row.structures[name] == expected, name
        assert (row.first_build, row.last_build, row.component) == (build, build, "NT heap")
        assert row.name == f"NT heap {architecture} {build}-{build}"


def test_a_pdb_without_the_heaps_types_gives_no_row() -> None:
    pdb = Pdb(as_array(sample_bytes("x64")), "sample.pdb")
    with pytest.raises(LayoutNotInSymbolsError, match="_HEAP"):
        layout_row_from_pdb(pdb, "x64", 19041)


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
    row = layout_row_from_symbols(pdb, rows, "x64", 7, alternatives, "test")
    return row.structures["_A"]


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
