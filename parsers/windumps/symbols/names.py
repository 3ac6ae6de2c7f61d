"""Names of symbols as people write them.

Public symbols carry the compiler's decoration. C++ names lose it, with return type and arguments, through
`windumps.images.demangled`, which is bounded; C functions on x86 lose theirs here. What follows no known
grammar stays as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache

from windumps.images.demangled import demangled_signature

# _name (cdecl), _name@12 (stdcall), @name@8 (fastcall); the number counts bytes of arguments.
_C_DECORATION = re.compile(r"(?:_(?P<name>[^@]+)(?:@\d+)?|@(?P<fast>[^@]+)@\d+)\Z")
_QUALIFIERS = (" const", " volatile", " &", " &&", " noexcept")
_STRING = "??_C@"  # a literal: its name says nothing that people look for
_VFTABLE = re.compile(r"\?\?_7(?P<scope>.+?@@)6B")
# As Microsoft's tools write them, where the package has a shorter word.
_SPECIAL = {
    "scalar deleting dtor": "scalar deleting destructor",
    "vector deleting dtor": "vector deleting destructor",
}


def undecorated(name: str, architecture: str) -> str:
    """The name without the compiler's decoration, or the name itself where it has none that is known."""
    if name.startswith("?"):
        return _cplusplus(name)
    if architecture == "x86" and (match := _C_DECORATION.match(name)):
        return match["name"] or match["fast"]
    return name


@lru_cache(maxsize=4096)
def _cplusplus(name: str) -> str:
    if name.startswith(_STRING):
        return name
    parts = demangled_signature(name)
    if parts is None:
        return name
    if not parts.special:
        return parts.qualified_name or name
    return f"{parts.qualified_name}::`{_SPECIAL.get(parts.special, parts.special)}'"


def vftable_class(name: str) -> str | None:
    """The class whose vftable a decorated symbol is, as run-time type information would name it.

    `??_7Session@net@@6B@` gives `.?AVSession@net@@`; the symbol does not tell a struct from a class. A
    vftable of a base inside the class (`…6BBase@@@`) gives the class, too: it may be the one at its start.
    """
    match = _VFTABLE.match(name)
    return f".?AV{match['scope']}" if match else None


def decorations(name: str, architecture: str) -> tuple[str, ...]:
    """What a plain C name may begin with as a public symbol: the name itself, then x86's forms."""
    return (name, f"_{name}", f"_{name}@", f"@{name}@") if architecture == "x86" else (name,)


def without_arguments(name: str) -> str:
    """`net::Session::send(char const*, int)` -> `net::Session::send`."""
    for qualifier in _QUALIFIERS:
        name = name.removesuffix(qualifier)
    if not name.endswith(")"):
        return name
    depth = 0
    for at in range(len(name) - 1, 0, -1):
        depth += {")": 1, "(": -1}.get(name[at], 0)
        if depth == 0:
            # `operator()` and `(anonymous namespace)` are names, not arguments.
            is_name = name[:at].endswith("operator") or name[at - 1 : at] == ":"
            return name if is_name else name[:at].rstrip()
    return name
