"""Folders whose names may differ in case, as Windows does not mind and others do."""

from __future__ import annotations

import os
from pathlib import Path

from windumps.files import read_head

MAX_POINTER_BYTES = 4096


def child(folder: Path, name: str) -> Path | None:
    """The entry of that name, exactly or else in another case; None when there is none."""
    exact = folder / name
    if os.path.lexists(exact):
        return exact
    lower = name.lower()
    try:
        with os.scandir(folder) as entries:
            return next((folder / e.name for e in entries if e.name.lower() == lower), None)
    except OSError:
        return None


def descend(folder: Path, *names: str) -> Path | None:
    """`child` over several levels; empty names are skipped."""
    path: Path | None = folder
    for name in names:
        if path is not None and name:
            path = child(path, name)
    return path


def pointed_to(pointer: Path, notes: list[str]) -> Path | None:
    """The file that a store's `file.ptr` names; else None and why in `notes`.

    It holds `PATH:` and a path, or `MSG:` and a text for people.
    """
    try:
        text = read_head(pointer, MAX_POINTER_BYTES).decode("utf-8", "replace").strip()
    except OSError as error:
        notes.append(str(error))
        return None
    kind, _, rest = text.partition(":")
    if kind.upper() != "PATH":
        notes.append(f"{pointer}: {' '.join(text.split())[:200]}")
        return None
    target = Path(rest.strip())
    if not target.is_file():
        notes.append(f"{pointer}: points to {target}, which is not there")
        return None
    return target
