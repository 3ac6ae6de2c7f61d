"""The kernel image as words, for finding variables that nothing names.

A kernel's data holds pointers to its tables; a table proves itself by what it holds. So a search
goes over all aligned words of the image that are in the dump, asks which could point to a table,
and looks there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windumps.arrays import PAGE_SIZE, U64
from windumps.kernel.kernel import Kernel

MAX_IMAGE_BYTES = 64 << 20
# First address of the kernel's half, and what no address of a structure reaches, by pointer size.
LOWEST = {4: 0x8000_0000, 8: 0xFFFF_8000_0000_0000}
_HIGHEST = {4: 0xFFFF_F000, 8: 0xFFFF_FFFF_FFFF_F000}


@dataclass(frozen=True)
class KernelWords:
    """Aligned words of the kernel's image that could be addresses of kernel memory.

    Attributes:
        address: uint64, where each is, ascending.
        value: uint64.
    """

    address: U64
    value: U64

    def holding(self, value: int) -> list[int]:
        """Addresses of the words that hold a value, ascending."""
        hits: list[int] = self.address[self.value == np.uint64(value)].tolist()
        return hits

    def tables(self) -> U64:
        """uint64: distinct page-aligned addresses that the image points to."""
        return np.unique(self.value[self.value & np.uint64(PAGE_SIZE - 1) == 0])


def kernel_words(kernel: Kernel) -> KernelWords:
    """Reads the kernel's image; no words when it is unknown where it is."""
    size = kernel.pointer_size
    nothing = np.empty(0, np.uint64)
    if kernel.image is None or not kernel.base:
        return KernelWords(nothing, nothing)
    end = kernel.base + min(kernel.image.size_bytes, MAX_IMAGE_BYTES)
    memory = kernel.memory
    addresses, values = [nothing], [nothing]
    for start, length, offset in zip(*memory.extents(kernel.base, end), strict=True):
        count = int(length) // size
        raw = memory.data[int(offset) : int(offset) + count * size]
        words = np.ndarray((count,), f"<u{size}", buffer=raw)
        at = np.flatnonzero((words >= LOWEST[size]) & (words < _HIGHEST[size]))
        values.append(words[at].astype(np.uint64))
        addresses.append(np.uint64(start) + at.astype(np.uint64) * np.uint64(size))
    return KernelWords(np.concatenate(addresses), np.concatenate(values))
