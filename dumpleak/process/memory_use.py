"""What the memory of a process is used for: heaps, stacks, images, mapped files, the rest.

The rows are the dump's own memory-info list; each committed region gets one use. Where the dump has no
such list, only what is in the file can be told apart, and `complete` is False.

The rest, private memory that is neither heap nor stack, is what programs take with VirtualAlloc
(arenas, other languages' heaps): it leaks as well, so it is also grouped for comparison.

What is not known is not made up: without a list of regions the rest is what the file holds beside images,
heaps and stacks; and where stacks are not known either, there is no telling it from them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.memory import UNKNOWN, USES, MemoryByUse, UseRow
from dumpleak.process.known_memory import KnownMemory, inside_spans
from dumpleak.process.session import Session
from dumpleak.process.unread_heaps import unread_spans
from windumps.arrays import ADDRESS_LIMIT
from windumps.memory import Regions
from windumps.memory.regions import MEM_COMMIT, MEM_IMAGE, MEM_MAPPED, MEM_PRIVATE

SHARED_USER_DATA = (0x7FFE0000, 0x1000)  # MM_SHARED_USER_DATA_VA (ntddk.h): a page of the kernel's
PEB_BYTES = 0x1000
# PAGE_* of winnt.h: PAGE_(EXECUTE_)READWRITE, PAGE_(EXECUTE_)WRITECOPY; the rest are modifiers.
PROTECTION, WRITABLE, COPIED_ON_WRITE = 0xFF, (0x04, 0x40), (0x08, 0x80)
NO_THREADS = "the dump does not list all threads, whose stacks look like other memory"


def memory_by_use(session: Session) -> MemoryByUse:
    """Accounts for all committed memory; heaps count once their blocks were walked."""
    memory = session.dump.memory
    regions = memory.regions
    if not len(regions):
        return MemoryByUse(
            tuple(
                UseRow(name, sum(sizes), sum(sizes), len(sizes))
                for name, sizes in uses_in_file(session).items()
                if sizes
            ),
            False,
        )
    keep = regions.state == MEM_COMMIT
    start, size = regions.base_address[keep], regions.region_size[keep].astype(np.int64)
    use = region_uses(session, regions)[keep]
    present = memory.present_each(start, start + size.astype(np.uint64))
    rows = []
    for index, name in enumerate(USES):
        mine = use == index
        if mine.any():
            rows.append(
                UseRow(name, int(size[mine].sum()), int(present[mine].sum()), int(mine.sum()))
            )
    return MemoryByUse(tuple(rows), regions.whole)


def uses_in_file(session: Session) -> dict[str, list[int]]:
    """Sizes of the pieces of memory in the file by use, without help of a list of regions."""
    stacks = [block.stack for view in session.views for block in view.thread_blocks]
    stacks += [(t.stack_start, t.stack_start + t.stack_size) for t in session.dump.threads]
    blocks = [(b.address, b.address + b.size) for v in session.views for b in v.thread_blocks]
    blocks += [(view.peb, view.peb + PEB_BYTES) for view in session.views if view.peb]
    blocks += [(start, start + size) for start, size in (v.heap_array for v in session.views)]
    spans = {
        "heaps": [(start, start + size) for start, size in heap_ranges(session)],
        "stacks": stacks,
        "teb-peb": blocks,
        "images": [(m.base_address, m.end_address) for m in session.dump.modules],
        "mapped": [(SHARED_USER_DATA[0], sum(SHARED_USER_DATA))],
        UNKNOWN: [(0, (1 << 64) - 1)],
    }
    known = KnownMemory()
    found: dict[str, list[int]] = {}
    for use, ranges in spans.items():
        # An image whose end lies behind the address space is a damaged one.
        inside = [(start, min(end, ADDRESS_LIMIT - 1)) for start, end in ranges]
        pieces = [piece for span in inside for piece in known.add(*span)]
        table = np.array(pieces, np.uint64).reshape(-1, 2)
        sizes = session.dump.memory.present_each(table[:, 0], table[:, 1])
        found[use] = sizes[sizes > 0].tolist()
    return found


def region_uses(session: Session, regions: Regions) -> NDArray[np.int64]:
    """The use of each region, as an index into `USES`; heaps count once they were walked.

    Memory of heaps that could not be read is theirs all the same.
    """
    use = np.full(len(regions), USES.index("other-private"), np.int64)
    use[regions.type == MEM_IMAGE] = USES.index("images")
    use[regions.type == MEM_MAPPED] = USES.index("mapped")
    threads = session.dump.threads
    told = [block for view in session.views for block in view.thread_blocks]
    blocks = [view.peb for view in session.views] + [thread.teb for thread in threads]
    blocks += [view.heap_array[0] for view in session.views]  # the process's own, as the PEB is
    blocks += [block.address for block in told]
    use[_same_allocation(regions, blocks)] = USES.index("teb-peb")
    stacks = [thread.stack_start for thread in threads] + [block.stack[0] for block in told]
    use[_same_allocation(regions, stacks)] = USES.index("stacks")
    unread = [span for spans in unread_spans(session).values() for span in spans]
    use[inside_spans(regions.base_address, heap_ranges(session) + unread)] = USES.index("heaps")
    return use


def absent_private(session: Session) -> int:
    """Committed private memory outside heaps, stacks and TEBs that is not in the dump, as far as it says."""
    regions = session.dump.memory.regions
    mine = region_uses(session, regions) == USES.index("other-private")
    mine &= (regions.state == MEM_COMMIT) & regions.readable
    start, size = regions.base_address[mine], regions.region_size[mine]
    return int(size.sum()) - int(session.dump.memory.present_each(start, start + size).sum())


def charged_bytes(regions: Regions) -> int:
    """Committed memory that Windows charges to the process alone.

    That is private memory, and what it may write, or has written, of images and of views that are copied
    when they are written to.
    """
    protect = regions.protect & np.uint32(PROTECTION)
    copied = np.isin(protect, COPIED_ON_WRITE)
    written = (regions.type == MEM_IMAGE) & np.isin(protect, WRITABLE)
    mine = (regions.type == MEM_PRIVATE) | copied | written
    return int(regions.region_size[mine & (regions.state == MEM_COMMIT)].sum())


def heap_ranges(session: Session) -> list[tuple[int, int]]:
    """(start, bytes) of the memory of all heaps that were walked."""
    return [
        span
        for source in session.heaps
        if source.entry.heap is not None
        for span in source.entry.heap.account.ranges
    ]


def _same_allocation(regions: Regions, addresses: list[int]) -> NDArray[np.bool_]:
    """True for regions of the allocations that hold one of the addresses."""
    rows = [row for address in addresses if address and (row := regions.row_of(address)) >= 0]
    bases = regions.allocation_base[rows]
    return np.asarray(np.isin(regions.allocation_base, bases) & (regions.type == MEM_PRIVATE))
