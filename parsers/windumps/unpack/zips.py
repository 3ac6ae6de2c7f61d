"""Zip archives, whose list of files zipfile reads as long as the archive says it is."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from typing import BinaryIO

READ_BYTES = 4 << 20  # at once: enough for a list of 50,000 files


class TooLongListError(Exception):
    """The archive may be good, and lists more files than are looked at."""


class _Bounded(BufferedReader):
    """A file that gives bounded pieces only."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file."""
        if size is not None and size > READ_BYTES:
            raise TooLongListError("its list of files is too long")
        return super().read(size)


@contextmanager
def open_zip(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Opens a zip archive, in bounded memory.

    Args:
        file: A file on a disk; it stays open.

    Raises:
        TooLongListError: it lists too many files.
        BadZipFile: and what else zipfile raises on damaged archives.
    """
    with (
        _Bounded(FileIO(file.fileno(), closefd=False)) as bounded,
        zipfile.ZipFile(bounded) as archive,
    ):
        yield archive
