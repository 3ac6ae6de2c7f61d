"""What lies at an address of a dump, and why it is alive."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from dumpleak.model.block_page import BlockPage
from dumpleak.model.snapshot import SourceInfo
from windumps.diagnostics import Diagnostic


class What(StrEnum):
    """What an address is of."""

    BLOCK = "block"
    FREE_BLOCK = "free-block"
    OBJECT = "object"
    HEAP_STRUCTURE = "heap-structure"
    REGION = "region"
    IMAGE = "image"
    STACK = "stack"
    POOL_BLOCK = "pool-block"
    HANDLE = "handle"
    ABSENT = "absent"
    NOT_MAPPED = "not-mapped"


@dataclass(frozen=True)
class RegionTold:
    """The region of memory that an address is in, as the dump lists it.

    Attributes:
        base_address: Its first address.
        bytes: Its size.
        allocation_base: The first address of what was allocated with it.
        state: "committed", "reserved" or "free".
        type: "private", "mapped", "image", or "".
        protection: Which access there is, "read and write".
        use: One of `USES`; "" where it has none.
    """

    base_address: int
    bytes: int
    allocation_base: int
    state: str
    type: str
    protection: str
    use: str


@dataclass(frozen=True)
class Pointer:
    """Something that holds a pointer.

    Attributes:
        address: Where the pointer stands; None for a register.
        offset: Of that in what holds it.
        what: What holds it.
    """

    address: int | None
    offset: int
    what: str


@dataclass(frozen=True)
class HolderNode:
    """Something that many blocks hang on.

    Attributes:
        what: A class or a size of blocks, or roots.
        offset: Place in it of the pointers; None for roots, and where they stand at many places.
        count: Of the blocks asked for, how many hang on it.
        bytes: Bytes of these.
        is_chain: Several of them follow each other, as in a list.
        holders: What holds it in turn, the largest share first, at most a few; empty for roots.
    """

    what: str
    offset: int | None
    count: int
    bytes: int
    is_chain: bool = False
    holders: tuple[HolderNode, ...] = ()


@dataclass(frozen=True)
class SitesExplained:
    """Why the blocks of some sites are alive.

    Attributes:
        source: The dump.
        asked: Which sites, for people.
        sites: Their names.
        count: Their blocks.
        bytes: Bytes of these.
        unreferenced_count: Of these, blocks that no root leads to.
        unreferenced_bytes: Bytes of these.
        retained_bytes: What all of them keep alive, at least, themselves included; None where unknown.
        retained_count: Blocks of that.
        holders: What those that are referenced hang on, along shortest ways from the roots.
        diagnostics: What was left out, and why.
        shortfall: Why that says too little to stand; "" when it covers enough.
    """

    source: SourceInfo
    asked: str
    sites: tuple[str, ...]
    count: int
    bytes: int
    unreferenced_count: int
    unreferenced_bytes: int
    retained_bytes: int | None
    retained_count: int | None
    holders: tuple[HolderNode, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
    shortfall: str = ""


@dataclass(frozen=True)
class Explained:
    """What lies at one address.

    Attributes:
        address: It.
        what: See `What`.
        told: The same for people, with names.
        pointer_size: 4 or 8, for the width of addresses.
        offset: Of the address in the block.
        region: None where the dump does not list regions, or none there.
        block: The block as `allocations` has it, a page of one row; None where there is none.
        frames: The call stack that allocated it, innermost first; empty where none was recorded.
        held_bytes: Bytes of the block that its program may use; 0 where there is none.
        holders: Who points to the block, the first of them.
        holder_count: How many pointers to it there are; None where nobody looked.
        path: A shortest way to it from a root, which comes first; each with its address, and the place in
            it of the pointer to the next. Empty when there is none.
        path_count: How many there are of them; a very long way is told by its two ends.
        retained_bytes: What it keeps alive, at least, itself included; None where that is not known.
        retained_count: Blocks of that.
        points_to: The pointer that stands at the address: where it leads, the offset of that in a used block,
            and the block. None where it leads into none.
        contents: What was asked for of its bytes, as many as the dump has.
        notes: What else has to be known, a sentence each.
    """

    address: int
    what: What
    told: str
    pointer_size: int = 8
    offset: int = 0
    region: RegionTold | None = None
    block: BlockPage | None = None
    frames: tuple[str, ...] = ()
    held_bytes: int = 0
    holders: tuple[Pointer, ...] = ()
    holder_count: int | None = None
    path: tuple[Pointer, ...] = ()
    path_count: int = 0
    retained_bytes: int | None = None
    retained_count: int | None = None
    points_to: Pointer | None = None
    contents: bytes = b""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """What lies at some addresses.

    Attributes:
        source: The dump.
        found: One for each address, in the order they were asked for.
        diagnostics: What was left out, and why.
        shortfall: Why that says too little to stand; "" when it covers enough.
    """

    source: SourceInfo
    found: tuple[Explained, ...]
    diagnostics: tuple[Diagnostic, ...] = field(default=())
    shortfall: str = ""
