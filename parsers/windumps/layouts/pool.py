"""Layouts of the pool's tables by build: trackers, big pages, block headers.

Sources: the kernels' public symbols (volatility3's and volatility 2's tables) and the published
headers of 5.1.2600 to 10.0.22631 (vergiliusproject.com); 26100 from generated offsets. The build of
a row is where it was seen first; which row fits is decided by what the table holds.
"""

from __future__ import annotations

from typing import NamedTuple

from windumps.builds import NEW_POOL_HEAPS, SEGMENT_HEAP_POOLS
from windumps.layouts.rows import LayoutRow
from windumps.layouts.segment_heap import SEGMENT_HEAP_ROWS

_SYMBOLS = "public kernel symbols and published headers"
_GENERATED = "generated offsets (ntoskrnlib)"
_TRACKER = "_POOL_TRACKER_TABLE"
TRACKER_FIELDS = (
    "NonPagedAllocs",
    "NonPagedFrees",
    "NonPagedBytes",
    "PagedAllocs",
    "PagedFrees",
    "PagedBytes",
)


def _tracker(
    architecture: str,
    first: int,
    last: int,
    size: int,
    offsets: tuple[int, int, int, int, int, int],
    counter: str,
    source: str = _SYMBOLS,
) -> LayoutRow:
    """A tracker row; `offsets` as `TRACKER_FIELDS`, `counter` the type of allocs and frees."""
    kinds = (counter, counter, "ptr") * 2
    fields = {
        name: (offset, kind)
        for name, offset, kind in zip(TRACKER_FIELDS, offsets, kinds, strict=True)
    }
    structure = {"Key": (0, "u4"), **fields, "sizeof": (size, "")}
    return LayoutRow("pool tracker", architecture, first, last, {_TRACKER: structure}, source)


TRACKER_LAYOUTS = (
    _tracker("x64", 3790, 15063, 0x28, (0x4, 0x8, 0x10, 0x18, 0x1C, 0x20), "u4"),
    _tracker("x64", 16299, 19045, 0x38, (0x10, 0x18, 0x8, 0x28, 0x30, 0x20), "u8"),
    _tracker("x64", 20348, 26200, 0x50, (0x10, 0x18, 0x8, 0x28, 0x30, 0x20), "u8", _GENERATED),
    _tracker("x86", 2600, 15063, 0x1C, (0x4, 0x8, 0xC, 0x10, 0x14, 0x18), "u4"),
    _tracker("x86", 16299, 19045, 0x30, (0x8, 0x10, 0x4, 0x20, 0x28, 0x18), "u8"),
    _tracker("x86", 20348, 26200, 0x40, (0x8, 0x10, 0x4, 0x20, 0x28, 0x18), "u8", "one header"),
)

_BIG = "_POOL_TRACKER_BIG_PAGES"


def _big(
    architecture: str,
    first: int,
    last: int,
    size: int,
    fields: dict[str, tuple[int, str]],
    source: str = _SYMBOLS,
) -> LayoutRow:
    structure = {"Va": (0, "ptr"), **fields, "sizeof": (size, "")}
    return LayoutRow("big pages", architecture, first, last, {_BIG: structure}, source)


_PLAIN_X64 = {"Key": (0x8, "u4"), "PoolType": (0xC, "u4"), "NumberOfBytes": (0x10, "u8")}
_PLAIN_X86 = {"Key": (0x4, "u4"), "PoolType": (0x8, "u4"), "NumberOfBytes": (0xC, "u4")}
# Pattern 8 bits, PoolType (PoolFlags in 11 24H2) 12 bits, SlushSize 12 bits.
_BITS_X64 = {"Key": (0x8, "u4"), "Bits": (0xC, "u4"), "NumberOfBytes": (0x10, "u8")}
_BITS_X86 = {"Key": (0x4, "u4"), "Bits": (0x8, "u4"), "NumberOfBytes": (0xC, "u4")}
BIG_PAGE_LAYOUTS = (
    _big("x86", 2600, 2600, 0xC, {"Key": (0x4, "u4"), "NumberOfPages": (0x8, "u4")}),
    _big("x86", 3790, 3790, 0x10, {"Key": (0x4, "u4"), "NumberOfPages": (0x8, "u4")}),
    _big("x64", 3790, 3790, 0x18, {"Key": (0x8, "u4"), "NumberOfPages": (0xC, "u4")}),
    _big("x86", 6000, 9600, 0x10, _PLAIN_X86),
    _big("x64", 6000, 9600, 0x18, _PLAIN_X64),
    _big("x86", 10240, 22000, 0x10, _BITS_X86),
    _big("x64", 10240, 19045, 0x18, _BITS_X64),
    _big("x64", 20348, 26200, 0x20, {**_BITS_X64, "ProcessBilled": (0x18, "u8")}, _GENERATED),
)


class BigPageVariables(NamedTuple):
    """Where the variables of the table of large allocations stand beside PoolTrackTable.

    Attributes:
        architecture: "x86" or "x64".
        first_build: First Windows build they were seen in.
        last_build: The last one.
        table: Bytes from PoolTrackTable to PoolBigPageTable.
        size: Bytes from PoolTrackTable to PoolBigPageTableSize.
    """

    architecture: str
    first_build: int
    last_build: int
    table: int
    size: int


# Read off genuine kernels of 2600, 3790, 6002 and 7601.
BIG_PAGE_VARIABLES = (
    BigPageVariables("x86", 2600, 2600, -0xC, -0x10),
    BigPageVariables("x86", 6000, 7601, -0x14, -0x18),
    BigPageVariables("x64", 3790, 3790, -0x30, -0x38),
)


def _kernel_heap(row: LayoutRow) -> LayoutRow:
    """A segment heap's row as the kernel has it.

    Seen on memory laid out by the genuine code of 18362 to 26100: blocks that would lie in two pages are
    withheld, and up to 22631 not part of BlockCount; blocks of a power of two are aligned in
    subsegments of more than a page. UserContext: kernel types of the builds.
    """
    structures = {name: dict(fields) for name, fields in row.structures.items()}
    is_new = row.first_build in NEW_POOL_HEAPS
    pointer = row.pointer_size
    if not is_new:
        withheld = 0x17 if pointer == 4 else 0x27
        structures["_HEAP_LFH_SUBSEGMENT"]["WitheldBlockCount"] = (withheld, "u1")
        structures["constants"]["LfhNaturalAlignment"] = (2, "")
    user = 0x1C if pointer == 4 else 0x38 if is_new else 0x28
    structures["_SEGMENT_HEAP"]["UserContext"] = (user, "ptr")
    return LayoutRow(
        "kernel segment heap",
        row.architecture,
        row.first_build,
        row.last_build,
        structures,
        row.source,
    )


POOL_HEAP_LAYOUTS = tuple(
    _kernel_heap(row) for row in SEGMENT_HEAP_ROWS if row.last_build in SEGMENT_HEAP_POOLS
)

# `_EX_POOL_HEAP_MANAGER_STATE` (ExPoolState) and what it holds. The distance from one `_EX_HEAP_POOL_NODE` to
# the next and what is in it are the same in all builds; each node begins with its heaps.
POOL_NODE_BYTES = 0x20C0
POOL_NODE_HEAPS = 4  # nonpaged executable, nonpaged, paged, paged for prototype PTEs


def _state(
    architecture: str, first: int, last: int, count: int, nodes: int, special: int, source: str
) -> LayoutRow:
    structure = {
        "NumberOfPools": (count, "u4"),
        "PoolNode": (nodes, ""),
        "SpecialHeaps": (special, ""),
    }
    return LayoutRow(
        "pool state", architecture, first, last, {"_EX_POOL_HEAP_MANAGER_STATE": structure}, source
    )


POOL_STATE_LAYOUTS = (
    _state("x64", 18326, 19045, 0x38D0, 0x3900, 0x86900, _SYMBOLS),
    _state("x64", 20348, 22631, 0x38E0, 0x3900, 0x86900, _SYMBOLS),
    _state("x64", 26100, 26200, 0x3910, 0x3940, 0x86940, _GENERATED),
    _state("x86", 18326, 19045, 0x1C70, 0x1C80, 0x22880, _SYMBOLS),
)


def _lookaside(architecture: str, buckets: int, stride: int) -> LayoutRow:
    structures = {
        "_RTL_DYNAMIC_LOOKASIDE": {"BucketCount": (0x8, "u4"), "Buckets": (buckets, "")},
        "_RTL_LOOKASIDE": {"sizeof": (stride, ""), "ListHead": (0x0, "")},
    }
    return LayoutRow("dynamic look-aside", architecture, 18326, 26200, structures, _SYMBOLS)


LOOKASIDE_LAYOUTS = (_lookaside("x64", 0x40, 0x40), _lookaside("x86", 0x40, 0x40))
