"""The keys and names that the sites of one snapshot have once images and heaps are called otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

from dumpleak.compare.renaming import renamed
from dumpleak.model.holding import Holding
from dumpleak.model.sites import Place, Site, SiteKind, image_identity, stack_key
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.stripping import hashed_key
from windumps.diagnostics import Diagnostic, Severity
from windumps.images.modules import Module

_LABEL = re.compile(r"\b(?:(?:x86|x64|arm64) )?heap \d+\b")
_SHAPE_NAME = re.compile(r"(?:\d+ bytes|unknown size) in [^()]+ \([^()]*\)")
_LEADS_TO = " -> "
_STRUCTURE = "comparison"


class Image(NamedTuple):
    """What keys and names call an image: its file name in small letters, and its identity."""

    name: str
    identity: str


def image_of(module: Module) -> Image:
    """What a module's sites call it."""
    return Image(module.name.lower(), image_identity(module))


class SiteRenamer:
    """Gives the sites of one snapshot the keys and names that all snapshots have.

    Args:
        snapshot: The snapshot.
        images: What its images are called from now on.
        labels: What its heaps are called from now on.
        known: By identity, the images that some snapshot calls otherwise.
        shapes_anew: Keys of shapes are to be made of names.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        images: Mapping[Image, Image],
        labels: Mapping[str, str],
        known: Mapping[str, Module],
        *,
        shapes_anew: bool,
    ) -> None:
        self._snapshot = snapshot
        self._images = images
        self._labels = labels
        self._known = known
        self._shapes_anew = shapes_anew
        names: dict[str, set[str]] = {}
        of_all = [image_of(m) for m in snapshot.modules]
        for image in (*of_all, *images):
            names.setdefault(image.name, set()).add(images.get(image, image).name)
        self._names = {
            old: new
            for old, (new, *others) in ((old, tuple(new)) for old, new in names.items())
            if new != old and not others
        }

    def renamed(self) -> Snapshot:
        """The snapshot as it is called from now on."""
        snapshot = self._snapshot
        anew = snapshot.stripped and (self._known or self._shapes_anew)
        if not (self._images or self._labels or anew):
            return snapshot
        sites = {}
        for key, (site, _) in snapshot.groups.items():
            new = self._site(site)
            if new is not site:
                sites[key] = new
        snapshot = renamed(snapshot, sites)
        if self._images:
            program = snapshot.source.program
            known_as = self._names.get(program.lower(), program)
            snapshot = replace(
                snapshot,
                modules=tuple(self._module(module) for module in snapshot.modules),
                source=replace(snapshot.source, program=known_as),
            )
        if self._labels:
            find = snapshot.holders
            snapshot = replace(
                snapshot,
                heaps=[replace(row, label=self._relabelled(row.label)) for row in snapshot.heaps],
                holders=None if find is None else self._relabelled_holders(find),
                diagnostics=[
                    replace(item, message=self._relabelled(item.message))
                    for item in snapshot.diagnostics
                ],
            )
        said = [*self._heaps_said(), *self._images_said()]
        return replace(snapshot, diagnostics=[*snapshot.diagnostics, *said]) if said else snapshot

    def _relabelled_holders(
        self, find: Callable[[Collection[str]], dict[str, Holding]]
    ) -> Callable[[Collection[str]], dict[str, Holding]]:
        return lambda keys: {
            key: replace(
                holding,
                holder=self._relabelled(holding.holder),
                fields=tuple(self._relabelled(text) for text in holding.fields),
            )
            for key, holding in find(keys).items()
        }

    def _heaps_said(self) -> list[Diagnostic]:
        return [
            Diagnostic(
                "heap-moved",
                Severity.INFO,
                _STRUCTURE,
                row.address,
                f"{row.label} of this dump is called {self._labels[row.label]} here: in one process life "
                "the handle says which heap it is, not its place in the list",
            )
            for row in self._snapshot.heaps
            if row.label in self._labels
        ]

    def _images_said(self) -> list[Diagnostic]:
        return [
            Diagnostic(
                "build-matched",
                Severity.INFO,
                _STRUCTURE,
                None,
                f"{new.name} is taken for one build: all that both dumps say of it agrees",
            )
            for old, new in self._images.items()
            if old.identity != new.identity
        ]

    def _relabelled(self, text: str) -> str:
        return _LABEL.sub(lambda match: self._labels.get(match[0], match[0]), text)

    def _module(self, module: Module) -> Module:
        new = self._images.get(image_of(module))
        if new is None:
            return module
        known = self._known.get(new.identity, module)
        return replace(module, name=new.name, pdb=known.pdb, timestamp=known.timestamp)

    def _place(self, place: Place) -> Place:
        new = self._images.get(Image(place.module, place.image))
        return place if new is None else place._replace(module=new.name, image=new.identity)

    def _site(self, site: Site) -> Site:
        """The site as it is called from now on; the very same one where nothing changes."""
        places = tuple(self._place(place) for place in site.places)
        key = self._key(site, places)
        if key == site.key:
            return site
        name, frames = site.name, site.frames
        if places != site.places:
            name, frames = self._shown(name), tuple(self._shown(frame) for frame in frames)
        elif site.kind is SiteKind.SHAPE and _LEADS_TO in name:
            head, arrow, image = name.rpartition(_LEADS_TO)
            name = f"{head}{arrow}{self._names.get(image.lower(), image)}"
        if site.kind in (SiteKind.SHAPE, SiteKind.GROUP) and self._labels:
            name = self._relabelled(name)
        if site.kind is SiteKind.GROUP and key.startswith("module|"):
            name = self._names.get(name.lower(), name)
        return replace(site, key=key, name=name, frames=frames, places=places)

    def _shown(self, frame: str) -> str:
        """A frame, or a name made of one, with the image's new name."""
        head, mark, rest = frame.partition("!") if "!" in frame else frame.rpartition("+0x")
        prefix, space, module = head.rpartition(" ")
        new = self._names.get(module.lower(), module)
        return f"{prefix}{space}{new}{mark}{rest}"

    def _key(self, site: Site, places: tuple[Place, ...]) -> str:
        match site.kind:
            case SiteKind.STACK if places != site.places:
                return _replaced(site.key, _stack(site.places), _stack(places))
            case SiteKind.TYPE if places:
                new = _vftable(places[0])
                if self._snapshot.stripped and places[0].image in self._known:
                    return hashed_key(new)
                return _replaced(site.key, _vftable(site.places[0]), new)
            case SiteKind.TYPE if self._names:
                kind, module, *rest = site.key.split("|", 2)
                return "|".join((kind, self._names.get(module, module), *rest))
            case SiteKind.SHAPE:
                return self._shape_key(site)
            case SiteKind.GROUP if site.key.startswith("module|"):
                name = self._names.get(site.name.lower())
                return f"module|{name}" if name else site.key
            case SiteKind.GROUP if site.key.startswith("heap|") and self._labels:
                old = f"heap|{site.name}".lower()
                return _replaced(site.key, old, self._relabelled(old))
        return site.key

    def _shape_key(self, site: Site) -> str:
        if self._shapes_anew:
            head = _SHAPE_NAME.match(site.name)
            image = site.name.rpartition(_LEADS_TO)[2] if _LEADS_TO in site.name else ""
            return (
                hashed_key(f"{site.kind}|{self._relabelled(head[0])}|{image}") if head else site.key
            )
        parts = site.key.split("|")
        if len(parts) != 5 or not (self._labels or self._names):
            return site.key
        kind, label, heap_kind, size, image = parts
        label, image = self._labels.get(label, label), self._names.get(image, image)
        return "|".join((kind, label, heap_kind, size, image))


def _stack(places: tuple[Place, ...]) -> str:
    """The key of a stack, see `stack_site`."""
    return stack_key(f"{p.image}+{p.rva:x}" if p.module else p.image for p in places)


def _vftable(place: Place) -> str:
    """The key of a class that is known by its vftable's place, see `vftable_site`."""
    identity = place.image.rpartition(":")[2]
    return f"{SiteKind.TYPE}|{place.module}|{identity}+{place.rva:x}"


def _replaced(key: str, old: str, new: str) -> str:
    """A key that is made of `old`, or is its hash, made of `new`; any other one as it is."""
    if key == old:
        return new
    return hashed_key(new) if key == hashed_key(old) else key
