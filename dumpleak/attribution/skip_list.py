"""The skip list people add to: which frames of a stack are some allocator's of their own.

A list is a text file, one pattern a line; empty lines and lines that begin with `#` are left out:

    # our pools
    engine!PoolAllocator::*
    *!*::operator new*
    legacyheap!*
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dumpleak.attribution.stack import module_stem
from windumps.files import read_head

MAX_LIST_BYTES = 1 << 20
MAX_PATTERNS = 10_000
MAX_SHOWN = 60  # characters of a line, in a message


def skip_patterns(values: Iterable[str]) -> tuple[str, ...]:
    """Patterns as `Session.skip_frames` holds them.

    Args:
        values: Patterns, `module!function` with the wildcards `*`, `?` and `[...]`, in any case;
            or names of files that hold some.

    Raises:
        ValueError: a value is neither; says which, and what can be written.
        OSError: a file cannot be read.
    """
    found: list[str] = []
    for value in values:
        if os.path.exists(value):
            found += _read(Path(value))
        elif "!" in value:
            found.append(_pattern(value, value))
        else:
            raise ValueError(
                f"{value!r} is neither a file nor a pattern; write module!function, for example "
                "engine!PoolAllocator::* or *!my_malloc"
            )
    if len(found) > MAX_PATTERNS:
        raise ValueError(f"{len(found)} patterns; at most {MAX_PATTERNS} can be used")
    return tuple(dict.fromkeys(found))


def _read(path: Path) -> list[str]:
    raw = read_head(path, MAX_LIST_BYTES + 1)
    if len(raw) > MAX_LIST_BYTES:
        raise ValueError(f"{path}: a list of frames to skip has at most {MAX_LIST_BYTES} bytes")
    lines = (line.strip() for line in raw.decode("utf-8-sig", "replace").splitlines())
    return [
        _pattern(line, f"{path}: {line[:MAX_SHOWN]!r}") for line in lines if line and line[0] != "#"
    ]


def _pattern(text: str, place: str) -> str:
    module, mark, function = text.strip().partition("!")
    if not mark or not module or not function:
        raise ValueError(f"{place}: write module!function, for example engine!PoolAllocator::*")
    return f"{module_stem(module)}!{function}"
