"""Allocators that are recognised, not read: each by what only its memory has.

A row each in `RECOGNISERS`: a name, the evidence in words, and a function that tells which allocations show
it. Nothing is named by its size or the program's name alone. Sources: the allocators' public code; what was
tried on a dump of a genuine process is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import PAGE_SIZE, U64
from windumps.heaps.allocations import Allocations
from windumps.heaps.candidates import aligned_addresses, most_common
from windumps.images.modules import Module
from windumps.images.sections import MEM_WRITE, read_sections
from windumps.memory import AddressSpace
from windumps.memory.regions import MEM_COMMIT, Regions

AGREEING = 3  # places that name one owner
POINTER = 8  # of the processes whose layouts are known
_DOTNET = ("coreclr.dll", "clr.dll", "mscorwks.dll", "clrgc", "clrjit.dll")
_MIB = 1 << 20
_LOWEST_POINTER = 0x10000

Rows = NDArray[np.bool_]


class Recogniser(NamedTuple):
    """One allocator.

    Attributes:
        name: For people, and for keys.
        evidence: Why memory is said to be its, for people.
        find: Which allocations show that evidence.
    """

    name: str
    evidence: str
    find: Callable[[Allocations, Sequence[Module]], Rows]


# cmd/link puts this at the beginning of the data of every Go program.
_GO_BUILD = b"\xff Go buildinf:"
_GO_HINT, _GO_HINTS = 0xC0, 0x80  # runtime/malloc.go: arenas from 0x00c0 << 32 on, and each TiB
_GO_ARENA = 4 * _MIB  # runtime: heapArenaBytes of Windows


def _go(taken: Allocations, modules: Sequence[Module]) -> Rows:
    high = taken.base >> np.uint64(32)
    fits = ((high & np.uint64(0xFF)) == _GO_HINT) & ((high >> np.uint64(8)) < _GO_HINTS)
    fits &= (taken.size % _GO_ARENA == 0) & (taken.base % np.uint64(_GO_ARENA) == 0)
    if fits.any() and not any(_is_go(taken.memory, module) for module in modules):
        fits[:] = False
    return np.asarray(fits)


def _is_go(memory: AddressSpace, module: Module) -> bool:
    return any(
        memory.read_available(section.start, len(_GO_BUILD)) == _GO_BUILD
        for section in read_sections(memory, module)
    )


def _go_runtime(taken: Allocations, modules: Sequence[Module]) -> Rows:
    """What the runtime of a Go program keeps besides its heap."""
    found = np.zeros(len(taken), np.bool_)
    for module in modules:
        if module.name.lower().endswith(".exe") and _is_go(taken.memory, module):
            found |= named_by(taken, module)
    return found


_V8_PAGE = 256 << 10
_V8_HEADER = 0x4000  # objects begin before that


def _v8(taken: Allocations, _: Sequence[Module]) -> Rows:
    """Pages of 256 KiB that begin with their size; they tell where objects begin and end, and their heap."""
    if taken.width != POINTER:
        return np.zeros(len(taken), np.bool_)
    places = aligned_addresses(taken.memory, _V8_PAGE)
    sizes, _present = taken.memory.gather(places, "<u8")
    places = places[sizes == _V8_PAGE]
    words, present = taken.memory.gather(
        places[:, None] + np.arange(16, dtype=np.uint64) * np.uint64(8), "<u8"
    )
    into = words - places[:, None]
    begins = (into >= 0x40) & (into < _V8_HEADER)
    ends = (into > _V8_PAGE - _V8_HEADER) & (into <= _V8_PAGE)
    area = (begins[:, :-1] & ends[:, 1:]).any(axis=1)
    pages = present.all(axis=1) & area
    heap = _shared(words[pages][:, 1:9])
    if not heap:
        return np.zeros(len(taken), np.bool_)
    return taken.having(places[pages][(words[pages][:, 1:9] == heap).any(axis=1)])


_SUPER_PAGE = 2 * _MIB
_METADATA = 1  # page of a super page


def _partition_alloc(taken: Allocations, _: Sequence[Module]) -> Rows:
    """Super pages of 2 MiB of whose first four pages only the second can be read; it names their root."""
    regions = taken.memory.regions
    if taken.width != POINTER:
        return np.zeros(len(taken), np.bool_)
    metadata = np.uint64(_METADATA * PAGE_SIZE)
    begins = (regions.base_address & np.uint64(_SUPER_PAGE - 1)) == metadata
    places = regions.base_address[begins] - metadata
    fits = np.ones(len(places), np.bool_)
    for page in range(4):
        there = _readable(regions, places + np.uint64(page * PAGE_SIZE))
        fits &= there == (page == _METADATA)
    places = places[fits]
    roots, _present = taken.memory.gather(places + metadata, "<u8")
    root = _shared(roots)
    return taken.having(places[(roots == root) & (root > 0)])


def _readable(regions: Regions, addresses: U64) -> Rows:
    row = np.maximum(np.searchsorted(regions.base_address, addresses, "right") - 1, 0)
    inside = addresses - regions.base_address[row] < regions.region_size[row]
    return np.asarray(inside & (regions.state[row] == MEM_COMMIT) & regions.readable[row])


_FASTMM_POOL = 20 * 65536  # FastMM4: cMediumBlockPoolSize, with what Windows rounds it up to


def _fastmm(taken: Allocations, modules: Sequence[Module]) -> Rows:
    """Pools of one size on a list both ways, whose head is in an image."""
    pools = np.flatnonzero(taken.size == _FASTMM_POOL)
    members = taken.base[pools]
    if not len(pools):
        return np.zeros(len(taken), np.bool_)
    found = np.zeros(len(taken), np.bool_)
    links = taken.head[pools, :2]
    places = links + np.array([1, 0], np.uint64) * np.uint64(taken.width)
    back, there = taken.memory.gather(places, f"<u{taken.width}")
    both = (there & (back.astype(np.uint64) == members[:, None])).all(axis=1)
    head = links[both][~np.isin(links[both], members)]
    found[pools[both]] = len(head) > 0 and all(_is_in(modules, each) for each in head.tolist())
    return found


def _is_in(modules: Sequence[Module], address: int) -> bool:
    return any(module.base_address <= address < module.end_address for module in modules)


_ARENA_SIZES = (256 << 10, 1 << 20)  # obmalloc.c: ARENA_SIZE before and since 3.10
_POOL_SIZES = (4096, 16384)
_SIZE_CLASSES = 64
_POOL_HEADER = 48


def _python(taken: Allocations, modules: Sequence[Module]) -> Rows:
    """Arenas of pools whose headers name their size class and their next block, of a Python."""
    found = np.zeros(len(taken), np.bool_)
    if not any(module.name.lower().startswith(("python", "libpython")) for module in modules):
        return found
    for arena, pool in zip(_ARENA_SIZES, _POOL_SIZES, strict=True):
        rows = np.flatnonzero((taken.size == arena) & (taken.width == 8))
        starts = -(-taken.base[rows].astype(np.int64) // pool) * pool
        places = starts[:, None].astype(np.uint64) + (
            np.arange(arena // pool - 1, dtype=np.uint64) * np.uint64(pool)
        )
        found[rows] |= _pools(taken.memory, places, pool)
    return found


def _pools(memory: AddressSpace, places: U64, pool: int) -> Rows:
    """True for arenas in which most pools that are in use have a header that fits."""
    header = np.dtype(
        {
            "names": ["count", "free", "next", "prev", "class", "offset", "last"],
            "formats": ["<u4", "<u8", "<u8", "<u8", "<u4", "<u4", "<u4"],
            "offsets": [0, 8, 16, 24, 36, 40, 44],
            "itemsize": _POOL_HEADER,
        }
    )
    pools, present = memory.gather(places, header)
    used = present & ((pools["next"] != 0) | (pools["count"] != 0))
    size = (pools["class"].astype(np.int64) + 1) * 16
    fits = used & (pools["class"] < _SIZE_CLASSES) & (pools["last"] == pool - size)
    fits &= (pools["offset"] >= _POOL_HEADER) & (pools["offset"] <= pool)
    fits &= (pools["count"] > 0) & (pools["count"] * size <= pool)
    free = pools["free"] - places
    fits &= (pools["free"] == 0) | (free < np.uint64(pool))
    return np.asarray((fits.sum(axis=1) >= AGREEING) & (fits.sum(axis=1) * 2 > used.sum(axis=1)))


def _fibers(taken: Allocations, _: Sequence[Module]) -> Rows:
    return taken.stack


def _image(*beginnings: str, code: bool | None = None) -> Callable[..., Rows]:
    """Allocations whose very beginning the data of the allocator's own image names.

    A pointer to somewhere inside may mean a block that is somebody else's.

    Args:
        beginnings: Of the image's name.
        code: True for allocations with code, False for those without; None for both.
    """

    def find(taken: Allocations, modules: Sequence[Module]) -> Rows:
        found = np.zeros(len(taken), np.bool_)
        for module in modules:
            if module.name.lower().startswith(beginnings):
                found |= named_by(taken, module)
        return found if code is None else found & (taken.executable == code)

    return find


def named_by(taken: Allocations, module: Module) -> Rows:
    """Allocations whose very beginning the data of an image names."""
    return np.isin(taken.base, _pointers(taken, module))


def _pointers(taken: Allocations, module: Module) -> U64:
    """The aligned words in an image's data, as far as the dump has them."""
    memory, width = taken.memory, taken.width
    found = [np.empty(0, np.uint64)]
    for section in read_sections(memory, module):
        if section.flags & MEM_WRITE:
            start, end = section.start, section.start + section.size
            for _, size, offset in zip(*memory.extents(start, end), strict=True):
                raw = memory.data[int(offset) : int(offset) + int(size) // width * width]
                found.append(raw.view(f"<u{width}").astype(np.uint64))
    return np.concatenate(found)


def _shared(words: U64) -> np.uint64:
    """The pointer that most places have in common; 0 where too few do."""
    value, count = most_common(words[words >= _LOWEST_POINTER].view(np.int64))
    return np.uint64(value) if count >= AGREEING and value > 0 else np.uint64(0)


_POINTS = "the data of {} names its beginning"
# The first row that shows its evidence names an allocation.
RECOGNISERS: tuple[Recogniser, ...] = (
    Recogniser("Go heap", "memory where Go reserves it, in a program built by Go", _go),
    Recogniser("Go runtime", _POINTS.format("a program built by Go"), _go_runtime),
    Recogniser("V8 heap", "pages that tell their size, their bounds and one heap", _v8),
    Recogniser("PartitionAlloc", "super pages that name one root", _partition_alloc),
    Recogniser("FastMM4", "pools on one list, whose head is in an image", _fastmm),
    Recogniser("Python objects", "arenas of pools with headers that fit", _python),
    Recogniser(
        ".NET code",
        _POINTS.format("the .NET runtime") + ", and it has code",
        _image(*_DOTNET, code=True),
    ),
    Recogniser(".NET runtime", _POINTS.format("the .NET runtime"), _image(*_DOTNET)),
    Recogniser("Java", _POINTS.format("jvm.dll"), _image("jvm.dll")),
    Recogniser("jemalloc", _POINTS.format("jemalloc"), _image("jemalloc", "libjemalloc")),
    Recogniser("mozjemalloc", _POINTS.format("mozglue.dll"), _image("mozglue")),
    Recogniser("tcmalloc", _POINTS.format("tcmalloc"), _image("tcmalloc", "libtcmalloc")),
    Recogniser("oneTBB malloc", _POINTS.format("tbbmalloc"), _image("tbbmalloc")),
    Recogniser("snmalloc", _POINTS.format("snmalloc"), _image("snmalloc")),
    Recogniser("FastMM", _POINTS.format("FastMM's library"), _image("fastmm")),
    Recogniser("SmartHeap", _POINTS.format("SmartHeap"), _image("shw32", "shsmp")),
    Recogniser(
        "stack without a thread",
        "laid out as one: a fiber's, or left by a thread that ended",
        _fibers,
    ),
)
