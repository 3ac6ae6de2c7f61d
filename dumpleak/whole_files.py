"""Files that are complete or not there at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Where to write what `path` is to hold; it is put in place when the block ends well.

    A link stays a link. A device or pipe is written to as it is: put in its place, a file would take
    `/dev/null` from the whole system.

    Args:
        path: Where to.

    Raises:
        OSError: the file cannot be put in place.
    """
    place = Path(path)
    if place.exists() and not place.is_file():
        yield place
        return
    target = place.resolve()
    partial = target.with_name(target.name + ".partial")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
