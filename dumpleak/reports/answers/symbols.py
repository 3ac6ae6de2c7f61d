"""The answer of `dumpleak symbols` in each format; a row in `SYMBOLS_REPORTS` each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import IO

from dumpleak.reports.csv_report import write_table
from dumpleak.reports.names import visible
from dumpleak.reports.text.consoles import ReportConsole
from dumpleak.reports.text.report import PIPE_WIDTH
from dumpleak.reports.text.tables import clean as _clean
from dumpleak.reports.text.tables import plain_table as _table
from dumpleak.symbols.wanted_symbols import WantedSymbols, reason, url
from windumps.symbols.wanted import Status, SymbolFile, manifest

HEADINGS = ("module", "PDB", "GUID and age", "status", "path or reason")
COLUMNS = ("module", "pdb", "key", "status", "path", "table", "reason", "url")
_STYLES = {Status.FOUND: "green", Status.MISSING: "", Status.WRONG: "yellow"}


def write_text(answer: WantedSymbols, stream: IO[str]) -> None:
    """A table for people and what to do next."""
    console = ReportConsole(file=stream, highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console = ReportConsole(
            file=stream, highlight=False, emoji=False, markup=False, width=PIPE_WIDTH
        )
    table = _table(*HEADINGS, left=set(HEADINGS))
    for file in answer.files:
        status = "table only" if _stand_in(answer, file) else str(file.status)
        table.add_row(
            _clean(", ".join(file.modules)),
            _clean(file.identity.name),
            file.identity.key,
            _clean(status),
            _clean(str(file.path or "") or _stand_in(answer, file) or reason(answer, file)),
            style=_STYLES.get(file.status, "red"),
        )
    console.print(_clean(f"File: {answer.file}"), style="bold")
    console.print(table)
    found = sum(file.status is Status.FOUND for file in answer.files)
    console.print(f"{found} of {len(answer.files)} PDBs found.")
    if answer.unnamed:
        names = _clean(f"Images that name no PDB: {', '.join(answer.unnamed)}")
        console.print(names, soft_wrap=True)
    if answer.missing:
        console.print(
            "On a machine with a network: --format manifest -o wanted.txt here, then there\n"
            "symchk /im wanted.txt /s srv*FOLDER*SERVER; or --format urls for other tools.",
            soft_wrap=True,
        )


def write_json(answer: WantedSymbols, stream: IO[str]) -> None:
    """Schema dumpleak/symbols/1."""
    document = {
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
    json.dump(document, stream, indent=2)
    stream.write("\n")


def write_csv(answer: WantedSymbols, stream: IO[str]) -> None:
    """One row a PDB."""
    write_table(
        stream,
        COLUMNS,
        (
            (
                " ".join(file.modules),
                file.identity.name,
                file.identity.key,
                file.status,
                file.path or "",
                _stand_in(answer, file),
                reason(answer, file),
                _url(answer, file),
            )
            for file in answer.files
        ),
    )


def write_manifest(answer: WantedSymbols, stream: IO[str]) -> None:
    """What is missing, as `symchk /im` reads it; what cannot be seen in a name is an escape."""
    # Not by `splitlines`, for which a name may have several.
    for line in manifest(answer.missing).split("\n")[:-1]:
        stream.write(f"{visible(line)}\n")


def write_urls(answer: WantedSymbols, stream: IO[str]) -> None:
    """What is missing, as addresses on Microsoft's public server, for any download tool."""
    stream.writelines(f"{url(file)}\n" for file in answer.missing)


def _stand_in(answer: WantedSymbols, file: SymbolFile) -> str:
    return str(answer.tables.get(file.identity.key, ""))


def _url(answer: WantedSymbols, file: SymbolFile) -> str:
    return url(file) if file in answer.missing else ""


SYMBOLS_REPORTS: dict[str, Callable[[WantedSymbols, IO[str]], None]] = {
    "text": write_text,
    "json": write_json,
    "csv": write_csv,
    "manifest": write_manifest,
    "urls": write_urls,
}
