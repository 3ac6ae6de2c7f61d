"""The file version of an image, from the resources in memory."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from builders.kernel_builder import PAGE, System, full

from windumps import open_dump

NUMBER = 2  # acmenet.sys
AT = 0x200  # of the resources, in the image's second page


def resources(version: tuple[int, int, int, int]) -> bytes:
    """A resource directory with a version, as a linker lays it out."""
    raw = bytearray(0x200)

    def directory(at: int, identity: int, leads_to: int, other: int = 0) -> None:
        struct.pack_into("<IIHHHH", raw, at, 0, 0, 0, 0, 0, 1 + bool(other))
        place = at + 16
        if other:
            struct.pack_into("<II", raw, place, other, 0x8000_0180)
            place += 8
        struct.pack_into("<II", raw, place, identity, leads_to)

    directory(0x00, 16, 0x8000_0030, other=3)
    directory(0x30, 1, 0x8000_0050)
    directory(0x50, 0x409, 0x70)
    struct.pack_into("<II", raw, 0x70, PAGE + AT + 0x90, 92)
    struct.pack_into("<HHH", raw, 0x90, 92, 52, 0)
    raw[0x96 : 0x96 + 30] = "VS_VERSION_INFO".encode("utf-16-le")
    a, b, c, d = version
    struct.pack_into("<4I", raw, 0x90 + 40, 0xFEEF04BD, 0x10000, a << 16 | b, c << 16 | d)
    return bytes(raw)


def made(raw: bytes) -> System:
    system = System()
    _, base, size = system.modules[NUMBER]
    assert size == 2 * PAGE
    directories = 0x98 + 112
    system.write(base + directories + 16, struct.pack("<II", PAGE + AT, len(raw)))
    system.write(base + PAGE + AT, raw)
    return system


def version(system: System, path: Path) -> str:
    path.write_bytes(full(system))
    return open_dump(path).modules[NUMBER].version


def test_a_driver_tells_its_file_version(tmp_path: Path) -> None:
    assert version(made(resources((10, 0, 19041, 3324))), tmp_path / "d.dmp") == "10.0.19041.3324"


@pytest.mark.parametrize(
    ("at", "value"),
    [(0x90 + 40, 0), (0x70, 0x7000_0000), (0x70, 0), (0x34 + 16, 0), (0x14, 0xFFFF_FFF0)],
    ids=["signature", "far", "nothing", "no-language", "loop"],
)
def test_damaged_resources_give_no_version(tmp_path: Path, at: int, value: int) -> None:
    raw = bytearray(resources((1, 2, 3, 4)))
    struct.pack_into("<I", raw, at, value)
    assert version(made(bytes(raw)), tmp_path / "d.dmp") in ("", "1.2.3.4")


def test_an_image_without_resources_has_none(tmp_path: Path) -> None:
    assert version(System(), tmp_path / "d.dmp") == ""
