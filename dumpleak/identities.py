"""What several dumps call by different names and is one: builds of images, and heaps of one process life.

A key holds what one dump says of an image: PDB identity, else time stamp and size. Another dump may say less
of the same image, because its writer left records out or because the image was unloaded. Images are
therefore matched by whatever two records both say, and keys get the best identity that any dump has.
Records that contradict each other stay different builds.

A heap's place in the process's list names it across process lives. Within one life the handle does: a heap
may be destroyed, and another take its place in the list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from dumpleak.attribution.stack import stack_key
from dumpleak.process_life import Life, same_life
from dumpleak.renaming import renamed
from dumpleak.sites import Place, Site, SiteKind, image_identity
from dumpleak.snapshot import Snapshot
from dumpleak.snapshots.privacy import hashed_key
from windumps.diagnostics import Diagnostic, Severity
from windumps.windows.modules import Module, same_build

MAX_CANDIDATES = 16  # records that one is held against, of one name, time stamp or address
_STAMP = re.compile(r"(?:[^:]*:)?([0-9A-F]{8})([0-9a-f]{1,8})")
_INVENTED = re.compile(r"module_[0-9a-f]+")
_LABEL = re.compile(r"\b(?:(?:x86|x64|arm64) )?heap \d+\b")
_SHAPE_NAME = re.compile(r"(?:\d+ bytes|unknown size) in [^()]+ \([^()]*\)")
_LEADS_TO = " -> "
_STRUCTURE = "comparison"


class Image(NamedTuple):
    """What keys and names call an image: its file name in small letters, and its identity."""

    name: str
    identity: str


class _Record(NamedTuple):
    """What one snapshot says of an image."""

    snapshot: int
    image: Image
    module: Module

    @property
    def rank(self) -> int:
        """How good its identity is."""
        return 2 * bool(self.module.pdb_key) + bool(self.module.timestamp)


def identified(series: Sequence[Snapshot]) -> list[Snapshot]:
    """Snapshots in which one image and, within one process life, one heap have one name.

    Args:
        series: Two at least, in order of time; with names in all of them or in none.
    """
    if any(snapshot.is_pool for snapshot in series):
        return list(series)
    lives = _lives(series)
    labels = _labels(series, lives)
    images = _images(series, lives)
    # Keys without names cannot be taken apart: such sites get new ones, in all snapshots.
    shapes_anew = any(labels) and any(snapshot.stripped for snapshot in series)
    renewed = {new.identity for one in images for new in one.values()}
    known = {
        identity: module
        for snapshot in series
        for module in snapshot.modules
        if (identity := image_identity(module)) in renewed
    }
    found = []
    for snapshot, of_heaps, of_images in zip(series, labels, images, strict=True):
        renamer = _Renamer(snapshot, of_images, of_heaps, known, shapes_anew)
        found.append(renamer.renamed())
    return found


def _lives(series: Sequence[Snapshot]) -> list[int]:
    """The number of each snapshot's process life: that of the first snapshot which is of it."""
    lives: list[int] = []
    for number, snapshot in enumerate(series):
        firsts = dict.fromkeys(lives)
        same = (n for n in firsts if same_life(series[n], snapshot).life is Life.SAME)
        lives.append(next(same, number))
    return lives


def _labels(series: Sequence[Snapshot], lives: Sequence[int]) -> list[dict[str, str]]:
    """For each snapshot the labels of heaps that have another one in the first snapshot of that life."""
    found: list[dict[str, str]] = []
    highest = max((_ordinal(row.label) for one in series for row in one.heaps), default=0)
    known: dict[int, dict[int, str]] = {}
    for snapshot, life in zip(series, lives, strict=True):
        of_life = known.setdefault(life, {})
        taken = set(of_life.values())
        changed = {}
        for row in snapshot.heaps:
            label = of_life.get(row.address, row.label)
            if row.address not in of_life and label in taken:
                highest += 1
                label = re.sub(r"\d+$", str(highest), row.label)
            of_life[row.address] = label
            if label != row.label:
                changed[row.label] = label
        found.append(changed)
    return found


def _ordinal(label: str) -> int:
    number = label.rpartition(" ")[2]
    return int(number) if number.isdecimal() and len(number) < 10 else 0


def _images(series: Sequence[Snapshot], lives: Sequence[int]) -> list[dict[Image, Image]]:
    """For each snapshot the images that another one describes better, and what that calls them."""
    records = [_records(number, snapshot) for number, snapshot in enumerate(series)]
    everything = [record for one in records for record in one.values()]
    by_name, by_stamp = _Index(), _Index()
    by_place = _Index()
    for record in everything:
        module = record.module
        by_name.add(record.image.name, record)
        by_place.add((lives[record.snapshot], module.base_address), record)
        if module.timestamp:
            by_stamp.add(module.stamp_key, record)
    best: dict[tuple[int, Image], _Record] = {}
    for record in everything:
        if record.module.pdb_key:
            continue
        life = lives[record.snapshot]
        others = [
            *by_name.find(record.image.name),
            *by_stamp.find(record.module.stamp_key if record.module.timestamp else ""),
            *by_place.find((life, record.module.base_address)),
        ]
        same = [
            other
            for other in others
            if other.snapshot != record.snapshot
            and _are_one(record, other, life == lives[other.snapshot])
        ]
        found = _best(record, same)
        if found is not None:
            best[record.snapshot, record.image] = found
    names = _names(everything, best)
    moved: list[dict[Image, Image]] = [{} for _ in series]
    for record in everything:
        identity = _followed(record, best).image
        name = names.get(identity.identity, identity.name)
        new = Image(name, identity.identity)
        if new != record.image:
            moved[record.snapshot][record.image] = new
    return moved


def _image(module: Module) -> Image:
    return Image(module.name.lower(), image_identity(module))


class _Index:
    """Records by something they say; of one key only so many."""

    def __init__(self) -> None:
        self._found: dict[object, list[_Record]] = {}

    def add(self, key: object, record: _Record) -> None:
        found = self._found.setdefault(key, [])
        if len(found) < MAX_CANDIDATES:
            found.append(record)

    def find(self, key: object) -> list[_Record]:
        return self._found.get(key, [])


def _records(number: int, snapshot: Snapshot) -> dict[Image, _Record]:
    """What a snapshot says of its images; of unloaded ones it has only what keys are made of."""
    found: dict[Image, _Record] = {}
    for module in snapshot.modules:
        image = _image(module)
        found.setdefault(image, _Record(number, image, module))
    for site, _ in snapshot.groups.values():
        for place in site.places:
            image = Image(place.module, place.image)
            match = _STAMP.fullmatch(place.image) if image not in found else None
            if match is not None:
                stamp, size = (int(text, 16) for text in match.groups())
                module = Module(place.module, place.module, 0, size, stamp)
                found[image] = _Record(number, image, module)
    return found


def _are_one(one: _Record, other: _Record, in_one_life: bool) -> bool:
    """Whether two records are of one build: by what both say, or by where one process has them."""
    same = same_build(one.module, other.module)
    if same is None:
        # Nothing speaks against it: within one life what has its place, or its name, and size is it.
        bases = one.module.base_address, other.module.base_address
        return in_one_life and (
            bases[0] == bases[1] or (not all(bases) and one.image.name == other.image.name)
        )
    # A time stamp names a build; a version or checksum does so only of one file.
    stamped = bool(one.module.timestamp and other.module.timestamp)
    return same and (stamped or in_one_life or one.image.name == other.image.name)


def _best(record: _Record, same: Iterable[_Record]) -> _Record | None:
    """The record with the best identity; None where the best contradict each other."""
    better = [
        other for other in same if (other.rank, -other.snapshot) > (record.rank, -record.snapshot)
    ]
    if not better:
        return None
    highest = max(other.rank for other in better)
    best = [other for other in better if other.rank == highest]
    at_home = [o for o in best if o.module.base_address == record.module.base_address]
    for chosen in (best, at_home):
        if len({other.image.identity for other in chosen}) == 1:
            return min(chosen, key=lambda other: other.snapshot)
    return None


def _followed(record: _Record, best: Mapping[tuple[int, Image], _Record]) -> _Record:
    """What a record comes to when the one it is matched with is matched with another."""
    seen = set()
    while (place := (record.snapshot, record.image)) in best and place not in seen:
        seen.add(place)
        record = best[place]
    return record


def _names(records: Iterable[_Record], best: Mapping[tuple[int, Image], _Record]) -> dict[str, str]:
    """One name for each image that no two snapshots call alike: the first that a dump gave it."""
    called: dict[str, dict[int, set[str]]] = {}
    for record in records:
        identity = _followed(record, best).image.identity
        called.setdefault(identity, {}).setdefault(record.snapshot, set()).add(record.image.name)
    names = {}
    for identity, by_snapshot in called.items():
        every = list(dict.fromkeys(name for one in by_snapshot.values() for name in sorted(one)))
        if len(every) > 1 and all(len(one) == 1 for one in by_snapshot.values()):
            names[identity] = next((n for n in every if not _INVENTED.fullmatch(n)), every[0])
    return names


class _Renamer:
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
        shapes_anew: bool,
    ) -> None:
        self._snapshot = snapshot
        self._images = images
        self._labels = labels
        self._known = known
        self._shapes_anew = shapes_anew
        names: dict[str, set[str]] = {}
        of_all = [_image(m) for m in snapshot.modules]
        for image in (*of_all, *images):
            names.setdefault(image.name, set()).add(images.get(image, image).name)
        self._names = {
            old: new
            for old, (new, *others) in ((old, tuple(new)) for old, new in names.items())
            if new != old and not others
        }

    def renamed(self) -> Snapshot:
        snapshot = self._snapshot
        sites = {}
        for key, (site, _) in snapshot.groups.items():
            new = self._site(site)
            if new is not site:
                sites[key] = new
        snapshot = renamed(snapshot, sites)
        if self._images:
            snapshot = replace(
                snapshot,
                modules=tuple(self._module(module) for module in snapshot.modules),
                source=replace(
                    snapshot.source,
                    program=self._names.get(
                        snapshot.source.program.lower(), snapshot.source.program
                    ),
                ),
            )
        if self._labels:
            snapshot = replace(
                snapshot,
                heaps=[replace(row, label=self._relabelled(row.label)) for row in snapshot.heaps],
                diagnostics=[
                    *(
                        replace(d, message=self._relabelled(d.message))
                        for d in snapshot.diagnostics
                    ),
                    *self._said(),
                ],
            )
        return snapshot

    def _said(self) -> list[Diagnostic]:
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

    def _relabelled(self, text: str) -> str:
        return _LABEL.sub(lambda match: self._labels.get(match[0], match[0]), text)

    def _module(self, module: Module) -> Module:
        new = self._images.get(_image(module))
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
