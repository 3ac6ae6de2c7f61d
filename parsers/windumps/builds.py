"""Facts of Windows that hold for some builds, a row each; code asks a row and compares no build numbers."""

from __future__ import annotations

from dataclasses import dataclass

NEWEST = 1 << 31  # later than any build


@dataclass(frozen=True)
class Builds:
    """Builds from one to another, both included; build 0, which is unknown, is in none.

    Attributes:
        first: Number of the first.
        last: Number of the last.
    """

    first: int = 1
    last: int = NEWEST

    def __contains__(self, build: int) -> bool:
        return self.first <= build <= self.last


# Windows Vista on: images, stacks and heaps lie elsewhere in each process (Microsoft: "Address Space Layout
# Randomization").
RANDOM_ADDRESSES = Builds(6000)
# Windows 10 on the memory manager's counters are in MiSystemPartition (public kernel symbols); before, the
# paged pools' descriptors have their own.
WITHOUT_PARTITIONS = Builds(last=10239)
# Windows 7 on: `_OBJECT_HEADER.InfoMask` names the optional headers in front (public kernel symbols).
OBJECT_INFO_MASK = Builds(7600)
# Windows 10 1903 on: the pools are segment heaps (Yarden Shafir: "Pool internals", 2020); before, pages with
# header chains.
SEGMENT_HEAP_POOLS = Builds(18362)
PAGE_POOLS = Builds(last=SEGMENT_HEAP_POOLS.first - 1)
# Windows 11 24H2 on: no session pool; large blocks keep POOL_FLAGS; segment heaps as ntdll of that build has
# them (seen on memory laid out by the genuine code).
WITHOUT_SESSION_POOL = Builds(26100)
LARGE_BLOCK_FLAGS = Builds(26100)
NEW_POOL_HEAPS = Builds(26100)
