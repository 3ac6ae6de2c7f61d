"""Images found by their headers, where no loader's list says which there are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from windumps.memory import AddressSpace, Extents, PageTableMemory
from windumps.memory.address_space import ADDRESS_LIMIT, U64
from windumps.memory.paging import PAGE_SIZE
from windumps.windows.modules import Module
from windumps.windows.pe_image import read_export_name, read_image_header

MAX_IMAGES = 0x4000
ALIGNMENT = 0x10000  # of images in processes: the allocation granularity
_MZ = 0x5A4D


def image_addresses(
    memory: AddressSpace, start: int, end: int, alignment: int = ALIGNMENT
) -> Iterator[U64]:
    """Aligned addresses of [start, end) at which an image's header begins, ascending, in portions.

    Args:
        memory: Where to look.
        start: First address.
        end: First address behind.
        alignment: A power of two, at least a page; images of the kernel are aligned to pages only.
    """
    if isinstance(memory, PageTableMemory):
        pieces: Iterator[Extents] = memory.pieces(start, end)
    else:
        pieces = iter([memory.extents(start, end)])
    for piece in pieces:
        pages = piece.size // PAGE_SIZE
        if not len(pages):
            continue
        first = np.repeat(piece.address, pages)
        within = np.arange(len(first)) - np.repeat(np.cumsum(pages) - pages, pages)
        address = first + within.astype(np.uint64) * np.uint64(PAGE_SIZE)
        address = address[address & np.uint64(alignment - 1) == 0]
        magic, there = memory.gather(address, "<u2")
        yield address[there & (magic == _MZ)]


def find_images(memory: AddressSpace, start: int, end: int) -> list[Module]:
    """Images of a process by their headers, ascending; names from export directory or PDB."""
    found: list[Module] = []
    behind = start
    for addresses in image_addresses(memory, start, min(end, ADDRESS_LIMIT)):
        for base in addresses.tolist():
            header = read_image_header(memory, base) if base >= behind else None
            if header is None or len(found) == MAX_IMAGES:
                continue
            name = read_export_name(memory, base)
            if not name and header.pdb is not None:
                name = header.pdb.name.rpartition(".")[0]
            name = name or f"module_{base:x}"
            found.append(
                Module(name, name, base, header.size_bytes, header.timestamp, "", header.pdb)
            )
            behind = base + header.size_bytes
    return found
