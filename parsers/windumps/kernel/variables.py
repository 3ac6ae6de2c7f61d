"""Where the kernel's variables are, by four ways of which the surest that answers is taken.

1. A PDB or volatility3 table of this very kernel, when the user has one.
2. The built-in table: public symbols of many x64 kernels, by GUID and age of their PDB.
3. KDBG, which names some fifty variables in every build.
4. A search by structure, for the variables that somebody knows how to recognise.

Every answer says which way it came.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

from windumps.images.modules import PdbIdentity
from windumps.kernel.kdbg import FIELDS, VALUES, Kdbg
from windumps.symbols.base import SymbolSource
from windumps.symbols.names import decorations

_TABLE = "kernel_rvas_x64.txt"

Search = Callable[[], int | None]


class KernelSymbol(NamedTuple):
    """One variable of the kernel.

    Attributes:
        address: Of the variable, not its value.
        source: How it was found: "symbols", "rva-table", "kdbg" or "search".
        detail: How it was found, for people.
    """

    address: int
    source: str
    detail: str


@lru_cache(maxsize=1)
def _rva_table() -> tuple[tuple[str, ...], dict[str, str]]:
    """Names of the columns, and the line of RVAs for each GUID and age."""
    text = resources.files("windumps.kernel").joinpath(_TABLE).read_text("ascii")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    rows: dict[str, str] = {}
    for line in lines[1:]:
        keys, _, rvas = line.partition(";")
        rows.update(dict.fromkeys(keys.split(), rvas))
    return tuple(lines[0].split()), rows


def built_in_rvas(pdb: PdbIdentity | None) -> dict[str, int]:
    """RVAs of the kernel a PDB belongs to, by name; empty when the table does not have it."""
    names, rows = _rva_table()
    rvas = rows.get(pdb.key, "") if pdb is not None else ""
    return {
        name: int(rva, 16) for name, rva in zip(names, rvas.split(), strict=False) if rva != "-"
    }


class KernelSymbols:
    """Resolves names of kernel variables for one kernel.

    Args:
        architecture: "x86", "x64" or "arm64".
        base: Load address of the kernel's image; 0 when unknown.
        size: Bytes of the image; 0 when unknown.
        pdb: Identity of its PDB.
        kdbg: Its KDBG.
    """

    def __init__(
        self,
        architecture: str,
        base: int,
        size: int,
        pdb: PdbIdentity | None,
        kdbg: Kdbg | None,
    ) -> None:
        self.architecture = architecture
        self.base = base
        self.pdb = pdb
        self._size = size
        self._kdbg = kdbg
        self._rvas = built_in_rvas(pdb)
        self._source: tuple[SymbolSource, str] | None = None
        self._searches: dict[str, Search] = {}
        self._found: dict[str, KernelSymbol | None] = {}

    @property
    def source(self) -> SymbolSource | None:
        """The symbols given by `use`."""
        return self._source[0] if self._source is not None else None

    def use(self, source: SymbolSource, detail: str) -> None:
        """Takes symbols of this very kernel; they go before everything else.

        Args:
            source: The caller has checked that they belong to it.
            detail: Where they come from, for people: "ntkrnlmp.pdb".
        """
        self._source = source, detail
        self._found.clear()

    def add_search(self, name: str, search: Search) -> None:
        """Tells how to find a variable that nothing else names; called at most once, when asked for.

        Args:
            name: Of the variable.
            search: Gives its address, or None when nothing passes its checks.
        """
        self._searches[name] = search
        self._found.pop(name, None)

    def find(self, name: str) -> KernelSymbol | None:
        """A variable by name, and how it was found; None when no way leads to it."""
        if name not in self._found:
            self._found[name] = self._look(name)
        return self._found[name]

    def address(self, name: str) -> int | None:
        """A variable's address; None when no way leads to it."""
        found = self.find(name)
        return found.address if found is not None else None

    def _look(self, name: str) -> KernelSymbol | None:
        if self._source is not None and self.base:
            source, detail = self._source
            rva = next(
                (r for n in decorations(name, self.architecture) if (r := source.rva(n))), None
            )
            if rva is not None and self._is_inside(rva):
                return KernelSymbol(self.base + rva, "symbols", detail)
        if self.base and name in self._rvas and self._is_inside(self._rvas[name]):
            return KernelSymbol(
                self.base + self._rvas[name], "rva-table", "built-in table of public symbols"
            )
        if (
            self._kdbg is not None
            and name in FIELDS
            and name not in VALUES
            and FIELDS[name][1] == 8
        ):
            address = self._kdbg.value(name)
            if address:
                return KernelSymbol(address, "kdbg", f"KDBG ({self._kdbg.source})")
        search = self._searches.get(name)
        found = search() if search is not None else None
        return KernelSymbol(found, "search", "found by its structure") if found else None

    def _is_inside(self, rva: int) -> bool:
        return not self._size or rva < self._size
