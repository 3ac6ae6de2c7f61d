"""Formats that are not text."""

from __future__ import annotations

from io import TextIOBase
from typing import IO

from windumps.errors import WindumpsError


class NotForTerminalError(WindumpsError):
    """Bytes would go to a terminal or another place for text."""


def binary_stream(stream: IO[str], example: str) -> IO[bytes]:
    """The bytes below a text stream.

    Args:
        stream: A file, or stdout.
        example: Name of a file that the message suggests.

    Raises:
        NotForTerminalError: a terminal shows it, or the stream takes text only.
    """
    if stream.isatty():
        raise NotForTerminalError(
            f"this format is not text and a terminal cannot show it: write it with -o {example}"
        )
    buffer: IO[bytes] | None = getattr(stream, "buffer", None)
    if buffer is None or not isinstance(stream, TextIOBase):
        raise NotForTerminalError(f"this format is not text: write it with -o {example}")
    stream.flush()
    return buffer
