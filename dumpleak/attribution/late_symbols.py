"""Names the sites of a snapshot file by symbols that were not there when it was made.

A snapshot is often taken on a machine without PDBs. It keeps the image and the offset of each frame, which is
all that symbols need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from dumpleak.attribution.stack import SKIPPED, Frame, FrameNamer, stack_site
from dumpleak.model.block_table import BlockTable
from dumpleak.model.sites import Place, Site, SiteKind, image_identity
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals
from dumpleak.symbols.dump_symbols import DumpSymbols
from windumps.images.modules import Module
from windumps.images.type_names import class_name
from windumps.process.stack_traces import CodeMap

if TYPE_CHECKING:
    from windumps.symbols.provider import Symbols


def with_symbols(
    snapshot: Snapshot, symbols: Symbols | None, skip_frames: tuple[str, ...] = ()
) -> Snapshot:
    """The snapshot as if the dump had been read with these symbols, as far as it tells.

    Args:
        snapshot: Read from a file.
        symbols: Where names come from; None for those that it has.
        skip_frames: See `Session.skip_frames`.
    """
    if (symbols is None and not skip_frames) or not snapshot.modules:
        return snapshot
    late = DumpSymbols(symbols) if symbols is not None else None
    namer = _SiteNamer(snapshot, late, skip_frames)
    groups: dict[str, tuple[Site, Totals]] = {}
    new_keys: dict[str, str] = {}
    for key, (old, totals) in snapshot.groups.items():
        site = namer.named(old)
        new_keys[key] = site.key
        known = groups.get(site.key)
        groups[site.key] = (known[0], known[1] + totals) if known else (site, totals)
    return replace(
        snapshot,
        groups=groups,
        blocks=_renamed(snapshot.blocks, new_keys) if snapshot.blocks else None,
        diagnostics=[*snapshot.diagnostics, *(late.diagnostics if late is not None else [])],
    )


def _renamed(blocks: Callable[[], BlockTable], keys: dict[str, str]) -> Callable[[], BlockTable]:
    def read() -> BlockTable:
        table = blocks()
        return replace(table, keys=tuple(keys.get(key, key) for key in table.keys))

    return read


class _SiteNamer:
    def __init__(
        self, snapshot: Snapshot, symbols: DumpSymbols | None, skip_frames: tuple[str, ...]
    ) -> None:
        self._symbols = symbols
        self._cut = snapshot.grouping == "stack"
        self._width = 4 if snapshot.source.architecture == "x86" else 8
        self._modules = {(m.name.lower(), image_identity(m)): m for m in snapshot.modules}
        self._namer = FrameNamer(CodeMap([], []), skip_frames=skip_frames)

    def named(self, site: Site) -> Site:
        if site.kind is SiteKind.STACK and len(site.places) == len(site.frames) > 0:
            return self._stack(site)
        if site.kind is SiteKind.TYPE and site.type is None and len(site.places) == 1:
            return self._vftable(site)
        return site

    def _module(self, place: Place) -> Module | None:
        return self._modules.get((place.module, place.image))

    def _stack(self, site: Site) -> Site:
        lines = site.lines or ("",) * len(site.frames)
        frames = [
            self._frame(text, place, line)
            for text, place, line in zip(site.frames, site.places, lines, strict=True)
        ]
        named = stack_site(frames, cut=self._cut)
        return replace(
            site,
            key=named.key if self._cut else site.key,
            name=named.name,
            frames=named.frames,
            lines=named.lines,
            places=named.places,
        )

    def _frame(self, text: str, place: Place, line: str) -> Frame:
        key = f"{place.image}+{place.rva:x}"
        module = self._module(place)
        if not place.module:
            return Frame(text, place.image, SKIPPED, place, line)
        if module is None:
            return Frame(text, key, SKIPPED if place.skipped else 0, place, line)
        found = None
        if self._symbols is not None and not place.function:
            found = self._symbols.frame(module, place.rva)
        if found is not None:
            text = f"{module.name}!{found}"
            line = f"{found.file}({found.line})" if found.line else ""
            place = place._replace(function=found.function)
        skipped = self._namer.skips(module.name, place.function)
        return Frame(text, key, skipped, place._replace(skipped=skipped > 0), line)

    def _vftable(self, site: Site) -> Site:
        (place,) = site.places
        module = self._module(place)
        if module is None or self._symbols is None:
            return site
        mangled = self._symbols.vftable_class(module, place.rva, self._width)
        if mangled is None:
            return site
        name = class_name(mangled)
        place = place._replace(function=f"{name}::`vftable'")
        return replace(site, name=name, type=name, places=(place,))
