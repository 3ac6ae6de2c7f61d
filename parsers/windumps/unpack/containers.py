"""Compressed dumps: unpacked to a temporary file, with a limit that a zip bomb hits.

Why a temporary file and not memory: a dump is read through a memory map and may be larger than RAM.
The file has no name (on Windows it is deleted when it is closed), so that even a run that is killed leaves
nothing behind.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import zstandard

from windumps.errors import ContainerError
from windumps.files import DISK_FULL, DiskRoom, free_room, open_file
from windumps.unpack.cabinet import MAGIC, Cabinet, CabinetError, UnsupportedCabinetError
from windumps.unpack.zips import TooLongListError, open_zip

CHUNK_BYTES = 1 << 20
# A zstd block of 4 bytes can give 128 KiB, and the decompressor has no limit of its own: fed in
# small pieces it cannot give more than 32 MiB at a time.
ZSTD_CHUNK_BYTES = 1 << 10
# What `xz -9` needs is a quarter of it; a header may ask for 4 GiB.
XZ_MEMORY_BYTES = 256 << 20
# A real dump shrinks to a tenth, or to a thousandth when it is nearly all zeros; a bomb far beyond
# that.
MAX_RATIO = 5_000
SMALL_BYTES = 64 << 20  # below this nothing is refused: tiny files may compress extremely well
HEAD_BYTES = 512

DUMP_SUFFIXES = (".dmp", ".mdmp", ".hdmp", ".dump")

Announce = Callable[[int], None]
"""Told how many bytes are to come, before any does; raises `ContainerError` where there is no room."""


class Container(NamedTuple):
    """A compressed file format.

    Attributes:
        name: Shown to people.
        magics: What such files begin with.
        chunks: What is inside, piece by piece; raises one of `DAMAGE` where it cannot.
    """

    name: str
    magics: tuple[bytes, ...]
    chunks: Callable[[Path, BinaryIO, Announce], Iterator[bytes]]


# What the decompressors raise on damaged input. zipfile adds to its own BadZipFile a ValueError,
# struct.error or NotImplementedError where fields make no sense to it; MemoryError is a dictionary
# of gigabytes that a damaged or hostile header asks for.
DAMAGE = (
    EOFError,
    MemoryError,
    NotImplementedError,
    ValueError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    struct.error,
    CabinetError,
    zipfile.BadZipFile,
    zlib.error,
    zstandard.ZstdError,
)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _pieces(source: _Readable, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    while chunk := source.read(size):
        yield chunk


def _gzip(path: Path, file: BinaryIO, announce: Announce) -> Iterator[bytes]:
    with gzip.open(file) as source:
        yield from _pieces(source)


def _xz(path: Path, file: BinaryIO, announce: Announce) -> Iterator[bytes]:
    """Stream by stream: `lzma.open` takes any file it is given as much memory as the file asks for."""
    stream: lzma.LZMADecompressor | None = None
    count = 0
    for chunk in _pieces(file):
        rest = chunk
        while rest:
            if stream is None:
                rest = rest.lstrip(b"\0")  # padding between streams, in words of zeros
                if not rest:
                    break
                stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY_BYTES)
            yield stream.decompress(rest, CHUNK_BYTES)
            while not stream.eof and not stream.needs_input:
                yield stream.decompress(b"", CHUNK_BYTES)
            rest = b""
            if stream.eof:
                rest, stream, count = stream.unused_data, None, count + 1
    if stream is not None or not count:
        raise EOFError("it ends inside a stream")


def _zstd(path: Path, file: BinaryIO, announce: Announce) -> Iterator[bytes]:
    """Frame by frame: the stream reader of `zstandard` takes a cut file for a complete one."""
    factory = zstandard.ZstdDecompressor()
    frame = None
    for chunk in _pieces(file, ZSTD_CHUNK_BYTES):
        rest = chunk
        while rest:
            frame = frame or factory.decompressobj()
            yield frame.decompress(rest)
            rest = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame = None
    if frame is not None:
        raise EOFError("it ends inside a frame")


def _zip(path: Path, file: BinaryIO, announce: Announce) -> Iterator[bytes]:
    try:
        with open_zip(file) as archive:
            member = _member(path, archive)
            announce(member.file_size)
            with archive.open(member) as source:
                yield from _pieces(source)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # zipfile seeks to offsets of the archive as they are, also to negative ones.
        raise zipfile.BadZipFile("an offset lies outside the file") from error


def _cabinet(path: Path, file: BinaryIO, announce: Announce) -> Iterator[bytes]:
    try:
        cabinet = Cabinet(file)
        names = [entry.name.replace("\\", "/") for entry in cabinet.files]
        entry = cabinet.files[_only_dump(path, names)]
        pieces = cabinet.pieces(entry)
        announce(entry.size)
        yield from pieces
    except UnsupportedCabinetError as error:
        raise ContainerError(f"{path}: {error}; unpack it first") from error


def _only_dump(path: Path, names: list[str]) -> int:
    """Which file of an archive is its one dump: the index of its name."""
    # macOS adds a hidden twin of each file under __MACOSX.
    members = [
        i for i, name in enumerate(names) if name[-1:] != "/" and not name.startswith("__MACOSX/")
    ]
    dumps = [i for i in members if names[i].lower().endswith(DUMP_SUFFIXES)]
    chosen = dumps or members
    if len(chosen) != 1:
        shown = ", ".join(repr(names[i])[1:-1] for i in chosen[:5]) or "nothing"
        raise ContainerError(
            f"{path}: the archive must hold exactly one dump, it holds "
            f"{len(chosen)} ({shown}); unpack it first"
        )
    return chosen[0]


def _member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The one dump in a zip file."""
    members = archive.infolist()
    member = members[_only_dump(path, [m.filename for m in members])]
    if member.flag_bits & 1:
        raise ContainerError(f"{path}: the archive is encrypted; unpack it first")
    # zipfile unpacks the other methods without a limit on what comes out of one read.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ContainerError(
            f"{path}: compression method {member.compress_type} of zip files is not read here; "
            "unpack it first"
        )
    return member


CONTAINERS: tuple[Container, ...] = (
    Container("gzip", (b"\x1f\x8b",), _gzip),
    Container("xz", (b"\xfd7zXZ\x00",), _xz),
    # The second is a skippable frame, with which pzstd begins.
    Container("zstd", (b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"), _zstd),
    # The second is an archive without members.
    Container("zip", (b"PK\x03\x04", b"PK\x05\x06"), _zip),
    Container("cabinet", (MAGIC,), _cabinet),
)

# Archives that people do send: offset and bytes of the magic, name, what to do.
REFUSED: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first: 7z x FILE"),
    (0, b"Rar!\x1a\x07", "a RAR archive", "unpack it first: unrar x FILE"),
    (0, b"BZh", "a bzip2 file", "unpack it first: bunzip2 FILE"),
    (257, b"ustar", "a tar archive", "unpack it first: tar xf FILE"),
)


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The file itself, or its only member unpacked to a temporary file; open, at its beginning.

    Raises:
        ContainerError: damaged, encrypted or nested archive, an archive of a kind that is not read,
            several members, or more bytes than the limit allows.
        NotAFileError: a pipe or device, which cannot be mapped.
        OSError: the file cannot be read, or the disk is full.
    """
    with open_file(path) as file:
        container = _container(path, _head(file))
        if container is None:
            yield file
            return
        with tempfile.TemporaryFile(prefix="windumps-") as target:
            _unpack(path, file, container, target)
            inner = _container(path, _head(target))
            if inner is not None:
                raise ContainerError(
                    f"{path}: the {container.name} file holds a {inner.name} file; unpack it first"
                )
            yield target


def _head(file: BinaryIO) -> bytes:
    """The first bytes; the file stands at its beginning afterwards."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return head


def _container(path: Path, head: bytes) -> Container | None:
    """The format of a file that begins so, or None when it is no container."""
    for offset, magic, name, advice in REFUSED:
        if head[offset:].startswith(magic):
            raise ContainerError(f"{path}: this is {name}, which is not opened; {advice}")
    return next((c for c in CONTAINERS if head.startswith(c.magics)), None)


def _unpack(path: Path, file: BinaryIO, container: Container, target: BinaryIO) -> None:
    folder = tempfile.gettempdir()
    packed = os.fstat(file.fileno()).st_size
    ceiling = max(SMALL_BYTES, packed * MAX_RATIO)
    room = DiskRoom(folder)

    def no_room(free: int) -> ContainerError:
        return ContainerError(
            f"{path}: unpacked it needs more than the {free >> 20} MiB free in {folder}; "
            "set TMPDIR to a larger disk"
        )

    def announce(size: int) -> None:
        if size > (free := free_room(folder)):
            raise no_room(free)

    written = 0
    try:
        for chunk in container.chunks(path, file, announce):
            written += len(chunk)
            if written > ceiling:
                raise ContainerError(
                    f"{path}: unpacks to more than {MAX_RATIO} times its size: "
                    "this looks like a zip bomb; unpack it yourself if you trust it"
                )
            if not room.has(len(chunk)):
                raise no_room(room.free)
            target.write(chunk)
        target.flush()
    except (TooLongListError, *DAMAGE) as error:
        why = str(error) or type(error).__name__
        over = isinstance(error, TooLongListError) or "memory" in why.lower()
        raise ContainerError(
            f"{path}: the {container.name} file cannot be unpacked ({why}): "
            + ("unpack it first" if over else "it is damaged or cut; copy it again")
        ) from error
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise no_room(0) from error
