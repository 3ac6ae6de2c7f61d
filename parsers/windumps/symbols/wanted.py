"""Which PDBs a dump's modules want, and whether a file is one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from pathlib import Path
from typing import NamedTuple

from windumps.images.modules import Module, PdbIdentity
from windumps.symbols.errors import SymbolError
from windumps.symbols.pdb import Pdb

_GUID = re.compile(r"[0-9A-Fa-f]{32}\Z|[0-9A-Fa-f]{8}\Z")
# A PDB's name comes from the image: it must not lead out of the store.
_BAD_NAME = re.compile(r'[\x00-\x1f/\\:*?"<>|]|^\.+$|^$')


class Status(StrEnum):
    """What became of the search for one PDB."""

    FOUND = "found"
    MISSING = "missing"
    WRONG = "wrong identity"  # files of that name are there, none belongs to the image
    UNREADABLE = "unreadable"  # the file is there and cannot be used


@dataclass(frozen=True)
class SymbolFile:
    """One PDB that is wanted, and what became of it.

    Attributes:
        identity: What the image names.
        modules: Names of the images that name it.
        status: See `Status`.
        path: The file, when found.
        notes: What was tried and why it was not taken, for people.
    """

    identity: PdbIdentity
    modules: tuple[str, ...]
    status: Status = Status.MISSING
    path: Path | None = None
    notes: tuple[str, ...] = ()


def wanted(modules: Iterable[Module]) -> list[SymbolFile]:
    """The PDBs that modules name, each once, in the order of the modules; none is looked for yet.

    Modules without a PDB's name, or whose GUID is all zeros, name none.
    """
    found: dict[tuple[str, str], SymbolFile] = {}
    for module in modules:
        pdb = module.pdb
        if pdb is None or not pdb.name or not pdb.guid.strip("0"):
            continue
        key = (pdb.name.lower(), pdb.key)
        known = found.get(key) or SymbolFile(pdb, ())
        if module.name not in known.modules:
            known = replace(known, modules=(*known.modules, module.name))
        found[key] = known
    return list(found.values())


def manifest(files: Iterable[SymbolFile]) -> str:
    """A list that another machine can fetch: `symchk /im FILE /s SYMBOLPATH` takes it.

    One line a PDB, `name.pdb,GUIDAGE,1`.
    """
    return "".join(
        f"{file.identity.name},{file.identity.key},1\n"
        for file in files
        if not problem_with(file.identity)
    )


def problem_with(identity: PdbIdentity) -> str | None:
    """Why nothing can be looked for under this name; None when all is well."""
    if _BAD_NAME.search(identity.name):
        return f"the image names its PDB {identity.name!r}, which is no file name"
    if not _GUID.match(identity.guid):
        return f"the image names its PDB by {identity.guid!r}, which is no GUID"
    return None


class Verdict(Enum):
    """Whether a file belongs to an image."""

    EXACT = "exact"
    OTHER = "other"  # another GUID, or the same one with another age: linked again since
    UNREADABLE = "unreadable"


class Examined(NamedTuple):
    """A verdict, and the reason for people; "" for an exact match."""

    verdict: Verdict
    reason: str


def examine(path: Path, identity: PdbIdentity, shown: str = "") -> Examined:
    """Opens a file and says whether it is the PDB wanted. Nothing stays open.

    Args:
        path: The file, not compressed.
        identity: What the image names.
        shown: Stands for the file in the reason; its path when empty.
    """
    shown = shown or str(path)
    try:
        pdb = Pdb.open(path, shown)
        guid, ages = pdb.guid, pdb.ages
    except (SymbolError, OSError) as error:
        return Examined(Verdict.UNREADABLE, str(error))
    if guid != identity.guid.upper():
        return Examined(Verdict.OTHER, f"{shown}: belongs to another image (GUID {guid})")
    if identity.age in ages:
        return Examined(Verdict.EXACT, "")
    own = " or ".join(str(age) for age in sorted(ages))
    return Examined(
        Verdict.OTHER, f"{shown}: same GUID, but its age is {own}, the image's {identity.age}"
    )
