"""Sites by type: the class of the object that a block is, as its vftable tells.

A key holds the module's name and the mangled name of the class: neither changes when the module is
loaded elsewhere or built anew, and classes of the same name in two modules are two classes. A
vftable without type information is known by its place in one build of the module; where the module's
PDB has a symbol for it, that names the class, and the key stays the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.contents import NO_TEXT, TEXT_BYTES, text_kind
from dumpleak.attribution.table import SiteTable
from dumpleak.model.sites import Place, Site, SiteKind, image_identity
from dumpleak.process.session import HeapSource, Session
from windumps.blocks import Blocks, State
from windumps.images.rtti import Vftable, VftableResolver
from windumps.images.type_names import class_name


class TypeAttributor:
    """Names blocks that are C++ objects by their class, whatever heap they lie in."""

    def __init__(self, session: Session, table: SiteTable) -> None:
        self._session = session
        self._table = table
        # By architecture, since a WoW64 process has objects of both; with each vftable's site.
        self._resolvers: dict[str, VftableResolver] = {}
        self._sites: dict[str, NDArray[np.int64]] = {}

    def assign(self, source: HeapSource, blocks: Blocks) -> NDArray[np.int64]:
        """See `Attributor`; blocks that are no objects are left out."""
        view = source.view
        found = np.full(len(blocks), -1, np.int64)
        rows = np.flatnonzero(
            (blocks.counted_bytes >= view.pointer_size) & (blocks.state == State.USED)
        )
        words, _ = view.memory.gather(blocks.address[rows], f"<u{view.pointer_size}")
        resolver = self._resolver(source)
        numbers = resolver.numbers(words.astype(np.uint64, copy=False))
        objects = np.flatnonzero(numbers >= 0)
        if view.pointer_size < TEXT_BYTES:
            objects = objects[~_is_text(source, blocks, rows[objects])]
        found[rows[objects]] = self._site_numbers(view.architecture)[numbers[objects]]
        return found

    def _resolver(self, source: HeapSource) -> VftableResolver:
        view = source.view
        if view.architecture not in self._resolvers:
            self._resolvers[view.architecture] = VftableResolver(
                view.memory, self._session.modules, view.pointer_size, self._session.log
            )
            self._sites[view.architecture] = np.empty(0, np.int64)
        return self._resolvers[view.architecture]

    def _site_numbers(self, architecture: str) -> NDArray[np.int64]:
        """The site of each vftable seen so far."""
        known = self._sites[architecture]
        new = self._resolvers[architecture].vftables[len(known) :]
        if new:
            added = [self._table.index_of(self._site(vftable, architecture)) for vftable in new]
            known = self._sites[architecture] = np.concatenate((known, np.array(added, np.int64)))
        return known

    def _site(self, vftable: Vftable, architecture: str) -> Site:
        mangled, symbols = vftable.class_name, self._session.symbols
        if mangled is None and symbols is not None:
            width = 4 if architecture == "x86" else 8
            mangled = symbols.vftable_class(vftable.module, vftable.rva, width)
        return vftable_site(vftable, mangled or "")


def _is_text(source: HeapSource, blocks: Blocks, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True where four bytes that lead to a vftable on x86 go on as text.

    Images of old programs lie where two characters of UTF-16 lead to. A block of less than eight
    bytes has nothing to tell; it counts as an object.
    """
    octets, _ = source.view.memory.gather(blocks.address[rows], "<u8")
    words = octets.view("<u4").reshape(-1, 2).astype(np.uint64)
    room = blocks.counted_bytes[rows]
    text: NDArray[np.bool_] = text_kind(words, 4, room) != NO_TEXT
    return text & (room >= TEXT_BYTES)


def vftable_site(vftable: Vftable, mangled: str) -> Site:
    """The site of all objects with this vftable.

    Args:
        vftable: Where it is.
        mangled: Name of the class, from its type information or else a symbol; "" when unknown.
    """
    module = vftable.module
    name = class_name(mangled) if mangled else ""
    if vftable.class_name is not None:
        key = f"{SiteKind.TYPE}|{module.name.lower()}|{mangled}"
        return Site(SiteKind.TYPE, key, name, type=name)
    symbol = f"{name}::`vftable'" if name else ""
    return Site(
        SiteKind.TYPE,
        f"{SiteKind.TYPE}|{module.name.lower()}|{module.identity}+{vftable.rva:x}",
        name or f"vftable {module.name}+0x{vftable.rva:x}",
        type=name or None,
        places=(Place(module.name.lower(), image_identity(module), vftable.rva, symbol),),
    )
