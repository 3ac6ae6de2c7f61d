"""The answer of `dumpleak symbols`."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

from dumpleak.reports.document import (
    Column,
    Document,
    Line,
    Row,
    Table,
    data_columns,
)
from dumpleak.reports.names import visible
from dumpleak.reports.values import Said, Style
from dumpleak.symbols.wanted_symbols import WantedSymbols, reason, url
from windumps.symbols.wanted import Status, SymbolFile, manifest

_STYLES = {Status.FOUND: Style.GOOD, Status.MISSING: Style.PLAIN, Status.WRONG: Style.WARNING}
_COLUMNS = (
    *data_columns("module status path table reason url"),
    Column("module"),
    Column("PDB", name="pdb"),
    Column("GUID and age", name="key"),
    Column("status"),
    Column("path or reason"),
)


def symbols_document(answer: WantedSymbols) -> Document:
    """One row a PDB, and what to do next."""

    def row(_: int, file: SymbolFile) -> Row:
        stand_in, why = _stand_in(answer, file), reason(answer, file)
        status = Said(
            "table only" if stand_in else file.status, _STYLES.get(file.status, Style.BAD)
        )
        return (
            *(" ".join(file.modules), file.status, file.path, stand_in, why, _url(answer, file)),
            *(", ".join(file.modules), file.identity.name, file.identity.key, status),
            str(file.path or "") or stand_in or why,
        )

    found = sum(file.status is Status.FOUND for file in answer.files)
    lines = [Line(f"{found} of {len(answer.files)} PDBs found.")]
    if answer.unnamed:
        lines.append(Line(f"Images that name no PDB: {', '.join(answer.unnamed)}"))
    if answer.missing:
        lines += [
            Line("On a machine with a network: --format manifest -o wanted.txt here, then there"),
            Line("symchk /im wanted.txt /s srv*FOLDER*SERVER; or --format urls for other tools."),
        ]
    table = Table(
        "symbols",
        "PDBs",
        _COLUMNS,
        answer.files,
        row,
        data="module pdb key status path table reason url",
        folded=True,
    )
    file = Line(f"File: {answer.file}", Style.HEADING)
    return Document(f"{answer.file}: symbols", None, (file, table, *lines))


def symbols_json(answer: WantedSymbols) -> dict[str, Any]:
    """Schema dumpleak/symbols/1."""
    return {
        "schema": "dumpleak/symbols/1",
        "file": answer.file,
        "searched": answer.searched,
        "symbols": [
            {
                "modules": list(file.modules),
                "pdb": file.identity.name,
                "guid": file.identity.guid,
                "age": file.identity.age,
                "key": file.identity.key,
                "status": file.status,
                "path": str(file.path) if file.path else None,
                "table": _stand_in(answer, file) or None,
                "reason": reason(answer, file) or None,
                "notes": list(file.notes),
                "url": _url(answer, file) or None,
            }
            for file in answer.files
        ],
        "modules_without_pdb": list(answer.unnamed),
    }


def write_manifest(answer: WantedSymbols, stream: IO[str]) -> None:
    """What is missing, as `symchk /im` reads it; what cannot be seen in a name is an escape."""
    # Not by `splitlines`, for which a name may have several.
    for line in manifest(answer.missing).split("\n")[:-1]:
        stream.write(f"{visible(line)}\n")


def write_urls(answer: WantedSymbols, stream: IO[str]) -> None:
    """What is missing, as addresses on Microsoft's public server, for any download tool."""
    stream.writelines(f"{url(file)}\n" for file in answer.missing)


# For other tools; no documents.
LISTS: dict[str, Callable[[WantedSymbols, IO[str]], None]] = {
    "manifest": write_manifest,
    "urls": write_urls,
}


def _stand_in(answer: WantedSymbols, file: SymbolFile) -> str:
    return str(answer.tables.get(file.identity.key, ""))


def _url(answer: WantedSymbols, file: SymbolFile) -> str:
    return url(file) if file in answer.missing else ""
