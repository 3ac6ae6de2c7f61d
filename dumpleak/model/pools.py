"""The kernel's pools of a dump, snapshot file or log: what is told of each tag, and on what grounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from dumpleak.model.held_objects import HeldObjects
from dumpleak.model.left_pool import LeftPool
from dumpleak.model.listed_blocks import LookInto
from dumpleak.model.owners import Ownership
from dumpleak.model.pool import POOLS, TagRow
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.pool_blocks import PoolBlocks
from dumpleak.model.pool_sites import Refuted, site_key
from windumps.arrays import I64, U64


@dataclass(frozen=True)
class OpenObjects:
    """What a process of the system has handles of.

    Attributes:
        process_id: Its id.
        name: Of its program.
        objects: uint64, address of the `_OBJECT_HEADER` of each open handle; one object may come more than
            once.
        absent_pages: Pages of its handle table that are not in the dump.
        blank_pages: Pages of it that nobody wrote.
    """

    process_id: int
    name: str
    objects: U64
    absent_pages: int
    blank_pages: int = 0


@dataclass(frozen=True)
class Pools:
    """What is known of the pools, besides where it comes from.

    Attributes:
        rows: One a tag, ascending by number.
        account: Of the pools as a whole.
        has_trackers: The kernel's own counters are known, at least for some tags.
        counter_bits: Width of allocs and frees: 32 or 64.
        absent_entries: Entries of the tracker tables, or tags of a log, that are known to be missing.
        has_session_pool: The counters of session pool were found.
        why_no_session_pool: Why there is no session pool; "" where there is or may be.
        refuted: What the trackers say where the blocks refute it.
        may_lack_tags: It is a log, which may be cut or filtered: a tag that is not there may still be.
        blocks: Gives the used blocks.
        handles: Gives open handles of all processes; None where they are not kept.
        find_owner: Tells whose a tag is that has no row; None each when nobody looked for it.
        look_into: Tells what blocks point to; None where their contents are not kept.
        left: The pool that an unloaded driver left, where the system stopped for it.
        held: Tells who holds the objects of a tag; None of other tags, and where that is not kept.
        words: What blocks hold, by their addresses and sizes: (which block, word) of each word, as far as
            they are looked into; None where contents are not kept.
    """

    rows: tuple[TagRow, ...]
    account: PoolAccount
    has_trackers: bool
    counter_bits: int
    absent_entries: int
    has_session_pool: bool
    why_no_session_pool: str
    refuted: tuple[Refuted, ...] = ()
    may_lack_tags: bool = False
    blocks: Callable[[], PoolBlocks] = lambda: PoolBlocks(())
    handles: Callable[[], list[OpenObjects] | None] = lambda: None
    find_owner: Callable[[int], Ownership | None] = lambda tag: None
    look_into: LookInto = lambda address, size: None
    left: LeftPool | None = None
    held: Callable[[int], HeldObjects | None] = lambda tag: None
    words: Callable[[U64, I64], tuple[I64, U64]] | None = None

    @cached_property
    def owners(self) -> dict[int, Ownership]:
        """Whose each tag is, by its number."""
        return {row.number: row.owner for row in self.rows}

    @cached_property
    def tags(self) -> dict[str, tuple[int, int | None]]:
        """Tag, and number in `POOLS` or None for all, of each site that its rows can have, by key."""
        pools = (None, *range(len(POOLS)))
        numbers = [row.number for row in self.rows]
        return {site_key(number, pool): (number, pool) for number in numbers for pool in pools}
