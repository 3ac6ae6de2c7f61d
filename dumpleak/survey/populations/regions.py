"""Allocations of address space (`--of regions`): each a reservation with all its pages."""

from __future__ import annotations

import numpy as np

from dumpleak.model.account import NO_REGIONS, REGIONS_CUT
from dumpleak.model.errors import BETTER_DUMP, CannotAnswerError
from dumpleak.model.memory import USES
from dumpleak.model.sites import Site, key_site
from dumpleak.process.memory_use import region_uses
from dumpleak.process.session import Session
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


def region_members(session: Session, by: str) -> Members:
    """All allocations of a process whose heaps were walked.

    Args:
        session: The open dump.
        by: "use", "size" (committed bytes) or "protection" (of the first committed pages).

    Raises:
        CannotAnswerError: the dump does not list its regions, or not all of them.
    """
    regions = session.dump.memory.regions
    if not len(regions) or not regions.whole:
        raise CannotAnswerError(f"{REGIONS_CUT if len(regions) else NO_REGIONS}; {BETTER_DUMP}")
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


def _uses(session: Session, regions: Regions, taken: I64, group: I64, size: I64) -> I64:
    """The use of most committed bytes of each allocation; of those without any, of its first region."""
    use = region_uses(session, regions)[taken].astype(np.int64)
    held = np.zeros((len(size), len(USES)), np.int64)
    committed = regions.state[taken] == MEM_COMMIT
    weight = np.where(committed, regions.region_size[taken].astype(np.int64), 0)
    np.add.at(held, (group, use), weight)
    _, first = np.unique(group, return_index=True)
    return np.where(size > 0, held.argmax(axis=1), use[first])


def _protections(session: Session, regions: Regions, taken: I64, group: I64, size: I64) -> I64:
    committed = np.flatnonzero(regions.state[taken] == MEM_COMMIT)
    allocation, first = np.unique(group[committed], return_index=True)
    protection = np.full(len(size), -1, np.int64)
    protection[allocation] = regions.protect[taken[committed[first]]]
    return protection


def _protection(value: int) -> str:
    if value < 0:
        return RESERVED
    names = [name for bit, name in _PROTECTIONS.items() if value & bit]
    return "|".join(names) or f"0x{value:x}"
