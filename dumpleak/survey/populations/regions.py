"""Allocations of address space (`--of regions`): each a reservation with all its pages."""

from __future__ import annotations

import numpy as np

from dumpleak.model.account import NO_REGIONS, REGIONS_CUT
from dumpleak.model.errors import BETTER_DUMP, CannotAnswerError
from dumpleak.model.memory import USES
from dumpleak.model.region_owner import RegionOwner
from dumpleak.model.sites import Site, SiteKind, key_site
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.units import format_bytes
from dumpleak.pointers.holders import HolderFinder
from dumpleak.pointers.references import BlockIndexBuilder
from dumpleak.pointers.region_owners import (
    LOW,
    OWNED,
    RegionOwners,
    find_region_owners,
    image_data_bytes,
    why_owners_unknown,
)
from dumpleak.process.allocations import Allocations, allocation_uses, find_allocations, of_most
from dumpleak.process.memory_use import NO_THREADS
from dumpleak.process.private_memory import find_private
from dumpleak.process.session import Session
from dumpleak.survey.populations.heap_rows import why_heaps_unknown
from dumpleak.survey.populations.members import Members, numbered
from windumps.arrays import I64
from windumps.diagnostics import Diagnostic, Severity
from windumps.memory.regions import MEM_COMMIT

# winnt.h: PAGE_*; the first eight exclude each other, the others come on top.
_PROTECTIONS = {
    0x01: "PAGE_NOACCESS",
    0x02: "PAGE_READONLY",
    0x04: "PAGE_READWRITE",
    0x08: "PAGE_WRITECOPY",
    0x10: "PAGE_EXECUTE",
    0x20: "PAGE_EXECUTE_READ",
    0x40: "PAGE_EXECUTE_READWRITE",
    0x80: "PAGE_EXECUTE_WRITECOPY",
    0x100: "PAGE_GUARD",
    0x200: "PAGE_NOCACHE",
    0x400: "PAGE_WRITECOMBINE",
}
RESERVED = "(reserved only)"
OWNER = "owner"
_KERNELS_PAGE = "the kernel's page (KUSER_SHARED_DATA)"
_EXECUTABLE = 0xF0  # winnt.h: PAGE_EXECUTE and what can be written besides


def region_members(session: Session, process: Snapshot, by: str) -> Members:
    """All allocations of a process whose heaps were walked.

    Args:
        session: The open dump.
        process: What is known of its heaps.
        by: "use" (of most committed bytes), "size" (committed bytes), "protection" (as "use") or "owner" (of
            private and mapped memory what points to it, of other memory its use).

    Raises:
        CannotAnswerError: the dump does not list its regions, or not all of them, or it does not tell of what
            use they are, or whose.
    """
    regions = session.dump.memory.regions
    if not len(regions) or not regions.whole:
        raise CannotAnswerError(f"{REGIONS_CUT if len(regions) else NO_REGIONS}; {BETTER_DUMP}")
    if by in ("use", OWNER) and (why := _why_use_unknown(session, process)):
        raise CannotAnswerError(f"what regions are used for is not known: {why}")
    found = find_allocations(session)
    if by == OWNER:
        return _owned(session, process, found)
    values = {"use": allocation_uses, "protection": _protections}
    label = values[by](session, found) if by in values else found.size
    kinds, index = np.unique(label, return_inverse=True)
    return Members([_site(by, kind) for kind in kinds.tolist()], index.astype(np.int64), found.size)


def _owned(session: Session, process: Snapshot, found: Allocations) -> Members:
    """All allocations by who points to them."""
    owners = _owners(session, process)
    regions = session.dump.memory.regions
    use = allocation_uses(session, found)
    runs = (regions.state == MEM_COMMIT) & ((regions.protect & np.uint32(_EXECUTABLE)) != 0)
    code = np.zeros(len(use), np.bool_)
    code[found.group[runs[found.rows]]] = True
    owner = owners.of(found.start)
    private = find_private(session)
    known = private.owners
    allocator = np.full(len(owner), -1, np.int64)
    allocator[np.searchsorted(found.start, private.start)] = known.number
    table = np.column_stack([use, code & (owner >= 0), owner, allocator])
    table[allocator >= 0, :3] = -1  # an allocator's name says more than who points to it
    kinds, index = np.unique(table, axis=0, return_inverse=True)
    sites, place = numbered(
        key_site("region|owner", known.told(by))
        if by >= 0
        else _owned_site(USES[kind], owners.owners[number], code=bool(executable))
        if number >= 0
        else key_site("region|owner", _KERNELS_PAGE if USES[kind] in OWNED else USES[kind])
        for kind, executable, number, by in kinds.tolist()
    )
    return Members(sites, place[index.reshape(-1)], found.size, _notes(session, owners))


def _owned_site(use: str, owner: RegionOwner, *, code: bool) -> Site:
    what = f"{use.removeprefix('other-')} {'code' if code else 'memory'}"
    engine = f" of {owner.engine}" if code and owner.engine else ""
    key = f"region|owner|{what}|{owner.key}"
    return Site(SiteKind.GROUP, key, f"{what}{engine}, {owner.told}")


def _owners(session: Session, process: Snapshot) -> RegionOwners:
    """Whose allocations are.

    Raises:
        CannotAnswerError: what would tell is not in the dump, or was not looked at.
    """
    if why := why_owners_unknown(session):
        raise CannotAnswerError(f"{why}; {BETTER_DUMP}")
    if isinstance(process.holders, HolderFinder):
        return process.holders.region_owners
    if session.readable_heaps:
        raise CannotAnswerError("whose regions are was not looked for; ask the dump itself")
    return find_region_owners(session, BlockIndexBuilder().build(), ())


def _notes(session: Session, owners: RegionOwners) -> tuple[Diagnostic, ...]:
    """What may point to regions and was not looked at; and where owners are less sure."""
    low = int((owners.start < LOW).sum())
    message = (
        f"{low} of {len(owners.start)} owned regions are below 4 GiB, where numbers look like addresses: who "
        "points to them is less sure"
    )
    severity = Severity.WARNING if 2 * low > len(owners.start) else Severity.INFO
    unsure = (Diagnostic("owners-unsure", severity, "regions", None, message),) * bool(low)
    return (*_lost_notes(session), *unsure)


def _lost_notes(session: Session) -> tuple[Diagnostic, ...]:
    total, present = image_data_bytes(session)
    accounts = [source.entry.heap.account for source in session.heaps if source.entry.heap]
    lost = {
        "the images' data": total - present,
        "heaps": sum(account.unwalked_bytes for account in accounts),
    }
    told = [f"{format_bytes(size)} of {what}" for what, size in lost.items() if size > 0]
    if not told:
        return ()
    message = (
        f"{' and '.join(told)} could not be looked at: regions that only it points to are listed as if "
        "nothing did, or less did"
    )
    affected = sum(lost.values())
    return (Diagnostic("owners-absent", Severity.WARNING, "regions", None, message, affected),)


def _site(by: str, value: int) -> Site:
    names = {"use": lambda: USES[value], "protection": lambda: _protection(value)}
    return key_site(f"region|{by}", names[by]() if by in names else str(value))


def _why_use_unknown(session: Session, process: Snapshot) -> str:
    """Why memory of heaps or stacks may look like other memory; "" where it cannot."""
    known = all(view.threads_known for view in session.views)
    return why_heaps_unknown(process) or ("" if known else NO_THREADS)


def _protections(session: Session, found: Allocations) -> I64:
    protection = session.dump.memory.regions.protect[found.rows].astype(np.int64)
    return np.where(found.size > 0, of_most(session, found, protection), -1)


def _protection(value: int) -> str:
    if value < 0:
        return RESERVED
    names = [name for bit, name in _PROTECTIONS.items() if value & bit]
    return "|".join(names) or f"0x{value:x}"
