"""The kernel image as words, for finding variables that nothing names.

A kernel's data holds pointers to its tables; a table proves itself by what it holds. So a search
goes over all aligned words of the image that are in the dump, asks which could point to a table,
and looks there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.memory.address_space import U64
from windumps.windows.kernel import Kernel

MAX_IMAGE_BYTES = 64 << 20
PAGE = 0x1000


@dataclass(frozen=True)
class KernelWords:
    """Aligned pointer-sized words of the kernel's image.

    Attributes:
        address: uint64, ascending.
        value: uint64.
        pointer_size: 4 or 8.
    """

    address: U64
    value: U64
    pointer_size: int

    @property
    def is_pointer(self) -> NDArray[np.bool_]:
        """bool: which words could be addresses of kernel memory."""
        if self.pointer_size == 4:
            return (self.value >= np.uint64(0x8000_0000)) & (self.value < np.uint64(0xFFFF_F000))
        low = np.uint64(0xFFFF_8000_0000_0000)
        return (self.value >= low) & (self.value < np.uint64(0xFFFF_FFFF_FFFF_F000))

    def holding(self, value: int) -> list[int]:
        """Addresses of the words that hold a value, ascending."""
        hits: list[int] = self.address[self.value == np.uint64(value)].tolist()
        return hits

    def tables(self) -> U64:
        """uint64: distinct page-aligned addresses that the image points to."""
        aligned = self.is_pointer & (self.value & np.uint64(PAGE - 1) == 0)
        return np.unique(self.value[aligned])


def kernel_words(kernel: Kernel) -> KernelWords:
    """Reads all words of the kernel's image; none when it is unknown where it is."""
    size = kernel.pointer_size
    nothing = np.empty(0, np.uint64)
    if kernel.image is None or not kernel.base:
        return KernelWords(nothing, nothing, size)
    end = kernel.base + min(kernel.image.size_bytes, MAX_IMAGE_BYTES)
    memory = kernel.memory
    addresses, values = [nothing], [nothing]
    for start, length, offset in zip(*memory.extents(kernel.base, end), strict=True):
        count = int(length) // size
        raw = memory.data[int(offset) : int(offset) + count * size]
        values.append(np.frombuffer(raw.tobytes(), f"<u{size}").astype(np.uint64))
        addresses.append(np.uint64(start) + np.arange(count, dtype=np.uint64) * np.uint64(size))
    return KernelWords(np.concatenate(addresses), np.concatenate(values), size)
