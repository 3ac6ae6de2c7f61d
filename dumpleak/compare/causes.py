"""Shapes that one cause has, put together in snapshots where single ones say nothing.

Where nobody recorded who allocated, one leaking call makes a shape of every size it asks for, in every heap:
thousands of rows, none of which anybody can act on. Here they are one row that knows its parts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from dumpleak.compare.alike import Family, Shape, families, is_text
from dumpleak.compare.answers import SiteDelta
from dumpleak.compare.renaming import renamed
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.survivors import Fate
from dumpleak.model.populations import BLOCKS
from dumpleak.model.sites import LENGTH_PREFIXED, Site, SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals
from dumpleak.model.units import format_bytes

_NAME = re.compile(r"(?P<size>\d+) bytes in (?P<heap>[^()]+) \((?P<kind>[^()]*)\)(?P<said>.*)")
_HEAPS_NAMED = 4
_NOTHING = Totals()


@dataclass(frozen=True)
class Causes:
    """Shapes put together.

    Attributes:
        parts: By key of the site that stands for them, those with the most growth first.
        notes: By key, what to say of it.
        names: By key, its name.
        words: By key, what it is in plain words.
        keys: By key of a shape, the one that stands for it.
    """

    parts: Mapping[str, tuple[SiteDelta, ...]]
    notes: Mapping[str, tuple[str, ...]]
    names: Mapping[str, str]
    words: Mapping[str, str]
    keys: Mapping[str, str]

    def told(self, delta: SiteDelta) -> SiteDelta:
        """A site with its parts, and what to say of them."""
        return replace(delta, **self._more(delta)) if delta.site.key in self.parts else delta

    def told_of(self, trend: SiteTrend) -> SiteTrend:
        """A site of a series, likewise."""
        return replace(trend, **self._more(trend)) if trend.site.key in self.parts else trend

    def _more(self, site: SiteDelta | SiteTrend) -> dict[str, Any]:
        said = self.notes[site.site.key]
        return {
            "parts": self.parts[site.site.key],
            "cause": self.words[site.site.key],
            "notes": (*site.notes, *said),
            "evidence": (*site.evidence, *said),
        }


NO_CAUSES = Causes({}, {}, {}, {}, {})
Groups: TypeAlias = Mapping[str, tuple[Site, Totals]]


def with_causes(series: Sequence[Snapshot], last: int = -1) -> tuple[list[Snapshot], Causes]:
    """Snapshots in which shapes of one cause are one site.

    Args:
        series: One snapshot, or several in order of time.
        last: Growth is looked at from the first one to this one.
    """
    if any(snapshot.grouping != "site" or snapshot.population != BLOCKS for snapshot in series):
        return list(series), NO_CAUSES  # other groupings ask for exactly what they say
    ends = (series[0].groups if len(series) > 1 else {}), series[last].groups
    named = {key: site for snapshot in series for key, (site, _) in snapshot.groups.items()}
    sites, causes = find_causes(*ends, named, grown=len(series) > 1)
    if not sites:
        return list(series), NO_CAUSES
    return [renamed(snapshot, sites) for snapshot in series], causes


def find_causes(
    first: Groups, last: Groups, named: Mapping[str, Site] | None = None, *, grown: bool = True
) -> tuple[dict[str, Site], Causes]:
    """What one cause has of groups that grew.

    Args:
        first: Groups and their totals before, by key.
        last: These, after.
        named: Groups that are in neither, but elsewhere in a series.
        grown: Growth is what is looked at; see `families`.

    Returns:
        For the key of each shape that is put together with others, the site that stands for them; and
        what they are.
    """
    named = {
        **(named or {}),
        **{key: site for side in (first, last) for key, (site, _) in side.items()},
    }
    shapes, growth = [], 0
    for key in sorted(named):
        before, after = (side[key][1] if key in side else _NOTHING for side in (first, last))
        growth += max(after.bytes - before.bytes, 0)
        shape = _shape(named[key], before, after)
        if shape is not None:
            shapes.append(shape)
    chosen: dict[str, Site] = {}
    notes: dict[str, tuple[str, ...]] = {}
    words: dict[str, str] = {}
    parts: dict[str, tuple[SiteDelta, ...]] = {}
    for family in families(shapes, growth, grown=grown):
        site = _site(family)
        if site.key in parts:  # a second one of that description: told apart by its heaps and sizes
            site = replace(site, key=f"{site.key}{', '.join(family.heaps)}, {min(family.sizes)}")
        ordered = sorted(family.shapes, key=lambda s: (-s.grown, -s.more, s.site.key))
        chosen.update((shape.site.key, site) for shape in ordered)
        parts[site.key] = tuple(SiteDelta(s.site, s.base, s.current) for s in ordered)
        words[site.key] = _words(family)
        notes[site.key] = tuple(_told(family, signed=bool(first)))
    names = {site.key: site.name for site in chosen.values()}
    keys = {key: site.key for key, site in chosen.items()}
    return chosen, Causes(parts, notes, names, words, keys)


def joined_fates(fates: Mapping[str, Fate], causes: Causes) -> dict[str, Fate]:
    """What became of the blocks of each site, once shapes are put together."""
    found: dict[str, Fate] = {}
    for key, fate in fates.items():
        key = causes.keys.get(key, key)
        found[key] = found[key] + fate if key in found else fate
    return found


def _shape(site: Site, before: Totals, after: Totals) -> Shape | None:
    """A shape whose size is known; None for other sites."""
    found = _NAME.fullmatch(site.name) if site.kind is SiteKind.SHAPE else None
    if found is None:
        return None
    told = found["heap"], found["kind"], found["said"]
    return Shape(site, int(found["size"]), *told, before, after)


def _site(family: Family) -> Site:
    """The site of shapes with one cause."""
    heaps = family.heaps
    sizes = family.sizes
    kinds = ", ".join(sorted({shape.kind for shape in family.shapes}))
    if len(sizes) == 1:
        what = f"{min(sizes)} bytes"
    elif family.stride:
        behind = f"{family.head} bytes and " * bool(family.head)
        what = f"{behind}multiples of {family.stride} bytes"
    else:
        what = "varied sizes" + f" from {family.low} bytes" * bool(family.low)
    fewer = ", of which there are fewer" * family.fewer
    # Of names alone, which snapshots without names of the program have, too; and of no list of heaps, which
    # the next dump may have otherwise.
    where = (heaps[0], kinds) if len(heaps) == 1 else (f"{family.shapes[0].program}heaps", "")
    held = what.replace("varied sizes", "varied")
    key = "|".join((SiteKind.SHAPE, *where, f"{held}{family.said}{fewer}", ""))
    name = f"{what} in {_heaps_named(heaps)} ({kinds}){family.said}{fewer}"
    return Site(SiteKind.SHAPE, key, name)


def _heaps_named(heaps: Sequence[str]) -> str:
    """Labels of heaps: "heap 2", "heaps 2, 3 and 4", "30 heaps"."""
    if len(heaps) == 1:
        return heaps[0]
    if len(heaps) > _HEAPS_NAMED:
        return f"{len(heaps)} heaps"
    numbers = [label.rpartition(" ")[2] for label in heaps]
    return f"{heaps[0].rpartition(' ')[0]}s {', '.join(numbers[:-1])} and {numbers[-1]}"


def _words(family: Family) -> str:
    """What it is, in plain words: "ASCII text of 671 sizes in heap 1"."""
    what = family.said.removeprefix(", ").replace(LENGTH_PREFIXED, f"{LENGTH_PREFIXED} (BSTR)")
    if not is_text(family.said):
        leads = re.match(r"( \+0x[0-9a-f]+)? -> (?P<image>.*)", family.said)
        what = f"blocks {what}" if what and not leads else "blocks"
        what = f"blocks that lead to {leads['image']}" if leads else what
    sizes = family.sizes
    many = f"{len(sizes):,} sizes" if len(sizes) > 1 else f"{min(sizes):,} bytes"
    if family.stride:
        many += f", arrays of {family.stride}-byte elements as it seems,"
    return f"{what} of {many} in {_heaps_named(family.heaps)}"


def _told(family: Family, *, signed: bool) -> list[str]:
    """How it is spread over heaps, and over sizes."""
    told = []
    by_heap: Counter[str] = Counter()
    for shape in family.shapes:
        by_heap[shape.heap] += shape.grown
    if len(by_heap) > 1:
        most = by_heap.most_common(_HEAPS_NAMED)
        more = f" and {len(by_heap) - len(most)} heaps more" if len(by_heap) > len(most) else ""
        listed = ", ".join(f"{heap} {format_bytes(size, signed=signed)}" for heap, size in most)
        told.append(listed + more)
    sizes = family.sizes
    if len(sizes) > 1:
        by_size: Counter[int] = Counter()
        for shape in family.shapes:
            by_size[shape.size] += shape.current.count
        often, count = by_size.most_common(1)[0]
        multiples = f", as arrays of {family.stride}-byte elements have" * bool(family.stride)
        told.append(
            f"{len(sizes):,} sizes from {min(sizes):,} to {max(sizes):,} bytes{multiples}, {often:,} the "
            f"most often ({count:,}); --by size has each"
        )
    return told
