"""What is known of Verifier's structures equals the public symbols of kernels that lie beside the clone."""

from __future__ import annotations

import json
import lzma
from typing import Any

import pytest
from truth import SHARED

from windumps.layouts.rows import LayoutRow, candidates
from windumps.layouts.verifier import (
    POOL_TRACE,
    POOL_TRACE_LAYOUTS,
    SUSPECT,
    SUSPECT_LAYOUTS,
    VERIFIED_DRIVER,
    VERIFIED_DRIVER_LAYOUTS,
    VERIFIER,
    VERIFIER_ENTRY_BYTES,
    VERIFIER_LAYOUTS,
)

KERNELS = {
    7601: "339E74133576439CBCDF7E0229DA3773",
    9600: "DD04953A2DB5491C9C9671371779ECDB",
    14393: "DBBC830E3E9A48FDA25A2144C146930E",
    18362: "DCA4AD4BEEB4746D48F84C0125019E43",
    19041: "606FF669409B00F7FC8C61A9C1670129",
    22000: "0CE4A95C0CD782A7596B034D8648E585",
}
TABLES = SHARED.parent / "symbols" / "isf" / "ntkrnlmp.pdb"
ROWS = {
    VERIFIER: VERIFIER_LAYOUTS,
    VERIFIED_DRIVER: VERIFIED_DRIVER_LAYOUTS,
    SUSPECT: SUSPECT_LAYOUTS,
    POOL_TRACE: POOL_TRACE_LAYOUTS,
}


def types_of(build: int) -> dict[str, Any]:
    path = TABLES / f"{KERNELS[build]}-1.json.xz"
    if not path.exists():
        pytest.skip("no symbols of kernels beside the clone")
    types: dict[str, Any] = json.loads(lzma.decompress(path.read_bytes()))["user_types"]
    return types


@pytest.mark.parametrize("build", KERNELS)
def test_every_row_says_what_the_symbols_of_its_build_say(build: int) -> None:
    types = types_of(build)
    for structure, rows in ROWS.items():
        row: LayoutRow = candidates(rows, "x64", build)[0]
        assert row.first_build <= build <= row.last_build
        declared = types[structure]["fields"]
        told = {name: place[0] for name, place in row.structures[structure].items()}
        size = told.pop("sizeof")
        assert told == {name: declared[name]["offset"] for name in told}, structure
        if structure == POOL_TRACE:
            assert size == types[structure]["size"]
        assert size <= types[structure]["size"]
    assert types["_VI_POOL_ENTRY"]["size"] == VERIFIER_ENTRY_BYTES[8]
    entry = {
        name: f["offset"]
        for name, f in types.get("_VI_POOL_ENTRY_INUSE", {"fields": {}})["fields"].items()
    }
    wanted = {"VirtualAddress": 0, "CallingAddress": 8, "NumberOfBytes": 0x10, "Tag": 0x18}
    assert entry in ({}, wanted)
    assert types["_VI_POOL_PAGE_HEADER"]["fields"]["VerifierEntry"]["offset"] == 8
