"""The PDBs in testdata/pdb, and Microsoft's beside the checkout where they are there."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from truth import ROOT, TESTDATA

LAYOUTS = ROOT.parent / "shared" / "layouts"
SHARED_SYMBOLS = ROOT.parent / "shared" / "symbols"
GUIDS = {
    "x64": "76E2EB7F583FC9134C4C44205044422E",
    "x86": "B0262E361AF2CB604C4C44205044422E",
}


@lru_cache
def sample_bytes(architecture: str) -> bytes:
    return gzip.decompress((TESTDATA / "pdb" / f"sample-{architecture}.pdb.gz").read_bytes())


def as_array(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def microsoft_pdbs() -> dict[tuple[str, int], Path]:
    """(architecture, build) -> ntdll's PDB; empty where the collection is not there."""
    places = {
        ("x64", 19041): "ntdll.pdb/96EF4ED537402DAAA51D4A4212EA4B2C1/ntdll.pdb",
        ("x64", 22621): "ntdll.pdb/096678FDAD5C44ACDFF3AB194AEBF5011/ntdll.pdb",
        ("x86", 19041): "wntdll.pdb/96A9CF3147EA28D08D59968A947735461/wntdll.pdb",
    }
    found = {key: SHARED_SYMBOLS / place for key, place in places.items()}
    return {key: path for key, path in found.items() if path.exists()}


class KnownField(NamedTuple):
    """A field as another program read it from the same PDB; no bits unless it is a bit field."""

    structure: str
    structure_size: int
    name: str
    offset: int
    bits: tuple[int, int] | None


def known_fields(layouts: Path) -> Iterator[KnownField]:
    """The fields in a file of the collection of layouts."""
    for structure, described in json.loads(layouts.read_text())["types"].items():
        for name, (offset, type_) in described["fields"].items():
            match = re.search(r":(\d+)\+(\d+)$", type_)
            bits = (int(match[1]), int(match[2])) if match else None
            yield KnownField(structure, described["size"], name, offset, bits)
