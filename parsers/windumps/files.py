"""Files that people name: opened only when they are files, and written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import string
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from windumps.errors import NotADumpError

if sys.platform != "win32":
    import fcntl

_NO_FILES = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_NON_BLOCKING = getattr(os, "O_NONBLOCK", 0)  # Windows has neither
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)

_TOKEN_LETTERS = string.ascii_lowercase + string.digits + "_"
_TOKEN = 8
_TRIES = 100
_OLD_SECONDS = 24 * 3600.0  # where locks do not work, a leftover this old is nobody's any more
DISK_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))

KEPT_FREE_BYTES = 256 << 20  # left free on a disk
_KEPT_FREE_SHARE = 20  # of a small one a twentieth
_ASK_EVERY_BYTES = 16 << 20


class NotAFileError(NotADumpError, OSError):
    """A pipe, a socket or a device, where a file is needed."""


def open_file(path: Path | str) -> BinaryIO:
    """Opens a file for reading.

    A pipe would be waited for, perhaps for ever, and what comes out of it cannot be read twice.

    Raises:
        NotAFileError: it is no regular file; it was not waited for.
        OSError: it cannot be read.
    """
    return open(path, "rb", opener=regular_only)


def read_head(path: Path | str, size: int) -> bytes:
    """The first bytes of a file.

    Raises:
        NotAFileError: as `open_file`.
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        # A buffer of that size is made before anything is read.
        return file.read(min(size, max(os.fstat(file.fileno()).st_size, _ASK_EVERY_BYTES)))


def regular_only(path: str, flags: int) -> int:
    """The opener of `open_file`, for `open` in other modes of reading."""
    _require_file(path, os.stat(path).st_mode)  # first, as even opening a device may do something
    descriptor = os.open(path, flags | _NON_BLOCKING)
    try:
        _require_file(path, os.fstat(descriptor).st_mode)
    except NotAFileError:
        os.close(descriptor)
        raise
    return descriptor


def _require_file(path: str, mode: int) -> None:
    for is_such, what in _NO_FILES:
        if is_such(mode):
            raise NotAFileError(
                f"{path}: {what}, not a regular file; write what comes out of it to a file first"
            )


@contextmanager
def whole_file(path: Path | str) -> Iterator[BinaryIO]:
    """Where to write what `path` is to hold; it is put in place when the block ends well.

    A link stays a link, and a file keeps its permissions. A device or pipe is written to as it is: put in
    its place, a file would take `/dev/null` from the whole system.

    Args:
        path: Where to.

    Raises:
        OSError: the file cannot be written or put in place; it names `path`.
    """
    target = Path(os.path.realpath(path))
    try:
        with _whole(path, target) as stream:
            yield stream
    except OSError as error:
        nameless = error.filename is None and error.errno in DISK_FULL
        if nameless or error.filename == str(target):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def _whole(path: Path | str, target: Path) -> Iterator[BinaryIO]:
    if not os.path.basename(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    try:
        known = os.stat(path)
    except FileNotFoundError:
        known = None
    if known is not None and (stream := _as_it_is(path, known)) is not None:
        with stream:
            yield stream
        return
    if known is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    with temporary_beside(target, known) as (stream, temporary):
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
        put_in_place(stream, temporary, target)


def _as_it_is(path: Path | str, known: os.stat_result) -> BinaryIO | None:
    """What is no regular file, open for writing; also the standard streams under whatever name."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if os.path.samestat(known, os.fstat(descriptor)):
                return os.fdopen(os.dup(descriptor), "wb")
    if stat.S_ISREG(known.st_mode):
        return None
    return open(path, "wb", opener=lambda name, _: os.open(name, os.O_WRONLY | _BINARY))


@contextmanager
def temporary_beside(
    target: Path, like: os.stat_result | None = None
) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in the folder of `target`, which nobody else has; gone at the end unless it was moved.

    It is never one that was there before, nor what a link points to. While it is open it is locked, so that
    `remove_leftovers` of other runs leaves it alone.

    Args:
        target: What it is for. Its name is `.NAME.` and eight random characters.
        like: Has the permissions to give; None for those of any new file.

    Raises:
        OSError: it cannot be made; names `target`.
    """
    stream, path = _new_file(target, 0o666 if like is None else 0o600)
    try:
        with stream:
            if like is not None and sys.platform != "win32":
                with suppress(OSError):  # only root may give files away
                    os.fchown(stream.fileno(), like.st_uid, like.st_gid)
                os.fchmod(stream.fileno(), stat.S_IMODE(like.st_mode) & 0o777)
            yield stream, path
    finally:
        path.unlink(missing_ok=True)


def written(stream: BinaryIO) -> None:
    """Ends writing to a file of `temporary_beside`, so that others may read or replace it."""
    stream.flush()
    if sys.platform == "win32":
        stream.close()  # Windows moves and replaces no open file


def put_in_place(stream: BinaryIO, temporary: Path, target: Path) -> None:
    """Moves a file of `temporary_beside` over its target.

    Raises:
        OSError: names the target.
    """
    if not stream.closed:
        written(stream)
    try:
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error


def _new_file(target: Path, mode: int) -> tuple[BinaryIO, Path]:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK | _BINARY
    for _ in range(_TRIES):
        token = "".join(secrets.choice(_TOKEN_LETTERS) for _ in range(_TOKEN))
        # A name may be as long as names can be.
        path = target.with_name(f".{target.name}.{token}")
        try:
            descriptor = os.open(path, flags, mode)
        except FileExistsError:
            continue
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(target)) from error
        stream = os.fdopen(descriptor, "w+b")
        if _is_ours(stream, path):
            return stream, path
        stream.close()
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))


def _is_ours(stream: BinaryIO, path: Path) -> bool:
    """Locks a new file; False when another run took it for a leftover before it was locked."""
    if _lock(stream.fileno()) is False:
        return False
    try:
        return os.path.samestat(os.stat(path), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> bool | None:
    """True for a lock that is held until the file is closed, False when another has it.

    None when that cannot be told: on Windows, where open files cannot be removed, and on some network disks.
    """
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def remove_leftovers(target: Path) -> None:
    """Removes what runs that were killed left of `temporary_beside` a file; never that of a living run."""
    names = re.compile(
        re.escape(f".{target.name}.") + f"[{_TOKEN_LETTERS}]{{{_TOKEN}}}(?:unpacked)?"
    )
    try:
        with os.scandir(target.parent) as entries:
            found = [Path(e) for e in entries if names.fullmatch(e.name)]
    except OSError:
        return
    for path in found:
        with suppress(OSError):
            _remove_if_nobodys(path)


def _remove_if_nobodys(path: Path) -> None:
    if sys.platform == "win32":
        path.unlink()  # which fails while a run has it open
        return
    descriptor = os.open(path, os.O_RDONLY | _NON_BLOCKING | _NO_LINK)
    try:
        about = os.fstat(descriptor)
        is_free = _lock(descriptor)
        if is_free is None:
            is_free = time.time() - about.st_mtime > _OLD_SECONDS
        if is_free and stat.S_ISREG(about.st_mode):
            path.unlink()
    finally:
        os.close(descriptor)


def free_room(folder: Path | str) -> int:
    """Bytes that may be written to a folder: what is free on its disk, less what is to be left free."""
    usage = shutil.disk_usage(folder)
    return max(usage.free - min(KEPT_FREE_BYTES, usage.total // _KEPT_FREE_SHARE), 0)


class DiskRoom:
    """Watches that a long file does not fill the disk; others write to it as well.

    Args:
        folder: Where it is written.

    Attributes:
        folder: Where the file is written.
        free: Bytes that were free when the disk was last asked, every few MiB.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = folder
        self._left = 0  # may be written before the disk is asked again
        self.free = 0

    def has(self, size: int) -> bool:
        """True when so many more bytes may be written, which are counted as written then."""
        if size > self._left:
            self.free = free_room(self.folder)
            self._left = min(self.free, max(size, _ASK_EVERY_BYTES))
        if size > self._left:
            return False
        self._left -= size
        return True
