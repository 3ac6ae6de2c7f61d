"""Which of several tags that grow together the others hang on.

The weightiest sign first: its new blocks hold pointers to those of the others, and none of theirs to it; its
driver does not come with Windows, and theirs do; it is never freed, and they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.pool import TagRow, minus, owner_of_both
from dumpleak.model.pools import Pools
from dumpleak.model.units import format_share
from dumpleak.owners.of_windows import is_of_windows
from windumps.arrays import I64, U64
from windumps.pool_tags import tag_text

MAX_BLOCKS = 4096  # of each tag are looked into, evenly over all new ones
_SPARE = 4  # times as many are asked whether they are new
MAX_TAGS = 16  # of a group whose blocks are looked into
_HOLDING = 0.5  # share of a tag's blocks that hold a pointer to another tag's
_BACK = 0.1  # and share of those that may point back
_NEVER, _OFTEN = 0.01, 0.1  # frees by allocations: a tag that is never freed, one that is
_HOLDS, _FOREIGN, _KEPT = 4, 2, 1


def find_root(
    base: Pools, current: Pools, tags: Sequence[int], why_unseen: str
) -> tuple[int | None, tuple[str, ...]]:
    """The root of tags that grew together and what speaks for it; else None and why.

    Args:
        base: The first dump.
        current: The last one.
        tags: Those that grew together.
        why_unseen: Why their new blocks are not looked into; "" when they are.
    """
    holder, said = (None, "") if why_unseen else _holder(base, current, tags[:MAX_TAGS])
    signs: dict[int, list[tuple[int, str]]] = {tag: [] for tag in tags}
    if holder is not None:
        signs[holder].append((_HOLDS, said))
    for weight, (tag, told) in (
        (_FOREIGN, _foreign(base, current, tags)),
        (_KEPT, _never_freed(base, current, tags)),
    ):
        if tag is not None:
            signs[tag].append((weight, told))
    best = max(tags, key=lambda tag: sum(weight for weight, _ in signs[tag]))
    if signs[best]:
        return best, tuple(told for _, told in signs[best])
    looked = f"who points to whom was not looked at: {why_unseen}" if why_unseen else ""
    return None, (looked or "no one's new blocks point to the others'",)


def why_not_seen(base: Pools, current: Pools, *, same_boot: bool) -> str:
    """Why nobody can tell which new block points to which; "" when it can be told."""
    if current.words is None:
        return "contents of blocks are only in dumps"
    if base.account.walked_bytes is None or current.account.walked_bytes is None:
        return "the blocks were not walked"
    return (
        "" if same_boot else "which blocks are new is not known, the system may have been restarted"
    )


# -- pointers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Blocks:
    """Blocks of one tag in the last dump, ascending, and where it had some in the first."""

    address: U64
    size: I64
    old: U64

    @classmethod
    def of(cls, base: Pools, current: Pools, tag: int) -> _Blocks:
        address, size = current.blocks().of(tag)
        old, _ = base.blocks().of(tag)
        if not _ascend(address):  # of several pools they stand pool by pool
            order = np.argsort(address)
            address, size = address[order], size[order]
        return cls(address, size, old if _ascend(old) else np.sort(old))

    def is_new(self, addresses: U64) -> NDArray[np.bool_]:
        """Which addresses had no block of the tag in the first dump."""
        if not len(self.old):
            return np.ones(len(addresses), np.bool_)
        place = np.minimum(np.searchsorted(self.old, addresses), len(self.old) - 1)
        return np.asarray(self.old[place] != addresses)

    def some_new(self) -> tuple[U64, I64]:
        """(addresses, sizes) of new blocks, evenly over all."""
        step = max(len(self.address) // (_SPARE * MAX_BLOCKS), 1)
        address, size = self.address[::step], self.size[::step]
        new = np.flatnonzero(self.is_new(address))
        chosen = new[:: max(-(-len(new) // MAX_BLOCKS), 1)]
        return address[chosen], size[chosen]

    def new_with(self, words: U64) -> tuple[I64, NDArray[np.bool_]]:
        """The block that each word points into, and whether it is a new one."""
        if not len(self.address):
            return np.zeros(len(words), np.int64), np.zeros(len(words), np.bool_)
        # Below the first block the difference wraps around, and is larger than any block.
        place = np.maximum(np.searchsorted(self.address, words, "right").astype(np.int64) - 1, 0)
        inside = words - self.address[place] < self.size[place].astype(np.uint64)
        inside[inside] = self.is_new(self.address[place[inside]])
        return place, inside


def _ascend(address: U64) -> bool:
    return not (address[1:] < address[:-1]).any()


def _holder(base: Pools, current: Pools, tags: Sequence[int]) -> tuple[int | None, str]:
    """The one tag that points to others and that none of these points to."""
    blocks = {tag: _Blocks.of(base, current, tag) for tag in tags}
    share = {(tag, other): value for tag in tags for other, value in _shares(current, tag, blocks)}
    holds: dict[int, list[int]] = {tag: [] for tag in tags}
    held = set()
    for tag, other in permutations(tags, 2):
        if share[tag, other] >= _HOLDING and share[other, tag] <= _BACK:
            holds[tag].append(other)
            held.add(other)
    roots = [tag for tag in tags if holds[tag] and tag not in held]
    if len(roots) != 1:
        return None, ""
    names = ", ".join(tag_text(tag).rstrip() for tag in holds[roots[0]])
    least = min(share[roots[0], other] for other in holds[roots[0]])
    return roots[
        0
    ], f"{format_share(least, 1, 0)} of its new blocks point to those of {names}, none back"


def _shares(current: Pools, tag: int, blocks: dict[int, _Blocks]) -> Iterator[tuple[int, float]]:
    """Which share of a tag's new blocks hold a pointer into new blocks of each other tag.

    Several that point to one and the same block count once: what they share does not hang on them.
    """
    address, size = blocks[tag].some_new()
    words_of = current.words if len(address) else None
    rows, words = words_of(address, size) if words_of else (np.empty(0, np.int64), address[:0])
    for other, theirs in blocks.items():
        place, inside = theirs.new_with(words)
        many = min(len(np.unique(rows[inside])), len(np.unique(place[inside])))
        yield other, many / max(len(address), 1)


# -- drivers, and frees ----------------------------------------------------------------------------------


def _foreign(base: Pools, current: Pools, tags: Sequence[int]) -> tuple[int | None, str]:
    """The one tag whose driver does not come with Windows, where those of all others do."""
    owners = {}
    for tag in tags:
        known = [side.owners[tag] for side in (base, current) if tag in side.owners]
        owners[tag] = owner_of_both(known[0], known[-1])
    others = [tag for tag in tags if is_of_windows(owners[tag]) is not True]
    if len(others) != 1:
        return None, ""
    (tag,) = others
    rest = "the others are" if len(tags) > 2 else "the other is"
    rest += " Windows' own"
    if is_of_windows(owners[tag]) is False:
        return (
            tag,
            f"{owners[tag].driver} is no known driver of Windows, {rest}",
        )
    return tag, f"it is no known tag of Windows, {rest}"


def _never_freed(base: Pools, current: Pools, tags: Sequence[int]) -> tuple[int | None, str]:
    """The one tag that is allocated and not freed, where all others are freed as well."""
    before, after = ({row.number: row for row in side.rows} for side in (base, current))
    freed = {tag: _freed(before.get(tag), after.get(tag)) for tag in tags}
    never = [tag for tag in tags if (share := freed[tag]) is not None and share[0] <= _NEVER]
    if len(never) != 1:
        return None, ""
    rest = [share[0] for tag, share in freed.items() if share is not None and tag != never[0]]
    if len(rest) < len(tags) - 1 or min(rest) < _OFTEN:
        return None, ""
    _, allocs, frees = freed[never[0]] or (0.0, 0, 0)
    least, whose = format_share(min(rest), 1, 0), "others'" if len(tags) > 2 else "other's"
    said = f"{frees:,} of its {allocs:,} new blocks were freed, of the {whose} {least} or more"
    return never[0], said


def _freed(base: TagRow | None, current: TagRow | None) -> tuple[float, int, int] | None:
    """(frees by allocations, allocations, frees) between two dumps; None where unknown."""
    allocs, frees = (
        minus(current.total(name) if current else None, base.total(name) if base is not None else 0)
        for name in ("allocs", "frees")
    )
    if allocs is None or frees is None or allocs <= 0 or frees < 0:
        return None
    return frees / allocs, allocs, frees
