"""What one tag holds, pool by pool, and what it did in two dumps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, field, replace

from dumpleak.model.held_objects import HeldObjects
from dumpleak.model.owners import Ownership
from dumpleak.model.pool_blocks import NewBlocks

POOLS = ("nonpaged", "paged", "session")
TRACKERS, WALK = "trackers", "walk"


@dataclass(frozen=True)
class Counters:
    """Counters of one tag in one pool; None where the dump does not tell.

    Attributes:
        allocs: Allocations ever made.
        frees: Frees ever made.
        count: Blocks held now.
        bytes: Bytes held now, block headers and rounding included.
    """

    allocs: int | None
    frees: int | None
    count: int | None
    bytes: int | None

    @property
    def is_empty(self) -> bool:
        """The tag never had a block in this pool, as far as is known."""
        return not any((self.allocs, self.frees, self.count, self.bytes)) and self.bytes is not None

    def __add__(self, other: Counters) -> Counters:
        return self._with(other, lambda mine, its: mine + its)

    def __sub__(self, other: Counters) -> Counters:
        return self._with(other, lambda mine, its: mine - its)

    def _with(self, other: Counters, change: Callable[[int, int], int]) -> Counters:
        """Each quantity with the other's; None where either is unknown."""
        sides = (astuple(self), astuple(other))
        return Counters(
            *(
                None if mine is None or its is None else change(mine, its)
                for mine, its in zip(*sides, strict=True)
            )
        )

    @property
    def per_alloc(self) -> int | None:
        """Bytes of an average block, as PoolMon shows it."""
        if self.bytes is None or not self.count:
            return None
        return self.bytes // self.count


MIN_ALLOCS = 100  # of fewer nothing is said
NEVER_FREED = 0.01  # frees by allocations

NONE = Counters(0, 0, 0, 0)
UNKNOWN = Counters(None, None, None, None)
NO_BLOCKS = Counters(None, None, 0, 0)  # none was found; how many there were nothing tells


def is_never_freed(allocs: int | None, frees: int | None) -> bool | None:
    """Allocated often, and freed next to never; None where unknown."""
    if allocs is None or frees is None:
        return None
    return allocs >= MIN_ALLOCS and 0 <= frees <= NEVER_FREED * allocs


def minus(current: int | None, base: int | None) -> int | None:
    """The difference; None when either is unknown."""
    return None if current is None or base is None else current - base


@dataclass(frozen=True)
class TagRow:
    """One tag of one dump.

    Attributes:
        number: The tag as a number.
        tag: Its four characters.
        pools: Counters by pool, of `POOLS`.
        source: `TRACKERS`, or `WALK` where the kernel's own counters are not in the dump, or the blocks
            refute them, in some pool.
        owner: Whose tag it is.
    """

    number: int
    tag: str
    pools: dict[str, Counters]
    source: str
    owner: Ownership

    def total(self, quantity: str, pools: tuple[str, ...] = POOLS) -> int | None:
        """A quantity over several pools; None when it is unknown in one of them."""
        values = [getattr(self.pools[pool], quantity) for pool in pools if pool in self.pools]
        return None if None in values else sum(values)


def sited(rows: Iterable[TagRow]) -> list[tuple[TagRow, int]]:
    """(row, number in `POOLS`) of all that hold blocks: the sites of a snapshot, in their order."""
    return [
        (row, number)
        for row in rows
        for number, pool in enumerate(POOLS)
        if pool in row.pools and row.pools[pool].count
    ]


@dataclass(frozen=True)
class TagDelta:
    """One tag in two dumps.

    Attributes:
        base: Before; counters of zero when it was not there.
        current: After.
        deltas: Current less base, by pool.
        new: The blocks that came, where the blocks of both dumps were read.
        holders: Who holds the growth, one clause each; for kernel objects.
        held: Who holds all of them; for kernel objects.
    """

    base: TagRow
    current: TagRow
    deltas: dict[str, Counters]
    new: NewBlocks | None = None
    holders: tuple[str, ...] = ()
    held: HeldObjects | None = None

    def total(self, quantity: str, pools: tuple[str, ...] = POOLS) -> int | None:
        """The growth of a quantity over several pools; None when it is unknown in one of them."""
        values = [getattr(self.deltas[pool], quantity) for pool in pools if pool in self.deltas]
        return None if None in values else sum(values)

    @property
    def owner(self) -> Ownership:
        """Whose tag it is: of the later dump, unless only the earlier one can tell."""
        return owner_of_both(self.base.owner, self.current.owner)


# Nothing frees what a driver left: no cache, no use.
LEFT_BEHIND = "{} is no longer loaded: what is left of its blocks is leaked, no cache"


def owner_of_both(base: Ownership, current: Ownership) -> Ownership:
    """The owner of a tag in two dumps: by the later one, unless only the earlier one can tell.

    So it is with a driver that was unloaded in between and left its blocks behind.
    """
    if current.driver is None and base.driver is not None:
        gone = [name for name in base.drivers if name.lower() in map(str.lower, current.unloaded)]
        return replace(
            base,
            note=LEFT_BEHIND.format(" and ".join(gone))
            if gone
            else "only the base shows its owner",
            unloaded=tuple(gone),
        )
    return current


@dataclass(frozen=True)
class Order:
    """How rows are ranked.

    Attributes:
        name: As in `--sort`.
        key: The key PoolMon has for it, or the digit `!poolused` has.
        value: What is ranked, the largest first; None for the alphabet.
    """

    name: str
    key: str
    value: Callable[[TagRow | TagDelta, tuple[str, ...]], int | None] | None = field(repr=False)

    def rank(self, row: TagRow | TagDelta, pools: tuple[str, ...]) -> tuple[bool, int, int, str]:
        """Sort key: unknown last; equal ones by bytes, then by tag, so that the order is always the same."""
        tag = row.tag if isinstance(row, TagRow) else row.current.tag
        if self.value is None:
            return False, 0, 0, tag
        value = self.value(row, pools)
        return value is None, -(value or 0), -(row.total("bytes", pools) or 0), tag


def _per_alloc(row: TagRow | TagDelta, pools: tuple[str, ...]) -> int | None:
    """Bytes of an average block that is there now, as PoolMon's column has it."""
    now = row if isinstance(row, TagRow) else row.current
    held, count = now.total("bytes", pools), now.total("count", pools)
    return None if held is None or not count else held // count


# PoolMon's sorts by its keys (its documentation has t, a, f, d, b, m), those of `!poolused` by its digits.
ORDERS = {
    order.name: order
    for order in (
        Order("bytes", "b", lambda row, pools: row.total("bytes", pools)),
        Order("nonpaged", "2", lambda row, pools: row.total("bytes", ("nonpaged",))),
        Order("paged", "4", lambda row, pools: row.total("bytes", ("paged",))),
        Order("allocs", "a", lambda row, pools: row.total("allocs", pools)),
        Order("frees", "f", lambda row, pools: row.total("frees", pools)),
        Order("diff", "d", lambda row, pools: row.total("count", pools)),
        Order("per-alloc", "m", _per_alloc),
        Order("tag", "t", None),
    )
}
ORDER_KEYS = {order.key: order.name for order in ORDERS.values()}
