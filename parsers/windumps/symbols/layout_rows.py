"""Layout rows out of symbols, so that an exact PDB of ntdll takes the place of a table's row.

Which fields a row needs, and how wide each is read, comes from the component's table; the offsets
come from the symbols. A field that no structure of the symbols has is left out, as in the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from windumps.symbols.base import FieldLayout, SymbolSource, find_field
from windumps.symbols.errors import LayoutNotInSymbolsError
from windumps.windows.layouts import LayoutRow
from windumps.windows.nt_heap_layouts import NT_HEAP_ROWS

MAX_STRUCTURE_BYTES = 1 << 20  # the largest of these in any Windows has a hundredth of it

Alternatives = Mapping[tuple[str, str], tuple[str, ...]]

# Fields that a later Windows moved into a structure of their own; tried in turn after the field's
# own name. Seen in ntdll's PDBs 6.1.7601 to 10.0.22621.
NT_HEAP_ALTERNATIVES: Alternatives = {
    ("_HEAP", "TotalMemoryReserved"): ("Counters.TotalMemoryReserved",),
    ("_HEAP", "TotalMemoryCommitted"): ("Counters.TotalMemoryCommitted",),
    ("_HEAP", "TotalSizeInVirtualBlocks"): ("Counters.TotalSizeInVirtualBlocks",),
    ("_HEAP_SUBSEGMENT", "Depth"): ("AggregateExchg.Depth",),
    ("_HEAP_USERDATA_HEADER", "SizeOfBitMap"): ("BusyBitmap.SizeOfBitMap",),
    ("_HEAP_USERDATA_HEADER", "BitmapBuffer"): ("BusyBitmap.Buffer",),
}


def layout_row_from_pdb(symbols: SymbolSource, architecture: str, build: int) -> LayoutRow:
    """The NT heap's layout in the ntdll that these symbols belong to.

    Args:
        symbols: Symbols of that ntdll.
        architecture: "x86" or "x64".
        build: Windows build number, for the row's name.

    Raises:
        LayoutNotInSymbolsError: the symbols have no types of the heap, as stripped PDBs have none.
        CorruptSymbolsError: the symbols are damaged.
    """
    return layout_row_from_symbols(
        symbols, NT_HEAP_ROWS, architecture, build, NT_HEAP_ALTERNATIVES, "ntdll's own PDB"
    )


def layout_row_from_symbols(
    symbols: SymbolSource,
    rows: Sequence[LayoutRow],
    architecture: str,
    build: int,
    alternatives: Alternatives,
    source: str,
) -> LayoutRow:
    """A row of one component's table with the offsets that symbols give.

    Args:
        symbols: Symbols of the module that the structures belong to.
        rows: The component's table; its structures of all builds say what is looked for.
        architecture: "x86" or "x64".
        build: Windows build number.
        alternatives: (structure, field) -> dotted paths to try after the field's own name.
        source: Stands in the row.

    Raises:
        LayoutNotInSymbolsError: a structure is not in the symbols, a field that every build's row
            has is not either, or a field is not of the width that the code reads.
        CorruptSymbolsError: the symbols are damaged.
    """
    fitting = [row for row in rows if row.architecture == architecture]
    if not fitting:
        raise LayoutNotInSymbolsError(f"there is no table for {architecture} to complete")
    structures: dict[str, dict[str, tuple[int, str]]] = {}
    for structure in dict.fromkeys(name for row in fitting for name in row.structures):
        layout = symbols.structure(structure)
        if layout is None:
            raise LayoutNotInSymbolsError(f"the symbols do not describe {structure}")
        kinds = {
            name: kind
            for row in fitting
            for name, (_, kind) in row.structures.get(structure, {}).items()
            if name != "sizeof"
        }
        found: dict[str, tuple[int, str]] = {"sizeof": (layout.size, "")}
        for name, kind in kinds.items():
            paths = (name, *alternatives.get((structure, name), ()))
            field = next((f for p in paths if (f := find_field(symbols, structure, p))), None)
            if field is None:
                if all(row.has(structure, name) for row in fitting):
                    raise LayoutNotInSymbolsError(f"the symbols do not describe {structure}.{name}")
                continue
            _check_width(field, structure, kind, fitting[0].pointer_size)
            if field.offset + field.size > layout.size or layout.size > MAX_STRUCTURE_BYTES:
                raise LayoutNotInSymbolsError(f"{structure}.{field.name} lies outside {structure}")
            found[name] = field.offset, kind
        structures[structure] = found
    return LayoutRow(fitting[0].component, architecture, build, build, structures, source)


def _check_width(field: FieldLayout, structure: str, kind: str, pointer: int) -> None:
    """A number may be wider in the symbols than what is read (its low bytes then), never narrower."""
    if not kind:
        return
    widths = {"u1": 1, "u2": 2, "u4": 4, "u8": 8, "ptr": pointer, "list": 2 * pointer}
    wanted = int(kind[1:]) if kind[0] == "S" else widths[kind]
    fits = field.size >= wanted if kind[0] == "u" else field.size == wanted
    if not fits or field.bit_count is not None:
        raise LayoutNotInSymbolsError(
            f"{structure}.{field.name} has {field.size} bytes in the symbols, {wanted} are read"
        )
