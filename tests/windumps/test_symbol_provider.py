"""The one door to symbols: what it finds it keeps, what it cannot use it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.cabinet_builder import mszip
from builders.pdb_builder import GUID, PdbBuilder

from windumps.images.modules import Module, PdbIdentity
from windumps.symbols.functions import Location
from windumps.symbols.paths import parse_symbol_path
from windumps.symbols.provider import MAX_TABLE_DISTANCE, TABLE, Symbols
from windumps.symbols.store import SymbolStore
from windumps.symbols.wanted import Status

MODULE = Module("app.exe", "app.exe", 0x400000, 0x9000, 1, pdb=PdbIdentity("app.pdb", GUID, 1))
PDB = PdbBuilder().public("key", 2, 8).public("?run@@YAXXZ", 1, 0x40).build()


def _table(symbols: dict[str, Any], guid: str = GUID, age: int = 1) -> str:
    pdb = {"GUID": guid, "age": age, "database": "app.pdb", "machine_type": 34404}
    return json.dumps(
        {
            "metadata": {"windows": {"pdb": pdb}},
            "symbols": {name: {"address": address} for name, address in symbols.items()},
            "base_types": {},
            "user_types": {},
            "enums": {},
        }
    )


def _put(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def _symbols(folder: Path) -> Symbols:
    return Symbols(parse_symbol_path(str(folder)))


def test_a_pdb_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _put(tmp_path / "app.pdb", PDB)
    looked = []
    look = SymbolStore._look

    def count(self: SymbolStore, file: Any) -> Any:
        looked.append(file.identity)
        return look(self, file)

    monkeypatch.setattr(SymbolStore, "_look", count)
    symbols = _symbols(tmp_path)
    again = Module("copy.exe", "copy.exe", 0x900000, 0x9000, 1, pdb=MODULE.pdb)
    for module in (MODULE, again, MODULE):
        assert str(symbols.locate(module, 0x1050)) == "run+0x10"
        assert symbols.of(module).found
    source = symbols.source(MODULE)
    assert source is not None
    assert source.rva("key") == 0x3008
    assert looked == [MODULE.pdb]
    assert path.exists()


def test_an_unpacked_pdb_is_read_and_goes_with_the_run(tmp_path: Path) -> None:
    _put(tmp_path / "app.pd_", mszip(PDB))
    symbols = _symbols(tmp_path)
    file = symbols.of(MODULE).file
    assert file is not None
    assert file.path is not None
    assert file.path.exists()
    assert str(symbols.locate(MODULE, 0x1041)) == "run+0x1"
    symbols.close()
    assert not file.path.exists()


def test_without_a_pdb_a_table_names_what_is_not_far_behind(tmp_path: Path) -> None:
    names = {"First": 0x1000, "?run@app@@YAXXZ": 0x2000, "Last": 0x3000}
    _put(tmp_path / "app.pdb" / f"{GUID}-1.json", _table(names))
    symbols = _symbols(tmp_path)
    assert symbols.of(MODULE).file is not None
    assert not symbols.of(MODULE).found
    assert symbols.locate(MODULE, 0x2004) == Location("app::run", 4, "", 0, TABLE)
    # A call at the end of `First` returns to where `run` begins.
    assert str(symbols.locate(MODULE, 0x2000, is_return_address=True)) == "First+0x1000"
    assert symbols.locate(MODULE, 0xFFF) is None
    assert symbols.locate(MODULE, 0x3000 + MAX_TABLE_DISTANCE) is not None
    assert symbols.locate(MODULE, 0x3001 + MAX_TABLE_DISTANCE) is None


def test_a_pdb_goes_before_a_table(tmp_path: Path) -> None:
    _put(tmp_path / "app.pdb" / f"{GUID}-1.json", _table({"Other": 0x1000}))
    _put(tmp_path / "app.pdb" / f"{GUID}1" / "app.pdb", PDB)
    assert str(_symbols(tmp_path).locate(MODULE, 0x1041)) == "run+0x1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_table({"A": 1}, "F" * 32), f"of app.pdb {'F' * 32}-1"),
        (_table({"A": 1}, age=2), f"of app.pdb {GUID}-2"),
        ("{}", "not a volatility3 symbol table"),
        ("<html>", "not a symbol table"),
        (_table({"A": -5}), "a number that cannot be"),
    ],
)
def test_a_table_that_cannot_be_used_is_said(tmp_path: Path, text: str, said: str) -> None:
    _put(tmp_path / "app.pdb" / f"{GUID}-1.json", text)
    symbols = _symbols(tmp_path)
    assert symbols.locate(MODULE, 0x1000) is None
    assert symbols.locate(MODULE, 0x1000) is None
    (diagnostic,) = symbols.of(MODULE).diagnostics
    assert said in diagnostic.message
    assert diagnostic.structure == "app.exe"


def test_an_image_without_pdb_is_no_trouble(tmp_path: Path) -> None:
    bare = Module("bare.dll", "bare.dll", 0x400000, 0x9000, 1)
    symbols = _symbols(tmp_path)
    assert symbols.locate(bare, 0x1000) is None
    assert symbols.source(bare) is None
    assert symbols.vftable_class(bare, 0x1000, 8) is None
    assert symbols.layout_rows(bare, "x64", 19041) == {}
    assert (symbols.of(bare).file, symbols.of(bare).diagnostics) == (None, ())


def test_a_pdb_whose_symbols_are_damaged_is_unreadable(tmp_path: Path) -> None:
    data = bytearray(PDB)
    data[data.index(bytes.fromhex("ffffffff") + (19990903).to_bytes(4, "little"))] = 0
    _put(tmp_path / "app.pdb", bytes(data))
    symbols = _symbols(tmp_path)
    assert symbols.locate(MODULE, 0x1041) is None
    file = symbols.of(MODULE).file
    assert file is not None
    assert file.status is Status.UNREADABLE
    assert "damaged" in " ".join(d.message for d in symbols.of(MODULE).diagnostics)
