"""nt!MiState of kernels that no table knows: found by what it says of the kernel's addresses."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import numpy as np
import pytest
from truth import TESTDATA, load_json

from dumpleak.kernel.info import checked_counters
from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.kernel.counters import Counter

PAGE = 0x1000
SOURCE = TESTDATA / "kernel" / "19041-x64" / "traps"
# Of MiState, by the public symbols of 19041.
DRIVER_COMMIT, KINDS, PAGED, NONPAGED = 0x2690, 0x3088, 0x25E8, 0x8


class Unknown:
    """A truth dump whose kernel has an identity that nobody knows."""

    def __init__(self, folder: Path) -> None:
        source = SOURCE / "after.dmp.xz"
        self.truth = load_json(SOURCE / "after.truth.json.xz")
        self.path = folder / "unknown.dmp"
        self.raw = bytearray(lzma.decompress(source.read_bytes()))
        self.path.write_bytes(self.raw)
        dump = open_dump(self.path)
        assert isinstance(dump, KernelDump)
        self.memory, self.state = dump.memory, dump.kernel.symbol("MiState") or 0
        assert self.state
        name = self.raw.index(b"RSDS")
        while name >= 0:  # of the kernel and of its drivers
            self.raw[name + 4 : name + 8] = b"\x12\x34\x56\x78"
            name = self.raw.find(b"RSDS", name + 4)

    def put(self, offset: int, data: bytes) -> None:
        """Bytes in the variable."""
        at = np.array([self.state + offset], np.uint64)
        (place,) = self.memory.locate(at, len(data)).tolist()
        self.raw[place : place + len(data)] = data

    def counters(self) -> dict[str, Counter]:
        self.path.write_bytes(self.raw)
        dump = open_dump(self.path)
        assert isinstance(dump, KernelDump)
        assert dump.kernel.symbol("MiState") is None
        return {counter.name: counter for counter in checked_counters(dump)}


def test_the_variable_is_found_by_its_map_of_addresses(tmp_path: Path) -> None:
    made = Unknown(tmp_path)
    made.put(DRIVER_COMMIT, struct.pack("<I", 0x1234))
    found = made.counters()
    assert found["driver_commit"].bytes == 0x1234 * PAGE
    for pool in ("nonpaged_pool", "paged_pool"):
        assert found[pool].bytes == made.truth["mm"][f"{pool}_pages"] * PAGE
        assert "found by its structure" in found[pool].source


@pytest.mark.parametrize("what", ["another map", "counters of other pools"])
def test_what_does_not_agree_with_the_system_is_not_believed(what: str, tmp_path: Path) -> None:
    made = Unknown(tmp_path)
    made.put(DRIVER_COMMIT, struct.pack("<I", 0x1234))
    if what == "another map":
        made.put(KINDS, bytes(256))
    else:
        for place in (PAGED, NONPAGED):
            made.put(place, struct.pack("<Q", 1 << 30))
    found = made.counters()
    assert found["driver_commit"].bytes is None
    assert found["nonpaged_pool"].bytes is None
