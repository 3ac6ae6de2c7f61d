"""Functions whose modules are loaded when they are called first, so that a command loads what it needs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def later(module: str, name: str) -> Callable[..., Any]:
    """A function that stands for another one, whose module is loaded when it is called first.

    Args:
        module: The whole name of the module.
        name: The function's name in it.
    """

    def call(*given: Any, **named: Any) -> Any:
        return getattr(import_module(module), name)(*given, **named)

    call.__name__ = name
    return call
