"""Structure layouts out of the types of a PDB: fields, bit fields, base classes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from windumps.symbols import pdb_types as types
from windumps.symbols.base import MAX_NESTING, FieldLayout, StructureLayout

_LF_BCLASS, _LF_VBCLASS, _LF_IVBCLASS, _LF_INDEX, _LF_VFUNCTAB = (
    0x1400,
    0x1401,
    0x1402,
    0x1404,
    0x1409,
)
_LF_ENUMERATE, _LF_MEMBER, _LF_STMEMBER, _LF_METHOD = 0x1502, 0x150D, 0x150E, 0x150F
_LF_NESTTYPE, _LF_ONEMETHOD, _LF_BINTERFACE = 0x1510, 0x1511, 0x151A
_LF_PAD = 0xF0
_INTRODUCING_VIRTUAL = (4, 6)  # method kinds whose record has an offset into the vtable
MAX_FIELDS = 1 << 16

# Simple types (below 0x1000), low byte: bytes and C's name; cvinfo.h TYPE_ENUM_e.
_SIMPLE: dict[int, tuple[int, str]] = {
    0x03: (0, "void"),
    0x08: (4, "HRESULT"),
    0x10: (1, "signed char"),
    0x11: (2, "short"),
    0x12: (4, "long"),
    0x13: (8, "__int64"),
    0x14: (16, "__int128"),
    0x20: (1, "unsigned char"),
    0x21: (2, "unsigned short"),
    0x22: (4, "unsigned long"),
    0x23: (8, "unsigned __int64"),
    0x24: (16, "unsigned __int128"),
    0x30: (1, "bool"),
    0x31: (2, "bool16"),
    0x32: (4, "bool32"),
    0x33: (8, "bool64"),
    0x40: (4, "float"),
    0x41: (8, "double"),
    0x42: (10, "long double"),
    0x43: (16, "float128"),
    0x68: (1, "int8"),
    0x69: (1, "uint8"),
    0x70: (1, "char"),
    0x71: (2, "wchar_t"),
    0x72: (2, "short"),
    0x73: (2, "unsigned short"),
    0x74: (4, "int"),
    0x75: (4, "unsigned int"),
    0x76: (8, "__int64"),
    0x77: (8, "unsigned __int64"),
    0x78: (16, "__int128"),
    0x79: (16, "unsigned __int128"),
    0x7A: (2, "char16_t"),
    0x7B: (4, "char32_t"),
    0x7C: (1, "char8_t"),
}
# Bits 8-11 of a simple type: bytes of a pointer to it; 0 when it is the type itself.
_SIMPLE_POINTERS = {0: 0, 1: 2, 2: 4, 3: 4, 4: 4, 5: 6, 6: 8, 7: 16}


class _Type(NamedTuple):
    size: int
    name: str
    structure: str = ""
    is_pointer: bool = False
    bit_position: int | None = None
    bit_count: int | None = None


_UNKNOWN = _Type(0, "?")


def structure_layout(records: types.TypeRecords, name: str) -> StructureLayout | None:
    """The layout of a structure by name or key; None when it is not defined in the PDB.

    Raises:
        CorruptSymbolsError: its records are damaged.
    """
    found = records.find(name)
    if found is None:
        return None
    fields: list[FieldLayout] = []
    bases: list[tuple[str, int, str]] = []
    for kind, offset, type_index, field_name in _members(records, found.fields):
        type_ = _describe(records, type_index, 0)
        if kind == _LF_BCLASS:
            bases.append((type_.name, offset, type_.structure))
        else:
            fields.append(FieldLayout(field_name, offset, *type_))
    return StructureLayout(found.name, found.size, tuple(fields), tuple(bases))


def _members(records: types.TypeRecords, index: int) -> Iterator[tuple[int, int, int, str]]:
    """Kind, offset, type and name of the data members and base classes of a field list.

    A list too long for one record goes on in another.
    """
    seen: set[int] = set()
    count = 0
    while index and index not in seen:
        seen.add(index)
        kind, body = records.record(index)
        if kind != types.LF_FIELDLIST:
            raise records.corrupt(f"type 0x{index:x} is no field list")
        index, at = 0, 0
        while at + 2 <= len(body):
            member, at, following = _member(records, body, at)
            index = following or index
            if member is not None:
                count += 1
                if count > MAX_FIELDS:
                    raise records.corrupt(f"a structure of more than {MAX_FIELDS} fields")
                yield member


def _member(
    records: types.TypeRecords, body: bytes, at: int
) -> tuple[tuple[int, int, int, str] | None, int, int]:
    """Decodes one entry: (a data member or None, end, field list that follows or 0)."""
    if body[at] > _LF_PAD:
        return None, at + (body[at] & 0x0F), 0
    if at + 8 > len(body) and len(body) - at < 6:
        raise records.corrupt("a field list ends inside an entry")
    (kind,) = struct.unpack_from("<H", body, at)
    attributes = int.from_bytes(body[at + 2 : at + 4], "little")
    type_index = int.from_bytes(body[at + 4 : at + 8], "little")
    end = at + 8
    if kind == _LF_MEMBER:
        offset, end = records.place(body, end)
        name, end = records.text(body, end)
        return (kind, offset, type_index, name), end, 0
    if kind in (_LF_BCLASS, _LF_BINTERFACE):
        offset, end = records.place(body, end)
        return (_LF_BCLASS, offset, type_index, ""), end, 0
    if kind == _LF_VFUNCTAB:
        return (_LF_MEMBER, 0, type_index, "__vfptr"), end, 0
    if kind in (_LF_VBCLASS, _LF_IVBCLASS):
        # Where a virtual base lies is known at run time only.
        _, end = records.number(body, end + 4)
        _, end = records.number(body, end)
        return None, end, 0
    if kind == _LF_INDEX:
        return None, end, type_index
    if kind == _LF_ENUMERATE:
        _, end = records.number(body, at + 4)
    elif kind == _LF_ONEMETHOD:
        end += 4 if attributes >> 2 & 7 in _INTRODUCING_VIRTUAL else 0
    elif kind not in (_LF_STMEMBER, _LF_METHOD, _LF_NESTTYPE):
        raise records.corrupt(f"a field list with an entry of kind 0x{kind:x}")
    _, end = records.text(body, end)
    return None, end, 0


def _describe(records: types.TypeRecords, index: int, depth: int) -> _Type:
    """Size and name of a type."""
    if index < records.first:
        size, name = _SIMPLE.get(index & 0xFF, (0, "?"))
        pointer = _SIMPLE_POINTERS.get(index >> 8 & 0xF, 0)
        return _Type(pointer, f"{name}*", "", True) if pointer else _Type(size, name)
    if depth > MAX_NESTING:
        return _UNKNOWN
    kind, body = records.record(index)
    if kind in types.STRUCTURES:
        return _describe_structure(records, records.named(kind, body))
    if kind == types.LF_ENUM:
        enum = records.named(kind, body)
        return _Type(_describe(records, enum.underlying, depth + 1).size, enum.name)
    if kind in (types.LF_PROCEDURE, types.LF_MFUNCTION):
        return _Type(0, "function")
    if kind not in (types.LF_MODIFIER, types.LF_BITFIELD, types.LF_POINTER, types.LF_ARRAY):
        return _UNKNOWN  # such as the shape of a vftable
    if len(body) < 6:
        raise records.corrupt(f"type 0x{index:x} ends too early")
    target = int.from_bytes(body[:4], "little")
    if kind == types.LF_MODIFIER:
        return _describe(records, target, depth + 1)
    if kind == types.LF_BITFIELD:
        base = _describe(records, target, depth + 1)
        return _Type(base.size, base.name, bit_position=body[5], bit_count=body[4])
    if kind == types.LF_POINTER:
        attributes = int.from_bytes(body[4:8], "little")
        size = attributes >> 13 & 0x3F or (8 if attributes & 0x1F == 0xC else 4)
        return _Type(size, f"{_describe(records, target, depth + 1).name}*", "", True)
    element = _describe(records, target, depth + 1)
    size, _ = records.place(body, 8)
    count = size // element.size if element.size else ""
    # C writes the outer dimension first.
    name, bracket, inner = element.name.partition("[" if element.name[-1:] == "]" else "\0")
    return _Type(size, f"{name}[{count}]{bracket}{inner}")


def _describe_structure(records: types.TypeRecords, found: types.NamedType) -> _Type:
    if found.is_forward:
        found = records.find(found.key) or found
    return _Type(found.size, found.name, found.key)
