"""Compressed dumps are opened as they are; whatever is wrong with one, nothing is left behind."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import zstandard
from builders import cabinet_builder
from builders.minidump_builder import MinidumpBuilder

from windumps import files
from windumps.dumps import open_dump
from windumps.errors import ContainerError, NotADumpError, WindumpsError
from windumps.unpack import containers

# Fixed noise, which no compressor makes small.
NOISE = random.Random(3).randbytes(20_000)  # noqa: S311
DUMP = MinidumpBuilder().memory(0x1000, NOISE).build()


def _zip(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def _zstd_stream(content: bytes) -> bytes:
    """As `zstd < FILE` writes it: without the size of the content in the header."""
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return compressor.compress(content) + compressor.flush()


FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
    "zst-stream": _zstd_stream,
    "zip": lambda content: _zip(("app.dmp", content)),
    "zip-stored": lambda content: _zip(("app.dmp", content), method=zipfile.ZIP_STORED),
    "cab": cabinet_builder.mszip,
    "cab-lzx": cabinet_builder.lzx,
    "cab-stored": cabinet_builder.stored,
}


class Folder(NamedTuple):
    """Where a test writes its file, and where the code under test puts temporary ones."""

    files: Path
    temporary: Path

    def write(self, content: bytes, name: str = "input") -> Path:
        path = self.files / name
        path.write_bytes(content)
        return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    made = Folder(tmp_path / "files", tmp_path / "temporary")
    for path in made:
        path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made.temporary))
    return made


def _refused(folder: Folder, content: bytes, match: str) -> str:
    """Opens a file that must be refused with one line and leave no temporary file."""
    path = folder.write(content)
    with pytest.raises(ContainerError, match=match) as caught:
        open_dump(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert list(folder.temporary.iterdir()) == []
    return text


# -- good ones -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_a_compressed_dump_opens_as_the_plain_one_and_leaves_nothing(
    kind: str, folder: Folder
) -> None:
    path = folder.write(FORMATS[kind](DUMP))
    dump = open_dump(path)
    assert dump.path == path
    assert dump.memory.data.tobytes() == DUMP
    assert list(folder.temporary.iterdir()) == []


@pytest.mark.parametrize("kind", ["gz", "xz", "zst", "zst-stream"])
def test_files_of_several_compressed_parts_are_read_to_their_end(kind: str, folder: Folder) -> None:
    compress = FORMATS[kind]
    path = folder.write(compress(DUMP[:7_000]) + compress(b"") + compress(DUMP[7_000:]))
    assert open_dump(path).memory.data.tobytes() == DUMP


def test_a_zstd_file_may_begin_with_a_skippable_frame(folder: Folder) -> None:
    skippable = struct.pack("<II", 0x184D2A50, 4) + b"size"
    path = folder.write(skippable + FORMATS["zst"](DUMP) + skippable)
    assert open_dump(path).memory.data.tobytes() == DUMP


def test_the_content_decides_not_the_name(folder: Folder) -> None:
    for name in ("app.dmp", "app.dmp.zip", "app.txt"):
        assert open_dump(folder.write(gzip.compress(DUMP), name)).memory.data.tobytes() == DUMP


def test_a_zip_may_hold_folders_notes_and_what_macos_adds_beside_its_one_dump(
    folder: Folder,
) -> None:
    path = folder.write(
        _zip(
            ("case 1/", b""),
            ("case 1/readme.txt", b"see ticket"),
            ("case 1/App.DMP", DUMP),
            ("__MACOSX/case 1/._App.DMP", b"resource fork"),
        )
    )
    assert open_dump(path).memory.data.tobytes() == DUMP


def test_a_zip_of_one_file_needs_no_dump_in_its_name(folder: Folder) -> None:
    path = folder.write(_zip(("memory.bin", DUMP)))
    assert open_dump(path).memory.data.tobytes() == DUMP


def test_a_cabinet_may_hold_what_error_reporting_packs_beside_its_one_dump(folder: Folder) -> None:
    for name, attributes in ((b"case\\App.hdmp", 0x20), ("Größe.DMP".encode(), 0xA0)):
        packed = cabinet_builder.mszip_of(
            (b"Report.wer", b"text" * 20_000),
            (name, DUMP),
            (b"log.txt", b"more text"),
            attributes=attributes,
        )
        assert open_dump(folder.write(packed)).memory.data.tobytes() == DUMP
    assert list(folder.temporary.iterdir()) == []


# -- refused ones --------------------------------------------------------------------------------


def test_a_zip_of_two_dumps_is_refused_with_their_names(folder: Folder) -> None:
    text = _refused(
        folder, _zip(("before.dmp", DUMP), ("after.dmp", DUMP)), "exactly one dump, it holds 2"
    )
    assert "before.dmp, after.dmp" in text
    _refused(folder, _zip(("a\nb.dmp", DUMP), ("after.dmp", DUMP)), r"\(a\\nb.dmp, after.dmp\)")


def test_a_cabinet_that_is_not_read_is_refused_with_the_reason(folder: Folder) -> None:
    two = cabinet_builder.mszip_of((b"a.dmp", DUMP), (b"b.dmp", DUMP))
    _refused(folder, two, r"exactly one dump, it holds 2 \(a.dmp, b.dmp\); unpack it first")
    block = [(b"x" * 8, 8)]
    for packed, reason in (
        (cabinet_builder.cabinet(block, 2, 8), "Quantum"),
        (cabinet_builder.stored(DUMP, flags=2), "one part of several cabinets"),
    ):
        text = _refused(folder, packed, f"{reason}.*unpack it first")
        assert "damaged" not in text


def test_a_cabinet_whose_table_lies_is_refused(folder: Folder) -> None:
    for entry, reason in (
        ((b"a.dmp", 8, 0x7FFF_FFFF, 0), "do not fit"),
        ((b"a.dmp", 0xFFFF_FFFF, 0, 0), "do not fit"),
        ((b"a.dmp", 8, 4, 0), "4 bytes short"),
        ((b"n" * 300, 8, 0, 0), "too long"),
    ):
        packed = cabinet_builder.cabinet([(b"x" * 8, 8)], 0, 8, entries=[entry])
        _refused(folder, packed, f"{reason}.*copy it again")
    wrong = bytearray(cabinet_builder.stored(DUMP))
    wrong[52:54] = b"\x05\x00"  # the folder of the only file
    _refused(folder, bytes(wrong), "folder 5, which is not there")


def test_a_zip_without_a_file_is_refused(folder: Folder) -> None:
    _refused(folder, _zip(), r"it holds 0 \(nothing\)")
    _refused(folder, _zip(("folder/", b"")), r"it holds 0 \(nothing\)")


def test_an_encrypted_zip_is_refused(folder: Folder) -> None:
    plain = FORMATS["zip"](DUMP)
    central = plain.index(b"PK\x01\x02")
    changed = bytearray(plain)
    changed[6] |= 1
    changed[central + 8] |= 1
    _refused(folder, bytes(changed), "encrypted")


@pytest.mark.parametrize("method", [9, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_method_that_is_not_read_is_named_and_not_called_damage(
    method: int, folder: Folder
) -> None:
    changed = bytearray(FORMATS["zip"](DUMP))  # 9 is Deflate64, which Windows uses from 2 GiB on
    central = changed.index(b"PK\x01\x02")
    changed[8:10] = changed[central + 10 : central + 12] = struct.pack("<H", method)
    text = _refused(folder, bytes(changed), f"compression method {method} ")
    assert "damaged" not in text


def test_a_header_that_asks_for_too_much_memory_is_refused(folder: Folder) -> None:
    frame = bytes((0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xA0)) + bytes(40)  # a window of 1 GiB
    _refused(folder, frame, "zstd file cannot be unpacked")


def test_an_xz_file_that_asks_for_gigabytes_of_memory_is_refused_with_the_reason(
    folder: Folder,
) -> None:
    changed = bytearray(FORMATS["xz"](DUMP))
    end = 12 + (changed[12] + 1) * 4 - 4
    assert changed[14:16] == b"\x21\x01"
    changed[16] = 40  # a dictionary of 4 GiB
    changed[end : end + 4] = struct.pack("<I", zlib.crc32(changed[12:end]))
    text = _refused(folder, bytes(changed), "(?i)memory")
    assert text.endswith("unpack it first")


def test_a_zip_that_lists_very_many_files_is_refused_before_the_list_is_read(
    folder: Folder,
) -> None:
    plain = FORMATS["zip"](DUMP)
    start, end = plain.index(b"PK\x01\x02"), plain.index(b"PK\x05\x06")
    count = 100_000
    entries = plain[start:end] * count
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(entries), start, 0)
    text = _refused(folder, plain[:start] + entries + tail, "its list of files is too long")
    assert "damaged" not in text
    assert text.endswith("unpack it first")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), "7z x"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(100), "unrar"),
        (bz2.compress(DUMP), "bunzip2"),
    ],
)
def test_archives_that_are_not_read_are_named_with_the_way_to_unpack_them(
    content: bytes, match: str, folder: Folder
) -> None:
    _refused(folder, content, match)
    _refused(folder, gzip.compress(content), match)


def test_a_tar_archive_is_refused_plain_and_compressed(folder: Folder) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("app.dmp")
        member.size = len(DUMP)
        archive.addfile(member, io.BytesIO(DUMP))
    _refused(folder, buffer.getvalue(), "tar archive")
    _refused(folder, gzip.compress(buffer.getvalue()), "tar archive")


@pytest.mark.parametrize("outer", ["gz", "xz", "zst", "zip", "cab"])
@pytest.mark.parametrize("inner", ["gz", "xz", "zst", "zip", "cab"])
def test_an_archive_in_an_archive_is_refused_with_both_names(
    outer: str, inner: str, folder: Folder
) -> None:
    names = {"gz": "gzip", "xz": "xz", "zst": "zstd", "zip": "zip", "cab": "cabinet"}
    content = FORMATS[inner](DUMP)
    packed = _zip(("app.dmp." + inner, content)) if outer == "zip" else FORMATS[outer](content)
    _refused(folder, packed, f"the {names[outer]} file holds a {names[inner]} file")


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_packed_must_be_a_dump(kind: str, folder: Folder) -> None:
    for content in (b"", b"no dump"):
        path = folder.write(FORMATS[kind](content))
        with pytest.raises(NotADumpError) as caught:
            open_dump(path)
        assert str(caught.value).startswith(f"{path}: ")
    assert list(folder.temporary.iterdir()) == []


# -- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_cut_file_is_never_taken_for_a_complete_one(
    kind: str, kept: float, folder: Folder
) -> None:
    packed = FORMATS[kind](DUMP)
    _refused(folder, packed[: int(len(packed) * kept)], "damaged or cut; copy it again")


@pytest.mark.parametrize("kind", ["gz", "xz", "zst", "zst-stream", "zip", "cab", "cab-lzx"])
def test_every_prefix_of_a_small_file_gives_the_dump_or_a_clear_error(
    kind: str, folder: Folder
) -> None:
    small = MinidumpBuilder().memory(0x1000, b"abc").build()
    packed = FORMATS[kind](small)
    for length in range(len(packed)):
        path = folder.write(packed[:length])
        with pytest.raises(WindumpsError) as caught:
            open_dump(path)
        assert "\n" not in str(caught.value)
    assert list(folder.temporary.iterdir()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_flipped_bits_give_a_dump_or_a_clear_error(kind: str, folder: Folder) -> None:
    packed = FORMATS[kind](MinidumpBuilder().memory(0x1000, b"abc" * 50).build())
    rng = random.Random(11)  # noqa: S311
    for _ in range(300):
        changed = bytearray(packed)
        for _ in range(rng.choice((1, 1, 3))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        path = folder.write(bytes(changed))
        try:
            open_dump(path)
        except WindumpsError as error:
            assert "\n" not in str(error)  # noqa: PT017
    assert list(folder.temporary.iterdir()) == []


def test_a_damaged_checksum_is_noticed(folder: Folder) -> None:
    for kind, at in (("gz", -8), ("xz", -40)):
        packed = bytearray(FORMATS[kind](DUMP))
        packed[at] ^= 0xFF
        _refused(folder, bytes(packed), "copy it again")


# -- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_a_bomb_hits_the_limit_and_its_file_is_removed(
    kind: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = FORMATS[kind](DUMP[:100] + bytes(3 << 20))
    monkeypatch.setattr(containers, "SMALL_BYTES", 1 << 20)
    monkeypatch.setattr(containers, "MAX_RATIO", 2)
    if kind in ("zip-stored", "cab-stored"):
        monkeypatch.setattr(containers, "MAX_RATIO", 0.5)
    _refused(folder, packed, "looks like a zip bomb")


def test_a_bomb_hits_the_real_limit(folder: Folder) -> None:
    text = _refused(folder, FORMATS["zst"](bytes(80 << 20)), "looks like a zip bomb")
    assert "5000 times" in text


@pytest.mark.parametrize("kind", FORMATS)
def test_what_does_not_fit_on_the_disk_is_refused_before_the_disk_is_full(
    kind: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": files.KEPT_FREE_BYTES + 100, "total": 1 << 40})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage)
    text = _refused(folder, FORMATS[kind](DUMP), "MiB free in")
    assert "TMPDIR" in text
    monkeypatch.setattr(usage, "free", 5)
    _refused(folder, FORMATS[kind](DUMP), "more than the 0 MiB free")
    # A disk smaller than what is left free on others.
    monkeypatch.setattr(usage, "total", 1 << 20)
    monkeypatch.setattr(usage, "free", 200_000)
    assert open_dump(folder.write(FORMATS[kind](DUMP))).memory.data.tobytes() == DUMP


def test_a_run_that_is_killed_while_it_unpacks_leaves_nothing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no name is gone with the process, however that ends."""
    seen: list[Path] = []

    def chunks(*_: object) -> Iterator[bytes]:
        for start in range(0, len(DUMP), 1000):
            yield DUMP[start : start + 1000]
            seen.extend(folder.temporary.iterdir())

    row = containers.Container("gzip", (b"\x1f\x8b",), chunks)
    monkeypatch.setattr(containers, "CONTAINERS", (row,))
    assert open_dump(folder.write(gzip.compress(DUMP))).memory.data.tobytes() == DUMP
    assert seen == []


def test_an_error_while_writing_leaves_nothing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        yield DUMP[:10]
        raise OSError(28, "No space left on device")

    row = containers.Container("gzip", (b"\x1f\x8b",), broken)  # type: ignore[arg-type]
    monkeypatch.setattr(containers, "CONTAINERS", (row,))
    with pytest.raises(ContainerError, match="more than the 0 MiB free"):
        open_dump(folder.write(gzip.compress(DUMP)))
    assert list(folder.temporary.iterdir()) == []


# -- what is no file -----------------------------------------------------------------------------


def test_a_missing_file_and_a_folder_are_the_systems_own_errors(folder: Folder) -> None:
    with pytest.raises(FileNotFoundError):
        open_dump(folder.files / "missing.dmp")
    with pytest.raises(IsADirectoryError):
        open_dump(folder.files)


def test_a_file_that_may_not_be_read_is_the_systems_own_error(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.write(DUMP)

    def refuse(name: str, *_: object) -> None:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(os, "open", refuse)  # chmod does not stop root, who may run the tests
    with pytest.raises(PermissionError):
        open_dump(path)


def test_a_pipe_is_refused_and_not_waited_for(folder: Folder) -> None:
    path = folder.files / "pipe"
    os.mkfifo(path)
    with pytest.raises(NotADumpError, match="not a regular file"):
        open_dump(path)
