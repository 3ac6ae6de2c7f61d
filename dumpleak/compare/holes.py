"""What an incomplete dump may hide: memory that was not walked, and parts whose size is not known.

A hole in the later dump hides growth, one in the earlier dump shows growth where there is none. How much is
a question of bytes, held against what is asked or claimed, never of a share of all memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from dumpleak.model.coverage import ListCovered
from dumpleak.model.sites import is_unsized
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.subject import Subject
from dumpleak.model.units import format_bytes
from windumps.diagnostics import HEAP_LIST_CUT, MEMORY_CUT

# Growth that may hide in a hole this small is not worth a refusal: one step in which address space is taken.
HIDDEN_BYTES = 0x10000
# Diagnostics that say that something of unknown size is missing, and what it is.
_UNKNOWN_SIZE = {
    HEAP_LIST_CUT: "the list of heaps is cut",
    "pool-tags-unknown": "counters of some pool tags are not in the dump",
    "pool-large-unknown": "large blocks of the pools are not known",
    "pool-counters-fell": "the system was restarted since the log before, or they are swapped",
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
        unsized_bytes: Of blocks in memory that is not in the dump, which does not tell their sizes: their
            sites lack them, and their own site has them without having grown.
        absent_bytes: Of heaps that were not walked as a whole, what is not in the dump: blocks there may
            have another name than they would have.
    """

    bytes: int
    unknown: str = ""
    granularity: int = 8
    unsized_bytes: int = 0
    absent_bytes: int = 0

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
        if self.unsized_bytes:
            parts.append(f"{format_bytes(self.unsized_bytes)} are in blocks of unknown size")
        return " and ".join([*parts, *([self.unknown] if self.unknown else [])])


def find_hole(snapshot: Snapshot) -> Hole:
    """What a snapshot does not show."""
    covered = snapshot.coverage
    if isinstance(covered, ListCovered) and covered.lacking:
        return Hole(0, f"{covered.unknown} are not all known ({covered.unknown_names})")
    if not snapshot.has_bytes or is_listed_of_system(snapshot):
        return Hole(0)
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
    granularity = min(_GRANULARITY.get(name, 8) for name in machines)
    unsized = _unsized_bytes(snapshot)
    absent = max(covered.committed_bytes - covered.present_bytes, 0)
    renamed = absent if lost or unsized or unknown else 0
    return Hole(lost, "; ".join(unknown), granularity, unsized, renamed)


def is_listed_of_system(snapshot: Snapshot) -> bool:
    """Members that a system lists, which memory that its file lacks has nothing to do with."""
    return snapshot.is_listed and snapshot.source.subject is Subject.SYSTEM


def lost_memory(other: Snapshot, snapshot: Snapshot) -> float:
    """How much memory of heaps a snapshot may show as other private memory.

    Where a heap's list of its own memory is cut, no counter may tell how much that lacks; another dump does.
    """
    most = find_hole(snapshot).most_bytes
    fallen = other.coverage.committed_bytes - snapshot.coverage.committed_bytes
    return most + max(fallen, 0) if most else 0.0


def _unsized_bytes(snapshot: Snapshot) -> int:
    """Bytes of blocks whose sizes are unknown, where that may be for want of memory in the dump.

    Some heaps keep no size of some blocks, which says nothing.
    """
    if snapshot.coverage.present_bytes >= snapshot.coverage.committed_bytes:
        return 0
    return sum(totals.bytes for site, totals in snapshot.groups.values() if is_unsized(site))
