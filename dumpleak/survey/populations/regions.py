"""Allocations of address space (`--of regions`): each a reservation with all its pages."""

from __future__ import annotations

from typing import NamedTuple

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
from dumpleak.pointers.region_owners import find_region_owners, image_data_bytes
from dumpleak.pointers.roots import MAX_LOST_SHARE
from dumpleak.process.memory_use import NO_THREADS, SHARED_USER_DATA, region_uses
from dumpleak.process.session import Session
from dumpleak.survey.populations.heap_rows import why_heaps_unknown
from dumpleak.survey.populations.members import Members, numbered
from windumps.arrays import I64, U64
from windumps.diagnostics import Diagnostic, Severity
from windumps.memory import Regions
from windumps.memory.regions import MEM_COMMIT, MEM_FREE

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
_OWNED = {"other-private": "private", "mapped": "mapped"}
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
    taken = np.flatnonzero(regions.state != MEM_FREE)
    _, first, group = np.unique(
        regions.allocation_base[taken], return_index=True, return_inverse=True
    )
    committed = np.where(regions.state[taken] == MEM_COMMIT, regions.region_size[taken], 0)
    size = np.zeros(len(first), np.int64)
    np.add.at(size, group, committed.astype(np.int64))
    if by == OWNER:
        return _owned(session, process, regions, _Taken(taken, group, size))
    values = {"use": _uses, "protection": _protections}
    label = values[by](session, regions, taken, group, size) if by in values else size
    kinds, index = np.unique(label, return_inverse=True)
    return Members([_site(by, kind) for kind in kinds.tolist()], index.astype(np.int64), size)


class _Taken(NamedTuple):
    """The regions that are in use.

    Attributes:
        rows: Rows of the list.
        group: Number of the allocation that each belongs to.
        size: Committed bytes of each allocation.
    """

    rows: I64
    group: I64
    size: I64


def _owned(session: Session, process: Snapshot, regions: Regions, taken: _Taken) -> Members:
    """All allocations by who points to them."""
    use = _uses(session, regions, *taken)
    end = np.zeros(len(use), np.uint64)
    np.maximum.at(end, taken.group, (regions.base_address + regions.region_size)[taken.rows])
    start = np.unique(regions.allocation_base[taken.rows])
    runs = (regions.state == MEM_COMMIT) & ((regions.protect & np.uint32(_EXECUTABLE)) != 0)
    code = np.zeros(len(use), np.bool_)
    code[taken.group[runs[taken.rows]]] = True
    asked = np.isin(use, [USES.index(name) for name in _OWNED])
    asked &= (end > start) & (start != np.uint64(SHARED_USER_DATA[0]))
    extent = (end - start)[asked].astype(np.int64)
    owners, owner = _owners(session, process, start[asked], extent)
    # Use, code or not, and owner of each; -1 where nobody asks whose it is.
    whose = np.full(len(use), -1, np.int64)
    whose[asked] = owner
    table = np.column_stack([use, code & asked, whose])
    kinds, index = np.unique(table, axis=0, return_inverse=True)
    sites = [
        _owned_site(USES[kind], owners[number], code=bool(runs))
        if number >= 0
        else key_site("region|owner", _KERNELS_PAGE if USES[kind] in _OWNED else USES[kind])
        for kind, runs, number in kinds.tolist()
    ]
    merged, place = numbered(sites)
    return Members(merged, place[index.reshape(-1)], taken.size, _lost_notes(session))


def _owned_site(use: str, owner: RegionOwner, *, code: bool) -> Site:
    what = f"{_OWNED[use]} {'code' if code else 'memory'}"
    engine = f" of {owner.engine}" if code and owner.engine else ""
    key = f"region|owner|{what}|{owner.key}"
    return Site(SiteKind.GROUP, key, f"{what}{engine}, {owner.told}")


def _owners(
    session: Session, process: Snapshot, start: U64, size: I64
) -> tuple[list[RegionOwner], I64]:
    """Whose allocations are.

    Raises:
        CannotAnswerError: what would tell is not in the dump, or was not looked at.
    """
    total, present = image_data_bytes(session)
    if present < (1 - MAX_LOST_SHARE) * total or not total:
        raise CannotAnswerError(
            f"whose regions are is not known: of {format_bytes(total)} of the images' data "
            f"{format_bytes(present)} are in the dump; {BETTER_DUMP}"
        )
    if isinstance(process.holders, HolderFinder):
        return process.holders.region_owners(start, size)
    if session.readable_heaps:
        raise CannotAnswerError("whose regions are was not looked for; ask the dump itself")
    return find_region_owners(session, BlockIndexBuilder().build(), (), start, size)


def _lost_notes(session: Session) -> tuple[Diagnostic, ...]:
    """What may point to regions and is not in the dump, or was not walked."""
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


def _uses(session: Session, regions: Regions, taken: I64, group: I64, size: I64) -> I64:
    """The use of most committed bytes of each allocation; of those without any, of its first region."""
    use = region_uses(session, regions)[taken].astype(np.int64)
    _, first = np.unique(group, return_index=True)
    return np.where(size > 0, _of_most(use, regions, taken, group, size), use[first])


def _protections(session: Session, regions: Regions, taken: I64, group: I64, size: I64) -> I64:
    protection = regions.protect[taken].astype(np.int64)
    return np.where(size > 0, _of_most(protection, regions, taken, group, size), -1)


def _of_most(value: I64, regions: Regions, taken: I64, group: I64, size: I64) -> I64:
    """The value that most committed bytes of each allocation have."""
    distinct, index = np.unique(value, return_inverse=True)
    committed = np.flatnonzero(regions.state[taken] == MEM_COMMIT)
    pairs, pair = np.unique(
        group[committed] * len(distinct) + index[committed], return_inverse=True
    )
    held = np.zeros(len(pairs), np.int64)
    np.add.at(held, pair, regions.region_size[taken[committed]].astype(np.int64))
    most = np.zeros(len(size), np.int64)
    order = np.argsort(held, kind="stable")  # the largest is written last
    most[pairs[order] // len(distinct)] = distinct[pairs[order] % len(distinct)]
    return most


def _protection(value: int) -> str:
    if value < 0:
        return RESERVED
    names = [name for bit, name in _PROTECTIONS.items() if value & bit]
    return "|".join(names) or f"0x{value:x}"
