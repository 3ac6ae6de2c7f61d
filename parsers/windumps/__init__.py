"""windumps: what is in a Windows dump file. Readers are loaded when one is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from windumps.dump import Dump, Thread
    from windumps.dumps import open_dump

__all__ = ["Dump", "Thread", "open_dump"]

_PLACES = {"Dump": "windumps.dump", "Thread": "windumps.dump", "open_dump": "windumps.dumps"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
