"""What is an input: told by content, and by name only where content says nothing."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

import zstandard

from dumpleak.files.detect import HEAD_BYTES, SNAPSHOT_READERS
from windumps.dumps import DUMP_FORMATS
from windumps.errors import ContainerError
from windumps.unpack.cabinet import Cabinet, CabinetError
from windumps.unpack.containers import (
    CONTAINERS,
    DAMAGE,
    DUMP_SUFFIXES,
    REFUSED,
    XZ_MEMORY_BYTES,
    Container,
)
from windumps.unpack.zips import READ_BYTES, TooLongListError

SNAPSHOT_SUFFIX = ".dlsnap"
# Raw memory begins with nothing in particular.
_SUFFIXES = (*DUMP_SUFFIXES, SNAPSHOT_SUFFIX, ".raw", ".vmem", ".mem")
_PACKED = (".gz", ".xz", ".zst", ".bz2", ".zip", ".cab", ".7z", ".rar")
_TAR_AT, _TAR = 257, b"ustar"
_NEVER_OPENED = (
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
)  # may hold dumps: not passed over in silence
_PARQUET = ".parquet"  # snapshots are such files, too, but are never called so
_MOST_MEMBERS = 1_000_000


class Content(StrEnum):
    """What a file is to a fleet."""

    INPUT = "input"
    ARCHIVE = "archive"
    OTHER = "other"


class Member(NamedTuple):
    """A file in an archive that is an input.

    Attributes:
        name: As `_named` has it.
        bytes: Its size.
    """

    name: str
    bytes: int


def recognised(head: bytes, name: str) -> Content:
    """What a file is that begins so.

    Args:
        head: Its first `HEAD_BYTES`.
        name: Its name.
    """
    if head.startswith(_NEVER_OPENED):
        return Content.INPUT
    if is_tar(head):
        return Content.ARCHIVE
    container = container_of(head)
    if container is not None and container.name in ("zip", "cabinet"):
        return Content.ARCHIVE
    if container is not None:
        inner = _unpacked_head(container.name, head)
        if is_tar(inner):
            return Content.ARCHIVE
        head = inner
    if _is_known(head, name) or has_dump_name(name):
        return Content.INPUT
    return Content.OTHER


def has_dump_name(name: str) -> bool:
    """True for names that only dumps and snapshots have: what is no dump all the same is an error."""
    path = PurePosixPath(name.replace("\\", "/").lower())
    if path.suffix in _PACKED:
        path = path.with_suffix("")
    return path.suffix in _SUFFIXES


def container_of(head: bytes) -> Container | None:
    """The format of a file that holds other ones; None when it is none."""
    if any(head[at:].startswith(magic) for at, magic, _, _ in REFUSED):
        return None
    return next((c for c in CONTAINERS if head.startswith(c.magics)), None)


def is_tar(head: bytes) -> bool:
    """True when a file that begins so is a tar archive that is not compressed."""
    return head[_TAR_AT:].startswith(_TAR)


def is_log_or_snapshot(head: bytes) -> bool:
    """True when a file that begins so holds a snapshot, and no memory."""
    return any(reader.detect(head) for reader in SNAPSHOT_READERS)


def _is_known(head: bytes, name: str) -> bool:
    if any(row.detect(head) for row in DUMP_FORMATS):
        return True
    return not name.lower().endswith(_PARQUET) and is_log_or_snapshot(head)


def _unpacked_head(method: str, head: bytes) -> bytes:
    """What a compressed file begins with that begins so; as much as can be had."""
    try:
        if method == "gzip":
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD_BYTES)
        if method == "xz":
            unxz = lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY_BYTES)
            return unxz.decompress(head, HEAD_BYTES)
        with zstandard.ZstdDecompressor().stream_reader(head) as reader:
            return reader.read(HEAD_BYTES)
    except DAMAGE:
        return b""


def members(file: IO[bytes], url: str, head: bytes) -> list[Member] | None:
    """The inputs in an archive, in its order.

    Args:
        file: The archive, at its beginning.
        url: Its name.
        head: Its first bytes.

    Returns:
        None when it is one input itself: a zip file or cabinet with one dump in it, or what cannot be looked
        into, of which the reader of dumps says why.

    Raises:
        OSError: it cannot be read.
    """
    try:
        found = list(_inputs(file, url, head))
    except (TooLongListError, ContainerError, RuntimeError, tarfile.TarError, *DAMAGE):
        return None
    container = container_of(head)
    is_zip = container is not None and container.name in ("zip", "cabinet")
    return None if is_zip and len(found) == 1 else found


def _inputs(file: IO[bytes], url: str, head: bytes) -> Iterator[Member]:
    for number, (name, size, content) in enumerate(_named(_files(file, url, head))):
        if number >= _MOST_MEMBERS:
            raise TooLongListError
        if name.startswith("__MACOSX/"):  # hidden twins of each file
            continue
        if recognised(_filled(content, HEAD_BYTES), name) is not Content.OTHER:
            yield Member(name, size)


def _named(
    files: Iterator[tuple[str, int, IO[bytes]]],
) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Files of an archive as it names them; of those with one name, the later ones with a number."""
    seen: Counter[str] = Counter()
    for name, size, content in files:
        label = name
        while seen[label]:
            seen[name] += 1
            label = f"#{seen[name]}:{name}"
        seen[label] = 1
        yield label, size, content


def _filled(content: IO[bytes], size: int) -> bytes:
    """Up to so many bytes; a stream may give fewer at once."""
    pieces: list[bytes] = []
    while size and (piece := content.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _files(
    file: IO[bytes], url: str, head: bytes
) -> Generator[tuple[str, int, IO[bytes]], None, None]:
    """All files of an archive, each with its content, which is to be read before the next."""
    container = container_of(head)
    if container is not None and container.name == "zip":
        with zipfile.ZipFile(_bounded(file)) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    with _zip_member(archive, info, url) as content:
                        yield info.filename, info.file_size, content
    elif container is not None and container.name == "cabinet":
        cabinet = Cabinet(file)
        for entry in cabinet.files:
            yield entry.name, entry.size, _stream(cabinet.pieces(entry))
    else:
        plain = file
        if container is not None:
            plain = _stream(container.chunks(Path(url), cast(io.BufferedReader, file), _no_limit))
        yield from _tar_files(plain)


def _tar_files(plain: IO[bytes]) -> Iterator[tuple[str, int, IO[bytes]]]:
    with tarfile.open(fileobj=_bounded(plain), mode="r|") as tar:
        while (info := tar.next()) is not None:
            vars(tar)["members"] = []  # it keeps them all
            content = tar.extractfile(info) if info.isfile() else None
            if content is not None:
                yield info.name, info.size, content


@contextmanager
def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, url: str) -> Iterator[IO[bytes]]:
    # zipfile unpacks the other methods without a limit on what comes out of one read.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ContainerError(
            f"{url}: compression method {info.compress_type} of zip files is not read here; unpack it first"
        )
    with archive.open(info) as content:
        yield content


@contextmanager
def member_content(file: IO[bytes], url: str, member: str) -> Iterator[IO[bytes]]:
    """The content of one file in an archive.

    Args:
        file: The archive, at its beginning.
        url: Its name.
        member: Name of the file, as `members` gives it.

    Raises:
        ContainerError: it is not there, or the archive is damaged.
        OSError: the archive cannot be read.
    """
    head = _filled(file, HEAD_BYTES)
    file.seek(0)
    try:
        with closing(_files(file, url, head)) as files:
            for name, _, content in _named(files):
                if name == member:
                    yield content
                    return
        raise ContainerError(f"{url}: holds no {member} any more; run again")
    except (TooLongListError, RuntimeError, tarfile.TarError, *DAMAGE, CabinetError) as error:
        why = str(error) or type(error).__name__
        raise ContainerError(
            f"{url}!{member}: the archive cannot be unpacked ({why}): it is damaged or cut; copy it again"
        ) from error


def _no_limit(size: int) -> None:
    """Nothing is written: only a piece is held at once."""


def _bounded(file: IO[bytes]) -> IO[bytes]:
    return cast(IO[bytes], _Bounded(file))


class _Bounded(io.RawIOBase):
    """A file that refuses to be read in pieces that only a hostile archive asks for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > READ_BYTES:
            raise TooLongListError("its list of files is too long")
        return self._file.read(-1 if size is None else size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_SET and offset < 0:
            raise zipfile.BadZipFile("an offset lies outside the file")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class _Pieces(io.RawIOBase):
    """Pieces of bytes as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        target = memoryview(buffer).cast("B")
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        count = min(len(target), len(self._left))
        target[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _stream(pieces: Iterator[bytes]) -> IO[bytes]:
    return cast(IO[bytes], io.BufferedReader(_Pieces(pieces)))
