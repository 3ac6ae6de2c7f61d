"""TEBs and PEBs: what they say, and how they are found where no list of threads leads to them.

Offsets of the fields used here have not changed from Windows XP to 11 24H2 (public kernel types of every
build; checked on dumps of each), so they are constants and not layout rows.

A TEB names itself, its process, its PEB and its stack; a PEB names the program's image and the process's
first heap. That is enough to tell them from any other page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from windumps.arrays import PAGE_SIZE, U64
from windumps.errors import MemoryReadError
from windumps.memory import AddressSpace
from windumps.memory.regions import MEM_COMMIT, MEM_PRIVATE

MAX_STACK = 1 << 32  # bytes; the linker's own limit for a stack is below that
MAX_THREADS = 1 << 16  # TEBs that are searched for
PAGES_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Offsets:
    """Where the fields of TEB and PEB stand, for one pointer size."""

    pointer: int
    teb_stack_base: int
    teb_stack_limit: int
    teb_self: int
    teb_process_id: int
    teb_thread_id: int
    teb_peb: int
    teb_allocated_stack: int
    teb_bytes: int
    peb_image_base: int
    peb_loader: int
    peb_process_heap: int
    peb_shared_memory: int
    peb_nt_global_flag: int
    peb_number_of_heaps: int
    peb_process_heaps: int


_X86 = Offsets(
    *(4, 0x4, 0x8, 0x18, 0x20, 0x24, 0x30, 0xE0C, 0x1000),
    *(0x8, 0xC, 0x18, 0x4C, 0x68, 0x88, 0x90),
)
_X64 = Offsets(
    *(8, 0x8, 0x10, 0x30, 0x40, 0x48, 0x60, 0x1478, 0x2000),
    *(0x10, 0x18, 0x30, 0x88, 0xBC, 0xE8, 0xF0),
)


@dataclass(frozen=True)
class ThreadBlock:
    """A TEB.

    Attributes:
        address: Where it lies.
        size: Bytes of its pages.
        peb: The PEB it names; 0 when that is not in the dump.
        stack: Lowest committed address of the thread's stack, and the address behind its last; zeros when
            unknown.
    """

    address: int
    size: int
    peb: int
    stack: tuple[int, int]


def offsets_of(architecture: str) -> Offsets:
    """Offsets of the x86 structures, or of the 64-bit ones."""
    return _X86 if architecture == "x86" else _X64


def read_pointer(memory: AddressSpace, address: int, size: int) -> int:
    """A pointer in memory; 0 when it is not in the dump."""
    try:
        return memory.read_uint(address, size)
    except MemoryReadError:
        return 0


def is_thread_block(memory: AddressSpace, architecture: str, address: int) -> bool:
    """True when a TEB stands there: it names itself."""
    offsets = offsets_of(architecture)
    return read_pointer(memory, address + offsets.teb_self, offsets.pointer) == address


def read_thread_block(memory: AddressSpace, architecture: str, address: int) -> ThreadBlock:
    """What a TEB says."""
    offsets = offsets_of(architecture)

    def word(offset: int) -> int:
        return read_pointer(memory, address + offset, offsets.pointer)

    low, high = word(offsets.teb_stack_limit), word(offsets.teb_stack_base)
    sound = low and low < high <= low + MAX_STACK
    regions = memory.regions
    if sound and len(regions) and regions.whole:  # the stack of a thread that has ended is no more
        row = regions.row_of(low)
        allocated = word(offsets.teb_allocated_stack)
        sound = row >= 0 and int(regions.state[row]) == MEM_COMMIT
        sound = sound and allocated in (0, int(regions.allocation_base[row]))
    return ThreadBlock(
        address, offsets.teb_bytes, word(offsets.teb_peb), (low, high) if sound else (0, 0)
    )


def private_pages(memory: AddressSpace) -> Iterator[U64]:
    """Pages in the dump that may be private memory, piece by piece: all where no list of regions tells."""
    regions = memory.regions
    private = (regions.state == MEM_COMMIT) & (regions.type == MEM_PRIVATE)
    starts, sizes = regions.base_address[private], regions.region_size[private]
    for address, size in zip(memory.runs.address.tolist(), memory.runs.size.tolist(), strict=True):
        first = -(-address // PAGE_SIZE) * PAGE_SIZE
        for low in range(first, address + size, PAGES_AT_ONCE * PAGE_SIZE):
            pages = np.arange(
                low,
                min(low + PAGES_AT_ONCE * PAGE_SIZE, address + size),
                PAGE_SIZE,
                dtype=np.uint64,
            )
            if len(regions):
                row = starts.searchsorted(pages, "right") - 1
                safe = np.maximum(row, 0)
                inside = row >= 0
                if len(starts):
                    inside &= pages - starts[safe] < sizes[safe]
                pages = pages[inside]
            if len(pages):
                yield pages


def private_memory_is_whole(memory: AddressSpace, *, says_full: bool) -> bool:
    """True when all private memory that can be read is in the dump, so that a search of it misses nothing.

    Args:
        memory: The process's memory.
        says_full: The writer was asked for all memory; believed where no list of regions can tell.
    """
    regions = memory.regions
    if not len(regions) or not regions.whole:
        return says_full
    wanted = (regions.state == MEM_COMMIT) & (regions.type == MEM_PRIVATE) & regions.readable
    start, size = regions.base_address[wanted], regions.region_size[wanted]
    return bool((memory.present_each(start, start + size) == size.astype(np.int64)).all())


def find_thread_blocks(
    memory: AddressSpace, architecture: str, process_id: int | None
) -> list[ThreadBlock]:
    """All TEBs in private memory, by their structure; those of one PEB, the one most of them name."""
    offsets = offsets_of(architecture)
    word = f"<u{offsets.pointer}"
    found: list[ThreadBlock] = []
    for pages in private_pages(memory):
        if offsets.pointer == 4:
            pages = pages[pages < np.uint64(1 << 32)]
        own, _ = memory.gather(pages + np.uint64(offsets.teb_self), word)
        pages = pages[(own == pages) & (pages != 0)]
        owner, _ = memory.gather(pages + np.uint64(offsets.teb_process_id), word)
        thread, _ = memory.gather(pages + np.uint64(offsets.teb_thread_id), word)
        peb, _ = memory.gather(pages + np.uint64(offsets.teb_peb), word)
        named = (owner != 0) & (thread != 0) & (peb != 0) & (peb % PAGE_SIZE == 0)
        if process_id:
            named &= owner == process_id
        for address in pages[named].tolist():
            block = read_thread_block(memory, architecture, address)
            if block.stack[0] and len(found) < MAX_THREADS:
                found.append(block)
    if not found:
        return []
    (peb_named, _), *_ = Counter(block.peb for block in found).most_common()
    return [block for block in found if block.peb == peb_named]


def looks_like_peb(
    memory: AddressSpace, architecture: str, peb: int, images: Iterable[int], most_heaps: int
) -> bool:
    """True when a page has what every PEB has.

    Its image base is a module's; or, since small dumps may lack the list of modules, its count of heaps is
    one that can be. Wine counts no heaps.
    """
    offsets = offsets_of(architecture)
    if not peb or peb % PAGE_SIZE:
        return False
    try:
        count = memory.read_uint(peb + offsets.peb_number_of_heaps, 4)
    except MemoryReadError:
        return False
    image = read_pointer(memory, peb + offsets.peb_image_base, offsets.pointer)
    return image in images or 0 < count <= most_heaps


def find_peb(
    memory: AddressSpace, architecture: str, images: Iterable[int], most_heaps: int
) -> int:
    """The PEB, by its structure alone, for dumps in which no TEB leads to it; 0 when none is found.

    It names an image of the process and a list of heaps, which begins with the process's own heap.
    """
    offsets = offsets_of(architecture)
    word = f"<u{offsets.pointer}"
    known = np.array(sorted(images), np.uint64)

    def gathered(addresses: U64, kind: str = word) -> U64:
        values: U64 = memory.gather(addresses, kind)[0].astype(np.uint64)
        return values

    for pages in private_pages(memory):
        base = gathered(pages + np.uint64(offsets.peb_image_base))
        pages = pages[np.isin(base, known) & (base != 0)]
        heap = gathered(pages + np.uint64(offsets.peb_process_heap))
        count = gathered(pages + np.uint64(offsets.peb_number_of_heaps), "<u4")
        listed = gathered(pages + np.uint64(offsets.peb_process_heaps))
        sound = (
            (count > 0) & (count <= most_heaps) & (heap != 0) & (heap % np.uint64(PAGE_SIZE) == 0)
        )
        sound &= gathered(pages + np.uint64(offsets.peb_loader)) != 0
        sound &= (listed != 0) & (gathered(listed) == heap)
        if sound.any():
            return int(pages[sound][0])
    return 0
