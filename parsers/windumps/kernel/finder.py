"""Finds a running kernel in physical memory that no header describes.

Windows maps its page tables into themselves: one entry of the root names the root. Pages with such an
entry are few, and whether one is the root of a kernel's address space shows at once:
KUSER_SHARED_DATA, which lies at the same address in every Windows, can be read through it. The kernel is
then the image whose PDB or export directory has one of its names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import PAGE_BITS, PAGE_SIZE
from windumps.images.pe_image import read_export_name, read_image_header
from windumps.images.search import image_addresses
from windumps.kernel.kernel import KERNEL_NAMES, read_shared_data
from windumps.memory import AddressSpace, PageTableMemory
from windumps.memory.paging import ARM64, PAGINGS, X64, X64_LA57, X86, X86_PAE, Paging

CHUNK_PAGES = 1024
MAX_ROOTS = 4096  # looked into; a machine has one for each process
KERNEL_PDBS = ("ntkrnlmp.pdb", "ntoskrnl.pdb", "ntkrnlpa.pdb", "ntkrpamp.pdb", "ntkrla57.pdb")
# Where kernels are loaded: every build from XP on.
_IMAGES = {
    "x86": (0x8000_0000, 1 << 32),
    "x64": (0xFFFF_F800_0000_0000, 0xFFFF_F900_0000_0000),
    "arm64": (0xFFFF_F800_0000_0000, 0xFFFF_F900_0000_0000),
}
_FRAME_AND_VALID = 0x000F_FFFF_FFFF_F001
_SELF_MAP_X86 = 0x300  # index of the entry: the tables lie at 0xc0000000


class FoundKernel(NamedTuple):
    """A kernel and how to read its memory.

    Attributes:
        memory: Its address space.
        architecture: "x86", "x64" or "arm64".
        base: Load address of its image; 0 when only its page tables were found.
    """

    memory: PageTableMemory
    architecture: str
    base: int


def find_kernel(
    physical: AddressSpace,
    physical_limit: int,
    hints: Iterable[tuple[str, int]] = (),
) -> FoundKernel | None:
    """Finds a kernel; None when there is none.

    Args:
        physical: Physical memory.
        physical_limit: First address above it.
        hints: (architecture, root) pairs known from elsewhere, tried first.
    """
    tables_only: FoundKernel | None = None
    tried = 0
    hinted = ([(arch, paging, root) for paging in PAGINGS[arch]] for arch, root in hints)
    for candidates in chain(hinted, _roots(physical)):
        # Kernels found below one root in several ways; that of the image's own processor is right.
        found: list[tuple[bool, FoundKernel]] = []
        for architecture, paging, root in candidates:
            memory = PageTableMemory(physical, paging, root, physical_limit)
            if read_shared_data(memory, architecture) is None:
                continue
            base, machine = find_kernel_image(memory, architecture)
            kernel = FoundKernel(memory, architecture, base)
            if base:
                found.append((machine == architecture, kernel))
            tables_only = tables_only or kernel
        if found:
            return max(found, key=lambda pair: pair[0])[1]
        tried += 1
        if tried == MAX_ROOTS:
            break
    return tables_only


def find_kernel_image(memory: PageTableMemory, architecture: str) -> tuple[int, str]:
    """Load address of the kernel's image, 0 when it is not in the dump, and its own architecture."""
    for addresses in image_addresses(memory, *_IMAGES[architecture], PAGE_SIZE):
        for base in addresses.tolist():
            header = read_image_header(memory, base)
            if header is None:
                continue
            named = header.pdb is not None and header.pdb.name.lower() in KERNEL_PDBS
            if named or read_export_name(memory, base).lower() in KERNEL_NAMES:
                return int(base), header.architecture
    return 0, ""


_Candidate = tuple[str, Paging, int]


def _roots(physical: AddressSpace) -> Iterator[list[_Candidate]]:
    """Pages that may be the root of page tables, by physical address, with the ways to read them."""
    for addresses, words in _pages(physical):
        # 64 bits: any entry of the upper half may be the one that names the page itself.
        own = (addresses | np.uint64(1))[:, None]
        matches = ((words[:, 256:] & np.uint64(_FRAME_AND_VALID)) == own).any(axis=1)
        # PAE: the fourth page directory maps the four, the last of which is itself.
        pae = (words[:, 3] & np.uint64(_FRAME_AND_VALID)) == own[:, 0]
        pae &= (words[:, :3] & np.uint64(1) != 0).all(axis=1)
        narrow = words.view("<u4")[:, _SELF_MAP_X86].astype(np.uint64)
        plain = (narrow & np.uint64(0xFFFF_F001)) == own[:, 0]
        for row in np.flatnonzero((matches | pae | plain) & (addresses != 0)).tolist():
            root = int(addresses[row])
            if matches[row]:
                yield [("x64", X64, root), ("arm64", ARM64, root), ("x64", X64_LA57, root)]
            if pae[row]:
                directories = words[row, :4] & np.uint64(_FRAME_AND_VALID)
                for pointers in _directory_pointers(physical, directories):
                    yield [("x86", X86_PAE, pointers)]
            if plain[row] and root < 1 << 32:
                yield [("x86", X86, root)]


def _directory_pointers(physical: AddressSpace, directories: NDArray[np.uint64]) -> Iterator[int]:
    """Physical addresses of the PAE roots (four entries, below 4 GiB) that name four directories."""
    for addresses, words in _pages(physical):
        if int(addresses[0]) >= 1 << 32:
            return
        rows = words.reshape(-1, 4)
        last = np.flatnonzero((rows[:, 3] & np.uint64(_FRAME_AND_VALID)) == directories[3])
        for row in last.tolist():
            if ((rows[row] & np.uint64(_FRAME_AND_VALID)) == directories).all():
                page, within = divmod(row, PAGE_SIZE // 32)
                yield int(addresses[page]) + within * 32


def _pages(physical: AddressSpace) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """Addresses of whole pages and their contents as words (uint64, shape (n, 512)), in portions."""
    for start, size, offset in zip(*(column.tolist() for column in physical.runs), strict=True):
        skip = -start % PAGE_SIZE
        for page in range(skip, size - PAGE_SIZE + 1, CHUNK_PAGES * PAGE_SIZE):
            count = min(CHUNK_PAGES, (size - page) // PAGE_SIZE)
            raw = physical.data[offset + page : offset + page + count * PAGE_SIZE]
            addresses = np.arange(count, dtype=np.uint64) << np.uint64(PAGE_BITS)
            yield addresses + np.uint64(start + page), raw.view("<u8").reshape(-1, 512)
