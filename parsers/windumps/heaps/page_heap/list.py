"""Page heaps in the list of a process's heaps.

The PEB lists the normal heaps that page heaps work with, and names one page heap itself, the process heap.
The roots are on a list of their own, so from one the others are found; each takes the place of its normal
heap, which keeps the order in which the process made them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from windumps.arrays import PAGE_SIZE
from windumps.diagnostics import Severity
from windumps.errors import HeapError, MemoryReadError
from windumps.heaps.base import HeapContext
from windumps.heaps.committed import committed_around
from windumps.heaps.page_heap import heap as page_heap
from windumps.heaps.page_heap.pages import ROOT
from windumps.heaps.page_heap.score import SIGNATURE
from windumps.heaps.page_heap.stamps import Stamps
from windumps.layouts.page_heap import PAGE_HEAP_ROWS
from windumps.layouts.rows import candidates
from windumps.memory import AddressSpace
from windumps.process.views import MAX_HEAPS, ProcessView

NT_GLOBAL_FLAG_PAGE_HEAP = 0x02000000
LEAST_LOOKED_AT = 1 << 16  # bytes of a heap in which the headers of page heap are looked for
SCAN_PAGES = 1 << 16  # pages looked at together when roots are searched for


class PageHeaps(NamedTuple):
    """What readers of page heaps need to know besides their roots.

    Attributes:
        normal: Handle → address of its normal heap, for those whose root does not name it rightly.
        rootless: Handles whose root cannot be read, and that headers in front of blocks name.
        stamps: Those headers.
    """

    normal: dict[int, int]
    rootless: set[int]
    stamps: Stamps


def put_page_heaps(view: ProcessView, context: HeapContext) -> PageHeaps:
    """Replaces the normal heaps of page heaps by these in `view.heap_addresses`, and says how.

    Args:
        view: The process; its `heap_addresses` changes.
        context: The same process, for readers of heaps.
    """
    rows = candidates(PAGE_HEAP_ROWS, context.architecture, context.build)
    none = PageHeaps({}, set(), Stamps(context, rows[0]))
    known = [h for h in view.heap_addresses if _is_handle(context, h)]
    flagged = bool(context.nt_global_flag & NT_GLOBAL_FLAG_PAGE_HEAP)
    perhaps = flagged or view.nt_global_flag is None
    if not known and not perhaps:
        return none
    handles, how = _linked(context, known)
    whole, others = bool(how), False
    if not whole:
        found, others = _search(context)
        handles = list(dict.fromkeys([*handles, *found]))
        how = "a search of the memory, since the list that links their roots is not whole"
    seen = set(handles)
    if not handles and (others or not perhaps):
        return none
    handle_of, rootless = _normal_heaps(view, context, handles)
    paired: dict[int, int] = {}
    unclaimed = [h for h in view.heap_addresses if h not in handle_of and h not in seen]
    if unclaimed or rootless or not whole:
        # The headers in front of blocks tell which heaps are companions, and of which root.
        paired = _companions(view, none.stamps, unclaimed, set(handle_of.values()))
        handle_of |= {normal: handle for handle, normal in paired.items()}
        named = [root - page_heap.ROOT_OFFSET for root in none.stamps.roots()]
        new = [h for h in dict.fromkeys([*paired, *named]) if h not in seen]
        rootless = {*rootless, *new} & {*paired, *named}
        handles += new[:MAX_HEAPS]
        paired |= _paired_by_order(view, handles, handle_of)
    if not handles and not flagged:
        return none
    if not handles:
        view.log.add(
            "page-heap-not-found",
            Severity.WARNING,
            "_PEB.NtGlobalFlag",
            view.peb,
            "page heap is switched on but no root of one is in the dump; blocks of normal heaps may hold "
            "page heap's headers",
        )
        return none
    replaced = [handle_of.get(address, address) for address in view.heap_addresses]
    view.heap_addresses[:] = list(dict.fromkeys(replaced + handles))
    view.heap_list_source += " and the roots of page heaps"
    view.log.add(
        "page-heap-list",
        Severity.INFO,
        ROOT,
        handles[0] + page_heap.ROOT_OFFSET,
        f"{len(handles)} page heaps found through {how}; each stands for the normal heap it uses",
    )
    return PageHeaps(paired, rootless, none.stamps)


def _linked(context: HeapContext, known: list[int]) -> tuple[list[int], str]:
    """Handles on the lists of those that are known, and how they were found; "" where a list is not whole."""
    seen: dict[int, None] = {}
    whole = bool(known)
    for handle in known:
        if handle not in seen:
            linked, closed = _linked_handles(context, handle)
            seen |= dict.fromkeys(linked)
            whole &= closed
    return list(seen), "the list that links their roots" * whole


def _is_handle(context: HeapContext, address: int) -> bool:
    return page_heap.detect(context.memory, address, context.pointer_size)


def _normal_heaps(
    view: ProcessView, context: HeapContext, handles: list[int]
) -> tuple[dict[int, int], set[int]]:
    """Normal heap → handle of the page heap whose root names it; and handles whose root is not readable."""
    listed = set(view.heap_addresses)
    handle_of: dict[int, int] = {}
    rootless: set[int] = set()
    for handle in handles:
        try:
            normal = page_heap.choose(context, handle).fit["NormalHeap"]
        except HeapError:
            rootless.add(handle)
            continue
        if normal in listed:
            handle_of[normal] = handle
    return handle_of, rootless


def _companions(
    view: ProcessView, stamps: Stamps, unclaimed: list[int], taken: set[int]
) -> dict[int, int]:
    """Handle → normal heap, for normal heaps whose blocks carry the headers of a page heap."""
    found: dict[int, int] = {}
    for normal in unclaimed:
        parts = committed_around(view.memory, normal)
        end = max(parts[-1][1] if parts else 0, normal + LEAST_LOOKED_AT)
        for root in stamps.roots_in(normal, end)[:1]:
            handle = root - page_heap.ROOT_OFFSET
            if handle in found or handle in taken:
                continue
            found[handle] = normal
            view.log.add(
                "page-heap-companion",
                Severity.WARNING,
                f"{ROOT}.NormalHeap",
                root,
                f"by the headers in front of its blocks the heap at 0x{normal:x} is the normal heap of the "
                "page heap whose root should stand here",
            )
    return found


def _paired_by_order(
    view: ProcessView, handles: list[int], handle_of: dict[int, int]
) -> dict[int, int]:
    """Handle → normal heap, of those that are left when both lists have as many; `handle_of` grows."""
    page_heaps, known = set(handles), set(handle_of.values())
    unclaimed = [h for h in view.heap_addresses if h not in handle_of and h not in page_heaps]
    left = [h for h in handles if h not in known]
    if not left or len(left) != len(unclaimed):
        return {}
    # Both lists are in the order of creation.
    paired = dict(zip(left, unclaimed, strict=True))
    for handle, normal in paired.items():
        handle_of[normal] = handle
        view.log.add(
            "page-heap-paired",
            Severity.WARNING,
            f"{ROOT}.NormalHeap",
            handle + page_heap.ROOT_OFFSET,
            "it names no heap of the process; by the order of creation the page heap uses the heap at "
            f"0x{normal:x}",
        )
    return paired


def _linked_handles(context: HeapContext, handle: int) -> tuple[list[int], bool]:
    """Handles whose roots are on one list with that of `handle`, in its order; and whether it is whole."""
    try:
        row = page_heap.choose(context, handle).row
    except HeapError:
        return [handle], False
    if row.has(ROOT, "NextHeap"):
        offset = row.offset(ROOT, "NextHeap")
        after, ends = _one_way(context, handle, offset, offset)
        if ends:
            return after, True
        before, begins = _one_way(context, handle, offset + context.pointer_size, offset)
    else:
        after, ends = _one_way(context, handle, row.offset(ROOT, "pNextHeapRoot"), 0)
        before, begins = _one_way(context, handle, row.offset(ROOT, "pPrevHeapRoot"), 0)
    found = dict.fromkeys([*before[::-1], handle, *after])
    return list(found), ends and begins


def _one_way(context: HeapContext, handle: int, link: int, entry: int) -> tuple[list[int], bool]:
    """Handles behind one on the list of roots, and whether the list ends or closes as it should.

    Args:
        context: The process.
        handle: Where to begin.
        link: Where in a root the pointer stands.
        entry: Where in a root it points to: 0 on XP, whose list ends with null, else that of the LIST_ENTRY.
    """
    found: list[int] = []
    known = {handle}
    head_after: int | None = None
    at = handle + page_heap.ROOT_OFFSET + link
    while len(found) <= MAX_HEAPS:  # one more than are read shows that the list is cut
        try:
            pointer = context.memory.read_uint(at, context.pointer_size)
        except MemoryReadError:
            return found, False
        if pointer < page_heap.ROOT_OFFSET + entry:
            return found, pointer == 0 and entry == 0
        # One entry of a ring is no root: the list's head, in verifier.dll. What follows it came first.
        behind = pointer - entry - page_heap.ROOT_OFFSET
        if behind == handle and head_after is not None:
            return [*found[head_after:], handle, *found[:head_after]], True
        if behind in known:
            return found, False
        if _is_handle(context, behind):
            found.append(behind)
            known.add(behind)
            at = behind + page_heap.ROOT_OFFSET + link
        elif entry and head_after is None:
            head_after = len(found)
            at = pointer + link - entry
        else:
            return found, False
    return found, False


def _search(context: HeapContext) -> tuple[list[int], bool]:
    """Handles found by their roots' signature at the start of a page, ascending.

    Also whether there are page heaps of the other half of a WoW64 process, which are left out.
    """
    memory: AddressSpace = context.memory
    extents = memory.extents(0, 1 << (8 * context.pointer_size))
    roots: list[int] = []
    for address, size in zip(extents.address.tolist(), extents.size.tolist(), strict=True):
        first = -(-address // PAGE_SIZE) * PAGE_SIZE
        for start in range(first, address + size, SCAN_PAGES * PAGE_SIZE):
            end = min(start + SCAN_PAGES * PAGE_SIZE, address + size)
            pages = np.arange(start, end, PAGE_SIZE, dtype=np.uint64)
            signature, _ = memory.gather(pages, "<u4")
            roots += pages[signature == SIGNATURE].tolist()
    handles = [root - page_heap.ROOT_OFFSET for root in roots if root > page_heap.ROOT_OFFSET]
    handles = [h for h in handles if _is_handle(context, h)]
    architecture = "x86" if context.architecture == "x64" else "x64"
    other_half = replace(context, architecture=architecture, exact_layouts={})
    foreign = {h for h in handles if not _fits(context, h) and _fits(other_half, h)}
    return [h for h in handles if h not in foreign], bool(foreign)


def _fits(context: HeapContext, handle: int) -> bool:
    try:
        page_heap.choose(context, handle)
    except HeapError:
        return False
    return True
