"""Allocations of address space: each a reservation with all its pages, by the dump's list of regions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dumpleak.process.memory_use import region_uses
from dumpleak.process.session import Session
from windumps.arrays import I64, U64
from windumps.memory.regions import MEM_COMMIT, MEM_FREE


class Allocations(NamedTuple):
    """Everything that is not free.

    Attributes:
        start: uint64, one row an allocation; ascending.
        reach: int64, from there to the end of its last region; 0 where the list is damaged.
        size: int64, committed bytes.
        rows: Rows of the list that are not free.
        group: The allocation that each of these belongs to.
    """

    start: U64
    reach: I64
    size: I64
    rows: I64
    group: I64


def find_allocations(session: Session) -> Allocations:
    """All allocations of a process; none where the dump does not list its regions."""
    regions = session.dump.memory.regions
    rows = np.flatnonzero(regions.state != MEM_FREE)
    start, group = np.unique(regions.allocation_base[rows], return_inverse=True)
    committed = np.where(regions.state[rows] == MEM_COMMIT, regions.region_size[rows], 0)
    size, end = np.zeros(len(start), np.int64), start.copy()
    np.add.at(size, group, committed.astype(np.int64))
    np.maximum.at(end, group, (regions.base_address + regions.region_size)[rows])
    return Allocations(start, (end - start).astype(np.int64), size, rows, group)


def allocation_uses(session: Session, found: Allocations) -> I64:
    """The use of most committed bytes of each, as an index into `USES`; without any, of its first region."""
    use = region_uses(session, session.dump.memory.regions)[found.rows].astype(np.int64)
    _, first = np.unique(found.group, return_index=True)
    return np.where(found.size > 0, of_most(session, found, use), use[first])


def of_most(session: Session, found: Allocations, value: I64) -> I64:
    """The value, one for each of `rows`, that most committed bytes of each allocation have."""
    regions = session.dump.memory.regions
    distinct, index = np.unique(value, return_inverse=True)
    committed = np.flatnonzero(regions.state[found.rows] == MEM_COMMIT)
    pairs, pair = np.unique(
        found.group[committed] * len(distinct) + index[committed], return_inverse=True
    )
    held = np.zeros(len(pairs), np.int64)
    np.add.at(held, pair, regions.region_size[found.rows[committed]].astype(np.int64))
    most = np.zeros(len(found.size), np.int64)
    order = np.argsort(held, kind="stable")  # the largest is written last
    most[pairs[order] // len(distinct)] = distinct[pairs[order] % len(distinct)]
    return most
