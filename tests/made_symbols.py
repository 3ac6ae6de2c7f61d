"""PDBs made for the images of dumps in testdata, in symbol stores made for a test.

Functions `app::f10`, `app::f11`, … start every 0x100 bytes; `shift` and `move` give those of another
build, in which all code lies elsewhere and calls have other offsets in their functions.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from builders.pdb_builder import PdbBuilder
from pdb_samples import GUIDS, sample_bytes

from windumps import Dump
from windumps.images.modules import PdbIdentity

FIRST, LAST = 0x10, 0x90  # functions, in 0x100 bytes
START = 3  # a function begins here in its 0x100 bytes
CODE_BYTES = 0x9000
OTHER_BUILD = PdbIdentity("app.pdb", "0123456789ABCDEF0123456789ABCDEF", 2)


def identity(dump: Dump, module: str = "app.exe") -> PdbIdentity:
    """What an image of the dump names."""
    found = next(m.pdb for m in dump.modules if m.name == module)
    assert found is not None
    return found


def made_pdb(wanted: PdbIdentity, shift: int = 0, move: int = 0) -> bytes:
    """A PDB with public symbols only; functions start `shift` earlier, all code lies `move` higher."""
    builder = PdbBuilder(guid=wanted.guid, age=wanted.age)
    builder.sections = [(".text", 0x1000 + move, CODE_BYTES)]
    for number in range(FIRST, LAST):
        offset = 0x100 * number + START - shift - 0x1000
        builder.public(f"?f{number:x}@app@@YAXXZ", 1, offset)
    return builder.build()


def function_at(return_rva: int) -> tuple[str, int]:
    """The function that holds the call before an address, and how far behind its start the address is."""
    number = (return_rva - 1 - START) // 0x100
    return f"app::f{number:x}", return_rva - (0x100 * number + START)


def put_in_store(store: Path, wanted: PdbIdentity, data: bytes) -> Path:
    """Puts a PDB where a symbol store has it."""
    path = store / wanted.name / wanted.key / wanted.name
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def sample_pdb(wanted: PdbIdentity, architecture: str) -> bytes:
    """A compiler's PDB with lines (`testdata/pdb`), under the identity of another image."""
    data = sample_bytes(architecture)
    old, new = (bytes.fromhex(_as_stored(guid)) for guid in (GUIDS[architecture], wanted.guid))
    assert data.count(old) == 1
    assert wanted.age == 1
    return data.replace(old, new)


def _as_stored(guid: str) -> str:
    """The bytes of a GUID as they stand in files: its first three numbers are little-endian."""
    pieces = guid[:8], guid[8:12], guid[12:16]
    return "".join(bytes.fromhex(p)[::-1].hex() for p in pieces) + guid[16:]


def as_other_build(dump: Dump, move: int) -> Dump:
    """The dump as if `app.exe` had been linked anew: another PDB, and all code `move` bytes higher."""
    modules = [
        replace(
            module,
            base_address=module.base_address - move,
            size_bytes=module.size_bytes + move,
            pdb=OTHER_BUILD,
        )
        if module.name == "app.exe"
        else module
        for module in dump.modules
    ]
    return replace(dump, modules=modules)
