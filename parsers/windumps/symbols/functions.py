"""Which function and which source line an address in a module is.

`symbolic` (PyPI, MIT) reads functions and lines out of a PDB when it is installed; it has no wheel
for Windows, so without it public symbols are used: functions with external linkage, no lines. Each
answer says which of the two it comes from.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from windumps.diagnostics import Diagnostic, DiagnosticLog, Severity
from windumps.images.modules import Module
from windumps.symbols.errors import SymbolError
from windumps.symbols.lines import LinesError, line_table
from windumps.symbols.names import undecorated, without_arguments
from windumps.symbols.pdb import Pdb

LIBRARY, PUBLICS = "symbolic", "public symbols"


class InlinedCall(NamedTuple):
    """A function that the compiler wrote into the one that was asked for."""

    function: str
    file: str
    line: int


@dataclass(frozen=True)
class Location:
    """What an address is.

    Attributes:
        function: Name of the function, or of the data, without arguments.
        offset: Bytes from its start.
        file: Source file as the compiler saw it; "" when unknown.
        line: Line in it; 0 when unknown.
        source: `LIBRARY` or `PUBLICS`, or `provider.TABLE`.
        inlined: Functions inlined at the address, the innermost first.
    """

    function: str
    offset: int
    file: str
    line: int
    source: str
    inlined: tuple[InlinedCall, ...] = ()

    def __str__(self) -> str:
        """`net::Session::send+0x5`."""
        return f"{self.function}+0x{self.offset:x}"


@dataclass
class _ModuleSymbols:
    path: Path
    pdb: Pdb
    lines: Any = None  # symbolic's SymCache; made when the first address is looked up
    lines_wanted: bool = False
    known: dict[tuple[int, bool], Location | None] = field(default_factory=dict)


def load_library() -> Any:
    """The `symbolic` package, or None when it is not installed."""
    try:
        return importlib.import_module("symbolic")
    except ImportError:
        return None


class Symbolizer:
    """Names addresses of modules.

    Args:
        find_pdb: Gives the PDB of a module, or None; `SymbolStore.pdb_path` is one.
        library: What `load_library` gives; None uses public symbols only.
        log: Takes what could not be used.
    """

    def __init__(
        self, find_pdb: Callable[[Module], Path | None], library: Any, log: DiagnosticLog
    ) -> None:
        self._find_pdb = find_pdb
        self._library = library
        self._log = log
        self._modules: dict[str, _ModuleSymbols | None] = {}
        self._problems: dict[str, list[Diagnostic]] = {}

    def locate(
        self, module: Module, rva: int, *, is_return_address: bool = False
    ) -> Location | None:
        """The function (or data) and source line at an address.

        Args:
            module: The image.
            rva: Address relative to its base.
            is_return_address: The address is where a call returns to, so the call is looked up: it
                may be the last instruction of its function, and of its line.

        Returns:
            None when there are no symbols or none reaches the address.
        """
        symbols = self._symbols_of(module)
        if symbols is None:
            return None
        if symbols.lines_wanted:
            symbols.lines_wanted = False
            self._add_lines(module, symbols)
        if (rva, is_return_address) not in symbols.known:
            symbols.known[rva, is_return_address] = self._look_up(
                symbols, rva, rva - 1 if is_return_address else rva
            )
        return symbols.known[rva, is_return_address]

    def pdb(self, module: Module) -> Pdb | None:
        """The module's PDB, open; None when there is none that can be read."""
        symbols = self._symbols_of(module)
        return symbols.pdb if symbols else None

    def problems(self, module: Module) -> list[Diagnostic]:
        """What could not be used of a module's symbols so far; also in the log."""
        return list(self._problems.get(module.identity, ()))

    def _symbols_of(self, module: Module) -> _ModuleSymbols | None:
        key = module.identity
        if key not in self._modules:
            self._modules[key] = self._open(module)
        return self._modules[key]

    def _open(self, module: Module) -> _ModuleSymbols | None:
        path = self._find_pdb(module)
        if path is None:
            return None
        try:
            symbols = _ModuleSymbols(path, Pdb.open(path), lines_wanted=self._library is not None)
            _ = symbols.pdb.symbols  # read now, so that damage is noticed here
        except (SymbolError, OSError) as error:
            self._say(module, "symbols-unreadable", str(error))
            return None
        return symbols

    def _add_lines(self, module: Module, symbols: _ModuleSymbols) -> None:
        try:
            symbols.lines = line_table(symbols.path, self._library)
        except (LinesError, OSError) as error:
            self._say(module, "symbols-without-lines", f"{symbols.path}: no lines: {error}")

    def _look_up(self, symbols: _ModuleSymbols, rva: int, at: int) -> Location | None:
        if symbols.lines is not None and symbols.pdb.holds(at):
            found = self._from_library(symbols, rva, at)
            if found is not None:
                return found
        near = symbols.pdb.nearest(at)
        if near is None:
            return None
        name = undecorated(near.name, symbols.pdb.architecture)
        return Location(name, rva - near.rva, "", 0, PUBLICS)

    def _from_library(self, symbols: _ModuleSymbols, rva: int, at: int) -> Location | None:
        try:
            calls = symbols.lines.lookup(at)
        except self._library.SymbolicError:
            return None
        if not calls or not calls[-1].symbol:
            return None
        # The last is the function that has code of its own; those before are inlined in it.
        outer = calls[-1]
        if not 0 <= outer.sym_addr <= at:
            return None
        inlined = tuple(
            InlinedCall(without_arguments(c.symbol), c.full_path or "", c.line) for c in calls[:-1]
        )
        name = without_arguments(undecorated(outer.symbol, symbols.pdb.architecture))
        return Location(
            name, rva - outer.sym_addr, outer.full_path or "", outer.line, LIBRARY, inlined
        )

    def _say(self, module: Module, code: str, message: str) -> None:
        said = Diagnostic(code, Severity.WARNING, module.name, None, message)
        self._problems.setdefault(module.identity, []).append(said)
        self._log.extend([said])
