"""Where the memory of a VMware machine lies in its `.vmem`, by the state beside it (`.vmss`, `.vmsn`).

Source: the readers of volatility and volatility3 for this format, which VMware has not published. A header is
followed by groups, each with a name and the place of its tags; the group "memory" says of each region of
memory its first page in the machine (regionPPN), its first page in the `.vmem` (regionPageNum), and how many
it has.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from windumps.arrays import PAGE_SIZE, U8
from windumps.dumps.image import structures as c
from windumps.memory import RunMemory

MEMORY, STATES = ".vmem", (".vmss", ".vmsn")
_PACKED = (".gz", ".xz", ".zst", ".zip", ".cab")
_MAX_GROUPS = 1024
_MAX_TAGS = 1 << 20
_MAX_REGIONS = 4096
_MAX_PAGE = 1 << 40
_LONG = (62, 63)  # sizes that say: two lengths and padding follow
_REGION = (b"regionPPN", b"regionPageNum", b"regionSize")


@dataclass(frozen=True)
class Regions:
    """Memory as a state has it.

    Attributes:
        state: The file that says so.
        rows: (address in the machine, place in the `.vmem`, bytes) of each region.
    """

    state: Path
    rows: tuple[tuple[int, int, int], ...]

    def memory(self, data: U8) -> tuple[RunMemory, int]:
        """The machine's memory, and how many of its bytes lie behind the file's end."""
        size = len(data) // PAGE_SIZE * PAGE_SIZE
        held = [
            (start, place, min(count, max(size - place, 0))) for start, place, count in self.rows
        ]
        address, offset, present = zip(*(row for row in held if row[2]), strict=True)
        memory = RunMemory(
            data,
            np.array(address, np.uint64),
            np.array(present, np.int64),
            np.array(offset, np.int64),
        )
        return memory, sum(row[2] for row in self.rows) - sum(present)

    def holds(self, runs: list[tuple[int, int]]) -> bool:
        """True when all memory that a kernel lists is in some region: (address, bytes)."""
        return all(
            any(first <= start and start + count <= first + size for first, _, size in self._joined)
            for start, count in runs
        )

    @property
    def _joined(self) -> list[tuple[int, int, int]]:
        """Regions, neighbours put together."""
        joined: list[tuple[int, int, int]] = []
        for start, place, size in self.rows:
            if joined and joined[-1][0] + joined[-1][2] == start:
                first, at, before = joined.pop()
                joined.append((first, at, before + size))
            else:
                joined.append((start, place, size))
        return joined


def regions_beside(path: Path, size: int) -> Iterator[Regions]:
    """What the states beside a `.vmem` say of its memory; none where there is no state, or it says nothing.

    Args:
        path: The `.vmem`, which may be packed.
        size: Its bytes.
    """
    stem = path.with_suffix("") if path.suffix.lower() in _PACKED else path
    if stem.suffix.lower() != MEMORY:
        return
    for suffix in STATES:
        state = stem.with_suffix(suffix)
        try:
            rows = _read(state)
        except OSError:
            continue  # it is not there, or nobody may read it
        if rows and any(place < size for _, place, _ in rows):
            yield Regions(state, rows)


def _read(path: Path) -> tuple[tuple[int, int, int], ...]:
    """Regions of a state; empty when it is none, or says nothing that can be."""
    with path.open("rb") as file:
        if file.seek(0, 2) < c.VMWARE_HEADER.size:
            return ()
        with closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as raw:
            return _regions(_tags(raw))


def _regions(tags: dict[tuple[bytes, int], int]) -> tuple[tuple[int, int, int], ...]:
    count = tags.get((b"regionsCount", 0), 0)
    if not 0 < count <= _MAX_REGIONS:
        return ()
    rows = []
    for number in range(count):
        page, place, pages = (tags.get((name, number), -1) for name in _REGION)
        if min(page, place) < 0 or pages <= 0 or max(page, place) + pages > _MAX_PAGE:
            return ()
        rows.append((page * PAGE_SIZE, place * PAGE_SIZE, pages * PAGE_SIZE))
    rows.sort()
    overlap = any(one[0] + one[2] > other[0] for one, other in pairwise(rows))
    return () if overlap else tuple(rows)


def _tags(raw: mmap.mmap) -> dict[tuple[bytes, int], int]:
    """Integers of the group "memory", by name and first index."""
    magic, _, count = c.VMWARE_HEADER.unpack_from(raw, 0)
    if magic not in c.VMWARE_MAGICS:
        return {}
    wide = 8 if magic & 0xF else 4  # lengths of long data
    at = next(
        (
            place
            for number in range(min(count, _MAX_GROUPS))
            if (end := c.VMWARE_HEADER.size + (number + 1) * c.VMWARE_GROUP.size) <= len(raw)
            for name, place, _ in [c.VMWARE_GROUP.unpack_from(raw, end - c.VMWARE_GROUP.size)]
            if name.rstrip(b"\0") == b"memory"
        ),
        len(raw),
    )
    found: dict[tuple[bytes, int], int] = {}
    for _ in range(_MAX_TAGS):
        if at + 2 > len(raw) or raw[at] == raw[at + 1] == 0:
            break
        flags, length = raw[at], raw[at + 1]
        name, at = bytes(raw[at + 2 : at + 2 + length]), at + 2 + length
        indices = flags >> 6 & 3
        index = int.from_bytes(raw[at : at + 4], "little") if indices else 0
        at += 4 * indices
        size = flags & 0x3F
        if size in _LONG:
            size = int.from_bytes(raw[at : at + wide], "little")
            at += 2 * wide
            at += 2 + int.from_bytes(raw[at : at + 2], "little")
        elif size <= 8:
            found[name, index] = int.from_bytes(raw[at : at + size], "little")
        at += size
    return found
