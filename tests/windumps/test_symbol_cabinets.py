"""Compressed symbol files are unpacked, and damage is noticed."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.cabinet_builder import (
    ALIGNED,
    FRAME,
    UNCOMPRESSED,
    VERBATIM,
    cabinet,
    lzx,
    mszip,
    stored,
)
from pdb_samples import sample_bytes

from windumps.symbols.cabinet import unpack
from windumps.symbols.errors import CompressedSymbolsError

PDB = sample_bytes("x64")


def _unpacked(folder: Path, data: bytes) -> bytes:
    path = folder / "sample.pd_"
    path.write_bytes(data)
    target = io.BytesIO()
    unpack(path, target)
    return target.getvalue()


def _calls() -> bytes:
    """Bytes with many x86 calls, near and far, positive and negative."""
    chance = random.Random(3)  # noqa: S311
    return b"".join(
        b"\xe8" + struct.pack("<i", chance.randrange(-90000, 90000)) + bytes(chance.randrange(4))
        for _ in range(15000)
    )


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "stored": stored,
    "stored without checksums": lambda data: stored(data, with_checksums=False),
    "stored with reserved fields": lambda data: stored(data, reserve=b"12345678"),
    "MSZIP": mszip,
    "LZX": lzx,
    "LZX aligned": lambda data: lzx(data, (ALIGNED,)),
    "LZX uncompressed": lambda data: lzx(data, (UNCOMPRESSED,)),
    "LZX mixed": lambda data: lzx(data, (UNCOMPRESSED, VERBATIM, ALIGNED)),
    "LZX with calls": lambda data: lzx(data, calls=len(data)),
    "LZX of a large window": lambda data: lzx(data, bits=21),
}


@pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS.keys())
@pytest.mark.parametrize("data", [PDB, _calls(), b"x", b"ab" * FRAME, bytes(FRAME - 1)], ids=len)
def test_what_was_packed_comes_out(
    tmp_path: Path, packer: Callable[[bytes], bytes], data: bytes
) -> None:
    assert _unpacked(tmp_path, packer(data)) == data


def test_the_zip_form_of_symstore_is_unpacked(tmp_path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sample.pdb", PDB)
    assert _unpacked(tmp_path, target.getvalue()) == PDB


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (stored(PDB, flags=1), "several cabinets"),
        (stored(PDB, files=2), "2 files"),
        (cabinet([(b"x" * 8, 8)], 2, 8), "Quantum"),
        (cabinet([(b"x" * 8, 8)], 3 | 30 << 8, 8), "window of 30 bits"),
        (cabinet([(b"x" * 8, 8)], 1, 8), "MSZIP signature"),
        (cabinet([(b"x" * 8, 8)], 0, 0xFFFFFFFF), "do not fit"),
        (cabinet([(b"x" * 8, 0xFFFF)], 0, 8), "claims 65535"),
        (cabinet([(b"x" * 8, 9)], 0, 8), "gives 8 bytes"),
        (b"nothing known", "neither"),
        (b"", "neither"),
    ],
)
def test_what_is_not_read_is_said(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(CompressedSymbolsError, match=reason):
        _unpacked(tmp_path, data)


def test_a_changed_byte_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    data = bytearray(stored(PDB))
    data[-5] ^= 1
    with pytest.raises(CompressedSymbolsError, match="block 2 is damaged"):
        _unpacked(tmp_path, bytes(data))


@pytest.mark.parametrize("packer", [stored, mszip, lzx])
def test_every_prefix_of_a_cabinet_is_refused(
    tmp_path: Path, packer: Callable[[bytes], bytes]
) -> None:
    data = packer(PDB[:2000])
    for length in range(0, len(data), 3):
        with pytest.raises(CompressedSymbolsError):
            _unpacked(tmp_path, data[:length])


@pytest.mark.parametrize(
    "data",
    [
        mszip(PDB[:3000], with_checksums=False),
        lzx(PDB[:3000], (VERBATIM, ALIGNED)),
        lzx(PDB[:3000], (UNCOMPRESSED, VERBATIM)),
    ],
    ids=["mszip", "lzx", "lzx uncompressed"],
)
def test_flipped_bytes_give_bytes_or_a_typed_error(tmp_path: Path, data: bytes) -> None:
    chance = random.Random(5)  # noqa: S311
    for _ in range(400):
        broken = bytearray(data)
        broken[68:72] = bytes(4)  # no checksum, so that flips reach the decoder
        for _ in range(3):
            broken[chance.randrange(36, len(broken))] ^= 1 << chance.randrange(8)
        try:
            out = _unpacked(tmp_path, bytes(broken))
        except CompressedSymbolsError:
            continue
        assert len(out) <= 1 << 16
