"""What an incomplete dump may hide: memory that was not walked, and parts whose size is not known.

A hole in the later dump hides growth, one in the earlier dump shows growth where there is none. How much is
a question of bytes, held against what is asked or claimed, never of a share of all memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from dumpleak.snapshot import Snapshot
from dumpleak.units import format_bytes
from windumps.diagnostics import MEMORY_CUT
from windumps.windows.process import HEAP_LIST_CUT

# Growth that may hide in a hole this small is not worth a refusal: one step in which address space is taken.
HIDDEN_BYTES = 0x10000
# Diagnostics that say that something of unknown size is missing, and what it is.
_UNKNOWN_SIZE = {
    HEAP_LIST_CUT: "the list of heaps is cut",
    "pool-tags-unknown": "counters of some pool tags are not in the dump",
    "pool-large-unknown": "large blocks of the pools are not known",
}
# Bytes between the beginnings of two neighbouring blocks, at least (_HEAP_ENTRY's size).
_GRANULARITY = {"x86": 8, "x64": 16}


@dataclass(frozen=True)
class Hole:
    """What one dump does not show.

    Attributes:
        bytes: Committed memory of heaps that was not walked, and memory that a cut file lacks.
        unknown: What is missing besides, of unknown size; "" when nothing is.
        granularity: Bytes that a block takes at least.
    """

    bytes: int
    unknown: str = ""
    granularity: int = 8

    @property
    def most_bytes(self) -> float:
        """What it may hide at most."""
        return float("inf") if self.unknown else float(self.bytes)

    @property
    def most_blocks(self) -> float:
        """How many blocks it may hide at most."""
        return float("inf") if self.unknown else float(self.bytes // self.granularity)

    @property
    def told(self) -> str:
        """For people, "16.7 MiB were not walked"."""
        parts = [f"{format_bytes(self.bytes)} were not walked"] if self.bytes else []
        return " and ".join([*parts, *([self.unknown] if self.unknown else [])])


def find_hole(snapshot: Snapshot) -> Hole:
    """What a snapshot does not show."""
    covered = snapshot.coverage
    if any(row.unwalked_bytes is not None for row in snapshot.heaps):
        # By heap: what one heap has too much of does not make up for what another lacks.
        lost = sum(
            max(row.unwalked_bytes or 0, 0) + abs(row.residual_bytes or 0)
            for row in snapshot.heaps
            if row.read
        )
    else:
        lost = covered.hidden_bytes
    lost += sum(i.bytes_affected for i in snapshot.diagnostics if i.code == MEMORY_CUT)
    unknown = [
        text
        for code, text in _UNKNOWN_SIZE.items()
        if any(item.code == code for item in snapshot.diagnostics)
    ]
    unread = covered.heaps_listed - covered.heaps_read
    if unread > 0:
        unknown.insert(0, f"{unread} of {covered.heaps_listed} {covered.parts} could not be read")
    machines = {snapshot.source.architecture, *(row.architecture for row in snapshot.heaps)}
    return Hole(lost, "; ".join(unknown), min(_GRANULARITY.get(name, 8) for name in machines))
