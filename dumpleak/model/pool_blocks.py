"""The blocks of a dump by tag, and which of them came between two dumps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.block_columns import Columns, sorted_columns
from dumpleak.model.units import format_address
from windumps.arrays import I64, U64
from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind
from windumps.pool_tags import Pool

MAX_SAMPLES = 5
MAX_SIZES = 8
_POOL_BITS = np.uint64(2)
# `POOLS` by number: session pool counts apart, as its trackers do.
_CLASS = np.zeros(len(Pool), np.uint64)
_CLASS[[Pool.PAGED]] = 1
_CLASS[[Pool.PAGED_SESSION, Pool.NONPAGED_SESSION]] = 2
_CLASS[[Pool.UNKNOWN]] = 3


def class_of(pool: int) -> int:
    """The number in `POOLS` that a `Pool` counts for; 3 when it is unknown."""
    return int(_CLASS[min(pool, len(_CLASS) - 1)])


@dataclass(frozen=True)
class NewBlocks:
    """Blocks of one tag that came between two dumps.

    Attributes:
        sizes: (block bytes, how many more of them), the most bytes first; sizes that became fewer are left
            out.
        other_sizes: How many more sizes grew.
        samples: Addresses of some new blocks, of the size that grew most.
        are_new: The samples were not there in the base; False when the addresses of the two dumps cannot be
            compared, since the system was restarted in between.
    """

    sizes: tuple[tuple[int, int], ...]
    other_sizes: int
    samples: tuple[int, ...]
    are_new: bool


class PoolBlocks:
    """Used blocks of a dump as columns, ascending by tag, pool and address.

    Args:
        pieces: What the pools' walk gives; free blocks are left out.
    """

    def __init__(self, pieces: Iterable[Blocks]) -> None:
        self._rows_of = sorted_columns(_used(blocks) for blocks in pieces)

    @classmethod
    def of_columns(cls, key: U64, address: U64, size: I64, kind: NDArray[np.uint8]) -> PoolBlocks:
        """Blocks from columns in any order.

        Args:
            key: Tag << 2 | pool (of `POOLS`).
            address: Where blocks lie.
            size: Their bytes, headers included.
            kind: Of `Kind`.
        """
        blocks = cls(())
        blocks._rows_of = sorted_columns([(key, address, size, kind)])
        return blocks

    def __len__(self) -> int:
        return len(self._rows_of.address)

    @property
    def total(self) -> tuple[int, int]:
        """(blocks, bytes) in all."""
        return len(self), int(self._rows_of.size.sum(dtype=np.int64))

    @property
    def tags(self) -> NDArray[np.uint32]:
        """uint32: the tags that have blocks."""
        return np.unique(self._rows_of.keys >> _POOL_BITS).astype(np.uint32)

    def has_pool(self, pool: int) -> bool:
        """There are blocks in one of `POOLS`, by number."""
        return bool((self._rows_of.keys & np.uint64(3) == pool).any())

    def column(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """(values, block bytes) of all blocks; the values are "size", "kind" or "pool" (of `POOLS`)."""
        rows = self._rows_of
        if name == "pool":
            pools = (rows.keys & np.uint64(3)).astype(np.uint8)
            return np.repeat(pools, np.diff(rows.starts)), rows.size
        return rows.size if name == "size" else rows.kind, rows.size

    def places(self) -> tuple[U64, I64]:
        """(addresses, block bytes) of all blocks, in no order of addresses."""
        return self._rows_of.address, self._rows_of.size.astype(np.int64)

    def of(self, tag: int, pool: int | None = None) -> tuple[U64, I64]:
        """(addresses, block bytes) of a tag's blocks, of one of `POOLS` by number or of all.

        Addresses ascend where one pool is asked for.
        """
        rows = self._rows(tag, pool)
        return self._rows_of.address[rows], self._rows_of.size[rows].astype(np.int64)

    def every(self, step: int) -> tuple[NDArray[np.uint32], U64, I64]:
        """(tags, addresses, block bytes) of every so manieth block."""
        rows = self._rows_of
        chosen = np.arange(0, len(self), step)
        key = np.searchsorted(rows.starts, chosen, "right") - 1
        tags = (rows.keys[key] >> _POOL_BITS).astype(np.uint32)
        return tags, rows.address[chosen], rows.size[chosen].astype(np.int64)

    def _rows(self, tag: int, pool: int | None) -> slice:
        low = tag << 2 | (pool or 0)
        high = low + (4 if pool is None else 1)
        keys = np.searchsorted(self._rows_of.keys, np.array([low, high], np.uint64))
        return slice(*self._rows_of.starts[keys].tolist())

    def tags_at(self, addresses: U64) -> I64:
        """The tag of the block that each address lies in; -1 where there is none."""
        rows = self._rows_of
        found = np.full(len(addresses), -1, np.int64)
        if not len(rows.address):
            return found
        order = np.argsort(rows.address)
        start = rows.address[order]
        row = np.searchsorted(start, addresses, "right").astype(np.int64) - 1
        block = order[np.maximum(row, 0)]
        inside = (row >= 0) & (addresses - rows.address[block] < rows.size[block].astype(np.uint64))
        key = np.searchsorted(rows.starts, block[inside], "right") - 1
        found[inside] = (rows.keys[key] >> _POOL_BITS).astype(np.int64)
        return found

    def as_blocks(self, tag: int, pool: int | None = None) -> Blocks:
        """A tag's blocks as `Blocks`."""
        address, size = self.of(tag, pool)
        unknown, used = np.full(len(size), SIZE_UNKNOWN, np.int64), np.ones(len(size), np.bool_)
        blocks = Blocks.build(address, unknown, size, used, Kind.POOL_BLOCK, 0)
        return replace(blocks, kind=self._rows_of.kind[self._rows(tag, pool)])

    def totals(self, tag: int, pool: int) -> tuple[int, int]:
        """(blocks, bytes) of a tag in one of `POOLS`."""
        sizes = self._rows_of.size[self._rows(tag, pool)]
        return len(sizes), int(sizes.sum(dtype=np.int64))


def _used(blocks: Blocks) -> Columns:
    """Key, address, size and kind of the used ones."""
    used = blocks.used
    pool = _CLASS[np.minimum(used.heap, len(_CLASS) - 1)]
    key = used.tag.astype(np.uint64) << _POOL_BITS | pool
    return key, used.address, used.block_bytes, used.kind


def said_of_new(found: NewBlocks, pointer_size: int) -> list[str]:
    """New blocks for people: their sizes, and where some lie."""
    if not found.sizes:
        return []
    sizes = ", ".join(f"{more} of {size} bytes" for size, more in found.sizes)
    other = f" and {found.other_sizes} more sizes" if found.other_sizes else ""
    said = [f"more blocks: {sizes}{other}"]
    if found.samples:
        which = "new" if found.are_new else "of that size"
        addresses = " ".join(format_address(address, pointer_size) for address in found.samples)
        said.append(f"{which}, for example: {addresses}")
    return said


def new_blocks(
    base: PoolBlocks, current: PoolBlocks, tag: int, pool: int | None = None, *, same_boot: bool
) -> NewBlocks:
    """Which blocks of a tag came, in one of `POOLS` by number or in all."""
    old_address, old_size = base.of(tag, pool)
    order = np.argsort(old_address)  # of several pools they stand pool by pool
    old_address, old_size = old_address[order], old_size[order]
    address, size = current.of(tag, pool)
    sizes = np.union1d(old_size, size)
    more = np.zeros(len(sizes), np.int64)
    np.add.at(more, np.searchsorted(sizes, size), 1)
    np.subtract.at(more, np.searchsorted(sizes, old_size), 1)
    order = np.argsort(-(more * sizes), kind="stable")
    grown = [(int(sizes[n]), int(more[n])) for n in order.tolist() if more[n] > 0]
    candidates = address[size == grown[0][0]] if grown else address[:0]
    if same_boot and len(candidates):
        # An address that was used again by a block of another size is a new block as well.
        place = np.searchsorted(old_address, candidates) if len(old_address) else None
        if place is not None:
            safe = np.minimum(place, len(old_address) - 1)
            there = (old_address[safe] == candidates) & (old_size[safe] == grown[0][0])
            candidates = candidates[~there]
    return NewBlocks(
        tuple(grown[:MAX_SIZES]),
        max(len(grown) - MAX_SIZES, 0),
        tuple(candidates[-MAX_SAMPLES:].tolist()),
        same_boot,
    )
