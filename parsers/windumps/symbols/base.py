"""What any source of symbols gives, whether a PDB or a volatility3 table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

MAX_NESTING = 32  # of structures in structures, pointers to pointers, arrays of arrays


@dataclass(frozen=True)
class FieldLayout:
    """One field of a structure.

    Attributes:
        name: Its name; of a nested field the dotted path that was asked for.
        offset: Bytes from the start of the structure that was asked for.
        size: Bytes of the field's type; 0 when the type has no size here (an incomplete one).
        type_name: For people, as C writes it: "unsigned int", "_LIST_ENTRY", "char*", "short[8]".
        structure: Key of the structure or union the field is of, for `SymbolSource.structure`; ""
            when it is something else.
        is_pointer: The field is a pointer.
        bit_position: First bit, from the lowest of the `size` bytes at `offset`; None for a field
            that is no bit field.
        bit_count: How many bits; None for a field that is no bit field.
    """

    name: str
    offset: int
    size: int
    type_name: str
    structure: str = ""
    is_pointer: bool = False
    bit_position: int | None = None
    bit_count: int | None = None


@dataclass(frozen=True)
class StructureLayout:
    """A structure, class or union.

    Attributes:
        name: As the source names it, "_HEAP" or "net::Session".
        size: Bytes.
        fields: In the order of the source; static members are left out.
        bases: Base classes: (name, offset, key).
    """

    name: str
    size: int
    fields: tuple[FieldLayout, ...]
    bases: tuple[tuple[str, int, str], ...] = ()


class NearSymbol(NamedTuple):
    """A symbol at or below an address.

    Attributes:
        name: As the source writes it (C++ names of public symbols are decorated).
        rva: Its own address, relative to the image.
        offset: Bytes from it to the address asked for.
    """

    name: str
    rva: int
    offset: int


class SymbolSource(Protocol):
    """Symbols of one module."""

    def rva(self, name: str) -> int | None:
        """Address of a symbol relative to the image; None when there is none of that name."""

    def nearest(self, rva: int) -> NearSymbol | None:
        """The symbol at `rva`, or the last one below it in the same section."""

    def structure(self, name: str) -> StructureLayout | None:
        """A structure by name or key; None when it is not defined here."""


def find_field(source: SymbolSource, structure: str, path: str) -> FieldLayout | None:
    """Finds a field by dotted path, "Counters.TotalMemoryReserved"; also in base classes.

    Returns:
        The last component's layout with its offset from the start of `structure`, or None.
    """
    key, offset = structure, 0
    found: FieldLayout | None = None
    components = path.split(".")
    for component in components if len(components) <= MAX_NESTING else ():
        found = _member(source, key, component, 0)
        if found is None:
            return None
        offset += found.offset
        key = found.structure
    if found is None:
        return None
    return FieldLayout(**{**found.__dict__, "name": path, "offset": offset})


def _member(source: SymbolSource, key: str, name: str, depth: int) -> FieldLayout | None:
    layout = source.structure(key) if key and depth < MAX_NESTING else None
    if layout is None:
        return None
    for field in layout.fields:
        if field.name == name:
            return field
    for _, base_offset, base in layout.bases:
        inherited = _member(source, base, name, depth + 1)
        if inherited is not None:
            return FieldLayout(**{**inherited.__dict__, "offset": base_offset + inherited.offset})
    return None
