"""Whether two dumps are of one process life: only then does a block's address mean anything.

Process id, load address of the program and handle of its first heap are set when a process starts and
never change. Since Windows Vista the last two are random, so that together they settle it. On older
systems they are the same in each life, and the start time decides.

A start time alone does not speak against one life: tools that write dumps do not agree on what they put
there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dumpleak.model.snapshot import Snapshot
from windumps.builds import RANDOM_ADDRESSES


class Life(StrEnum):
    """How two dumps relate."""

    SAME = "same"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class LifeAnswer:
    """The relation of two dumps.

    Attributes:
        life: See `Life`.
        why: The evidence, for people.
    """

    life: Life
    why: str


def same_life(base: Snapshot, current: Snapshot) -> LifeAnswer:
    """Whether two snapshots are of one process life."""
    before, after = base.source, current.source
    if None not in (before.process_id, after.process_id) and before.process_id != after.process_id:
        return LifeAnswer(Life.OTHER, f"process {before.process_id} became {after.process_id}")
    bases = before.program_base, after.program_base
    if None not in bases and bases[0] != bases[1]:
        return LifeAnswer(Life.OTHER, f"{before.program} is loaded elsewhere")
    firsts_agree = _first_heaps_agree(base, current)
    if firsts_agree is False:
        return LifeAnswer(Life.OTHER, "the first heap lies elsewhere")
    starts = before.process_created, after.process_created
    started_alike = None not in starts and starts[0] == starts[1]
    if firsts_agree is None or before.process_id is None or after.process_id is None:
        return LifeAnswer(Life.UNKNOWN, "the dumps do not say enough of their processes")
    random = before.build in RANDOM_ADDRESSES and after.build in RANDOM_ADDRESSES
    if not started_alike and None not in starts and not random:
        return LifeAnswer(Life.OTHER, "the start times differ")
    if started_alike:
        return LifeAnswer(Life.SAME, "process id, start time and addresses agree")
    if random and bases[0] is not None:
        return LifeAnswer(Life.SAME, "process id and random addresses agree")
    return LifeAnswer(Life.UNKNOWN, "process id and addresses agree, but these are not random here")


def _first_heaps_agree(base: Snapshot, current: Snapshot) -> bool | None:
    """Whether both processes have the heap that is first in one of the dumps; None where one cannot tell.

    A process's first heap is there as long as it runs. Where a dump lacks the list of heaps they were found
    in order of address, so that another may be the first.
    """
    if not base.heaps or not current.heaps:
        return None
    handles = [{row.address for row in side.heaps} for side in (base, current)]
    if base.heaps[0].address in handles[1] or current.heaps[0].address in handles[0]:
        return True
    sides = (base, current)
    return None if any(s.coverage.heaps_listed > len(s.heaps) for s in sides) else False
