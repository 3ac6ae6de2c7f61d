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
from typing import NamedTuple

from dumpleak.compare.life import Life, same_life
from dumpleak.compare.site_keys import Image, SiteRenamer, image_of
from dumpleak.model.sites import image_identity
from dumpleak.model.snapshot import Snapshot
from windumps.images.modules import Module, same_build

MAX_CANDIDATES = 16  # records that one is held against, of one name, time stamp or address
_STAMP = re.compile(r"(?:[^:]*:)?([0-9A-F]{8})([0-9a-f]{1,8})")
_INVENTED = re.compile(r"module_[0-9a-f]+")


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
    if not all(snapshot.of_process for snapshot in series):
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
        renamer = SiteRenamer(snapshot, of_images, of_heaps, known, shapes_anew=shapes_anew)
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
        if module.base_address:
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
            and _are_one(record, other, in_one_life=life == lives[other.snapshot])
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
        image = image_of(module)
        found.setdefault(image, _Record(number, image, module))
    places = {
        (place.module, place.image) for site, _ in snapshot.groups.values() for place in site.places
    }
    for name, identity in sorted(places):
        image = Image(name, identity)
        match = _STAMP.fullmatch(identity) if image not in found else None
        if match is not None:
            stamp, size = (int(text, 16) for text in match.groups())
            found[image] = _Record(number, image, Module(name, name, 0, size, stamp))
    return found


def _are_one(one: _Record, other: _Record, *, in_one_life: bool) -> bool:
    """Whether two records are of one build: by what both say, or by where one process has them."""
    same = same_build(one.module, other.module)
    if same is None:
        # Nothing speaks against it: within one life what has its place, or its name, and size is it.
        bases = one.module.base_address, other.module.base_address
        alike = bases[0] == bases[1] if all(bases) else one.image.name == other.image.name
        return in_one_life and alike
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
