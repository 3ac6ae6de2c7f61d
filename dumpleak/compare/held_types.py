"""Which type of .NET objects growth comes from: strings and arrays go with what holds them.

Most memory of a .NET heap is in strings and arrays, of which every type has some: on top of a list they tell
nobody where to look. What objects of one type alone hold counts as that type's growth, if it became more
because that type did: about as many for each as there were. A list that becomes longer explains nothing,
so what it is filled with is named, and not the list. Garbage counts for nothing where it can be told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dumpleak.compare.answers import SiteDelta
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.model.managed import GARBAGE_KEY, HELD, HeldObjects
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals
from dumpleak.model.units import format_bytes, format_count, format_share

USUAL_SHARE = 1.5  # as many times what each held before, still the same habit
FEW = 2  # held by each new one: what became more is the one that holds
FEW_OF_NEW = 64  # the same of a type that the base does not have
MOSTLY = 0.9  # of a type's growth that one other explains, so that it is no growth of its own
NAMED = 4
_HALF = 0.5
_WORTH_TELLING = 0.01  # share of objects that are garbage


@dataclass(frozen=True)
class HeldGrowth:
    """What the growth of types of objects comes to, by key of the type.

    Attributes:
        weight: Bytes that it grew by with what it holds, less what others hold of it.
        held: What it holds of that, the most first.
        notes: What to say of it.
    """

    weight: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, tuple[SiteDelta, ...]] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_Row = TypeVar("_Row", SiteDelta, SiteTrend)


def with_held(rows: Sequence[_Row], growth: HeldGrowth) -> tuple[_Row, ...]:
    """Types of objects, in the order of what they grew by with what they hold; suspects stay in front."""
    if not growth.weight:
        return tuple(rows)
    told = [_weighed(row, growth) for row in rows]
    order = list(dict.fromkeys(row.confidence for row in told))
    return tuple(sorted(told, key=lambda row: (order.index(row.confidence), -row.ranked_by)))


def _weighed(row: _Row, growth: HeldGrowth) -> _Row:
    said = (*row.evidence, *growth.notes.get(row.site.key, ()))
    return replace(row, weight=growth.weight.get(row.site.key, row.delta_bytes), evidence=said)


def held_growth(base: Snapshot, current: Snapshot) -> HeldGrowth:
    """From two snapshots of objects by type; nothing of all others."""
    if base.held_objects is None or current.held_objects is None:
        return HeldGrowth()
    if base.stripped or current.stripped:  # names that are hashes do not tell who holds whom
        return HeldGrowth()
    sides = base.held_objects(), current.held_objects()
    return _Folded((base, current), sides).growth()


def _parts_of(key: str) -> tuple[str, str, bool]:
    """(key of the type, key of the type that holds it, it is garbage)."""
    rest = key.removesuffix(GARBAGE_KEY)
    own, _, owner = rest.partition(HELD)
    return own, owner, rest != key


class _Folded:
    """The growth of each type, moved to the type that explains it."""

    def __init__(
        self, snapshots: tuple[Snapshot, Snapshot], sides: tuple[HeldObjects, HeldObjects]
    ) -> None:
        self._told = all(side.garbage_told for side in sides)
        self._pairs = _pairs(sides, garbage=not self._told)
        own: dict[str, list[SiteDelta]] = {}
        for (key, _), pair in self._pairs.items():
            own.setdefault(key, []).append(pair)
        self._own = own
        self._live = {key: _sum(pairs) for key, pairs in own.items()}
        self._current = {key: totals for key, (_, totals) in snapshots[1].groups.items()}
        self._next = self._mostly_explained()
        self._root = {key: self._root_of(key) for key in self._live}

    def growth(self) -> HeldGrowth:
        weight = {key: change.delta_bytes for key, change in self._live.items()}
        held: dict[str, list[SiteDelta]] = {}
        for (own, owner), pair in self._pairs.items():
            root = self._root[owner] if self._explains(own, owner) else own
            if root == own:
                continue
            weight[own] -= pair.delta_bytes
            weight[root] += pair.delta_bytes
            held.setdefault(root, []).append(pair)
        ordered = {key: tuple(sorted(pairs, key=_most_first)) for key, pairs in held.items()}
        total = sum(size for size in weight.values() if size > 0)
        notes = {key: tuple(self._notes(key, weight, ordered, total)) for key in self._live}
        return HeldGrowth(weight, ordered, {key: said for key, said in notes.items() if said})

    def _explains(self, own: str, owner: str) -> bool:
        """Objects of one type became more since those that hold them did."""
        whole = self._live.get(owner)
        pair = self._pairs.get((own, owner))
        if owner == own or whole is None or pair is None or whole.delta_count <= 0:
            return False
        usual: float = FEW_OF_NEW
        if whole.base.count:
            usual = max(FEW, USUAL_SHARE * pair.base.count / whole.base.count)
        return pair.delta_bytes > 0 and pair.delta_count <= usual * whole.delta_count

    def _mostly_explained(self) -> dict[str, str]:
        """The type that explains nearly all growth of another."""
        found = {}
        for (own, owner), pair in self._pairs.items():
            whole = self._live[own].delta_bytes
            if pair.delta_bytes >= MOSTLY * whole > 0 and self._explains(own, owner):
                found[own] = owner
        return found

    def _root_of(self, key: str) -> str:
        """The type at which explanations end; of those that explain each other, the one that grew most."""
        way = [key]
        while (following := self._next.get(way[-1])) is not None:
            if following in way:
                circle = way[way.index(following) :]
                return max(circle, key=lambda each: (self._live[each].delta_bytes, each))
            way.append(following)
        return way[-1]

    def _notes(
        self,
        key: str,
        weight: Mapping[str, int],
        held: Mapping[str, tuple[SiteDelta, ...]],
        total: int,
    ) -> Iterable[str]:
        live, pairs = self._live[key], held.get(key, ())
        if pairs and weight[key] > _WORTH_TELLING * total:
            mine = f" held by {self._type_name(key)}"
            named = [
                f"{pair.site.name.removesuffix(mine)} {format_bytes(pair.delta_bytes, signed=True)} "
                f"({format_count(pair.delta_count, signed=True)})"
                for pair in pairs[:NAMED]
            ]
            more = len(pairs) - NAMED
            share = format_share(weight[key], total, 0)
            yield (
                f"with what they hold {format_bytes(weight[key], signed=True)}, {share} of growth: "
                + ", ".join(named)
                + (f" and {more:,} more" if more > 0 else "")
            )
        for pair in self._own[key]:
            if 0 < _HALF * live.delta_count <= pair.delta_count and HELD in pair.site.key:
                by = pair.site.name[len(self._type_name(key)) :].strip()
                yield f"{format_count(pair.delta_count, signed=True)} of them {by}"
        whole = self._current.get(key, Totals())
        garbage = whole.count - live.current.count
        if self._told and garbage > _WORTH_TELLING * whole.count:
            yield (
                f"on the heap {whole.count:,}, reachable {live.current.count:,}: the rest waits for a "
                "collection"
            )

    def _type_name(self, key: str) -> str:
        return next(pair.site.name.split(" held by ")[0] for pair in self._own[key])


def _pairs(
    sides: tuple[HeldObjects, HeldObjects], *, garbage: bool
) -> dict[tuple[str, str], SiteDelta]:
    """What each type has of each that holds it in both dumps."""
    found: dict[tuple[str, str], SiteDelta] = {}
    for number, side in enumerate(sides):
        for key, (site, totals) in side.groups.items():
            own, owner, is_garbage = _parts_of(key)
            if is_garbage and not garbage:
                totals = Totals()
            old = found.get((own, owner)) or SiteDelta(site, Totals(), Totals())
            one, other = (
                (old.base, old.current + totals) if number else (old.base + totals, old.current)
            )
            found[own, owner] = SiteDelta(site if not is_garbage else old.site, one, other)
    return found


def _sum(pairs: Iterable[SiteDelta]) -> SiteDelta:
    first, *rest = pairs
    for pair in rest:
        first = SiteDelta(first.site, first.base + pair.base, first.current + pair.current)
    return first


def _most_first(pair: SiteDelta) -> tuple[int, int, str]:
    return -pair.delta_bytes, -pair.delta_count, pair.site.key
