"""Names of symbols as people write them.

Public symbols carry the compiler's decoration. The plain forms are undone here: namespaces, classes,
constructors, operators and vftables, and the decoration of C functions on x86. A name whose scope is
a template or a local scope stays as it is: half an answer would be a wrong name.
"""

from __future__ import annotations

import re

MAX_NAME = 4096

# Special names behind "?"; "{}" is the class.
_SPECIAL = {
    "0": "{}",
    "1": "~{}",
    "2": "operator new",
    "3": "operator delete",
    "4": "operator=",
    "5": "operator>>",
    "6": "operator<<",
    "7": "operator!",
    "8": "operator==",
    "9": "operator!=",
    "A": "operator[]",
    "C": "operator->",
    "D": "operator*",
    "E": "operator++",
    "F": "operator--",
    "G": "operator-",
    "H": "operator+",
    "I": "operator&",
    "K": "operator/",
    "M": "operator<",
    "N": "operator<=",
    "O": "operator>",
    "P": "operator>=",
    "R": "operator()",
    "Y": "operator+=",
    "Z": "operator-=",
    "_7": "`vftable'",
    "_8": "`vbtable'",
    "_E": "`vector deleting destructor'",
    "_G": "`scalar deleting destructor'",
    "_R4": "`RTTI Complete Object Locator'",
    "_U": "operator new[]",
    "_V": "operator delete[]",
}
_PLAIN = re.compile(r"[A-Za-z_$][\w$]*\Z")
# _name (cdecl), _name@12 (stdcall), @name@8 (fastcall); the number counts bytes of arguments.
_C_DECORATION = re.compile(r"(?:_(?P<name>[^@]+)(?:@\d+)?|@(?P<fast>[^@]+)@\d+)\Z")
_QUALIFIERS = (" const", " volatile", " &", " &&", " noexcept")


def undecorated(name: str, architecture: str) -> str:
    """The name without the compiler's decoration, or the name itself where it is not a plain one."""
    if name.startswith("?"):
        return _cplusplus(name) or name
    if architecture == "x86" and (match := _C_DECORATION.match(name)):
        return match["name"] or match["fast"]
    return name


def _cplusplus(name: str) -> str | None:
    if len(name) > MAX_NAME:
        return None
    at, special = 1, None
    if name.startswith("??"):
        at = 2
        for length in (3, 2, 1):
            special = _SPECIAL.get(name[at : at + length])
            if special is not None:
                at += length
                break
        else:
            return None
    scopes = _scopes(name, at)
    if scopes is None or not (scopes or special):
        return None
    if special is not None and "{}" in special:
        if not scopes:
            return None
        special = special.replace("{}", scopes[-1])
    return "::".join([*scopes, special] if special is not None else scopes)


def _scopes(name: str, at: int) -> list[str] | None:
    """The name and its scopes, outermost first; None when one is not plain."""
    found: list[str] = []
    while at < len(name) and name[at] != "@":
        if name[at].isdigit():  # refers back to one already named
            index = int(name[at])
            if index >= len(found):
                return None
            found.append(found[index])
            at += 1
            continue
        end = name.find("@", at)
        if end < 0:
            return None
        part = name[at:end]
        if part.startswith("?A"):
            part = "`anonymous namespace'"
        elif not _PLAIN.match(part):
            return None
        found.append(part)
        at = end + 1
    return found[::-1] if at < len(name) else None


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
