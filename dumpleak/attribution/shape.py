"""Sites by shape: what can be said of any block without recorded stacks, types or symbols.

A shape is the heap, the exact size asked for, and the image that the block's first code or data
pointer
leads into. Exact sizes, because objects of one class have one size and any wider class would mix
them.

Only the first words are looked at: a vftable or a callback stands there, and every further word
makes chance
hits in text and random data more likely (on x86 images cover a few percent of all possible values).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.table import SiteTable
from dumpleak.session import HeapSource, Session
from dumpleak.sites import Site, SiteKind
from windumps.blocks import SIZE_UNKNOWN, Blocks

POINTER_WORDS = 4
IMAGE_HEADER_BYTES = 0x1000  # pointers to an image's very beginning are handles, not code or data


class ShapeAttributor:
    """Names every block by heap, size and the image its first pointer leads into."""

    def __init__(self, session: Session, table: SiteTable) -> None:
        self._session = session
        self._table = table
        self._cache: dict[tuple[str, int, int], int] = {}

    def assign(self, source: HeapSource, blocks: Blocks) -> NDArray[np.int64]:
        """See `Attributor`; no block is left out."""
        modules = first_pointer_modules(self._session, source, blocks)
        # One integer per (size, module): sizes fit 48 bits, and -1 (unknown, none) becomes 0.
        codes = ((blocks.size + 1) << 15) | (modules + 1)
        values, inverse = np.unique(codes, return_inverse=True)
        sites = [
            self._site(source, (code >> 15) - 1, (code & 0x7FFF) - 1) for code in values.tolist()
        ]
        return np.array(sites, np.int64)[inverse]

    def _site(self, source: HeapSource, size: int, module: int) -> int:
        key = (source.label, size, module)
        if key not in self._cache:
            image = self._session.modules.modules[module].name if module >= 0 else ""
            amount = "unknown size" if size == SIZE_UNKNOWN else f"{size} bytes"
            name = f"{amount} in {source.label} ({source.entry.kind})"
            self._cache[key] = self._table.index_of(
                Site(
                    SiteKind.SHAPE,
                    "|".join(
                        (SiteKind.SHAPE, source.label, source.entry.kind, str(size), image.lower())
                    ),
                    f"{name} -> {image}" if image else name,
                )
            )
        return self._cache[key]


def first_pointer_modules(
    session: Session, source: HeapSource, blocks: Blocks
) -> NDArray[np.int64]:
    """For each block the image that its first pointer into any image leads to.

    Args:
        session: The dump.
        source: The heap; gives memory and pointer size.
        blocks: Blocks of that heap.

    Returns:
        int64 indices into `session.modules.modules`, -1 where the first words hold no such
        pointer, the block begins with text, or its memory is not in the dump.
    """
    memory, width = source.view.memory, source.view.pointer_size
    found = np.full(len(blocks), -1, np.int64)
    room = blocks.counted_bytes
    pending = np.flatnonzero(room >= width)
    pending = pending[~_begins_with_text(source, blocks, pending)]
    for word in range(POINTER_WORDS):
        pending = pending[room[pending] >= width * (word + 1)]
        if not len(pending):
            break
        values, present = memory.gather(
            blocks.address[pending] + np.uint64(width * word), f"<u{width}"
        )
        pointers = values.astype(np.uint64)
        modules = session.modules.index_of(pointers)
        hit = present & (modules >= 0)
        hit &= session.modules.index_of(pointers - np.uint64(IMAGE_HEADER_BYTES)) == modules
        found[pending[hit]] = modules[hit]
        pending = pending[~hit]
    return found


def _begins_with_text(
    source: HeapSource, blocks: Blocks, rows: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """True where the first eight bytes are printable ASCII: text, though it may look like pointers
    on x86.
    """
    text = np.zeros(len(rows), bool)
    wide = np.flatnonzero(blocks.counted_bytes[rows] >= 8)
    values, present = source.view.memory.gather(blocks.address[rows[wide]], "<u8")
    octets = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8)
    text[wide] = present & ((octets >= 0x20) & (octets < 0x7F)).all(axis=1)
    return text
