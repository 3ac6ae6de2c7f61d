"""Shapes that one cause has: put together where single ones say nothing.

A shape is one heap and one exact size. Where nobody recorded who allocated, one leaking call makes a shape
of every size it asks for: thousands of rows, none of which anybody can act on. Shapes of at least `MIN_SIZES`
sizes in one heap that hold the same, text of one kind say, are one row here, as far as none of them has a
share of the growth that stands out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from dumpleak.compare.answers import SiteDelta
from dumpleak.compare.renaming import renamed
from dumpleak.compare.survivors import Fate
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals

MIN_SIZES = 25  # more rows than a screen has
# A shape with this share of all growth stands for itself. The planted leaks of fixed sizes in the dumps with
# known truth have 3% and more, sizes at random have 0.2% to 1.7%.
OWN_SHARE = 0.02

_NAME = re.compile(r"(?P<size>\d+) bytes in (?P<heap>[^()]+) \((?P<kind>[^()]*)\)(?P<said>.*)")


class _Shape(NamedTuple):
    """A shape, and what it did."""

    site: Site
    size: int
    heap: str
    kind: str
    said: str
    base: Totals
    current: Totals

    @property
    def grown(self) -> int:
        return self.current.bytes - self.base.bytes

    @property
    def more(self) -> int:
        return self.current.count - self.base.count


@dataclass(frozen=True)
class Causes:
    """Shapes put together.

    Attributes:
        parts: By key of the site that stands for them, those with the most growth first.
        notes: By key, what to say of it.
        keys: By key of a shape, the one that stands for it.
    """

    parts: Mapping[str, tuple[SiteDelta, ...]]
    notes: Mapping[str, str]
    keys: Mapping[str, str]

    def told(self, delta: SiteDelta) -> SiteDelta:
        """A site with its parts, and what to say of them."""
        key = delta.site.key
        if key not in self.parts:
            return delta
        return replace(delta, parts=self.parts[key], notes=(*delta.notes, self.notes[key]))


NO_CAUSES = Causes({}, {}, {})


def with_causes(base: Snapshot, current: Snapshot) -> tuple[Snapshot, Snapshot, Causes]:
    """Two snapshots in which shapes of one cause are one site."""
    if base.grouping != "site":
        return base, current, NO_CAUSES  # other groupings ask for exactly what they say
    keys = sorted(base.groups.keys() | current.groups.keys())
    shapes = [shape for key in keys if (shape := _shape(key, base, current))]
    growth = sum(max(_bytes(current, key) - _bytes(base, key), 0) for key in keys)
    chosen: dict[str, Site] = {}
    notes: dict[str, str] = {}
    parts: dict[str, tuple[SiteDelta, ...]] = {}
    for family in _by(shapes, lambda s: (s.said, s.heap)):
        small = [s for s in family if abs(s.grown) < OWN_SHARE * growth]
        sizes = {s.size for s in small if s.grown > 0}
        if len(sizes) < MIN_SIZES:
            continue
        _put(chosen, notes, parts, small, _varied(small[0]), _sizes_told(small))
    if not chosen:
        return base, current, NO_CAUSES
    found = Causes(parts, notes, {key: site.key for key, site in chosen.items()})
    return renamed(base, chosen), renamed(current, chosen), found


def joined_fates(fates: Mapping[str, Fate], causes: Causes) -> dict[str, Fate]:
    """What became of the blocks of each site, once shapes are put together."""
    found: dict[str, Fate] = {}
    for key, fate in fates.items():
        key = causes.keys.get(key, key)
        found[key] = found[key] + fate if key in found else fate
    return found


def _put(
    chosen: dict[str, Site],
    notes: dict[str, str],
    parts: dict[str, tuple[SiteDelta, ...]],
    shapes: list[_Shape],
    site: Site,
    note: str,
) -> None:
    ordered = sorted(shapes, key=lambda s: (-s.grown, -s.more, s.site.key))
    chosen.update((shape.site.key, site) for shape in shapes)
    parts[site.key] = tuple(SiteDelta(s.site, s.base, s.current) for s in ordered)
    notes[site.key] = note


def _shape(key: str, base: Snapshot, current: Snapshot) -> _Shape | None:
    """A shape whose size is known; None for other sites."""
    sides = [side.groups.get(key) for side in (current, base)]
    site = next(pair[0] for pair in sides if pair is not None)
    found = _NAME.fullmatch(site.name) if site.kind is SiteKind.SHAPE else None
    if found is None:
        return None
    after, before = (pair[1] if pair is not None else Totals() for pair in sides)
    told = found["heap"], found["kind"], found["said"]
    return _Shape(site, int(found["size"]), *told, before, after)


def _varied(first: _Shape) -> Site:
    """The site of all that hold the same as a shape."""
    # Of names alone, which snapshots without names of the program have, too.
    parts = SiteKind.SHAPE, first.heap, first.kind, f"varied{first.said}", ""
    name = f"varied sizes in {first.heap} ({first.kind}){first.said}"
    return Site(SiteKind.SHAPE, "|".join(parts), name)


def _sizes_told(shapes: list[_Shape]) -> str:
    """How many sizes, and which is there most often."""
    sizes = {shape.size for shape in shapes}
    by_size: Counter[int] = Counter()
    for shape in shapes:
        by_size[shape.size] += shape.current.count
    most, count = by_size.most_common(1)[0]
    return (
        f"{len(sizes):,} sizes from {min(sizes):,} to {max(sizes):,} bytes, {most:,} the most often "
        f"({count:,}); --by size has each"
    )


def _by(
    shapes: Iterable[_Shape], family: Callable[[_Shape], tuple[object, ...]]
) -> list[list[_Shape]]:
    found: dict[tuple[object, ...], list[_Shape]] = {}
    for shape in shapes:
        found.setdefault(family(shape), []).append(shape)
    return list(found.values())


def _bytes(side: Snapshot, key: str) -> int:
    found = side.groups.get(key)
    return found[1].bytes if found is not None else 0
