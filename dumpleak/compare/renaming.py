"""Snapshots whose sites get other keys: what one dump calls otherwise than another is called alike.

Everything that is found by key goes along: totals, single blocks, and who holds them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from dumpleak.compare.survivors import SameSite, Survivors, find_survivors
from dumpleak.model.block_table import BlockTable
from dumpleak.model.containment import Contained
from dumpleak.model.holding import Finder, Holding
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals

Holders = Callable[[Collection[str]], dict[str, Holding]]
SHOWN = 3  # other names of a site
_EVIDENCE = tuple(SiteKind)  # best first


def renamed(snapshot: Snapshot, sites: Mapping[str, Site]) -> Snapshot:
    """A snapshot with other sites in place of some.

    Args:
        snapshot: What to change.
        sites: The new site for each old key. Sites that get one key are taken together.
    """
    moved = {old: site.key for old, site in sites.items() if old in snapshot.groups}
    if not moved:
        return snapshot
    groups: dict[str, tuple[Site, Totals]] = {}
    for key, (old, more) in snapshot.groups.items():
        site, totals = sites.get(key, old), more
        if site.key in groups:
            other, before = groups[site.key]
            site, totals = better(other, site), before + more
        groups[site.key] = site, totals
    # What was told of several sites is told of none.
    many = Counter(moved.get(key, key) for key in snapshot.groups)
    read, find = snapshot.blocks, snapshot.holders
    return replace(
        snapshot,
        groups=groups,
        blocks=None if read is None else lambda: renamed_table(read(), moved),
        holders=None if find is None else _RenamedHolders(find, tuple(snapshot.groups), moved),
        held_by={moved.get(k, k): v for k, v in snapshot.held_by.items()},
        details={
            moved.get(k, k): v for k, v in snapshot.details.items() if many[moved.get(k, k)] == 1
        },
    )


def followed(
    base: Snapshot, current: Snapshot
) -> tuple[Snapshot, Snapshot, Survivors | None, dict[str, str]]:
    """Two snapshots of one life with one name for each site that its blocks prove to be one.

    With them: what became of the blocks, and what to say of sites, by key.
    """
    if base.blocks is None or current.blocks is None:
        return base, current, None, {}
    found = find_survivors(base.blocks(), current.blocks(), (base.groups, current.groups))
    notes: dict[str, str] = {}
    if found.same_sites:
        (base, current), notes = joined((base, current), [(0, 1, found.same_sites)])
        if base.blocks is not None and current.blocks is not None:
            found = find_survivors(base.blocks(), current.blocks(), (base.groups, current.groups))
    for key, fate in found.by_key.items():
        if fate.renamed:
            notes.setdefault(
                key, f"{fate.renamed:,} of its blocks are still there, but named otherwise"
            )
    return base, current, found, notes


def joined(
    series: Sequence[Snapshot], found: Sequence[tuple[int, int, Sequence[SameSite]]]
) -> tuple[list[Snapshot], dict[str, str]]:
    """Snapshots in which sites that have several names have one: the best, or the one that takes in all.

    Args:
        series: The snapshots.
        found: Numbers of two snapshots, and what the same sites are called in them.

    Returns:
        The snapshots, and what to say of the sites that were called otherwise, by key.
    """
    best: dict[str, Site] = {}
    for first, second, same_sites in found:
        for same in same_sites:
            before, after = (
                [best.get(key, series[number].groups[key][0]) for key in keys]
                for number, keys in ((first, same.base), (second, same.current))
            )
            if len(before) == len(after):
                chosen = better(before[0], after[0])
            else:
                chosen = min(before, after, key=len)[0]
            together = {site.key for site in (*before, *after)}
            others = (key for key, site in best.items() if site.key in together)
            best.update(dict.fromkeys((*same.base, *same.current, *others), chosen))
    changed = {key: site for key, site in best.items() if key != site.key}
    called: dict[str, dict[str, None]] = {}
    for snapshot in series:
        for key in changed.keys() & snapshot.groups.keys():
            called.setdefault(changed[key].key, {})[snapshot.groups[key][0].name] = None
    notes = {}
    for key, texts in called.items():
        names = [text for text in texts if key not in best or text != best[key].name]
        said = f"called {', '.join(names[:SHOWN])}" if names else "named by less"
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        notes[key] = f"{said}{more} in another dump: the same blocks are at the same addresses"
    return [renamed(snapshot, best) for snapshot in series], notes


def better(one: Site, other: Site) -> Site:
    """Of two descriptions of one site the one that says more; the second where they are equal."""
    return one if rank(one) > rank(other) else other


def rank(site: Site) -> tuple[int, int, int]:
    """How much a site says: by its kind, then by how many of its frames have an image, and a name."""
    return (
        -_EVIDENCE.index(site.kind),
        sum(bool(place.module) for place in site.places),
        sum(bool(place.function) for place in site.places),
    )


def renamed_table(table: BlockTable, moved: Mapping[str, str]) -> BlockTable:
    """Blocks under the new keys of their groups; each key once."""
    new = [moved.get(key, key) for key in table.keys]
    keys = tuple(dict.fromkeys(new))
    if len(keys) == len(new):
        return replace(table, keys=keys)
    numbers = {key: number for number, key in enumerate(keys)}
    lookup = np.array([numbers[key] for key in new], np.int32)
    return replace(table, keys=keys, group=lookup[table.group])


class _RenamedHolders:
    """Who holds the blocks of groups that have other keys.

    Args:
        find: Who holds them by their own keys.
        keys: All of these.
        moved: The new key of some.
    """

    def __init__(self, find: Holders, keys: Collection[str], moved: Mapping[str, str]) -> None:
        self._find, self._keys, self._moved = find, keys, moved

    @property
    def unreferenced(self) -> NDArray[np.bool_] | None:
        """As `Finder` has it."""
        return self._find.unreferenced if isinstance(self._find, Finder) else None

    @property
    def contained(self) -> Contained | None:
        """As `Finder` has it."""
        return self._find.contained if isinstance(self._find, Finder) else None

    def __call__(self, keys: Collection[str]) -> dict[str, Holding]:
        """Who holds the blocks of the groups with these keys."""
        old_keys = self._own(keys)
        found: dict[str, Holding] = {}
        many: dict[str, list[str]] = {}
        for old, holding in self._find(old_keys).items():
            key = self._moved.get(old, old)
            found[key] = _together(found[key], holding) if key in found else holding
            many.setdefault(key, []).append(old)
        for key, own in many.items():
            kept = self._retained(own) if len(own) > 1 else None
            if kept is not None:
                found[key] = replace(found[key], retained_bytes=kept[0], retained_count=kept[1])
        return found

    def retained_of(self, keys: Collection[str]) -> tuple[int, int] | None:
        """As `Finder` has it."""
        return self._retained(self._own(keys))

    def _own(self, keys: Collection[str]) -> list[str]:
        wanted = set(keys)
        return [key for key in self._keys if self._moved.get(key, key) in wanted]

    def _retained(self, own: Collection[str]) -> tuple[int, int] | None:
        return self._find.retained_of(set(own)) if isinstance(self._find, Finder) else None


def _together(one: Holding, other: Holding) -> Holding:
    """Of both sites' blocks; the holder is the one that holds most. What both retain is not their sum."""
    most = max(one, other, key=lambda holding: holding.held)
    blocks, unreferenced = one.blocks + other.blocks, one.unreferenced + other.unreferenced
    texts = [each.texts for each in (one, other) if each.texts is not None]
    return replace(
        most,
        blocks=blocks,
        unreferenced=unreferenced,
        retained_bytes=None,
        retained_count=None,
        texts=reduce(add, texts) if texts else None,
    )
