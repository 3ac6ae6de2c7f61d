"""Symbols that describe structures, as a PDB and as a volatility3 table, out of a list of offsets."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

from builders.pdb_builder import PdbBuilder

# Structure -> field -> (offset, type as in layout rows); "sizeof" -> (size, "").
Structures = Mapping[str, Mapping[str, tuple[int, str]]]

_SIMPLE = {1: 0x20, 2: 0x21, 4: 0x22, 8: 0x23}  # unsigned char, short, long, __int64
_BASES = {1: "unsigned char", 2: "unsigned short", 4: "unsigned long", 8: "unsigned long long"}


def _bytes(kind: str, pointer: int) -> int:
    if kind[:1] == "S":
        return int(kind[1:])
    return {"": 1, "u1": 1, "u2": 2, "u4": 4, "u8": 8, "ptr": pointer, "list": 2 * pointer}[kind]


def types_pdb(structures: Structures, pointer: int, guid: str, age: int) -> bytes:
    """A PDB that holds these types and nothing else."""
    builder = PdbBuilder(guid=guid, age=age)
    arrays: dict[int, int] = {}

    def type_of(kind: str) -> int:
        size = _bytes(kind, pointer)
        if size in _SIMPLE:
            return _SIMPLE[size]
        if size not in arrays:  # LF_ARRAY of bytes
            arrays[size] = builder.type(0x1503, struct.pack("<IIH", 0x20, 0x22, size) + b"\0")
        return arrays[size]

    for name, fields in structures.items():
        members = [
            builder.member(field, type_of(kind), offset)
            for field, (offset, kind) in fields.items()
            if field != "sizeof"
        ]
        builder.structure(name, fields["sizeof"][0], builder.field_list(*members))
    return builder.build(block_size=4096)


def types_table(structures: Structures, pointer: int, guid: str, age: int) -> str:
    """The same as a volatility3 table."""

    def described(kind: str) -> dict[str, object]:
        size = _bytes(kind, pointer)
        if size in _BASES:
            return {"kind": "base", "name": _BASES[size]}
        return {
            "kind": "array",
            "count": size,
            "subtype": {"kind": "base", "name": "unsigned char"},
        }

    user_types = {
        name: {
            "kind": "struct",
            "size": fields["sizeof"][0],
            "fields": {
                field: {"offset": offset, "type": described(kind)}
                for field, (offset, kind) in fields.items()
                if field != "sizeof"
            },
        }
        for name, fields in structures.items()
    }
    pdb = {"GUID": guid, "age": age, "database": "ntdll.pdb", "machine_type": 34404}
    return json.dumps(
        {
            "metadata": {"format": "6.2.0", "windows": {"pdb": pdb}},
            "symbols": {},
            "enums": {},
            "base_types": {
                name: {"size": size, "signed": False, "kind": "int", "endian": "little"}
                for size, name in _BASES.items()
            },
            "user_types": user_types,
        }
    )
