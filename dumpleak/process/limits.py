"""What growing memory runs into: the limits of a process and its system, and how much is left."""

from __future__ import annotations

import numpy as np

from dumpleak.model.memory import Limit
from dumpleak.process.session import Session
from windumps.memory.regions import MEM_FREE

NARROW_LIMIT = 1 << 32  # first address a 32-bit pointer cannot hold


def memory_limits(session: Session) -> tuple[Limit, ...]:
    """The limits that a dump tells of, and that a process can reach."""
    found = [_address_space(session), _commit(session)]
    return tuple(limit for limit in found if limit is not None)


def _commit(session: Session) -> Limit | None:
    """What the system can still commit, for this process and all others."""
    if session.dump.commit is None:
        return None
    charged, limit = session.dump.commit
    return Limit("commit limit", limit - charged, limit)


def _address_space(session: Session) -> Limit | None:
    """Free address space of a process with 32-bit pointers, the smaller half of a WoW64 one too.

    The dump's region list has free regions as well: what the process cannot use (above 2 GiB without
    /LARGEADDRESSAWARE) is not listed or is reserved. A 64-bit process never runs out of addresses.
    """
    regions = session.dump.memory.regions
    if not any(view.pointer_size == 4 for view in session.views):
        return None
    low = regions.base_address < np.uint64(NARROW_LIMIT)
    free = low & (regions.state == MEM_FREE)
    if not free.any():
        return None  # no region list, or one without free regions
    start = regions.base_address[low]
    size = np.minimum(regions.region_size[low], np.uint64(NARROW_LIMIT) - start)
    unused = regions.state[low] == MEM_FREE
    return Limit("address space", int(size[unused].sum()), int(size.sum()))
