"""Layout rows out of symbols, so that an exact PDB of ntdll takes the place of a table's row.

Which fields a row needs, and how wide each is read, comes from the component's table; the offsets
come from the symbols. What no symbols know (values that are no offsets, names that are not Microsoft's)
comes from the table's nearest row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from windumps.layouts.nt_heap import NT_HEAP_ROWS
from windumps.layouts.page_heap import PAGE_HEAP_ROWS
from windumps.layouts.rows import LayoutRow, candidates
from windumps.layouts.segment_heap import SEGMENT_HEAP_ROWS
from windumps.layouts.stack_trace import STACK_TRACE_LAYOUTS
from windumps.symbols.base import FieldLayout, SymbolSource, find_field
from windumps.symbols.errors import LayoutNotInSymbolsError

MAX_STRUCTURE_BYTES = 1 << 14  # the largest of these in any Windows has half of it

Alternatives = Mapping[tuple[str, str], tuple[str, ...]]

_Structure = dict[str, tuple[int, str]]


class Component(NamedTuple):
    """How one component's table is completed from symbols.

    Attributes:
        rows: The table.
        alternatives: (structure, field) -> dotted paths to try after the field's own name. For the
            pseudo-field "sizeof": the array behind the part that is read.
        from_table: Structures, and "structure.field", that no symbols have.
        every_builds_fields: Look for the fields of all rows, and do without those that only some have;
            else for those of the nearest row whose fields are all there.
        nearest_row_only: No other row than the nearest may be the one.
        bit_fields: Numbers may be bit fields: the code reads the number they are part of.
    """

    rows: Sequence[LayoutRow]
    alternatives: Alternatives = MappingProxyType({})
    from_table: frozenset[str] = frozenset()
    every_builds_fields: bool = False
    nearest_row_only: bool = False
    bit_fields: bool = False


# Fields that a later Windows moved into a structure of their own. Seen in ntdll's PDBs 6.1.7601 to
# 10.0.22621.
_NT_HEAP = Component(
    NT_HEAP_ROWS,
    {
        ("_HEAP", "TotalMemoryReserved"): ("Counters.TotalMemoryReserved",),
        ("_HEAP", "TotalMemoryCommitted"): ("Counters.TotalMemoryCommitted",),
        ("_HEAP", "TotalSizeInVirtualBlocks"): ("Counters.TotalSizeInVirtualBlocks",),
        ("_HEAP", "TotalSegments"): ("Counters.TotalSegments",),
        ("_HEAP_SUBSEGMENT", "Depth"): ("AggregateExchg.Depth",),
        ("_HEAP_USERDATA_HEADER", "SizeOfBitMap"): ("BusyBitmap.SizeOfBitMap",),
    },
    every_builds_fields=True,
)
_SEGMENT_HEAP = Component(
    SEGMENT_HEAP_ROWS,
    {
        ("_SEGMENT_HEAP", "TotalReservedPages"): ("MemStats.TotalReservedPages",),
        ("_SEGMENT_HEAP", "TotalCommittedPages"): ("MemStats.TotalCommittedPages",),
        ("_SEGMENT_HEAP", "FreeCommittedPages"): ("MemStats.FreeCommittedPages",),
        ("_SEGMENT_HEAP", "LfhFreeCommittedPages"): ("MemStats.LfhFreeCommittedPages",),
        ("_HEAP_LFH_SUBSEGMENT", "sizeof"): ("BlockBitmap",),
    },
    frozenset(("constants", "_HEAP_VS_SUBSEGMENT.FirstChunk")),
    bit_fields=True,
)
_STACK_TRACES = Component(
    STACK_TRACE_LAYOUTS,
    {
        ("_RTL_STACK_TRACE_ENTRY", "sizeof"): ("BackTrace",),
        ("_STACK_TRACE_DATABASE", "sizeof"): ("Buckets",),
    },
    frozenset(("HEAP_STACK_TRACE_LOG_ENTRY",)),
)
# Windows 8 and later have page heap in verifier.dll, whose blocks are not what ntdll's types say; their
# rows have fields that are in no PDB, so that ntdll's types are not taken for them.
COMPONENTS: tuple[Component, ...] = (
    _NT_HEAP,
    _SEGMENT_HEAP,
    Component(PAGE_HEAP_ROWS, nearest_row_only=True),
    _STACK_TRACES,
)


def exact_rows(
    symbols: SymbolSource, architecture: str, build: int
) -> tuple[dict[str, LayoutRow], dict[str, str]]:
    """Rows of all components that the ntdll these symbols belong to has.

    Args:
        symbols: Symbols of that ntdll.
        architecture: "x86" or "x64".
        build: Windows build number, 0 when unknown.

    Returns:
        The rows, and why a component has none; both by the component's name.

    Raises:
        CorruptSymbolsError: the symbols are damaged.
    """
    rows: dict[str, LayoutRow] = {}
    missing: dict[str, str] = {}
    for component in COMPONENTS:
        name = component.rows[0].component
        try:
            rows[name] = layout_row_from_symbols(
                symbols, component, architecture, build, "ntdll's own symbols"
            )
        except LayoutNotInSymbolsError as error:
            missing[name] = str(error)
    return rows, missing


def layout_row_from_symbols(
    symbols: SymbolSource, component: Component, architecture: str, build: int, source: str
) -> LayoutRow:
    """A row of one component's table with the offsets that symbols give.

    Args:
        symbols: Symbols of the module that the structures belong to.
        component: See `Component`.
        architecture: "x86" or "x64".
        build: Windows build number, 0 when unknown.
        source: Stands in the row.

    Raises:
        LayoutNotInSymbolsError: a structure is not in the symbols, a field that must be is not
            either, or a field is not of the width that the code reads.
        CorruptSymbolsError: the symbols are damaged.
    """
    rows = candidates(component.rows, architecture, build)
    if not rows:
        raise LayoutNotInSymbolsError(f"there is no table for {architecture} to complete")
    if component.every_builds_fields:
        structures = _structures(symbols, component, rows)
    else:
        structures = _structures_of_one(symbols, component, rows)
    first = rows[0]
    return LayoutRow(first.component, first.architecture, build, build, structures, source)


def _structures_of_one(
    symbols: SymbolSource, component: Component, rows: Sequence[LayoutRow]
) -> dict[str, _Structure]:
    """With the fields of the first row of which the symbols have all."""
    reason: LayoutNotInSymbolsError | None = None
    for row in rows[:1] if component.nearest_row_only else rows:
        try:
            return _structures(symbols, component, [row])
        except LayoutNotInSymbolsError as error:
            reason = reason or error
    raise reason or LayoutNotInSymbolsError("no row")


def _structures(
    symbols: SymbolSource, component: Component, rows: Sequence[LayoutRow]
) -> dict[str, _Structure]:
    """All structures with the fields that the rows have; the first row is the nearest."""
    structures: dict[str, _Structure] = {}
    for name in dict.fromkeys(s for row in rows for s in row.structures):
        if name in component.from_table:
            structures[name] = dict(rows[0].structures[name])
        else:
            structures[name] = _structure(symbols, component, rows, name)
    return structures


def _structure(
    symbols: SymbolSource, component: Component, rows: Sequence[LayoutRow], name: str
) -> _Structure:
    """One structure with the fields that the rows have; the first row is the nearest."""
    layout = symbols.structure(name)
    if layout is None:
        raise LayoutNotInSymbolsError(f"the symbols do not describe {name}")
    kinds = {
        field: kind
        for row in reversed(rows)  # the nearest row's kinds last, so that they stay
        for field, (_, kind) in row.structures.get(name, {}).items()
    }
    found: _Structure = {}
    for field, kind in kinds.items():
        if field == "sizeof":
            end = component.alternatives.get((name, field))
            behind = find_field(symbols, name, end[0]) if end else None
            found[field] = (behind.offset if behind else layout.size), kind
            continue
        if f"{name}.{field}" in component.from_table:
            found[field] = rows[0].structures[name][field]
            continue
        paths = (field, *component.alternatives.get((name, field), ()))
        place = next((f for path in paths if (f := find_field(symbols, name, path))), None)
        if place is None:
            if all(row.has(name, field) for row in rows):
                raise LayoutNotInSymbolsError(f"the symbols do not describe {name}.{field}")
            continue
        _check_width(place, name, kind, rows[0].pointer_size, bit_fields=component.bit_fields)
        if place.offset + place.size > layout.size or layout.size > MAX_STRUCTURE_BYTES:
            raise LayoutNotInSymbolsError(f"{name}.{field} lies outside {name}")
        found[field] = place.offset, kind
    read = found["sizeof"][0] if "sizeof" in found else layout.size
    for field, (offset, kind) in found.items():
        if kind and offset + _width(kind, rows[0].pointer_size) > read:
            raise LayoutNotInSymbolsError(f"{name}.{field} lies behind the part that is read")
    return found


def _check_width(
    field: FieldLayout, structure: str, kind: str, pointer: int, *, bit_fields: bool
) -> None:
    """A number may be wider in the symbols than what is read (its low bytes then), never narrower."""
    if not kind:
        return
    wanted = _width(kind, pointer)
    fits = field.size >= wanted if kind[0] == "u" else field.size == wanted
    if not fits or (field.bit_count is not None and not bit_fields):
        raise LayoutNotInSymbolsError(
            f"{structure}.{field.name} has {field.size} bytes in the symbols, {wanted} are read"
        )


def _width(kind: str, pointer: int) -> int:
    """Bytes that are read of a field of this kind."""
    widths = {"u1": 1, "u2": 2, "u4": 4, "u8": 8, "ptr": pointer, "list": 2 * pointer}
    return int(kind[1:]) if kind[0] == "S" else widths[kind]
