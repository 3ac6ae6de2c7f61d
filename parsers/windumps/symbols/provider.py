"""Symbols of the images of dumps along one symbol path: the one door to everything in this package.

One `Symbols` serves all dumps of a run, so that a PDB which several of them want is looked for, fetched,
unpacked and read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from windumps.diagnostics import Diagnostic, DiagnosticLog, Severity
from windumps.images.modules import Module, PdbIdentity
from windumps.layouts.rows import LayoutRow
from windumps.symbols.base import SymbolSource
from windumps.symbols.download import Downloader, Progress
from windumps.symbols.errors import SymbolError
from windumps.symbols.functions import Location, Symbolizer, load_library
from windumps.symbols.isf import SymbolTableFile
from windumps.symbols.layout_rows import exact_rows
from windumps.symbols.names import undecorated, vftable_class
from windumps.symbols.paths import SearchElement
from windumps.symbols.store import SymbolStore
from windumps.symbols.wanted import Status, SymbolFile, wanted

TABLE = "volatility3 table"  # in place of `functions.LIBRARY` or `functions.PUBLICS`
MAX_TABLE_DISTANCE = 0x10000  # such a table knows no sections, and names lie denser than that
_VTABLE_ITANIUM = ("_ZTV", "__ZTV")  # the latter on x86
_VTABLE_HEAD_WORDS = 2  # offset to top and type_info stand before what objects point to


@dataclass(frozen=True)
class ModuleSymbols:
    """What became of the search for one image's symbols.

    Attributes:
        file: The PDB wanted, with status, path and reasons; None for an image that names none.
        diagnostics: What is there and cannot be used, or could not be asked for.
    """

    file: SymbolFile | None
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def found(self) -> bool:
        """True when there is an exactly matching PDB."""
        return self.file is not None and self.file.status is Status.FOUND


@dataclass
class _Known:
    """What was read of one image's symbols."""

    symbols: ModuleSymbols
    table: SymbolTableFile | None = None
    rows: dict[tuple[str, int], dict[str, LayoutRow]] = field(default_factory=dict)


class Symbols:
    """Looks up names and layouts; never raises for what is missing or damaged.

    Args:
        elements: The symbol path, taken apart; servers in it are asked.
        downloader: How; the default has default limits.
        library: What `load_library` gives; None uses public symbols only.
    """

    def __init__(
        self,
        elements: Sequence[SearchElement],
        downloader: Downloader | None = None,
        library: Any = None,
    ) -> None:
        self._downloader = downloader or Downloader()
        self._store = SymbolStore(elements, self._downloader)
        self._symbolizer = Symbolizer(self._store.pdb_path, library, DiagnosticLog())
        self._known: dict[str, _Known] = {}

    @classmethod
    def along(cls, elements: Sequence[SearchElement]) -> Symbols:
        """Symbols along a path, with lines when the library for them is installed."""
        return cls(elements, library=load_library())

    def close(self) -> None:
        """Removes what was unpacked for this run only."""
        self._store.close()

    def show_progress(self, progress: Progress | None) -> None:
        """Where downloads show their progress from now on; None for silence."""
        self._downloader.progress = progress

    @property
    def unreachable(self) -> list[str]:
        """Why servers of the path were given up, one line each."""
        return list(self._store.unreachable.values())

    def of(self, module: Module) -> ModuleSymbols:
        """Looks for an image's PDB and opens it; the answer is kept."""
        symbols = self._of(module).symbols
        problems = self._symbolizer.problems(module)
        return replace(symbols, diagnostics=(*symbols.diagnostics, *problems))

    def file(self, file: SymbolFile) -> SymbolFile:
        """Looks for a PDB without opening it for names; see `SymbolStore.find`."""
        return self._store.find(file)

    def table_path(self, identity: PdbIdentity) -> Path | None:
        """A volatility3 table that lies along the path under a PDB's name, GUID and age."""
        return self._store.find_table(identity)

    def source(self, module: Module) -> SymbolSource | None:
        """All symbols of an image: its PDB, else a volatility3 table made of it; None without either."""
        known = self._of(module)
        return self._symbolizer.pdb(module) if known.symbols.found else known.table

    def locate(
        self, module: Module, rva: int, *, is_return_address: bool = False
    ) -> Location | None:
        """See `Symbolizer.locate`; without a PDB a volatility3 table names what is not far behind."""
        known = self._of(module)
        if known.table is None:
            return self._symbolizer.locate(module, rva, is_return_address=is_return_address)
        try:
            near = known.table.nearest(rva - is_return_address)
        except SymbolError as error:
            self._add(known, module, "symbols-unreadable", str(error))
            known.table = None
            return None
        if near is None or near.offset > MAX_TABLE_DISTANCE:
            return None
        name = undecorated(near.name, known.table.architecture)
        return Location(name, rva - near.rva, "", 0, TABLE)

    def vftable_class(self, module: Module, rva: int, pointer_size: int) -> str | None:
        """The class whose vftable stands at an address, mangled as `type_names.class_name` takes it.

        None without a symbol exactly there, and where symbols of several classes are: the linker folds
        vftables that are alike.
        """
        self._of(module)
        pdb = self._symbolizer.pdb(module)
        if pdb is None:
            return None
        classes = {c for name in pdb.symbols.names_at(rva) if (c := vftable_class(name))}
        for name in pdb.symbols.names_at(rva - _VTABLE_HEAD_WORDS * pointer_size):
            classes |= {name.removeprefix(p) for p in _VTABLE_ITANIUM if name.startswith(p)}
        return classes.pop() if len(classes) == 1 else None

    def layout_rows(self, ntdll: Module, architecture: str, build: int) -> dict[str, LayoutRow]:
        """Layouts that this very ntdll has, by component; empty without symbols that hold types.

        Args:
            ntdll: The image.
            architecture: "x86" or "x64", of the process view.
            build: Windows build number, 0 when unknown.
        """
        known = self._of(ntdll)
        key = (architecture, build)
        if key not in known.rows:
            source = self.source(ntdll)
            try:
                known.rows[key] = exact_rows(source, architecture, build)[0] if source else {}
            except SymbolError as error:
                known.rows[key] = {}
                self._add(known, ntdll, "symbols-unreadable", str(error))
        return known.rows[key]

    def _of(self, module: Module) -> _Known:
        if module.identity not in self._known:
            known = self._known[module.identity] = _Known(self._look(module))
            if not known.symbols.found:
                known.table = self._open_table(known, module)
        return self._known[module.identity]

    def _look(self, module: Module) -> ModuleSymbols:
        files = wanted([module])
        if not files:
            return ModuleSymbols(None)
        file = self._store.find(files[0])
        if file.status is Status.FOUND and self._symbolizer.pdb(module) is None:
            return ModuleSymbols(replace(file, status=Status.UNREADABLE, path=None))
        if file.status not in (Status.WRONG, Status.UNREADABLE):
            return ModuleSymbols(file)
        said = Diagnostic(
            "symbols-not-used", Severity.WARNING, module.name, None, "; ".join(file.notes)
        )
        return ModuleSymbols(file, (said,))

    def _open_table(self, known: _Known, module: Module) -> SymbolTableFile | None:
        path = self.table_path(module.pdb) if module.pdb is not None else None
        if path is None or module.pdb is None:
            return None
        try:
            table = SymbolTableFile.open(path)
            own = table.identity
        except (SymbolError, OSError) as error:
            self._add(known, module, "symbols-unreadable", str(error))
            return None
        if own is not None and (own.guid, own.age) == (module.pdb.guid, module.pdb.age):
            return table
        says = f"of {own.name} {own.guid}-{own.age}" if own else "of no PDB that it names"
        self._add(known, module, "symbols-not-used", f"{path}: a table {says}")
        return None

    @staticmethod
    def _add(known: _Known, module: Module, code: str, message: str) -> None:
        said = Diagnostic(code, Severity.WARNING, module.name, None, message)
        known.symbols = replace(known.symbols, diagnostics=(*known.symbols.diagnostics, said))
