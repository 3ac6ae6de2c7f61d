"""C++ class names as people write them, from the mangled names that run-time type information keeps.

The `demangle` package reads both manglings. It is bounded (depth, output, substitutions), which
matters here: a mangled name of a few hundred bytes from a damaged or hostile dump can stand for
gigabytes of text, and the common native demanglers would write them.
"""

from __future__ import annotations

from functools import lru_cache

from demangle import DemanglingError, Limits, demangle_type, style

MSVC_PREFIXES = (".?AV", ".?AU")  # class, struct
_LIMITS = Limits(max_depth=64, max_output=4096, max_substitutions=512, max_input=4096)
_STYLE = style("llvm", msvc={"tag_kind": False})  # "Cache<Node>", not "class Cache<class Node>"


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
    try:
        # The dot is not part of the mangling: it marks a type's name among other decorated names.
        return demangle_type(
            mangled.removeprefix("."), language=language, style=_STYLE, limits=_LIMITS
        )
    except DemanglingError:
        return mangled
