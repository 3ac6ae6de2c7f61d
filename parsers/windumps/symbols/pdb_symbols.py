"""Names and addresses in a PDB: public symbols, and global and static data of private PDBs.

Layout: LLVM's "The Module Information, Public and Global Symbol Streams" and Microsoft's published
microsoft-pdb repository (cvinfo.h, gsi.h). Records are picked out with numpy by the offsets that the
hash streams list; a name is decoded only when it is asked for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.symbols.base import NearSymbol

_GSI_SIGNATURE = 0xFFFFFFFF
_GSI_VERSION = 0xEFFE0000 + 19990810
_GSI_HEADER_BYTES = 16
PUBLICS_HEADER_BYTES = 28

_S_LDATA32, _S_GDATA32, _S_PUB32 = 0x110C, 0x110D, 0x110E
# All three: u2 length, u2 kind, u4 flags or type, u4 offset, u2 section, name.
_NAME_OFFSET = 14
MAX_NAME_BYTES = 4096
ARGUMENT_BYTES = b"0123456789"  # behind the "@" of a decorated C name on x86
_MAX_TIES = 64

_SECTION = np.dtype(
    {
        "names": ["VirtualSize", "VirtualAddress"],
        "formats": ["<u4", "<u4"],
        "offsets": [8, 12],
        "itemsize": 40,
    }
)
_OMAP = np.dtype([("from", "<u4"), ("to", "<u4")])


class SectionMap:
    """Section and offset -> address relative to the image.

    Args:
        headers: The stream of section headers that the symbols refer to (IMAGE_SECTION_HEADER).
        omap: The stream that says where a post-link optimiser moved the code (OMAP_DATA, from the
            addresses under `headers` to those of the image); empty for nearly all images.
        image_headers: Section headers of the image as it is; the same as `headers` without omap.
    """

    def __init__(
        self,
        headers: NDArray[np.uint8],
        omap: NDArray[np.uint8],
        image_headers: NDArray[np.uint8],
    ) -> None:
        self._starts = _rows(headers, _SECTION)["VirtualAddress"].astype(np.int64)
        image = _rows(image_headers, _SECTION)
        order = np.argsort(image["VirtualAddress"], kind="stable")
        self._image_starts = image["VirtualAddress"].astype(np.int64)[order]
        self._image_sizes = image["VirtualSize"].astype(np.int64)[order]
        moves = _rows(omap, _OMAP)
        moves = moves[np.argsort(moves["from"], kind="stable")]
        self._from, self._to = moves["from"].astype(np.int64), moves["to"].astype(np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def rvas(self, sections: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64: addresses relative to the image, -1 where a symbol is in no section of it."""
        if not len(self._starts):
            return np.full(len(sections), -1, np.int64)
        inside = (sections >= 1) & (sections <= len(self._starts))
        rvas = self._starts[np.where(inside, sections - 1, 0)] + offsets
        if len(self._from):
            index = np.searchsorted(self._from, rvas, "right") - 1
            safe = np.maximum(index, 0)
            # A target of 0 is code that was dropped.
            inside &= (index >= 0) & (self._to[safe] != 0)
            rvas = self._to[safe] + rvas - self._from[safe]
        return np.where(inside & (rvas < 1 << 32), rvas, -1)

    def section_start(self, rva: int) -> int | None:
        """Start of the image's section that holds `rva`; None when none does."""
        index = int(np.searchsorted(self._image_starts, rva, "right")) - 1
        if index < 0 or rva - self._image_starts[index] >= self._image_sizes[index]:
            return None
        return int(self._image_starts[index])


def _rows(data: NDArray[np.uint8], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    return data[: len(data) // dtype.itemsize * dtype.itemsize].view(dtype)


def _numbers(data: NDArray[np.uint8], offsets: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Unsigned little-endian numbers at any offsets, int64."""
    result = np.zeros(len(offsets), np.int64)
    for byte in range(size):
        result |= data[offsets + byte].astype(np.int64) << 8 * byte
    return result


def hash_record_offsets(stream: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Offsets into the symbol record stream that a GSI hash lists, int64; empty when it is none."""
    if len(stream) < _GSI_HEADER_BYTES:
        return np.empty(0, np.int64)
    signature, version, record_bytes = stream[:12].view("<u4").tolist()
    if signature != _GSI_SIGNATURE or version != _GSI_VERSION:
        return np.empty(0, np.int64)
    records = stream[_GSI_HEADER_BYTES : _GSI_HEADER_BYTES + record_bytes]
    # Pairs of offset + 1 and a reference count.
    return records[: len(records) // 8 * 8].view("<u4")[::2].astype(np.int64) - 1


class SymbolTable:
    """Symbols sorted by address.

    Args:
        records: The symbol record stream.
        offsets: Offsets of records in it, in any order; not trusted.
        sections: Gives addresses.
    """

    def __init__(
        self, records: NDArray[np.uint8], offsets: NDArray[np.int64], sections: SectionMap
    ) -> None:
        self._bytes = records.tobytes()
        offsets = np.unique(offsets[(offsets >= 0) & (offsets < len(records) - _NAME_OFFSET)])
        kinds = _numbers(records, offsets + 2, 2)
        wanted = np.isin(kinds, (_S_LDATA32, _S_GDATA32, _S_PUB32))
        offsets, kinds = offsets[wanted], kinds[wanted]
        rvas = sections.rvas(_numbers(records, offsets + 12, 2), _numbers(records, offsets + 8, 4))
        known = rvas >= 0
        self._by_offset, self._rva_by_offset = offsets[known], rvas[known]
        # Where symbols share an address the public one is named; it is what debuggers show.
        order = np.lexsort((kinds[known] != _S_PUB32, self._rva_by_offset))
        self._rvas, self._offsets = self._rva_by_offset[order], self._by_offset[order]
        self._kinds = kinds[known][order]
        self._sections = sections

    def __len__(self) -> int:
        return len(self._rvas)

    @property
    def rvas(self) -> NDArray[np.int64]:
        """int64: addresses relative to the image, ascending; one for each symbol."""
        return self._rvas

    def name(self, index: int) -> str:
        """Name of the symbol at `rvas[index]`."""
        start = int(self._offsets[index]) + _NAME_OFFSET
        end = self._bytes.find(b"\0", start, start + MAX_NAME_BYTES)
        return self._bytes[start : end if end >= 0 else start].decode("utf-8", "replace")

    def rva(self, name: str, ending: bytes = b"") -> int | None:
        """Address of a symbol by its exact name; None when there is none.

        Args:
            name: The name, or its beginning.
            ending: Bytes that may follow the name.
        """
        wanted = name.encode() + (b"" if ending else b"\0")
        if not name or not len(self._by_offset):
            return None
        at = self._bytes.find(wanted)
        while at >= 0:
            # Any record may hold the bytes; only where a symbol's name begins do they count.
            index = int(np.searchsorted(self._by_offset, at - _NAME_OFFSET))
            if index < len(self._by_offset) and self._by_offset[index] == at - _NAME_OFFSET:
                end = self._bytes.find(b"\0", at, at + MAX_NAME_BYTES)
                if end >= 0 and not self._bytes[at + len(name.encode()) : end].strip(ending):
                    return int(self._rva_by_offset[index])
            at = self._bytes.find(wanted, at + 1)
        return None

    def section_start(self, rva: int) -> int | None:
        """Start of the section that holds an address; None when none does."""
        return self._sections.section_start(rva)

    def names_at(self, rva: int) -> list[str]:
        """Names of all symbols exactly at an address, `_MAX_TIES` at most."""
        first, last = (int(np.searchsorted(self._rvas, rva, side)) for side in ("left", "right"))
        return [self.name(index) for index in range(first, min(last, first + _MAX_TIES))]

    def nearest(self, rva: int) -> NearSymbol | None:
        """The symbol at `rva`, else the last one below it in the same section."""
        start = self._sections.section_start(rva)
        index = int(np.searchsorted(self._rvas, rva, "right")) - 1
        if start is None or index < 0 or self._rvas[index] < start:
            return None
        found = int(self._rvas[index])
        first = int(np.searchsorted(self._rvas, found))
        last = min(index, first + _MAX_TIES)
        # Of several (folded functions), the first by name, so that two runs agree.
        best = self._kinds[first]
        names = [self.name(i) for i in range(first, last + 1) if self._kinds[i] == best]
        return NearSymbol(min(names), found, rva - found)
