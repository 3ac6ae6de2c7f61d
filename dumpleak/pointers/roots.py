"""Where a program keeps the pointers it starts from: globals, stacks, registers, thread data.

Memory outside heaps that the process took itself counts too (arenas, other languages' heaps), and so does
mapped memory it can write to: a block that only such memory points to is not lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.memory import USES
from dumpleak.process.arenas import walked_arenas
from dumpleak.process.known_memory import KnownMemory
from dumpleak.process.memory_use import SHARED_USER_DATA, heap_ranges, region_uses
from dumpleak.process.session import Session
from dumpleak.process.unread_heaps import unread_spans
from windumps.diagnostics import MEMORY_CUT
from windumps.heaps.nt.base import NtHeapBase
from windumps.images.modules import Module
from windumps.images.sections import MEM_WRITE, read_sections
from windumps.memory import AddressSpace, Regions
from windumps.memory.regions import MEM_COMMIT

_PAGE_WRITABLE = 0xCC  # winnt.h: PAGE_READWRITE, PAGE_WRITECOPY and their executable twins
# The page that the kernel fills has no pointer of the program's. Its words 0x2C (two machine types,
# 0x014C014C) lead into heaps of 32-bit processes.
_KERNELS_PAGE = SHARED_USER_DATA[0]
# TEB of 32-bit code, StaticUnicodeString: the two lengths of an empty string of 0x20a bytes are 0x020a0000.
_TEB32_LENGTHS = 0xBF8
_STACK_POINTERS = {"rsp": 8, "esp": 4}


class RootKind(StrEnum):
    """What a root is, as people are told."""

    GLOBALS = "globals"
    STACK = "stack"
    THREAD = "teb-peb"
    PRIVATE = "other-private"
    MAPPED = "mapped"
    HEAP = "heap-headers"


# Without these nothing can be called unreferenced.
_NEEDED = {RootKind.GLOBALS: "data sections of the images", RootKind.STACK: "stacks of the threads"}
MAX_LOST_SHARE = 0.5  # of all memory that may hold pointers, and of each kind that is needed
# From this share on, an answer begins with it, and no other answer calls anything unreferenced.
TOLD_LOST_SHARE = 0.01


@dataclass(frozen=True)
class Root:
    """A stretch of memory that holds roots.

    Attributes:
        kind: See `RootKind`.
        start: Its first address.
        end: The address behind it.
        module: The image, for `RootKind.GLOBALS`.
    """

    kind: RootKind
    start: int
    end: int
    module: Module | None = None


@dataclass(frozen=True)
class RootBytes:
    """How much memory there is that may hold pointers, of one kind.

    Attributes:
        committed_bytes: In the process.
        present_bytes: Of that, in the dump.
    """

    committed_bytes: int
    present_bytes: int

    @property
    def lost_share(self) -> float:
        """The share that is not in the dump."""
        lost = self.committed_bytes - self.present_bytes
        return lost / self.committed_bytes if lost > 0 else 0.0


@dataclass(frozen=True)
class Roots:
    """All roots of a process.

    Attributes:
        memory: Stretches of memory, none of which overlaps another.
        registers: Values of all integer registers of all threads.
    """

    memory: tuple[Root, ...]
    registers: tuple[int, ...]

    def amounts(self, memory: AddressSpace) -> dict[RootKind, RootBytes]:
        """How much there is of each kind that occurs."""
        sums: dict[RootKind, RootBytes] = {}
        for root in self.memory:
            old = sums.get(root.kind, RootBytes(0, 0))
            sums[root.kind] = RootBytes(
                old.committed_bytes + root.end - root.start,
                old.present_bytes + memory.present_bytes(root.start, root.end),
            )
        return sums


def find_roots(session: Session) -> Roots:
    """The roots of a session's process; its blocks have to be walked first.

    What belongs to a heap is known only then, and everything else the process took counts as root. So does
    what another allocator holds, unless all of its blocks were walked, which are no roots either.
    """
    memory, dump = session.dump.memory, session.dump
    regions = memory.regions
    known = KnownMemory()
    for view in session.views:
        for block in view.thread_blocks if view.pointer_size == 4 else ():
            known.add(block.address + _TEB32_LENGTHS, block.address + _TEB32_LENGTHS + 4)
    found = []
    for module in dump.modules:
        sections = read_sections(memory, module)
        spans = [(s.start, s.start + s.size) for s in sections if s.flags & MEM_WRITE]
        if not sections:  # its headers are not in the dump, but its data may be
            spans = [(module.base_address, module.end_address)]
        for span in spans:
            found += [Root(RootKind.GLOBALS, *piece, module) for piece in known.add(*span)]
    for span in _stacks(session, regions):
        found += [Root(RootKind.STACK, *piece) for piece in known.add(*span)]
    for arena in walked_arenas(session):
        for start, size in arena.account.ranges:
            known.add(start, start + size)
    for source in session.heaps:
        # XP's look-aside lists are a used block that only the heap's own header points to.
        if isinstance(source.entry.heap, NtHeapBase):
            span = source.entry.heap.front_end_pointer
            found += [Root(RootKind.HEAP, *piece) for piece in known.add(*span)]
    # What a heap holds that could not be read is not known, and may be pointers.
    for start, size in (span for spans in unread_spans(session).values() for span in spans):
        found += [Root(RootKind.PRIVATE, *piece) for piece in known.add(start, start + size)]
    if not len(regions):
        for module in dump.modules:
            known.add(module.base_address, module.end_address)
        for start, size in heap_ranges(session):
            known.add(start, start + size)
        known.add(_KERNELS_PAGE, sum(SHARED_USER_DATA))
    others = _other_regions(session, regions) if len(regions) else _all_present(session)
    for kind, start, end in others:
        found += [Root(kind, *piece) for piece in known.add(start, end)]
    registers = {value for thread in dump.threads for value in thread.registers.values()}
    return Roots(tuple(found), tuple(sorted(registers)))


def _stacks(session: Session, regions: Regions) -> list[tuple[int, int]]:
    """The part of each stack that is in use: from the stack pointer to the stack's base.

    Of stacks that only a TEB tells of, those of 32-bit code and of threads that are not listed, it is all.
    """
    spans = []
    listed = set()
    for thread in session.dump.threads:
        start, end = thread.stack_start, thread.stack_start + thread.stack_size
        row = regions.row_of(start) if start else -1
        if row >= 0:  # the writer may have cut it; the region goes on to the stack's base
            end = max(end, int(regions.base_address[row]) + int(regions.region_size[row]))
        pointer = next((thread.registers[n] for n in _STACK_POINTERS if n in thread.registers), 0)
        if start <= pointer < end:
            start = pointer
        if start < end:
            spans.append((start, end))
            listed.add(thread.teb)
    blocks = [block for view in session.views for block in view.thread_blocks]
    return spans + [block.stack for block in blocks if block.address not in listed]


def _all_present(session: Session) -> Iterator[tuple[RootKind, int, int]]:
    """All memory of a process whose regions are not listed."""
    limit = 1 << (47 if any(view.pointer_size == 8 for view in session.views) else 32)
    pieces = session.dump.memory.extents(0, limit)
    for start, size in zip(pieces.address.tolist(), pieces.size.tolist(), strict=True):
        yield RootKind.PRIVATE, start, start + size


def lost_share(session: Session, amounts: dict[RootKind, RootBytes]) -> float | None:
    """The share of all memory that may hold pointers that could not be looked at; None when unknown.

    That is roots and heaps, of which only what was walked was looked at. A dump of part of the memory that
    does not list regions does not say what it lacks.
    """
    dump = session.dump
    accounts = [source.entry.heap.account for source in session.heaps if source.entry.heap]
    accounts += [arena.account for arena in walked_arenas(session)]
    committed = sum(amount.committed_bytes for amount in amounts.values())
    lost = committed - sum(amount.present_bytes for amount in amounts.values())
    committed += sum(account.committed_bytes for account in accounts)
    lost += sum(account.unwalked_bytes for account in accounts)
    regions = dump.memory.regions
    if not len(regions) or not regions.whole:
        if not dump.full_memory:
            return None
        cut = sum(i.bytes_affected for i in session.diagnostics if i.code == MEMORY_CUT)
        committed, lost = committed + cut, lost + cut
    return min(max(lost, 0) / committed, 1.0) if committed else 0.0


def missing_roots(session: Session, amounts: dict[RootKind, RootBytes]) -> str:
    """Why too little of the roots is in a dump to call anything unreferenced; "" when enough is."""
    for kind, what in _NEEDED.items():
        amount = amounts.get(kind, RootBytes(0, 0))
        # A dump that lists no threads has their stacks among its other memory.
        none = kind is RootKind.GLOBALS and not amount.committed_bytes
        if none or amount.lost_share > MAX_LOST_SHARE:
            return (
                f"a dump without the {what} ({amount.present_bytes} of {amount.committed_bytes} bytes "
                "of them are in it), so whatever is held only there would look unreferenced"
            )
    lost = lost_share(session, amounts)
    if lost is not None and lost > MAX_LOST_SHARE:
        return (
            f"{share_told(lost)} of the memory that may hold pointers is not in the dump, "
            "so whatever is held only there would look unreferenced"
        )
    return ""


def require_roots(session: Session, amounts: dict[RootKind, RootBytes]) -> None:
    """Checks that enough of the roots is in a dump.

    Raises:
        CannotAnswerError: so little is that everything would look unreferenced.
    """
    reason = missing_roots(session, amounts)
    if reason:
        raise CannotAnswerError(f"{session.dump.path}: {reason}; {session.better_dump}")


def unreferenced_can_be_told(session: Session, amounts: dict[RootKind, RootBytes]) -> bool:
    """True when hardly any memory that may hold pointers is missing, for answers that only mention it."""
    if missing_roots(session, amounts):
        return False
    lost = lost_share(session, amounts)
    return lost is not None and lost < TOLD_LOST_SHARE


def share_told(share: float) -> str:
    """A share of what is missing for people; 100% only for all of it."""
    return f"{share if share == 1 else min(share, 0.999):.1%}"


def _other_regions(session: Session, regions: Regions) -> Iterator[tuple[RootKind, int, int]]:
    """Regions with roots that are neither images nor stacks nor heaps."""
    uses = region_uses(session, regions)
    committed = (regions.state == MEM_COMMIT) & regions.readable
    committed &= regions.base_address != np.uint64(_KERNELS_PAGE)
    writable = (regions.protect & np.uint32(_PAGE_WRITABLE)) != 0
    for kind, rows in (
        (RootKind.THREAD, committed & (uses == USES.index("teb-peb"))),
        (RootKind.PRIVATE, committed & (uses == USES.index("other-private"))),
        (RootKind.MAPPED, committed & writable & (uses == USES.index("mapped"))),
    ):
        starts, sizes = regions.base_address[rows].tolist(), regions.region_size[rows].tolist()
        for start, size in zip(starts, sizes, strict=True):
            yield kind, start, start + size
