"""Every kind of input, one row each: its name and how its seed is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fuzz.dump_kinds import dump_seeds
from fuzz.file_kinds import file_seeds
from fuzz.heap_kinds import HEAP_SEEDS
from fuzz.seeds import Seed


def all_kinds(folder: Path) -> dict[str, Callable[[], Seed]]:
    """Kinds by name; what they write goes into the folder."""
    return {**HEAP_SEEDS, **dump_seeds(folder), **file_seeds(folder)}
