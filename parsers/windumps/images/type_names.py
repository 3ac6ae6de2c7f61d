"""C++ class names as people write them, from the mangled names that run-time type information keeps."""

from __future__ import annotations

from functools import lru_cache

from windumps.images.demangled import demangled_type

MSVC_PREFIXES = (".?AV", ".?AU")  # class, struct


@lru_cache(maxsize=1024)
def class_name(mangled: str) -> str:
    """The readable name: `app::Cache<app::Node>` for `.?AV?$Cache@VNode@app@@@app@@`.

    Args:
        mangled: `type_descriptor.name` as MSVC writes it (it starts with `.?A`), else
            `type_info.name()` of the Itanium C++ ABI.

    Returns:
        The name; `mangled` itself where it follows neither grammar or goes past a limit.
    """
    language = "msvc" if mangled.startswith(MSVC_PREFIXES) else "itanium"
    return demangled_type(mangled.removeprefix("."), language) or mangled
