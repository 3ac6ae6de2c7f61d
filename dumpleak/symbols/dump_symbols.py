"""The symbols of one dump's images, and what must be said of those that lack them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from windumps.diagnostics import Diagnostic, Severity
from windumps.images.modules import Module
from windumps.layouts.rows import LayoutRow
from windumps.process.views import ProcessView
from windumps.symbols.errors import SymbolPathError
from windumps.symbols.paths import ENVIRONMENT, SearchElement, parse_symbol_path

if TYPE_CHECKING:
    from windumps.symbols.functions import Location
    from windumps.symbols.provider import Symbols

SHOWN_MODULES = 6


def given_elements(paths: Iterable[str]) -> list[SearchElement]:
    """The symbol path that a user gave.

    Args:
        paths: Values of `--symbols`, each in the syntax of `_NT_SYMBOL_PATH`.

    Raises:
        SymbolPathError: an element means nothing, or its folder is not there and the path names no
            server that could fill it.
    """
    elements = parse_symbol_path(";".join(paths))
    fillable = any(element.url for element in elements)  # caches are made when something comes
    for element in elements:
        if element.folder is not None and not element.folder.is_dir():
            raise SymbolPathError(_no_folder(element.folder))
        stores = element.stores if element.folder is None and not fillable else ()
        if stores and not any(store.is_dir() for store in stores):
            raise SymbolPathError(_no_folder(stores[-1]))
    return elements


def _no_folder(path: Path) -> str:
    if path.exists():
        return f"not a folder: {path}; give the folder that the PDBs are in"
    return f"no such folder: {path}"


def environment_elements() -> list[SearchElement]:
    """The symbol path in the environment; folders that are not there are no error in it.

    Raises:
        SymbolPathError: an element means nothing.
    """
    return parse_symbol_path(os.environ.get(ENVIRONMENT, ""))


class DumpSymbols:
    """Names the addresses of one dump; keeps in mind which images were asked for.

    Args:
        symbols: Where names come from; shared by the dumps of a run.

    Attributes:
        provider: Where names come from.
    """

    def __init__(self, symbols: Symbols) -> None:
        self.provider = symbols
        self._asked: dict[str, Module] = {}

    def frame(self, module: Module, rva: int) -> Location | None:
        """The function and line that a return address belongs to; None without symbols for it."""
        return self._of(module).locate(module, rva, is_return_address=True)

    def data(self, module: Module, rva: int) -> Location | None:
        """The function or variable at an address; None without symbols for it."""
        return self._of(module).locate(module, rva)

    def vftable_class(self, module: Module, rva: int, pointer_size: int) -> str | None:
        """The mangled class of a vftable that has no type information; None when unknown."""
        return self._of(module).vftable_class(module, rva, pointer_size)

    def layouts(self, view: ProcessView) -> dict[str, LayoutRow]:
        """Layouts out of the symbols of a view's ntdll; empty without such symbols."""
        ntdll = view.ntdll()
        if ntdll is None:
            return {}
        return self._of(ntdll).layout_rows(ntdll, view.architecture, view.build)

    def _of(self, module: Module) -> Symbols:
        self._asked.setdefault(module.identity, module)
        return self.provider

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """What could not be used, and which of the images asked for have no symbols."""
        found: list[Diagnostic] = []
        missing: list[str] = []
        for module in self._asked.values():
            symbols = self.provider.of(module)
            found += symbols.diagnostics
            if not symbols.found and self.provider.source(module) is None:
                missing.append(module.name)
        found += [
            Diagnostic("symbol-server", Severity.WARNING, "symbols", None, f"{reason}; given up")
            for reason in self.provider.unreachable
        ]
        if missing:
            shown = ", ".join(missing[:SHOWN_MODULES])
            more = len(missing) - SHOWN_MODULES
            found.append(
                Diagnostic(
                    "symbols-missing",
                    Severity.INFO,
                    "symbols",
                    None,
                    f"no exactly matching PDB of {shown}{f' and {more} more' if more > 0 else ''}; "
                    "`dumpleak symbols DUMP` lists what is missing",
                )
            )
        return found
