"""dumpleak: finds memory leaks in Windows dump files, offline.

`dumpleak.api` describes the functions here. They are loaded when one is first used: the command line starts
without them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dumpleak.interrupts import watch_start

if TYPE_CHECKING:
    from dumpleak.api import (
        account_table,
        blocks_table,
        compare,
        open_dump,
        sites_table,
        snapshot,
        trend,
    )
    from dumpleak.fleets.call import fleet
    from dumpleak.survey.recording import write_snapshot

__version__ = "0.1.0"
__is_command__ = watch_start()  # for as long as the imports take

__all__ = [
    "__version__",
    "account_table",
    "blocks_table",
    "compare",
    "fleet",
    "open_dump",
    "sites_table",
    "snapshot",
    "trend",
    "write_snapshot",
]

_PLACES = dict.fromkeys(__all__[1:], "dumpleak.api") | {
    "fleet": "dumpleak.fleets.call",
    "write_snapshot": "dumpleak.survey.recording",
}


class _Function:
    """A function of the package. `compare` is the name of a folder, too, whose import does not replace it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, package: object, kind: type | None = None) -> Any:
        return getattr(import_module(_PLACES[self._name]), self._name)

    def __set__(self, package: object, value: object) -> None:
        """Python names a folder here when it is first imported."""


class _Package(ModuleType):
    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_PLACES})


for _name in _PLACES:
    setattr(_Package, _name, _Function(_name))
sys.modules[__name__].__class__ = _Package
