"""Whose private memory outside heaps is, as far as an allocator is recognised by its memory.

One step before looking for the image whose data leads to it: memory of a recognised allocator keeps the
allocator's name.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dumpleak.process.arenas import arena_spans
from dumpleak.process.known_memory import inside_spans
from dumpleak.process.session import Session
from windumps.arrays import I64, U64
from windumps.heaps.allocations import allocations_at
from windumps.heaps.recognised import RECOGNISERS, named_by

WALKED = "segments of objects that were walked"
SEVERAL = 2  # that of free stretches lies alone on a native heap
TYPES = "the MethodTables of objects lie in it"
NAMED = "the data of {}, which has the .NET runtime in it, names its beginning"
AGREE = "its pages agree with each other, and its blocks were read"


class Owners(NamedTuple):
    """Who owns allocations.

    Attributes:
        names: The allocators found.
        evidence: Why each is said to be one.
        number: int64, one row an allocation: its allocator; -1 where none is recognised.
    """

    names: list[str]
    evidence: list[str]
    number: I64

    def told(self, number: int) -> str:
        """An allocator and why it is said to be one."""
        return f"{self.names[number]}: {self.evidence[number]}"


def allocators_of(session: Session, base: U64) -> Owners:
    """The allocators of private allocations outside heaps, stacks and TEBs.

    Args:
        session: The open dump, its heaps walked and its regions listed.
        base: uint64, ascending: where the allocations begin.
    """
    found = Owners([], [], np.full(len(base), -1, np.int64))
    for name, spans in arena_spans(session).items():
        _mark(found, inside_spans(base, spans), name, AGREE)
    widths = {view.pointer_size for view in session.views}
    taken = allocations_at(session.dump.memory, base, max(widths, default=8))
    heap = session.managed.heap
    if heap is not None:
        objects = np.array([segment.start for segment in heap.segments], np.uint64)
        _mark(found, taken.having(objects), ".NET objects", WALKED)
        if session.managed.groups:  # its MethodTables are known once it was walked
            _mark(found, taken.having(heap.tables.address, SEVERAL), ".NET types", TYPES)
    for row in RECOGNISERS:
        _mark(found, row.find(taken, session.dump.modules), row.name, row.evidence)
    # Of a single-file application the runtime is the program itself.
    if heap is not None and heap.runtime.module is not None:
        named = named_by(taken, heap.runtime.module)
        evidence = NAMED.format(heap.runtime.module.name)
        _mark(found, named & taken.executable, ".NET code", f"{evidence}, and it has code")
        _mark(found, named, ".NET runtime", evidence)
    return found


def _mark(found: Owners, rows: NDArray[np.bool_], name: str, evidence: str) -> None:
    rows = rows & (found.number < 0)
    if rows.any():
        if name not in found.names:  # several kinds of evidence may lead to one
            found.names.append(name)
            found.evidence.append(evidence)
        found.number[rows] = found.names.index(name)
