"""Files wherever they are: on a disk, or in any store that fsspec knows."""

from __future__ import annotations

import glob
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from dumpleak.model.optional_libraries import missing_extra
from windumps.errors import WindumpsError
from windumps.files import open_file

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::|://)")  # C:\ is none
_FILE_URL = re.compile(r"(?:file|local)://")
_WILDCARDS = set("*?[")
# Of what a store tells of a file, what changes when the file does.
_STAMPS = (
    "ETag",
    "etag",
    "md5",
    "content_md5",
    "mtime",
    "LastModified",
    "last_modified",
    "created",
)
# Each library of a store has its own errors, which have nothing in common.
_ERRORS_OF_STORES = (
    ("aiohttp", "ClientError"),
    ("azure.core.exceptions", "AzureError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("paramiko.ssh_exception", "SSHException"),
)
MEMBER = "!"  # between an archive and a file in it


class PlaceError(WindumpsError):
    """A place that a user named cannot be looked into."""


class NoSuchPlaceError(PlaceError):
    """There is nothing where a user said."""


@dataclass(frozen=True)
class Place:
    """A file that may be an input.

    Attributes:
        url: Where; a path from the root for files on a disk. `ARCHIVE!MEMBER` for files in archives.
        bytes: Its size.
        stamp: Changes when the content does.
        named: The user named it, and not only a folder it is in.
        error: Why it, or the folder of that name, cannot be looked at; "" when it can.
    """

    url: str
    bytes: int = 0
    stamp: str = ""
    named: bool = False
    error: str = ""


def is_url(word: str) -> bool:
    """True for what fsspec opens."""
    return bool(_URL.match(word)) and not _FILE_URL.match(word)


def local_path(word: str) -> str:
    """A path from the root, of a path or a `file://`."""
    return os.path.abspath(_FILE_URL.sub("", word))


def places(word: str, is_left_out: Callable[[str], bool]) -> Iterator[Place]:
    """The files that a path, a glob or a URL means, in order of their names in each folder.

    Args:
        word: What the user named.
        is_left_out: True for folders on a disk that are not looked into.

    Raises:
        NoSuchPlaceError: there is nothing of that name.
        PlaceError: the store cannot be reached.
        MissingExtraError: fsspec is not installed.
    """
    if is_url(word):
        yield from _in_store(word)
        return
    path = local_path(word)
    if os.path.lexists(path):
        yield from _on_disk(path, is_left_out)
    elif _WILDCARDS & set(path):
        for found in sorted(glob.iglob(path, recursive=True)):
            yield from _on_disk(found, is_left_out)
    else:
        raise NoSuchPlaceError(f"{word}: no such file or folder")


def _on_disk(path: str, is_left_out: Callable[[str], bool]) -> Iterator[Place]:
    if not os.path.isdir(path):
        yield _file(path, named=True)
    elif not is_left_out(path):
        yield from _folder(path, is_left_out)


def _file(path: str, *, named: bool) -> Place:
    try:
        about = os.stat(path)
    except OSError as error:
        return Place(path, named=named, error=f"{path}: {error.strerror}")
    return Place(path, about.st_size, str(about.st_mtime_ns), named)


def _folder(top: str, is_left_out: Callable[[str], bool]) -> Iterator[Place]:
    """Files of a folder and those in it; links to folders are not followed, so that nothing goes round."""
    todo = [top]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield Place(folder, named=True, error=f"{folder}: {error.strerror}")
            continue
        for entry in found:
            if _may_be_file(entry):
                yield _file(entry.path, named=False)
        todo += [
            entry.path
            for entry in reversed(found)
            if entry.is_dir(follow_symlinks=False) and not is_left_out(entry.path)
        ]


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    """False for folders, pipes and devices; a link that leads to nothing is a file that cannot be read."""
    try:
        about = entry.stat()
    except OSError:
        return True
    return stat.S_ISREG(about.st_mode)


def filesystem(url: str) -> tuple[Any, str]:
    """The store that a URL is of, and the path in it.

    Raises:
        MissingExtraError: fsspec is not installed.
        PlaceError: it, or the library for such a store, does not do.
    """
    try:
        import fsspec
    except ImportError as error:
        raise missing_extra("URLs", "fsspec", "fleet") from error
    with _reached(url):
        fs, path = fsspec.core.url_to_fs(url)
    return fs, path


def _store_errors() -> tuple[type[BaseException], ...]:
    """What says that a store cannot be used: of Python, and of the libraries that are loaded."""
    modules = ((sys.modules.get(module), name) for module, name in _ERRORS_OF_STORES)
    found = [getattr(module, name, None) for module, name in modules]
    own = [each for each in found if isinstance(each, type) and issubclass(each, Exception)]
    return (OSError, ValueError, ImportError, RuntimeError, *own)


@contextmanager
def _reached(url: str) -> Iterator[None]:
    """Says in one line why a store cannot be used."""
    try:
        yield
    except WindumpsError:
        raise
    except _store_errors() as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise PlaceError(f"{url}: {text}") from error


def _in_store(url: str) -> Iterator[Place]:
    fs, path = filesystem(url)
    with _reached(url):
        fs.invalidate_cache()
        if _WILDCARDS & set(path):
            found = fs.glob(path, detail=True)
        else:
            about = fs.info(path)
            is_folder = about["type"] == "directory"
            found = fs.find(path, detail=True) if is_folder else {path: about}
    is_named = not _WILDCARDS & set(path) and list(found) == [path]
    for name in sorted(found):
        about = found[name]
        where = fs.unstrip_protocol(name)
        if about["type"] == "directory":
            yield from _in_store(where)
        elif not name.endswith("/"):
            yield Place(where, about["size"] or 0, _stamp(about), is_named)


def _stamp(about: dict[str, Any]) -> str:
    return next((str(about[key]) for key in _STAMPS if about.get(key)), "")


@contextmanager
def opened(url: str) -> Iterator[IO[bytes]]:
    """A file for reading, wherever it is.

    Raises:
        OSError: it cannot be read.
        PlaceError: the store cannot be reached.
    """
    if not is_url(url):
        with open_file(url) as file:
            yield file
        return
    fs, path = filesystem(url)
    with _reached(url):
        stream = fs.open(path, "rb")
    with stream:
        yield stream
