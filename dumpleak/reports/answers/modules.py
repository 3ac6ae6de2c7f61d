"""Loaded and unloaded images: an answer of its own, and a table of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dumpleak.reports.document import (
    Column,
    Document,
    Kind,
    Line,
    Row,
    Table,
    View,
    Width,
    data_columns,
)
from dumpleak.reports.json_report import module_json
from dumpleak.reports.values import Name
from windumps.images.modules import Module

_DATA = "name base_address size_bytes version pdb_name pdb_guid pdb_age state"
_COLUMNS = (
    Column("base", Kind.ADDRESS, "base_address"),
    Column("size", Kind.BYTES, "size_bytes"),
    Column("state", name="state", views=View.PAGE),
    Column("version", name="version"),
    Column("PDB", name="pdb_name", width=Width.WIDE),
    Column("GUID and age", width=Width.WIDE),
    *data_columns("pdb_guid pdb_age"),
    Column("path", Kind.NAME, views=View.PAGE),
    Column("name", Kind.NAME, "name", View.TEXT),
)


def module_table(
    title: str, loaded: Sequence[Module], unloaded: Sequence[Module], views: View = View.ALL
) -> Table[tuple[str, Module]]:
    """One row an image."""

    def row(_: int, item: tuple[str, Module]) -> Row:
        state, module = item
        pdb = module.pdb
        told = "" if state == "loaded" else f"{module.name} (unloaded)"
        return (
            *(module.base_address, module.size_bytes, state, module.version),
            *((pdb.name, pdb.key, pdb.guid, pdb.age) if pdb else ("",) * 4),
            *(module.path or module.name, Name(module.name, told)),
        )

    items = [
        (state, m) for state, group in (("loaded", loaded), ("unloaded", unloaded)) for m in group
    ]
    return Table("modules", title, _COLUMNS, items, row, views, _DATA, choose="state")


def modules_document(file: str, loaded: Sequence[Module], unloaded: Sequence[Module]) -> Document:
    """One row an image."""
    said = "PDB names and GUIDs are shown on wider terminals, and by --format json."
    parts = module_table("Modules", loaded, unloaded), Line(said, width=Width.NARROW)
    return Document(f"{file}: modules", None, parts)


def modules_json(file: str, loaded: Sequence[Module], unloaded: Sequence[Module]) -> dict[str, Any]:
    """Schema dumpleak/modules/1."""
    return {
        "schema": "dumpleak/modules/1",
        "file": file,
        "modules": [module_json(module) for module in loaded],
        "unloaded_modules": [module_json(module) for module in unloaded],
    }
