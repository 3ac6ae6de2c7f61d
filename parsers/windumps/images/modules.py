"""Modules of a process or a kernel: where images lie, and who they are."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PdbIdentity:
    """What the linker wrote into the image to name its symbols (CodeView RSDS or NB10).

    Attributes:
        name: File name of the PDB as the linker wrote it, without its folder.
        guid: 32 upper-case hex digits; for NB10 the 8 digits of its time stamp.
        age: How often the PDB was rewritten.
    """

    name: str
    guid: str
    age: int

    @property
    def key(self) -> str:
        """The folder name a symbol store uses."""
        return f"{self.guid}{self.age:X}"


@dataclass(frozen=True)
class Module:
    """One loaded or unloaded image.

    Attributes:
        name: File name without its folder.
        path: Full path as the dump gives it.
        base_address: Load address.
        size_bytes: SizeOfImage.
        timestamp: TimeDateStamp of the PE header.
        version: File version, "10.0.19041.3324", or "" when the dump has none.
        pdb: Identity of the PDB, or None.
        checksum: CheckSum of the PE header; 0 when the linker set none, or the dump has none.
    """

    name: str
    path: str
    base_address: int
    size_bytes: int
    timestamp: int
    version: str = ""
    pdb: PdbIdentity | None = None
    checksum: int = 0

    @property
    def end_address(self) -> int:
        """First address behind the image."""
        return self.base_address + self.size_bytes

    @property
    def identity(self) -> str:
        """Who the image is, wherever it is loaded: PDB GUID and age, else time stamp and size."""
        return self.pdb_key or self.stamp_key

    @property
    def pdb_key(self) -> str:
        """GUID and age; "" without. A GUID of zeros, as some packers leave it, names nothing."""
        return self.pdb.key if self.pdb is not None and self.pdb.guid.strip("0") else ""

    @property
    def stamp_key(self) -> str:
        """Time stamp and size, as symbol stores name images."""
        return f"{self.timestamp:08X}{self.size_bytes:x}"


def same_build(one: Module, other: Module) -> bool | None:
    """Whether two records are of one build of an image, by what both of them say of it.

    Writers leave out what they like: CodeView records, time stamps, versions. The PDB decides where both
    records have it. Else everything that both say has to agree.

    Returns:
        None when they have nothing in common but their size.
    """
    if one.pdb_key and other.pdb_key:
        return one.pdb_key == other.pdb_key
    if one.size_bytes != other.size_bytes:
        return False
    both = [
        (mine, its)
        for mine, its in (
            (one.timestamp, other.timestamp),
            (one.checksum, other.checksum),
            (one.version, other.version),
        )
        if mine and its
    ]
    return all(mine == its for mine, its in both) if both else None


class ModuleMap:
    """Looks up modules by address, one at a time or a column at once.

    Where images overlap, which no undamaged list has, only the one that starts last is looked at.
    """

    def __init__(self, modules: list[Module]) -> None:
        self.modules = sorted((m for m in modules if m.size_bytes), key=lambda m: m.base_address)
        self._bases = np.array([m.base_address for m in self.modules], np.uint64)
        self._sizes = np.array([m.size_bytes for m in self.modules], np.uint64)
        low = min((m.base_address for m in self.modules), default=0)
        high = max((m.end_address for m in self.modules), default=0)
        self._low, self._span = np.uint64(low), np.uint64(min(high - low, (1 << 64) - 1))

    def index_of(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Index into `modules` for each address, -1 where it is in no image."""
        result = np.full(addresses.shape, -1, np.int64)
        # Most addresses are far from all images; one comparison is cheaper than a look-up.
        near = np.nonzero(addresses - self._low < self._span)
        found = addresses[near]
        index = np.searchsorted(self._bases, found, "right") - 1
        inside = found - self._bases[index] < self._sizes[index]
        result[near] = np.where(inside, index, -1)
        return result

    def at(self, address: int) -> Module | None:
        """The module that holds `address`; None for addresses that cannot be."""
        if not 0 <= address < 1 << 64:
            return None
        index = int(self.index_of(np.array([address], np.uint64))[0])
        return self.modules[index] if index >= 0 else None


def file_name(path: str) -> str:
    """The last component of a Windows or Unix path."""
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def parse_codeview(record: bytes) -> PdbIdentity | None:
    """Reads a CodeView record, RSDS (PDB 7.0) or NB10 (PDB 2.0); None for any other.

    Layout: public, e.g. the PE documentation's debug directory and LLVM's `CVDebugRecord.h`.
    """
    if record[:4] == b"RSDS" and len(record) >= 24:
        guid = uuid.UUID(bytes_le=record[4:20]).hex.upper()
        age = int.from_bytes(record[20:24], "little")
        return PdbIdentity(_pdb_name(record[24:]), guid, age)
    if record[:4] == b"NB10" and len(record) >= 16:
        stamp, age = (int.from_bytes(record[o : o + 4], "little") for o in (8, 12))
        return PdbIdentity(_pdb_name(record[16:]), f"{stamp:08X}", age)
    return None


def _pdb_name(raw: bytes) -> str:
    return file_name(raw.split(b"\0", 1)[0].decode("utf-8", "replace"))
