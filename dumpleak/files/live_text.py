"""Text that tools of a live machine write, opened: nothing of it is trusted."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from windumps.files import read_head, regular_only

LINE_LIMIT = 0x4000
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_UTF8 = b"\xef\xbb\xbf"


def encoding_of(head: bytes, plain: str) -> str:
    """The encoding that the mark at the beginning of a file tells; `plain` without one."""
    if head[:2] in _UTF16:
        return "utf-16"
    return "utf-8-sig" if head[:3] == _UTF8 else plain


def decoded(head: bytes, plain: str = "latin-1") -> str:
    """The beginning of a file as text."""
    return head.decode(encoding_of(head, plain), "replace")


def fields_of(line: str, delimiter: str = ",") -> list[str] | None:
    """The fields of one line of a CSV; None where quotes are left open."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), None)
    except csv.Error:
        return None


def lines_of(path: Path | str, plain: str = "latin-1", limit: int = LINE_LIMIT) -> Iterator[str]:
    """The lines of a file without their ends; what is longer than the limit comes in pieces.

    Args:
        path: The file.
        plain: Encoding of a file without a mark. As Latin-1 each byte is a character of its own.
        limit: Characters.

    Raises:
        OSError: it cannot be read.
    """
    encoding = encoding_of(read_head(path, 3), plain)
    with open(path, encoding=encoding, errors="replace", opener=regular_only) as text:
        for line in iter(lambda: text.readline(limit), ""):
            yield line.rstrip("\n")
