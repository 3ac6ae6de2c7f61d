"""Which shapes have one cause, as far as their sizes, heaps and contents tell.

A shape is one heap and one exact size. What one call asks for may have many sizes (text, arrays) and lie in
several heaps; what several calls ask for must stay apart. The rules, each on what was seen:

- Very many sizes of one content in one heap are one cause, but for sizes that stand out by themselves.
- Sizes that became more and sizes that became fewer are two, where that is no chance.
- Sizes that keep to the multiples of a number are arrays of such elements.
- Heaps have one cause where the same sizes of the same content became more in them, in like numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

from dumpleak.model.sites import Site
from dumpleak.model.totals import Totals

MIN_SIZES = 25  # more rows than a screen has
# A shape with this share of all growth stands for itself. The planted leaks of fixed sizes in the dumps with
# known truth have 3% and more, sizes at random have 0.2% to 1.7%.
OWN_SHARE = 0.02
FEW_SIZES = 8  # fewer say nothing of how sizes are spread
CHANCE = 3.0  # standard deviations from which on a change in many sizes has a direction
LIKE_SPREAD = 0.9  # cosine of what two heaps got by classes of size, in one cause
LIKE_COUNT = 4.0  # one heap of a cause gets at most so many times what another gets
FEW_BLOCKS = 8  # growth of one size in several heaps by less is chance, where contents say nothing
WIDE_GAP = 4.0  # no size between one and this many times it: the larger ones are another cause
STRIDES = range(
    12, 513
)  # sizes of elements; smaller ones cannot be told from how sizes are rounded
ON_STRIDE = 0.6  # share of blocks that a stride has to explain, beyond what it explains by chance
ALL_ON = 0.9  # of powers of two, which programs round sizes up to
ROUNDED = 16  # what they round up to most often; such a number says nothing
SAME_SCORE = 0.95  # of strides that explain as much as the best one, the largest is it
# A size that changed by so many standard deviations more than others, by chance, stands for itself.
OUTSTANDING = 4.0
HEADS = (0, 8, 4, 16)  # what may stand before the elements: their number, say

# What names say of contents that chance says, too, or that says nothing.
_WEAK = frozenset({"", ", begins with a GUID"})

T = TypeVar("T")


class Shape(NamedTuple):
    """A shape, and what it did.

    Attributes:
        site: It.
        size: Its exact size.
        heap: The label of its heap.
        kind: The kind of its heap.
        said: What its name says of contents, ", ASCII text".
        base: Totals before.
        current: Totals after.
    """

    site: Site
    size: int
    heap: str
    kind: str
    said: str
    base: Totals
    current: Totals

    @property
    def grown(self) -> int:
        """Bytes more."""
        return self.current.bytes - self.base.bytes

    @property
    def more(self) -> int:
        """Blocks more."""
        return self.current.count - self.base.count

    @property
    def program(self) -> str:
        """Which of the two programs of a WoW64 process has the heap."""
        return self.heap.partition("heap ")[0]


@dataclass(frozen=True)
class Family:
    """Shapes with one cause.

    Attributes:
        shapes: They.
        said: What all of them hold, "" where they agree on nothing.
        stride: The size of the elements of arrays; 0 for other things.
        head: Bytes before the first element.
        low: The power of two from which its sizes go, where there are others far below; else 0.
        fewer: They became fewer, while others like them became more.
    """

    shapes: tuple[Shape, ...]
    said: str
    stride: int = 0
    head: int = 0
    low: int = 0
    fewer: bool = False

    @property
    def heaps(self) -> list[str]:
        """Labels of its heaps, in order of their numbers."""
        return sorted({shape.heap for shape in self.shapes}, key=lambda label: (len(label), label))

    @property
    def sizes(self) -> set[int]:
        """All its sizes."""
        return {shape.size for shape in self.shapes}


def families(shapes: Sequence[Shape], growth: int, *, grown: bool = True) -> list[Family]:
    """Shapes put together by cause; those that stand for themselves are in none.

    Args:
        shapes: All shapes.
        growth: Bytes of all that grew.
        grown: Growth is what is looked at. Where it is not, but only what is there, one size in several
            heaps is one cause only when its contents say so.
    """
    shrunk = -sum(min(shape.grown, 0) for shape in shapes)
    found: list[Family] = []
    rest: list[Shape] = []
    for alike in _by(shapes, lambda s: (s.program, s.said)):
        said = alike[0].said
        if is_text(said):
            typical = [
                s
                for in_heap in _by(alike, lambda s: s.heap)
                for s in _typical(in_heap, growth, shrunk)
            ]
            made = _varied(typical, said)
        else:
            made = _arrays(alike, said, growth, shrunk)
            small = [
                shape
                for shape in _without(alike, made)
                if -OWN_SHARE * shrunk < shape.grown < OWN_SHARE * growth
            ]
            if said in _WEAK:
                rest += small
            else:
                made += _varied(small, said)
        found += made
        if said not in _WEAK:
            left = _without(alike, made)
            if sum(max(shape.grown, 0) for shape in left) < OWN_SHARE * growth:
                rest += left
    for alike in _by(rest, lambda s: s.program):
        found += _varied(alike, "")
    for in_heap in _by(_without(rest, found), lambda s: s.heap):
        found += _beside(in_heap, found, OWN_SHARE * growth)
    left = [s for s in _without(shapes, found) if s.grown > 0 and s.more > 0]
    for alike in _by(left, lambda s: (s.program, s.size, s.said)):
        if len(alike) > 1 and (grown or alike[0].said not in _WEAK):
            found += _several_heaps(alike)
    return found


def is_text(said: str) -> bool:
    """What a shape's name says of contents is that they are text, whose sizes say nothing of who asked."""
    return said.endswith("text")


def _typical(shapes: Sequence[Shape], growth: float, shrunk: float) -> list[Shape]:
    """Shapes of one content in one heap without those that stand out: by their share and by their number."""
    usual = _median(shapes)
    found = []
    for sizes in _by(shapes, lambda s: s.size.bit_length()):
        around = max(usual, _median(sizes) if len(sizes) >= FEW_SIZES else 0.0)
        most = around + OUTSTANDING * around**0.5
        found += [
            shape
            for shape in sizes
            if abs(shape.more) <= most or -OWN_SHARE * shrunk < shape.grown < OWN_SHARE * growth
        ]
    return found


def _median(shapes: Sequence[Shape]) -> float:
    """Of how many blocks there are more or fewer, among those that changed."""
    changed = [abs(shape.more) for shape in shapes if shape.more]
    return float(np.median(changed)) if changed else 0.0


def _arrays(shapes: Sequence[Shape], said: str, growth: int, shrunk: int) -> list[Family]:
    """Sizes that keep to the multiples of a number, by heap; heaps with one cause as one."""
    made = []
    for in_heap in _by(shapes, lambda s: s.heap):
        stride, head = _stride([shape for shape in in_heap if shape.more > 0])
        if stride:
            mine = [s for s in in_heap if s.size % stride == head % stride]
            made.append(Family(tuple(_typical(mine, growth, shrunk)), said, stride, head))
    clusters = [
        cluster
        for alike in _by(made, lambda f: (f.stride, f.head))
        for cluster in _like_spread(alike)
    ]
    return [
        replace(cluster[0], shapes=tuple(s for family in cluster for s in family.shapes))
        for cluster in clusters
    ]


def _varied(shapes: Sequence[Shape], said: str) -> list[Family]:
    """Very many sizes of one content, by heap and by what became of them; heaps with one cause as one."""
    rising: list[Family] = []
    found: list[Family] = []
    for in_heap in _by(shapes, lambda s: s.heap):
        up, down = _directions(in_heap)
        if len({s.size for s in down}) >= MIN_SIZES:
            found.append(Family(tuple(down), said, fewer=bool(up)))
        rising += _without_gaps(up, said)
    for cluster in _like_spread(rising):
        together = tuple(shape for family in cluster for shape in family.shapes)
        if len({s.size for s in together if s.grown > 0}) >= MIN_SIZES:
            found.append(Family(together, said, low=cluster[0].low))
    return found


def _beside(shapes: Sequence[Shape], found: Sequence[Family], most: float) -> list[Family]:
    """What is left in a heap of sizes that a cause has, too, which would make rows that say nothing."""
    spans = [f.sizes for f in found if shapes[0].heap in f.heaps and not f.stride and not f.fewer]
    left = [
        shape
        for shape in shapes
        if shape.said in _WEAK
        and shape.more
        and any(min(span) <= shape.size <= max(span) for span in spans)
    ]
    if len(left) < FEW_SIZES or sum(max(shape.grown, 0) for shape in left) >= most:
        return []
    return [Family(tuple(left), "")]


def _directions(shapes: Sequence[Shape]) -> tuple[list[Shape], list[Shape]]:
    """Shapes of classes of size that became more or stayed, and of those that became fewer.

    Blocks that come and go by chance change each size by a little, up or down: over a class of sizes that
    adds up to no more than a few times the root of its squares.
    """
    up: list[Shape] = []
    down: list[Shape] = []
    steady: list[Shape] = []
    for sizes in _by(shapes, lambda s: s.size.bit_length()):
        more = np.array([shape.more for shape in sizes], np.float64)
        chance = CHANCE * float(np.sqrt((more**2).sum()))
        if more.sum() >= chance > 0 or (more.sum() > 0 and (more >= 0).all()):
            up += sizes
        elif more.sum() <= -chance < 0:
            down += sizes
        else:
            steady += sizes
    return ([*up, *steady], down) if up or not down else ([], [*down, *steady])


def _without_gaps(shapes: Sequence[Shape], said: str) -> list[Family]:
    """Shapes apart where their sizes leave a wide gap."""
    sizes = sorted({shape.size for shape in shapes if shape.grown > 0})
    gaps = [
        large
        for number, (small, large) in enumerate(pairwise(sizes), start=1)
        if large > WIDE_GAP * small and min(number, len(sizes) - number) >= MIN_SIZES
    ]
    found = []
    for low, high in pairwise([0, *gaps, float("inf")]):
        part = tuple(shape for shape in shapes if low <= shape.size < high)
        if part:
            found.append(Family(part, said, low=1 << int(low).bit_length() - 1 if low else 0))
    return found


def _stride(shapes: Sequence[Shape]) -> tuple[int, int]:
    """What most blocks' sizes are multiples of, behind so many bytes; zeros where there is nothing."""
    if len(shapes) < FEW_SIZES:
        return 0, 0
    sizes = np.array([shape.size for shape in shapes], np.int64)
    many = np.array([shape.more for shape in shapes], np.float64)
    many = np.minimum(many, LIKE_COUNT * np.sort(many)[-FEW_SIZES])
    found: list[tuple[float, int, int]] = []
    for stride in STRIDES:
        if stride == ROUNDED:
            continue
        needed = ALL_ON if stride & stride - 1 == 0 else ON_STRIDE
        counts = np.bincount(sizes % stride, minlength=stride)
        sums = np.bincount(sizes % stride, many, stride)
        for head in HEADS:
            on = float(sums[head % stride])
            beyond_chance = on - (many.sum() - on) / (stride - 1)
            if counts[head % stride] >= FEW_SIZES and beyond_chance >= needed * many.sum():
                found.append((beyond_chance, stride, head))
    best = max(found, default=(0.0, 0, 0))[0]
    for score, stride, head in reversed(found):
        mine = np.unique(sizes[sizes % stride == head % stride])
        # They have to go through its multiples: a few sizes far from each other have any divisor.
        if score >= SAME_SCORE * best and np.gcd.reduce(np.diff(mine) // stride) == 1:
            return stride, head
    return 0, 0


class _Spread:
    """How the blocks of one family are spread over sizes; made once, compared with many."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.heaps, self.sizes = family.heaps, family.sizes
        self.more = sum(max(shape.more, 0) for shape in family.shapes)
        self.few = len({shape.size for shape in family.shapes if shape.more > 0}) < FEW_SIZES
        self.classes = np.zeros(64)
        for shape in family.shapes:
            self.classes[min(shape.size.bit_length(), 63)] += max(shape.more, 0)
        self.length = float(np.linalg.norm(self.classes))

    def is_like(self, other: _Spread) -> bool:
        """Sizes are spread alike, in other heaps."""
        low, high = sorted((self.more, other.more))
        if high > LIKE_COUNT * low or self.heaps == other.heaps:
            return False
        if self.few or other.few:
            said = self.family.said if self.few else other.family.said
            return bool(said) and not self.sizes.isdisjoint(other.sizes)
        long = self.length * other.length
        return bool(long) and float(self.classes @ other.classes) >= LIKE_SPREAD * long


def _like_spread(families: Sequence[Family]) -> list[list[Family]]:
    """Families of single heaps; those in whose heaps sizes are spread alike stand together."""
    clusters: list[tuple[_Spread, list[Family]]] = []
    ordered = sorted(families, key=lambda f: (-sum(s.more for s in f.shapes), f.heaps))
    for spread in map(_Spread, ordered):
        mine = next((c for first, c in clusters if first.is_like(spread)), None)
        if mine is None:
            clusters.append((spread, [spread.family]))
        else:
            mine.append(spread.family)
    return [cluster for _, cluster in clusters]


def _several_heaps(shapes: Sequence[Shape]) -> list[Family]:
    """One size of one content that became more in several heaps: one cause, where the numbers are alike."""
    said = shapes[0].said
    if "->" in said or "points to" in said:
        return [Family(tuple(shapes), said)]
    found = []
    left = sorted(shapes, key=lambda s: (-s.more, s.heap))
    while len(left) > 1:
        mine = [s for s in left if LIKE_COUNT * s.more >= left[0].more]
        if said in _WEAK and mine[-1].more < FEW_BLOCKS:
            break
        if len(mine) > 1:
            found.append(Family(tuple(mine), said))
        left = left[len(mine) :]
    return found


def _without(shapes: Iterable[Shape], taken: Iterable[Family]) -> list[Shape]:
    keys = {shape.site.key for family in taken for shape in family.shapes}
    return [shape for shape in shapes if shape.site.key not in keys]


def _by(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    found: dict[Hashable, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.values())
