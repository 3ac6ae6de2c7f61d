"""Which PDBs a dump wants, which of them are there, and where another machine would get the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from windumps.images.modules import Module
from windumps.symbols.provider import Symbols
from windumps.symbols.wanted import Status, SymbolFile, problem_with, wanted

NO_PATH = "no symbol path given (--symbols or _NT_SYMBOL_PATH)"
PUBLIC_SERVER = "https://msdl.microsoft.com/download/symbols"


@dataclass(frozen=True)
class WantedSymbols:
    """The answer of `dumpleak symbols`.

    Attributes:
        file: The dump.
        files: Each PDB that an image names, with what became of it.
        tables: Volatility3 tables that stand in for a PDB that is not there, by the PDB's key.
        unnamed: Images that name no PDB.
        searched: A symbol path was given.
    """

    file: str
    files: tuple[SymbolFile, ...]
    tables: dict[str, Path]
    unnamed: tuple[str, ...]
    searched: bool

    @property
    def missing(self) -> list[SymbolFile]:
        """PDBs that are not there and can be looked for by name."""
        return [
            file
            for file in self.files
            if file.status is not Status.FOUND and not problem_with(file.identity)
        ]


def find_wanted(file: str, modules: Iterable[Module], symbols: Symbols | None) -> WantedSymbols:
    """Looks for the PDBs of all modules.

    Args:
        file: The dump's name.
        modules: Its images.
        symbols: Where to look; None to list what is wanted only.
    """
    images = list(modules)
    files = wanted(images)
    named = {name for wish in files for name in wish.modules}
    tables = {}
    if symbols is not None:
        files = [symbols.file(wish) for wish in files]
        for wish in files:
            table = symbols.table_path(wish.identity)
            if table is not None and wish.status is not Status.FOUND:
                tables[wish.identity.key] = table
    unnamed = dict.fromkeys(image.name for image in images if image.name not in named)
    return WantedSymbols(file, tuple(files), tables, tuple(unnamed), symbols is not None)


def reason(answer: WantedSymbols, file: SymbolFile) -> str:
    """Why a PDB is not there; "" when it is."""
    if file.status is Status.FOUND:
        return ""
    if not answer.searched:
        return problem_with(file.identity) or NO_PATH
    return "; ".join(file.notes) or "in no place of the symbol path"


def url(file: SymbolFile, server: str = PUBLIC_SERVER) -> str:
    """Where a symbol server has a PDB."""
    name = quote(file.identity.name)
    return f"{server.rstrip('/')}/{name}/{file.identity.key}/{name}"
