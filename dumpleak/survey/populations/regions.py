"""Allocations of address space (`--of regions`): each a reservation with all its pages."""

from __future__ import annotations

import numpy as np

from dumpleak.model.account import NO_REGIONS, REGIONS_CUT
from dumpleak.model.errors import BETTER_DUMP, CannotAnswerError
from dumpleak.model.memory import USES
from dumpleak.model.sites import Site, key_site
from dumpleak.model.snapshot import Snapshot
from dumpleak.process.memory_use import NO_THREADS, region_uses
from dumpleak.process.session import Session
from dumpleak.survey.populations.heap_rows import why_heaps_unknown
from dumpleak.survey.populations.members import Members
from windumps.arrays import I64
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


def region_members(session: Session, process: Snapshot, by: str) -> Members:
    """All allocations of a process whose heaps were walked.

    Args:
        session: The open dump.
        process: What is known of its heaps.
        by: "use" (of most committed bytes), "size" (committed bytes) or "protection" (as "use").

    Raises:
        CannotAnswerError: the dump does not list its regions, or not all of them, or it does not tell of what
            use they are.
    """
    regions = session.dump.memory.regions
    if not len(regions) or not regions.whole:
        raise CannotAnswerError(f"{REGIONS_CUT if len(regions) else NO_REGIONS}; {BETTER_DUMP}")
    if by == "use" and (why := _why_use_unknown(session, process)):
        raise CannotAnswerError(f"what regions are used for is not known: {why}")
    taken = np.flatnonzero(regions.state != MEM_FREE)
    _, first, group = np.unique(
        regions.allocation_base[taken], return_index=True, return_inverse=True
    )
    committed = np.where(regions.state[taken] == MEM_COMMIT, regions.region_size[taken], 0)
    size = np.zeros(len(first), np.int64)
    np.add.at(size, group, committed.astype(np.int64))
    values = {"use": _uses, "protection": _protections}
    label = values[by](session, regions, taken, group, size) if by in values else size
    kinds, index = np.unique(label, return_inverse=True)
    return Members([_site(by, kind) for kind in kinds.tolist()], index.astype(np.int64), size)


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
