"""The symbol path: the syntax of `_NT_SYMBOL_PATH`, taken apart.

Syntax: Microsoft's "Symbol path for Windows debuggers" and "Advanced SymSrv Use". Elements stand
between semicolons:

- `FOLDER`: PDBs by name, or a symbol store; both are tried.
- `srv*STORE`, `srv*CACHE*STORE`, `srv*CACHE1*CACHE2*URL`: symbol stores, the nearest first; an empty
  one (`srv**URL`) is the default cache.
- `symsrv*symsrv.dll*CACHE*URL`: the older form of the same.
- `cache*FOLDER`: a cache for everything behind it.

Nothing is ever downloaded from a server that the path does not name: `srv*` alone, which debuggers
take for Microsoft's server, names none.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from windumps.symbols.errors import SymbolPathError

ENVIRONMENT = "_NT_SYMBOL_PATH"
_URL = re.compile(r"https?://[^\s/]+(/\S*)?\Z", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
MAX_ELEMENTS = 256


@dataclass(frozen=True)
class SearchElement:
    """One place to look.

    Attributes:
        stores: Folders laid out as symbol stores, in the order they are asked; the first takes what
            is downloaded.
        folder: A folder of PDBs by name, or None.
        url: A symbol server without a slash at the end, or "".
    """

    stores: tuple[Path, ...] = ()
    folder: Path | None = None
    url: str = ""


def default_cache() -> Path:
    """Where downloads go when the path names no folder: the user's cache folder."""
    for variable in ("LOCALAPPDATA", "XDG_CACHE_HOME"):
        if os.environ.get(variable):
            return Path(os.environ[variable]) / "windumps" / "symbols"
    return Path.home() / ".cache" / "windumps" / "symbols"


def parse_symbol_path(text: str) -> list[SearchElement]:
    """Takes a symbol path apart; the same place twice is kept once.

    Args:
        text: The path; several may be joined with semicolons.

    Raises:
        SymbolPathError: an element that means nothing.
    """
    elements: list[SearchElement] = []
    caches: tuple[Path, ...] = ()
    parts = text.split(";")
    if len(parts) > MAX_ELEMENTS:
        raise SymbolPathError(f"the symbol path has more than {MAX_ELEMENTS} elements")
    for part in parts:
        element = part.strip().strip('"').strip()
        if not element:
            continue
        keyword, *rest = (piece.strip() for piece in element.split("*"))
        if not rest:
            elements.append(_plain(element, caches))
        elif keyword.lower() == "cache":
            caches = (_folder(rest[0]) if rest[0] else default_cache(), *caches)
            elements.append(SearchElement(stores=caches[:1]))
        elif keyword.lower() == "srv":
            elements.append(_server(element, rest, caches))
        elif keyword.lower() == "symsrv":
            # The first piece names a DLL that speaks the protocol; this code is in its place.
            elements.append(_server(element, rest[1:], caches))
        else:
            raise SymbolPathError(
                f"symbol path element {element!r}: {keyword!r} is unknown; known are "
                "srv*CACHE*URL, cache*FOLDER and plain folders"
            )
    return list(dict.fromkeys(e for e in elements if e != SearchElement()))


def _plain(text: str, caches: tuple[Path, ...]) -> SearchElement:
    if _URL.match(text):
        return SearchElement(caches or (default_cache(),), url=text.rstrip("/"))
    return SearchElement(caches, folder=_folder(text))


def _server(element: str, pieces: list[str], caches: tuple[Path, ...]) -> SearchElement:
    *stores, last = pieces or [""]
    url = last.rstrip("/") if _URL.match(last) else ""
    if not url and last:
        stores.append(last)
    if any(_URL.match(store) for store in stores):
        raise SymbolPathError(
            f"symbol path element {element!r}: a server must come last, caches before it"
        )
    folders = [_folder(store) if store else default_cache() for store in stores]
    if url and not folders and not caches:
        folders = [default_cache()]
    return SearchElement((*caches, *folders), url=url)


def _folder(text: str) -> Path:
    if _OTHER_SCHEME.match(text):
        raise SymbolPathError(
            f"symbol path element {text!r}: servers are reached by http:// or https:// only"
        )
    return Path(text).expanduser()
