"""How physical memory lies in a raw image, and what proves it.

A PC keeps addresses below 4 GiB for devices. Most tools fill that gap in an image, some leave it out
(VMware from 3 GiB on, QEMU from 2, 3 or 3.5 GiB on), and then all memory above 4 GiB lies too low in
the file. Nothing in the file says so, and a kernel whose structures lie below the gap can be read
either way. But the kernel keeps a list of its memory (MmPhysicalMemoryBlock): mostly one way alone gives
the file the size it has, and where several would, memory above 4 GiB has contents under one alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windumps.arrays import PAGE_SIZE, U8
from windumps.memory import RunMemory

FOUR_GIB = 1 << 32
# Where a gap begins: QEMU's q35, VMware and QEMU's i440fx, VirtualBox and older QEMU.
GAPS = (0x8000_0000, 0xC000_0000, 0xE000_0000)
# Memory at the end that firmware keeps for itself and the kernel does not list.
_KEPT_BYTES = 256 << 20
_SAMPLES = 1024  # pages looked at for contents
# Memory in use has contents in more than this share of its pages, and in clearly more than memory that
# is read from the wrong place of a file that is mostly empty.
_FILLED, _CLEARLY = 0.25, 4.0


@dataclass(frozen=True)
class RawLayout:
    """One way to read a raw image.

    Attributes:
        size: Bytes of the file that are memory.
        gap: Address at which the gap below 4 GiB begins that is not in the file; None when the file has
            all addresses.
        needs_proof: The file is so large that another layout would read it otherwise.
    """

    size: int
    gap: int | None
    needs_proof: bool

    def memory(self, data: U8) -> RunMemory:
        """The image's physical memory."""
        runs = [(0, self.size, 0)]
        if self.gap is not None:
            runs = [(0, self.gap, 0), (FOUR_GIB, self.size - self.gap, self.gap)]
        address, size, offset = zip(*runs, strict=True)
        return RunMemory(
            data, np.array(address, np.uint64), np.array(size, np.int64), np.array(offset, np.int64)
        )

    def surplus(self, runs: list[tuple[int, int]]) -> int | None:
        """Bytes of the file behind the kernel's memory; None where this layout cannot hold that memory.

        Args:
            runs: (address, bytes) of the kernel's own list.
        """
        end = max((start + count for start, count in runs), default=0)
        if self.gap is None:
            return self.size - end if 0 < end <= self.size else None
        inside = any(start < FOUR_GIB and start + n > self.gap for start, n in runs)
        if inside or end <= FOUR_GIB:
            return None
        left = self.size - (end - (FOUR_GIB - self.gap))
        return left if left >= 0 else None

    def high_contents(self, data: U8, runs: list[tuple[int, int]]) -> float:
        """The share of some pages of the kernel's memory above 4 GiB that are not all zeros."""
        high = [(max(start, FOUR_GIB), start + n) for start, n in runs if start + n > FOUR_GIB]
        pages = np.concatenate(
            [np.arange(low, end, PAGE_SIZE, dtype=np.uint64) for low, end in high]
        )
        pages = pages[:: max(len(pages) // _SAMPLES, 1)]
        places = self.memory(data).locate(pages, PAGE_SIZE)
        filled = [bool(data[at : at + PAGE_SIZE].any()) for at in places.tolist() if at >= 0]
        return sum(filled) / max(len(filled), 1)


def is_proven(data: U8, layout: RawLayout, runs: list[tuple[int, int]]) -> bool:
    """True when the kernel's memory lies in the file as a layout says, and not as another would have it.

    Args:
        data: The file's bytes.
        layout: The one to be proven.
        runs: (address, bytes) of the kernel's own list, read under this layout.
    """
    mine = layout.surplus(runs)
    if mine is None:
        return False
    others = [other for other in candidates(layout.size) if other != layout]
    rivals = [other for other in others if other.surplus(runs) is not None]
    if not rivals or max(start + count for start, count in runs) <= FOUR_GIB:
        return True
    if mine < _KEPT_BYTES:
        return all((other.surplus(runs) or 0) >= _KEPT_BYTES for other in rivals)
    if any((other.surplus(runs) or 0) < _KEPT_BYTES for other in rivals):
        return False
    best = max(other.high_contents(data, runs) for other in rivals)
    return layout.high_contents(data, runs) > max(_FILLED, _CLEARLY * best)


def candidates(size: int) -> list[RawLayout]:
    """The ways to read an image of so many bytes, the usual one first."""
    ambiguous = size > GAPS[0]
    gaps = [gap for gap in GAPS if size > gap]
    return [RawLayout(size, gap, ambiguous) for gap in (None, *gaps)]


def common(size: int, runs: list[tuple[int, int]]) -> RawLayout:
    """The part of an image that all layouts read in the same way.

    Args:
        size: Bytes of the image.
        runs: (address, bytes) of the kernel's memory; empty when unknown.
    """
    low = [start + count for start, count in runs if start + count <= FOUR_GIB]
    # A gap lies behind the memory below 4 GiB.
    first = min((gap for gap in GAPS if gap >= max(low, default=0)), default=FOUR_GIB)
    return RawLayout(min(size, first), None, False)
