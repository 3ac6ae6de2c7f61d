"""Single pool blocks of some tags: where they lie, and what their contents point to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dumpleak.model.pool import POOLS, TagRow
from dumpleak.model.pool_blocks import PoolBlocks
from windumps.arrays import I64, U64

MAX_LISTED = 1000  # unless more are asked for: each is looked into
NO_CONTENTS = "a snapshot or a log keeps no contents of blocks; look into the dump itself"
UNKNOWN_POOL = len(POOLS)


@dataclass(frozen=True)
class Pointed:
    """Something that words of a block point to.

    Attributes:
        kind: "code" (code or data of an image), "device", "driver" (objects of a driver), or "block".
        name: `module+RVA`, the driver's file, or the tag of the block.
        count: How many words do.
    """

    kind: str
    name: str
    count: int


@dataclass(frozen=True)
class ListedBlock:
    """One used block.

    Attributes:
        address: What its owner got.
        bytes: Header and rounding included.
        pool: One of `POOLS`, or "unknown".
        tag: Four characters.
        points_to: What its contents point to, objects and code first; None where they are not known.
    """

    address: int
    bytes: int
    pool: str
    tag: str
    points_to: tuple[Pointed, ...] | None


@dataclass(frozen=True)
class BlockList:
    """The used blocks of some tags.

    Attributes:
        count: How many there are.
        bytes: What they hold.
        blocks: The first ones: the largest, and of equal ones the lowest addresses.
        contents_unknown: Why it is not known what they point to; "" when it is.
    """

    count: int
    bytes: int
    blocks: tuple[ListedBlock, ...]
    contents_unknown: str


LookInto = Callable[[U64, I64], Sequence[tuple[Pointed, ...] | None] | None]


def list_blocks(
    blocks: PoolBlocks,
    rows: Iterable[TagRow],
    pools: Sequence[str],
    look_into: LookInto,
    most: int = MAX_LISTED,
) -> BlockList:
    """The used blocks of some tags.

    Args:
        blocks: All of the dump.
        rows: The tags.
        pools: Those of `POOLS` that are wanted.
        look_into: Tells what blocks point to; None for what cannot be read here.
        most: So many are listed.
    """
    wanted: list[int] = [number for number, pool in enumerate(POOLS) if pool in pools]
    if len(wanted) == len(POOLS):
        wanted.append(UNKNOWN_POOL)
    tags = [row.tag for row in rows for _ in wanted]
    pieces = [blocks.of(row.number, pool) for row in rows for pool in wanted]
    if not pieces:
        return BlockList(0, 0, (), "")
    address, size = (np.concatenate(column) for column in zip(*pieces, strict=True))
    piece = np.repeat(np.arange(len(pieces)), [len(found) for found, _ in pieces])
    first = np.lexsort((address, -size))[:most]
    address, held, piece = address[first], size[first], piece[first]
    contents = look_into(address, held)
    names = (*POOLS, "unknown")
    listed = tuple(
        ListedBlock(at, bytes_, names[wanted[each % len(wanted)]], tags[each], pointed)
        for at, bytes_, each, pointed in zip(
            address.tolist(),
            held.tolist(),
            piece.tolist(),
            [None] * len(first) if contents is None else contents,
            strict=True,
        )
    )
    return BlockList(
        len(size),
        int(size.sum(dtype=np.int64)),
        listed,
        NO_CONTENTS if contents is None else "",
    )
