"""A PDB file: who it belongs to, its symbols and its types. Read lazily, nothing in it trusted.

Layout: LLVM's "The PDB File Format" and Microsoft's published microsoft-pdb repository. Functions'
lines are not read here; `windumps.symbols.functions` leaves them to a library.
"""

from __future__ import annotations

import struct
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from windumps.images.modules import PdbIdentity
from windumps.symbols.base import NearSymbol, StructureLayout
from windumps.symbols.errors import CorruptSymbolsError
from windumps.symbols.msf import MsfFile, map_file
from windumps.symbols.names import decorations
from windumps.symbols.pdb_structures import structure_layout
from windumps.symbols.pdb_symbols import (
    ARGUMENT_BYTES,
    PUBLICS_HEADER_BYTES,
    SectionMap,
    SymbolTable,
    hash_record_offsets,
)
from windumps.symbols.pdb_types import TypeRecords

_INFO_STREAM, _TYPE_STREAM, _DEBUG_STREAM = 1, 2, 3
_DBI_HEADER = struct.Struct("<iIIHHHHHHiiiiiIiiHHI")
_OMAP_FROM_SOURCE, _SECTION_HEADERS, _ORIGINAL_SECTION_HEADERS = 4, 5, 10  # debug header slots
_MACHINES = {0x14C: "x86", 0x8664: "x64", 0xAA64: "arm64", 0x1C4: "arm"}


@dataclass(frozen=True)
class DebugInformation:
    """The head of the DBI stream.

    Attributes:
        age: The age that the image names.
        architecture: "x86", "x64", "arm64", "arm", or "" for another machine.
        globals_stream: Hash of the global symbols.
        publics_stream: Hash of the public symbols.
        records_stream: The symbols themselves.
        optional_streams: Stream numbers of the optional debug header; 0xFFFF where there is none.
    """

    age: int
    architecture: str
    globals_stream: int
    publics_stream: int
    records_stream: int
    optional_streams: tuple[int, ...]

    def optional_stream(self, slot: int) -> int:
        """Number of an optional stream; -1 when the PDB has none."""
        number = self.optional_streams[slot] if slot < len(self.optional_streams) else 0xFFFF
        return -1 if number == 0xFFFF else number


class Pdb:
    """One PDB; a `SymbolSource`.

    Args:
        data: The file's bytes, uint8.
        name: Its name, for messages.

    Raises:
        NotSymbolsError, UnsupportedSymbolsError: not a PDB 7.0.
        CorruptSymbolsError: damaged so that nothing can be told of it. Properties and methods raise
            it too, where their part of the file is damaged.
    """

    def __init__(self, data: NDArray[np.uint8], name: str) -> None:
        self.name = name
        self._msf = MsfFile(data, name)
        info = self._msf.stream(_INFO_STREAM)[:28].tobytes()
        if len(info) < 28:
            raise self._msf.corrupt("the PDB information stream", "it is absent or cut")
        self.guid = uuid.UUID(bytes_le=info[12:28]).hex.upper()
        self.info_age = int.from_bytes(info[8:12], "little")
        self._structures: dict[str, StructureLayout | None] = {}

    @classmethod
    def open(cls, path: Path, shown: str = "") -> Pdb:
        """Opens a file; raises what the constructor raises, and `OSError`.

        Args:
            path: The file.
            shown: Stands for it in messages; its path when empty.
        """
        return cls(map_file(path), shown or str(path))

    @cached_property
    def debug_information(self) -> DebugInformation | None:
        """The head of the DBI stream; None in a PDB that holds types only."""
        stream = self._msf.stream(_DEBUG_STREAM)
        if not len(stream):
            return None
        if len(stream) < _DBI_HEADER.size:
            raise self._msf.corrupt("the DBI stream", "it ends inside its header")
        head = _DBI_HEADER.unpack(stream[: _DBI_HEADER.size].tobytes())
        if head[0] != -1:
            raise self._msf.corrupt("the DBI stream", "its signature is missing")
        # Module list, section contributions, section map, files, type servers and edit-and-continue
        # stand between the header and the optional debug header.
        before = [*head[9:14], head[16]]
        optional_bytes = head[15]
        start = _DBI_HEADER.size + sum(before)
        if min(*before, optional_bytes) < 0 or start + optional_bytes > len(stream):
            raise self._msf.corrupt("the DBI stream", "its parts do not fit in it")
        optional = stream[start : start + optional_bytes // 2 * 2].view("<u2")
        return DebugInformation(
            age=head[2],
            architecture=_MACHINES.get(head[18], ""),
            globals_stream=head[3],
            publics_stream=head[5],
            records_stream=head[7],
            optional_streams=tuple(int(number) for number in optional),
        )

    @property
    def architecture(self) -> str:
        """As the PDB says: "x86", "x64", …; "" when it does not."""
        information = self.debug_information
        return information.architecture if information else ""

    @property
    def ages(self) -> set[int]:
        """The ages that an image of this PDB may name.

        The linker writes the same into both places; tools that add to a PDB later (source server
        indexing, stripping) raise the one of the information stream only, so that Microsoft's
        public PDBs differ there from the image.
        """
        information = self.debug_information
        return {information.age, self.info_age} if information else {self.info_age}

    @property
    def identity(self) -> PdbIdentity:
        """What an image of this PDB names."""
        information = self.debug_information
        age = information.age if information else self.info_age
        return PdbIdentity(Path(self.name).name, self.guid, age)

    @cached_property
    def symbols(self) -> SymbolTable:
        """Public symbols, and global and static data where the PDB has them."""
        msf, information = self._msf, self.debug_information
        nothing = np.empty(0, np.uint8)
        if information is None:
            return SymbolTable(nothing, np.empty(0, np.int64), SectionMap(*[nothing] * 3))

        def optional(slot: int) -> NDArray[np.uint8]:
            return msf.stream(information.optional_stream(slot))

        image_headers = optional(_SECTION_HEADERS)
        omap = optional(_OMAP_FROM_SOURCE)
        headers = optional(_ORIGINAL_SECTION_HEADERS) if len(omap) else image_headers
        offsets = np.concatenate(
            [
                hash_record_offsets(msf.stream(information.publics_stream)[PUBLICS_HEADER_BYTES:]),
                hash_record_offsets(msf.stream(information.globals_stream)),
            ]
        )
        return SymbolTable(
            msf.stream(information.records_stream),
            offsets,
            SectionMap(headers, omap, image_headers),
        )

    @cached_property
    def types(self) -> TypeRecords | None:
        """The type records; None in a PDB without types."""
        stream = self._msf.stream(_TYPE_STREAM)
        if not len(stream):
            return None
        records = TypeRecords(stream, self.name)
        with suppress(CorruptSymbolsError):  # without the index lookups are slower, nothing else
            records.use_index(self._msf.stream(records.hash_stream))
        return records

    def rva(self, name: str) -> int | None:
        """See `SymbolSource.rva`; a C name need not have the decoration of x86 (`_name@12`)."""
        exact, *decorated = decorations(name, self.architecture)
        found = self.symbols.rva(exact)
        for form in decorated:
            if found is None:
                found = self.symbols.rva(form, ending=ARGUMENT_BYTES if form[-1] == "@" else b"")
        return found

    def holds(self, rva: int) -> bool:
        """True when the address lies in a section of the image."""
        return self.symbols.section_start(rva) is not None

    def nearest(self, rva: int) -> NearSymbol | None:
        """See `SymbolSource.nearest`."""
        return self.symbols.nearest(rva)

    def structure(self, name: str) -> StructureLayout | None:
        """See `SymbolSource.structure`."""
        if name not in self._structures and self.types is not None:
            self._structures[name] = structure_layout(self.types, name)
        return self._structures.get(name)
