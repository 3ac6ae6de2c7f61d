"""Images by their headers in memory: what the dump's list says too little of, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from windumps.arrays import ADDRESS_LIMIT, PAGE_SIZE, U64
from windumps.images.modules import Module, file_name
from windumps.images.pe_image import ImageHeader, read_export_name, read_image_header
from windumps.memory import AddressSpace, Extents, PageTableMemory
from windumps.memory.regions import MEM_FREE, MEM_IMAGE

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
            found.append(_module(memory, base, header))
            behind = base + header.size_bytes
    return found


def completed(memory: AddressSpace, modules: Sequence[Module]) -> list[Module]:
    """Modules with what their records lack, out of the images themselves.

    Not all writers of dumps note CodeView records, time stamps or names. An image that does not agree
    with what its record does say adds nothing to it.
    """
    return [_completed(memory, module) for module in modules]


def unlisted_images(memory: AddressSpace, listed: Sequence[Module]) -> list[Module]:
    """Images of a process that its list of modules lacks, by their headers.

    Only what was mapped as an image counts: a file that a program read into memory has headers too, and
    says nothing of the memory behind them. Without a list of regions, what the headers point to tells.
    """
    regions = memory.regions
    if len(regions):
        starts = np.unique(regions.allocation_base[regions.type == MEM_IMAGE])
        magic, there = memory.gather(starts, "<u2")
        starts = starts[there & (magic == _MZ)]
    else:
        starts = np.concatenate(
            [*image_addresses(memory, 0, ADDRESS_LIMIT), np.empty(0, np.uint64)]
        )
    taken = sorted((module.base_address, module.end_address) for module in listed)
    bounds = np.array([base for base, _ in taken], np.uint64)
    found: list[Module] = []
    behind = 0
    places = np.searchsorted(bounds, starts, "right").tolist()
    for start, place in zip(starts.tolist()[:MAX_IMAGES], places, strict=False):
        if start < behind or (place and start < taken[place - 1][1]):
            continue
        header = read_image_header(memory, start)
        if header is None or not (len(regions) or header.pdb or read_export_name(memory, start)):
            continue
        if place < len(taken) and start + header.size_bytes > taken[place][0]:
            continue
        found.append(_module(memory, start, header))
        behind = start + header.size_bytes
    return found


def vacated(memory: AddressSpace, unloaded: Sequence[Module]) -> list[Module]:
    """Unloaded images whose place nothing has taken since: what points there still means them."""
    regions = memory.regions
    used = regions.state != MEM_FREE
    starts = regions.base_address[used]
    ends = starts + regions.region_size[used]

    def is_taken(image: Module) -> bool:
        first = int(np.searchsorted(ends, np.uint64(image.base_address), "right"))
        return (first < len(starts) and int(starts[first]) < image.end_address) or bool(
            len(memory.extents(image.base_address, min(image.end_address, ADDRESS_LIMIT)).address)
        )

    return [
        image
        for image in unloaded
        if image.size_bytes and image.base_address < ADDRESS_LIMIT and not is_taken(image)
    ]


def _completed(memory: AddressSpace, module: Module) -> Module:
    named = bool(module.path)
    if module.pdb_key and module.timestamp and module.size_bytes and named:
        return module
    header = read_image_header(memory, module.base_address)
    if header is None or not _agree(module, header):
        return module
    own = _module(memory, module.base_address, header)
    return replace(
        module,
        name=module.name if named else own.name,
        size_bytes=header.size_bytes,
        timestamp=header.timestamp,
        pdb=module.pdb if module.pdb_key else header.pdb,
        checksum=module.checksum or header.checksum,
    )


def _agree(module: Module, header: ImageHeader) -> bool:
    pairs = (
        (module.timestamp, header.timestamp),
        (module.size_bytes, header.size_bytes),
        (module.checksum, header.checksum),
    )
    return all(said == own for said, own in pairs if said and own)


def _module(memory: AddressSpace, base: int, header: ImageHeader) -> Module:
    """An image as its own headers describe it; its name is the one it was linked under."""
    name = file_name(read_export_name(memory, base))
    if not name and header.pdb is not None:
        stem = header.pdb.name.rpartition(".")[0]
        name = stem and f"{stem}.{'dll' if header.is_dll else 'exe'}"
    name = name or f"module_{base:x}"
    size, stamp = header.size_bytes, header.timestamp
    return Module(name, name, base, size, stamp, pdb=header.pdb, checksum=header.checksum)
