"""Layouts of Windows structures that differ by build: rows of offsets, looked up by name.

Code asks `layout.offset("_HEAP", "FirstEntry")` and never compares build numbers. A table (one
file per
component, e.g. `nt_heap.py`) holds a row for each (architecture, first build) whose offsets
differ from
the row before. `candidates` gives the rows to try: the one for the build first, then its
neighbours, so
that a build without a row of its own is tried all the same and judged by self-consistency.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import numpy as np

from windumps.memory import AddressSpace

Fit = TypeVar("Fit")

_SIZES = {"u1": 1, "u2": 2, "u4": 4, "u8": 8}


@dataclass(frozen=True)
class LayoutRow:
    """Offsets of one component's structures from one build on.

    Attributes:
        component: What the structures belong to, "heap".
        architecture: "x86" or "x64".
        first_build: First Windows build with these offsets.
        last_build: Last build they were seen in.
        structures: Structure → field → (offset, type). Types: u1 u2 u4 u8, `ptr`, `list` (a
            LIST_ENTRY: two pointers), `S<n>` raw bytes. The pseudo-field "sizeof" holds (size, "").
        source: Where the offsets come from.
        proven_on: Builds whose own dumps the row was tried on, where the table says so.
    """

    component: str
    architecture: str
    first_build: int
    last_build: int
    structures: dict[str, dict[str, tuple[int, str]]]
    source: str
    proven_on: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """For people: "heap x64 17763–26100"."""
        return f"{self.component} {self.architecture} {self.first_build}-{self.last_build}"

    @property
    def pointer_size(self) -> int:
        """4 or 8 bytes."""
        return 4 if self.architecture == "x86" else 8

    @cached_property
    def places(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(structure, field) → (offset, bytes), of all fields."""
        return {
            (structure, name): (offset, self.field_size(structure, name))
            for structure, fields in self.structures.items()
            for name, (offset, kind) in fields.items()
            if kind
        }

    def offset(self, structure: str, name: str) -> int:
        """Byte offset of a field. A KeyError here is a mistake in our own code, not in a dump."""
        return self.structures[structure][name][0]

    def has(self, structure: str, name: str) -> bool:
        """True when this build's structure has the field."""
        return name in self.structures.get(structure, {})

    def size(self, structure: str) -> int:
        """Bytes of the structure."""
        return self.structures[structure]["sizeof"][0]

    def field_size(self, structure: str, name: str) -> int:
        """Bytes of a field."""
        kind = self.structures[structure][name][1]
        if kind[0] == "S":
            return int(kind[1:])
        return self.pointer_size if kind in ("ptr", "list") else _SIZES[kind]

    def dtype(self, structure: str, *names: str) -> np.dtype[np.void]:
        """A record type of the whole structure with the named integer fields, for reading columns."""
        return np.dtype(
            {
                "names": list(names),
                "formats": [f"<u{self.field_size(structure, name)}" for name in names],
                "offsets": [self.offset(structure, name) for name in names],
                "itemsize": self.size(structure),
            }
        )

    def read(self, memory: AddressSpace, structure: str, address: int) -> Record:
        """Reads the whole structure once.

        Raises:
            MemoryReadError: part of it is not in the dump.
        """
        return Record(self, structure, address, memory.read(address, self.size(structure)))

    def read_field(self, memory: AddressSpace, structure: str, name: str, address: int) -> int:
        """Reads one integer field of the structure at `address`; raises `MemoryReadError`."""
        return memory.read_uint(
            address + self.offset(structure, name), self.field_size(structure, name)
        )


@dataclass(frozen=True)
class Record:
    """One structure read from memory; `record["Field"]` decodes an integer."""

    layout: LayoutRow
    structure: str
    address: int
    raw: bytes = field(repr=False)

    def __getitem__(self, name: str) -> int:
        start, size = self.layout.places[self.structure, name]
        return int.from_bytes(self.raw[start : start + size], "little")

    def bytes_of(self, name: str) -> bytes:
        """The raw bytes of a field."""
        start = self.layout.offset(self.structure, name)
        return self.raw[start : start + self.layout.field_size(self.structure, name)]

    def address_of(self, name: str) -> int:
        """Address of a field, for lists whose head it is."""
        return self.address + self.layout.offset(self.structure, name)


def candidates(rows: Sequence[LayoutRow], architecture: str, build: int) -> list[LayoutRow]:
    """The rows of one architecture, the most likely first.

    The row that covers `build` leads; the others follow by distance. With an unknown build (0) the
    newest lead. ARM64 uses the 64-bit structures.
    """
    wanted = "x86" if architecture in ("x86", "arm") else "x64"
    fitting = [row for row in rows if row.architecture == wanted]

    def distance(row: LayoutRow) -> int:
        if not build:
            return -row.first_build
        if row.first_build <= build <= row.last_build:
            return 0
        return min(abs(build - row.first_build), abs(build - row.last_build))

    return sorted(fitting, key=distance)


@dataclass(frozen=True)
class LayoutChoice(Generic[Fit]):
    """The layout that fits best, how well, and what else is known of it.

    Attributes:
        row: The layout.
        score: Share of the self-consistency checks that hold, 0 to 1.
        source: "exact" (from symbols), "table" (the row of the build) or "probed" (another row).
        fit: What the scoring found on the way.
    """

    row: LayoutRow
    score: float
    source: str
    fit: Fit

    def __str__(self) -> str:
        """For people: the row, how it was come by, how well it checked out."""
        how = {
            "exact": "from symbols",
            "table": "the build's own row",
            "probed": "probed, the build has no row that fits better",
        }[self.source]
        return f"{self.row.name}, {how}, {self.score:.0%} of checks hold"


def choose_layout(
    rows: Sequence[LayoutRow],
    architecture: str,
    build: int,
    score: Callable[[LayoutRow], tuple[float, Fit] | None],
    exact: LayoutRow | None = None,
) -> LayoutChoice[Fit] | None:
    """Tries layouts, the likeliest first, and takes the first that fits entirely, else the best.

    Args:
        rows: The component's table.
        architecture: "x86", "x64", …
        build: Windows build number, 0 when unknown.
        score: Gives the share of checks that hold under a row and what it found, or None when the row
            cannot be tried (memory absent).
        exact: A row from symbols; tried first.

    Returns:
        None when no row can be tried.
    """
    best: LayoutChoice[Fit] | None = None
    for row in ([exact] if exact else []) + candidates(rows, architecture, build):
        result = score(row)
        if result is None or (best is not None and result[0] <= best.score):
            continue
        own = row.first_build <= build <= row.last_build
        source = "exact" if row is exact else "table" if own else "probed"
        best = LayoutChoice(row, result[0], source, result[1])
        if best.score == 1.0:
            break
    return best


def rows_from(
    component: str,
    architecture: str,
    base: dict[str, dict[str, tuple[int, str]]],
    changes: list[tuple[int, int, str, dict[str, dict[str, Any]]]],
    proven: Mapping[int, tuple[int, ...]] = MappingProxyType({}),
) -> list[LayoutRow]:
    """Builds rows that each change the one before.

    Args:
        component: See `LayoutRow`.
        architecture: See `LayoutRow`.
        base: The structures of the first row.
        changes: (first build, last build, source, structure → field → (offset, type), or None to
            remove).
        proven: `LayoutRow.proven_on` of rows, by their first builds.
    """
    rows = []
    current = {name: dict(fields) for name, fields in base.items()}
    for first, last, source, delta in changes:
        for name, fields in delta.items():
            merged = dict(current.get(name, {}))
            for field_name, value in fields.items():
                if value is None:
                    merged.pop(field_name, None)
                else:
                    merged[field_name] = value
            current[name] = merged
        rows.append(
            LayoutRow(
                component,
                architecture,
                first,
                last,
                {name: dict(fields) for name, fields in current.items()},
                source,
                proven.get(first, ()),
            )
        )
    return rows
