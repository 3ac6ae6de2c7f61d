"""volatility3's symbol tables answer as PDBs do."""

from __future__ import annotations

import gzip
import json
import lzma
import random
from pathlib import Path
from typing import Any

import pytest
from pdb_samples import LAYOUTS, SHARED_SYMBOLS, known_fields

from windumps.symbols.base import FieldLayout, NearSymbol, find_field
from windumps.symbols.errors import CorruptSymbolsError, NotSymbolsError, SymbolError
from windumps.symbols.isf import SymbolTableFile

TABLE: dict[str, Any] = {
    "metadata": {
        "format": "6.2.0",
        "windows": {
            "pdb": {
                "GUID": "0123456789abcdef0123456789ABCDEF",
                "age": 2,
                "database": "ntkrnlmp.pdb",
                "machine_type": 34404,
            }
        },
    },
    "symbols": {
        "PoolTable": {"address": 4096},
        "AlsoPoolTable": {"address": 4096},
        "Last": {"address": 8192},
    },
    "base_types": {
        "pointer": {"size": 8, "signed": False, "kind": "int", "endian": "little"},
        "unsigned short": {"size": 2, "signed": False, "kind": "int", "endian": "little"},
        "char": {"size": 1, "signed": True, "kind": "char", "endian": "little"},
    },
    "enums": {"_KIND": {"base": "unsigned short", "size": 2, "constants": {"A": 0}}},
    "user_types": {
        "_INNER": {
            "kind": "struct",
            "size": 4,
            "fields": {
                "Low": {
                    "offset": 0,
                    "type": {
                        "kind": "bitfield",
                        "bit_length": 5,
                        "bit_position": 3,
                        "type": {"kind": "base", "name": "unsigned short"},
                    },
                },
                "Kind": {"offset": 2, "type": {"kind": "enum", "name": "_KIND"}},
            },
        },
        "_OUTER": {
            "kind": "struct",
            "size": 40,
            "fields": {
                "Name": {
                    "offset": 16,
                    "type": {
                        "kind": "array",
                        "count": 12,
                        "subtype": {"kind": "base", "name": "char"},
                    },
                },
                "Next": {
                    "offset": 0,
                    "type": {"kind": "pointer", "subtype": {"kind": "struct", "name": "_OUTER"}},
                },
                "Call": {
                    "offset": 8,
                    "type": {"kind": "pointer", "subtype": {"kind": "function"}},
                },
                "In": {"offset": 32, "type": {"kind": "struct", "name": "_INNER"}},
            },
        },
    },
}


def test_a_table_names_its_pdb_and_its_symbols() -> None:
    table = SymbolTableFile(TABLE, "t.json")
    assert table.identity is not None
    assert table.identity.key == "0123456789ABCDEF0123456789ABCDEF2"
    assert table.architecture == "x64"
    assert table.rva("Last") == 8192
    assert table.rva("Nobody") is None
    assert table.nearest(4099) == NearSymbol("AlsoPoolTable", 4096, 3)
    assert table.nearest(4095) is None


def test_a_structure_of_a_table_has_the_fields_in_order() -> None:
    table = SymbolTableFile(TABLE, "t.json")
    layout = table.structure("_OUTER")
    assert layout is not None
    assert layout.size == 40
    assert layout.fields == (
        FieldLayout("Next", 0, 8, "_OUTER*", "", True),
        FieldLayout("Call", 8, 8, "function*", "", True),
        FieldLayout("Name", 16, 12, "char[12]"),
        FieldLayout("In", 32, 4, "_INNER", "_INNER"),
    )
    low = find_field(table, "_OUTER", "In.Low")
    assert low == FieldLayout("In.Low", 32, 2, "unsigned short", bit_position=3, bit_count=5)
    kind = find_field(table, "_OUTER", "In.Kind")
    assert kind is not None
    assert (kind.offset, kind.size, kind.type_name) == (34, 2, "_KIND")
    assert table.structure("_NOBODY") is None


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".json.xz"])
def test_a_table_may_be_compressed(tmp_path: Path, suffix: str) -> None:
    text = json.dumps(TABLE).encode()
    pack = {".json": bytes, ".json.gz": gzip.compress, ".json.xz": lzma.compress}[suffix]
    path = tmp_path / f"t{suffix}"
    path.write_bytes(pack(text))
    assert SymbolTableFile.open(path).rva("PoolTable") == 4096
    path.write_bytes(pack(text)[:-9])
    with pytest.raises(SymbolError):
        SymbolTableFile.open(path)


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"null", b'{"symbols": 1}', b"\xff\xfe", b"[" * 200_000]
)
def test_other_json_is_no_table(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(text)
    with pytest.raises(NotSymbolsError):
        SymbolTableFile.open(path)


def test_a_table_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windumps.symbols.isf.MAX_BYTES", 100)
    path = tmp_path / "t.json.xz"
    path.write_bytes(lzma.compress(json.dumps(TABLE).encode()))
    with pytest.raises(CorruptSymbolsError, match="more than"):
        SymbolTableFile.open(path)


def _broken(value: Any, chance: random.Random) -> Any:
    """The same JSON with one or the other value replaced by what does not belong there."""
    if chance.random() < 0.03:
        return chance.choice([None, -1, 1 << 70, 1.5, True, "text", [], {}, {"kind": "base"}])
    if isinstance(value, dict):
        return {key: _broken(item, chance) for key, item in value.items()}
    return value


def test_values_that_do_not_belong_there_give_answers_or_typed_errors() -> None:
    chance = random.Random(9)  # noqa: S311
    refused = 0
    for _ in range(2000):
        try:
            table = SymbolTableFile(_broken(TABLE, chance), "t.json")
            _ = (table.identity, table.architecture, table.rva("Last"), table.nearest(5000))
            find_field(table, "_OUTER", "In.Low")
            table.structure("_INNER")
        except SymbolError:
            refused += 1
    assert 0 < refused < 2000


@pytest.mark.skipif(not SHARED_SYMBOLS.is_dir(), reason="the tables are not beside the repository")
@pytest.mark.parametrize(
    ("guid", "layouts"),
    [
        ("339E74133576439CBCDF7E0229DA3773", "nt_x64_6.1.7601.24540.json"),
        ("DBBC830E3E9A48FDA25A2144C146930E", "nt_x64_10.0.14393.6343.json"),
        ("DCA4AD4BEEB4746D48F84C0125019E43", "nt_x64_10.0.18362.836.json"),
        ("606FF669409B00F7FC8C61A9C1670129", "nt_x64_10.0.19041.3570.json"),
        ("0CE4A95C0CD782A7596B034D8648E585", "nt_x64_10.0.22000.2538.json"),
    ],
)
def test_the_tables_of_kernels_say_what_was_published_of_them(guid: str, layouts: str) -> None:
    table = SymbolTableFile.open(SHARED_SYMBOLS / "isf" / "ntkrnlmp.pdb" / f"{guid}-1.json.xz")
    assert table.identity is not None
    assert (table.identity.guid, table.architecture) == (guid, "x64")
    published = json.loads((LAYOUTS / layouts).read_text())
    for name, rva in published["rva"].items():
        assert table.rva(name) == rva, name
    compared = 0
    for known in known_fields(LAYOUTS / layouts):
        layout = table.structure(known.structure)
        assert layout is not None, known
        assert layout.size == known.structure_size, known
        field = find_field(table, known.structure, known.name)
        assert field is not None, known
        assert field.offset == known.offset, known
        if known.bits is not None:
            assert (field.bit_position, field.bit_count) == known.bits, known
        compared += 1
    assert compared > 500
