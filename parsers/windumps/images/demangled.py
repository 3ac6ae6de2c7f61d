"""The `demangle` package as it is used here; it is loaded with the first name.

It reads the manglings of MSVC and of the Itanium C++ ABI. It is bounded (depth, output, substitutions), which
matters: a mangled name of a few hundred bytes from a damaged or hostile file can stand for gigabytes of text,
and the common native demanglers would write them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from demangle import Signature


def demangled_type(mangled: str, language: str) -> str | None:
    """The name of a type, "Cache<Node>"; None where it follows no grammar or goes past a limit.

    Args:
        mangled: Without the dot that marks a type's name among other decorated names.
        language: "msvc" or "itanium".
    """
    from demangle import DemanglingError, demangle_type

    try:
        return demangle_type(mangled, language=language, **_settings()._asdict())
    except DemanglingError:
        return None


def demangled_signature(name: str) -> Signature | None:
    """The parts of a symbol's name as MSVC decorates it; None as for types."""
    from demangle import DemanglingError, signature

    try:
        return signature(name, language="msvc", **_settings()._asdict())
    except DemanglingError:
        return None


class _Settings(NamedTuple):
    style: Any
    limits: Any


@cache
def _settings() -> _Settings:
    from demangle import Limits, style

    return _Settings(
        style("llvm", msvc={"tag_kind": False}),  # "Cache<Node>", not "class Cache<class Node>"
        Limits(max_depth=64, max_output=4096, max_substitutions=512, max_input=4096),
    )
