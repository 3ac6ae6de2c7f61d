"""Which blocks of one dump are still there in a later one of the same process life.

A block is taken for the same one when address, size and the shape of its contents agree, whatever its site is
called: one dump may have less to name it by. Names speak against it only where both dumps recorded who
allocated, and it was not the same code: then another allocation got the address in between. That the very
same site asked for the very same size again and got the address back, no dump can tell.

A site that only one of the dumps has, and whose surviving blocks are nearly all of one site that only the
other has, is the same site under another name. One dump may split what the other cannot tell apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.block_table import NO_SHAPE, BlockTable
from dumpleak.model.sites import Place, Site, SiteKind
from dumpleak.model.totals import Totals
from windumps.arrays import I64

ROWS_AT_ONCE = 1 << 20
# Share of a site's surviving blocks that must have other names, and be of one, before it has two names.
MOSTLY = 0.8
# Share of the smaller one's blocks that must have survived at all.
SURVIVING = 0.5

Mask = NDArray[np.bool_]
Groups = Mapping[str, tuple[Site, Totals]]


@dataclass(frozen=True)
class Fate:
    """What became of the blocks of one group.

    Attributes:
        kept: Blocks of the base that are still there.
        gone: Blocks of the base that were freed, or whose address another allocation got.
        new: Blocks of the current dump that the base did not have.
        renamed: Of those kept, how many another group has in the current dump.
    """

    kept: int = 0
    gone: int = 0
    new: int = 0
    renamed: int = 0

    def __add__(self, other: Fate) -> Fate:
        return Fate(
            self.kept + other.kept,
            self.gone + other.gone,
            self.new + other.new,
            self.renamed + other.renamed,
        )


class SameSite(NamedTuple):
    """One site that the two dumps call differently; one of them may split it.

    Attributes:
        base: Its keys in the base; several only where `current` is one.
        current: Its keys in the current dump; several only where `base` is one.
    """

    base: tuple[str, ...]
    current: tuple[str, ...]


@dataclass(frozen=True)
class Survivors:
    """What became of the blocks between two dumps of one process life.

    Attributes:
        by_key: For each group.
        total: Over all groups.
        reused: Addresses in use in both dumps, but by another allocation.
        kept: bool, shape (n,): which rows of the base's table are still there.
        known: bool, shape (n,): which rows of the current table the base had.
        same_sites: Sites that the two dumps have under different keys.
    """

    by_key: dict[str, Fate]
    total: Fate
    reused: int
    kept: Mask
    known: Mask
    same_sites: list[SameSite] = field(default_factory=list)


class _Numbers(NamedTuple):
    """Keys of both tables numbered alike, and the number of each table's groups."""

    keys: list[str]
    base: NDArray[np.int32]
    current: NDArray[np.int32]


def find_survivors(
    base: BlockTable, current: BlockTable, sites: tuple[Groups, Groups] | None = None
) -> Survivors:
    """Follows all blocks of the base.

    Args:
        base: The earlier dump's.
        current: The later one's; of the same process life.
        sites: The groups of both, by key, to tell what their names say; None: nothing.
    """
    keys = list(dict.fromkeys((*base.keys, *current.keys)))
    number = {key: n for n, key in enumerate(keys)}
    numbers = _Numbers(
        keys,
        np.array([number[key] for key in base.keys], np.int32),
        np.array([number[key] for key in current.keys], np.int32),
    )
    judge = _Names(numbers, sites or ({}, {}))
    alike = _Contents(base, current, judge)
    found = np.zeros(len(base), np.bool_)
    taken = np.zeros(len(current), np.bool_)
    crossed = _Pairs(len(keys))
    reused = 0
    # Both ascend by address: pieces keep what is made on the way small.
    for start in range(0, len(base), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        place = np.searchsorted(current.address, base.address[rows])
        inside = place < len(current)
        place[~inside] = 0
        there = inside & (current.address[place] == base.address[rows]) if len(current) else inside
        rows_there = np.flatnonzero(there)
        row, other = rows_there + start, place[rows_there]
        groups = numbers.base[base.group[row]], numbers.current[current.group[other]]
        same = base.size[row] == current.size[other]
        same &= alike.rows(row, other, groups[0], groups[0] == groups[1])
        differ = np.flatnonzero(same & (groups[0] != groups[1]))
        if len(differ):
            same[differ] = crossed.add(groups[0][differ], groups[1][differ], judge.may_be_one)
        found[row[same]] = True
        taken[other[same]] = True
        reused += int((~same).sum())
    count = len(keys)
    in_base = _counts(base.group, numbers.base, count)
    in_current = _counts(current.group, numbers.current, count)
    kept = _counts(base.group, numbers.base, count, found)
    known = _counts(current.group, numbers.current, count, taken)
    moved, _ = crossed.moved(count)
    columns = kept, in_base - kept, in_current - known, moved
    fates = {
        key: Fate(*(int(column[n]) for column in columns)) for n, key in enumerate(numbers.keys)
    }
    total = Fate(*(int(column.sum()) for column in columns))
    edges = crossed.other_names((kept, known), (in_base, in_current))
    return Survivors(fates, total, reused, found, taken, _same_sites(edges, keys))


class _Names:
    """What the names of two groups say of whether a block of one can be a block of the other."""

    def __init__(self, numbers: _Numbers, sites: tuple[Groups, Groups]) -> None:
        self._keys = numbers.keys
        self._sites = sites

    def recorded(self) -> Mask:
        """For each key whether it says who allocated: names of other kinds are made of contents."""
        return np.array([self._is_recorded(key) for key in self._keys], np.bool_)

    def may_be_one(self, base: int, current: int) -> bool:
        """False where both dumps tell the same kind of thing, and not the same thing."""
        one, other = self._site(0, base), self._site(1, current)
        if one is None or other is None or one.kind is not other.kind:
            return True
        match one.kind:
            case SiteKind.STACK:
                return _same_stack(one.places, other.places)
            case SiteKind.SHAPE:
                return _heap_of(one) == _heap_of(other)
            case SiteKind.TYPE:
                return one.type is None or other.type is None
        return False

    def _site(self, side: int, number: int) -> Site | None:
        found = self._sites[side].get(self._keys[number])
        return found[0] if found else None

    def _is_recorded(self, key: str) -> bool:
        found = self._sites[0].get(key) or self._sites[1].get(key)
        return found is not None and found[0].kind in (SiteKind.STACK, SiteKind.SOURCE)


def _heap_of(site: Site) -> str:
    """The heap that a shape's name tells, "heap 1"; in one process life that is a handle."""
    return site.name.partition(" in ")[2].partition(" (")[0]


def _same_stack(one: tuple[Place, ...], other: tuple[Place, ...]) -> bool:
    """Whether two stacks can be one: a frame whose image one dump does not know may be any."""
    return len(one) == len(other) > 0 and all(
        not mine.module or not its.module or (mine.image, mine.rva) == (its.image, its.rva)
        for mine, its in zip(one, other, strict=True)
    )


class _Contents:
    """Whether the contents of blocks are alike, as far as the two tables' shapes can be compared."""

    def __init__(self, base: BlockTable, current: BlockTable, names: _Names) -> None:
        self._base, self._current = base, current
        self._other_kind = base.shapes_by != current.shapes_by
        # Of an image that only the base knows, the current dump cannot tell that blocks point into it.
        lost = bool(current.images) and bool(base.images - current.images)
        self._recorded = names.recorded() if lost or self._other_kind else None

    def rows(self, row: I64, other: I64, group: NDArray[np.int32], same_site: Mask) -> Mask:
        """For each pair of rows of the base and the current table."""
        before, after = self._base.shape[row], self._current.shape[other]
        alike: Mask = before == after
        if self._recorded is None:
            return alike
        if self._other_kind:
            unclear = (before != NO_SHAPE) & (after != NO_SHAPE)
        else:
            unclear = (before != NO_SHAPE) & self._recorded[group]
        # Where contents do not tell, the name has to.
        alike |= unclear & same_site
        return alike


class _Pairs:
    """Blocks that have one group in the base and another in the current dump, counted by both."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._possible: dict[int, bool] = {}
        self._blocks: dict[int, int] = {}

    def add(
        self,
        base: NDArray[np.int32],
        current: NDArray[np.int32],
        may_be_one: Callable[[int, int], bool],
    ) -> Mask:
        """Takes pairs in; gives which of them are one block."""
        codes = base.astype(np.int64) * self._count + current
        values, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
        for code in values.tolist():
            if code not in self._possible:
                self._possible[code] = may_be_one(*divmod(code, self._count))
        possible = np.array([self._possible[code] for code in values.tolist()], np.bool_)
        for code, blocks in zip(values[possible].tolist(), counts[possible].tolist(), strict=True):
            self._blocks[code] = self._blocks.get(code, 0) + blocks
        found: Mask = possible[inverse]
        return found

    def moved(self, count: int) -> tuple[I64, I64]:
        """For each group of the base, and of the current dump, how many of its blocks have another there."""
        base, current = np.zeros(count, np.int64), np.zeros(count, np.int64)
        for code, blocks in self._blocks.items():
            base[code // count] += blocks
            current[code % count] += blocks
        return base, current

    def other_names(self, alive: tuple[I64, I64], every: tuple[I64, I64]) -> list[_Edge]:
        """Pairs of a group of the base and one of the current dump that are one site.

        Args:
            alive: Of each group, the blocks of the base that live on, and those of the current dump
                that the base had.
            every: Of each group, all blocks in the base and in the current dump.
        """
        moved = self.moved(self._count)
        edges = []
        for code, blocks in self._blocks.items():
            pair = divmod(code, self._count)
            # A name that both dumps use is none for anything else.
            unknown = all(moved[side][n] >= MOSTLY * alive[side][n] for side, n in enumerate(pair))
            of_one = any(blocks >= MOSTLY * alive[side][n] for side, n in enumerate(pair))
            enough = blocks >= SURVIVING * min(every[side][n] for side, n in enumerate(pair))
            if unknown and of_one and enough:
                edges.append(_Edge(*pair))
        return edges


class _Edge(NamedTuple):
    """A group of the base and one of the current dump."""

    base: int
    current: int


def _same_sites(edges: list[_Edge], keys: list[str]) -> list[SameSite]:
    """Groups that belong together, where those of one dump are all one group of the other."""
    by_base, by_current = (
        Counter(edge.base for edge in edges),
        Counter(edge.current for edge in edges),
    )
    found: dict[tuple[int, bool], SameSite] = {}
    for edge in edges:
        several = by_base[edge.base] > 1, by_current[edge.current] > 1
        if all(several):
            continue  # part of these blocks may be anybody's
        center = (edge.base, True) if several[0] else (edge.current, False)
        known = found.get(center, SameSite((), ()))
        found[center] = SameSite(
            tuple(dict.fromkeys((*known.base, keys[edge.base]))),
            tuple(dict.fromkeys((*known.current, keys[edge.current]))),
        )
    return list(found.values())


def _counts(
    groups: NDArray[np.int32],
    numbers: NDArray[np.int32],
    count: int,
    mask: Mask | None = None,
) -> I64:
    """Blocks of each group, in pieces: whole columns would be copied several times."""
    counts = np.zeros(count, np.int64)
    for start in range(0, len(groups), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        piece = groups[rows] if mask is None else groups[rows][mask[rows]]
        counts += np.bincount(numbers[piece], minlength=count)
    return counts
