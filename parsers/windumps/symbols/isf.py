"""Symbol tables of volatility3 (ISF: `NAME/GUID-AGE.json.xz`), as a `SymbolSource`.

Format: volatility3's published JSON schemas, versions 4 to 6. Such tables exist for kernels whose PDB
is not at hand. The file is checked where it is looked into, not as a whole.
"""

from __future__ import annotations

import gzip
import json
import lzma
import zlib
from bisect import bisect_left, bisect_right
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from windumps.files import open_file
from windumps.images.modules import PdbIdentity
from windumps.symbols.base import MAX_NESTING, FieldLayout, NearSymbol, StructureLayout
from windumps.symbols.errors import CorruptSymbolsError, NotSymbolsError

MAX_BYTES = 256 << 20  # the largest tables of Windows kernels have a tenth of it
_MACHINES = {332: "x86", 34404: "x64", 43620: "arm64"}
_ADDRESS_BITS = 64


class SymbolTableFile:
    """One table.

    Args:
        raw: The decoded JSON; not trusted.
        name: The file's name, for messages.

    Raises:
        NotSymbolsError: not a symbol table.
    """

    def __init__(self, raw: Any, name: str) -> None:
        self.name = name
        if not isinstance(raw, dict) or not {"symbols", "user_types", "base_types"} <= raw.keys():
            raise NotSymbolsError(f"{name}: not a volatility3 symbol table")
        self._symbols = self._object(raw["symbols"], "symbols")
        self._user_types = self._object(raw["user_types"], "user_types")
        self._base_types = self._object(raw["base_types"], "base_types")
        self._enums = self._object(raw.get("enums", {}), "enums")
        self._metadata = self._object(raw.get("metadata", {}), "metadata")
        self._structures: dict[str, StructureLayout | None] = {}

    @classmethod
    def open(cls, path: Path) -> SymbolTableFile:
        """Opens a `.json`, `.json.xz` or `.json.gz` file.

        Raises:
            NotSymbolsError: not a symbol table.
            CorruptSymbolsError: damaged, or larger than the limit.
            OSError: it cannot be read.
        """
        openers: dict[str, Any] = {".xz": lzma.open, ".gz": gzip.open}
        try:
            with open_file(path) as file:
                source: IO[bytes] = openers[path.suffix](file) if path.suffix in openers else file
                text = source.read(MAX_BYTES + 1)
        except (lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise CorruptSymbolsError(str(path), "the compressed table", str(error)) from error
        if len(text) > MAX_BYTES:
            raise CorruptSymbolsError(str(path), "the table", f"more than {MAX_BYTES} bytes")
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise NotSymbolsError(f"{path}: not a symbol table ({error})") from error
        return cls(raw, str(path))

    def _corrupt(self, structure: str, reason: str) -> CorruptSymbolsError:
        return CorruptSymbolsError(self.name, structure, reason)

    def _object(self, value: Any, structure: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._corrupt(structure, "no JSON object")
        return value

    def _number(self, value: Any, structure: str, bits: int = 32) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
            raise self._corrupt(structure, "a number that cannot be")
        return value

    @property
    def identity(self) -> PdbIdentity | None:
        """The PDB that the table was made from; None when it does not say."""
        windows = self._metadata.get("windows")
        pdb = windows.get("pdb") if isinstance(windows, dict) else None
        if not isinstance(pdb, dict):
            return None
        name, guid, age = pdb.get("database"), pdb.get("GUID"), pdb.get("age")
        if not isinstance(name, str) or not isinstance(guid, str) or not isinstance(age, int):
            return None
        return PdbIdentity(name, guid.upper(), age)

    @property
    def architecture(self) -> str:
        """Of the PDB: "x86", "x64", "arm64"; "" when the table does not say."""
        windows = self._metadata.get("windows")
        pdb = windows.get("pdb") if isinstance(windows, dict) else None
        machine = pdb.get("machine_type") if isinstance(pdb, dict) else None
        return _MACHINES.get(machine, "") if isinstance(machine, int) else ""

    def rva(self, name: str) -> int | None:
        """See `SymbolSource.rva`."""
        entry = self._symbols.get(name)
        return None if entry is None else self._address(name, entry)

    def _address(self, name: str, entry: Any) -> int:
        address = self._object(entry, name).get("address")
        return self._number(address, name, _ADDRESS_BITS)

    @cached_property
    def _sorted(self) -> tuple[list[int], list[str]]:
        pairs = sorted((self._address(name, entry), name) for name, entry in self._symbols.items())
        return [address for address, _ in pairs], [name for _, name in pairs]

    def nearest(self, rva: int) -> NearSymbol | None:
        """See `SymbolSource.nearest`; a table knows no sections, so any distance is possible."""
        addresses, names = self._sorted
        index = bisect_right(addresses, rva) - 1
        if index < 0:
            return None
        first = bisect_left(addresses, addresses[index])
        return NearSymbol(names[first], addresses[index], rva - addresses[index])

    def structure(self, name: str) -> StructureLayout | None:
        """See `SymbolSource.structure`."""
        if name not in self._structures:
            self._structures[name] = self._read_structure(name)
        return self._structures[name]

    def _read_structure(self, name: str) -> StructureLayout | None:
        raw = self._user_types.get(name)
        if raw is None:
            return None
        raw = self._object(raw, name)
        fields = self._object(raw.get("fields", {}), name)
        layouts = [self._field(name, field, entry) for field, entry in fields.items()]
        layouts.sort(key=lambda f: (f.offset, f.bit_position or 0))
        return StructureLayout(name, self._number(raw.get("size"), name), tuple(layouts))

    def _field(self, structure: str, name: str, raw: Any) -> FieldLayout:
        where = f"{structure}.{name}"
        raw = self._object(raw, where)
        offset = self._number(raw.get("offset"), where)
        type_ = self._object(raw.get("type"), where)
        if type_.get("kind") == "bitfield":
            size, text, _ = self._describe(type_.get("type"), where, 0)
            return FieldLayout(
                name,
                offset,
                size,
                text,
                bit_position=self._number(type_.get("bit_position"), where),
                bit_count=self._number(type_.get("bit_length"), where),
            )
        size, text, key = self._describe(type_, where, 0)
        return FieldLayout(name, offset, size, text, key, type_.get("kind") == "pointer")

    def _describe(self, raw: Any, where: str, depth: int) -> tuple[int, str, str]:
        """Size, name, and the key of a structure or union, of a type."""
        raw = self._object(raw, where)
        kind, name = raw.get("kind"), raw.get("name")
        if depth > MAX_NESTING:
            return 0, "?", ""
        if kind in ("pointer", "array"):
            size, text, _ = self._describe(raw.get("subtype"), where, depth + 1)
            if kind == "pointer":
                return self._pointer_bytes(), f"{text}*", ""
            count = self._number(raw.get("count"), where)
            return size * count, f"{text}[{count}]", ""
        if kind == "function":
            return 0, "function", ""
        if not isinstance(name, str):
            raise self._corrupt(where, f"a type of kind {kind!r} without a name")
        if kind in ("struct", "union", "class"):
            size = self._object(self._user_types.get(name, {}), name).get("size", 0)
            return self._number(size, name), name, name
        if kind == "enum":
            base = self._object(self._enums.get(name, {}), name).get("size", 0)
            return self._number(base, name), name, ""
        base = self._object(self._base_types.get(name, {}), name).get("size", 0)
        return self._number(base, name), name, ""

    def _pointer_bytes(self) -> int:
        pointer = self._object(self._base_types.get("pointer", {}), "pointer")
        return self._number(pointer.get("size", 0), "pointer")
