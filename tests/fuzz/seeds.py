"""What is mutated: bytes that are read well, where in them structures lie, and what is done with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np

from fuzz.dice import Dice
from windumps.arrays import U8, U64
from windumps.memory.address_space import AddressSpace

PAGE = 0x1000
# What is read in pieces no larger than this is a structure, not the contents of a block.
STRUCTURE_BYTES = 0x800
# Of many values gathered at once, so many are places worth a mutation.
GATHERED_PLACES = 256

Run = tuple[int, int, int]  # address, bytes, file offset
Use = Callable[[bytes, Dice], None]


@dataclass
class Seed:
    """One input that is read without complaint.

    Attributes:
        data: Its bytes.
        use: Reads mutated bytes as a user would; raises `WindumpsError` or returns. Whatever else
            it raises is a finding.
        pointer_size: 4 or 8.
        runs: Memory in it.
        places: Offsets of structures, one list a kind of place.
        is_text: Mutated as text as well.
        pages: Offsets of words that are not zero, one list a page.
        pointers: Offsets of words that point into `runs`.
    """

    data: bytes
    use: Use
    pointer_size: int = 8
    runs: Sequence[Run] = ()
    places: Sequence[Sequence[int]] = ()
    is_text: bool = False
    pages: list[list[int]] = field(init=False)
    pointers: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.places = [list(places) for places in self.places if len(places)]
        words = np.frombuffer(self.data[: len(self.data) // 8 * 8], "<u8")
        offsets = np.flatnonzero(words) * 8
        borders = np.flatnonzero(np.diff(offsets // PAGE)) + 1
        self.pages = [p.tolist() for p in np.split(offsets, borders) if len(p)] or [[0]]
        runs = sorted(self.runs)
        starts = np.array([0, *(address for address, _, _ in runs)], np.uint64)
        sizes = np.array([0, *(size for _, size, _ in runs)], np.uint64)
        self.pointers = [at for run in runs for at in self._pointers_in(run, starts, sizes)]

    def _pointers_in(self, run: Run, starts: U64, sizes: U64) -> list[int]:
        _, size, offset = run
        raw = self.data[offset : offset + size - size % self.pointer_size]
        raw = raw[: len(raw) - len(raw) % self.pointer_size]
        values = np.frombuffer(raw, f"<u{self.pointer_size}").astype(np.uint64)
        # Run 0 is empty and stands for "below all runs".
        nearest = np.searchsorted(starts, values, "right") - 1
        inside = values - starts[nearest] < sizes[nearest]
        return [int(at) for at in np.flatnonzero(inside) * self.pointer_size + offset]

    def address_of(self, offset: int) -> int:
        """The address of a byte of the file; its offset where it is no memory."""
        for address, size, start in self.runs:
            if start <= offset < start + size:
                return address + offset - start
        return offset


def runs_of(memory: AddressSpace) -> list[Run]:
    """The memory of a dump, as a seed takes it."""
    return list(zip(*(column.tolist() for column in memory.runs), strict=True))


@contextmanager
def recorded_reads() -> Iterator[tuple[list[int], list[int]]]:
    """File offsets that are read while this is open: in small pieces, and many at once."""
    small: list[int] = []
    gathered: list[int] = []
    view, gather = AddressSpace.view, AddressSpace.gather

    def noting_view(memory: AddressSpace, address: int, size: int) -> U8:
        if size <= STRUCTURE_BYTES:
            pieces = memory.extents(address, address + size)
            for offset, length in zip(pieces.offset.tolist(), pieces.size.tolist(), strict=True):
                small.extend(range(offset, offset + length, 4))
        return view(memory, address, size)

    def noting_gather(memory: AddressSpace, addresses: U64, dtype: Any) -> Any:
        first = np.ascontiguousarray(addresses, np.uint64).ravel()[:GATHERED_PLACES]
        offsets = memory.locate(first, 1)
        gathered.extend(offsets[offsets >= 0].tolist())
        return gather(memory, addresses, dtype)

    with (
        patch.object(AddressSpace, "view", noting_view),
        patch.object(AddressSpace, "gather", noting_gather),
    ):
        yield small, gathered


def places_read(use: Callable[[], Any]) -> list[list[int]]:
    """Offsets that are read while something is done, as `Seed.places`."""
    with recorded_reads() as reads:
        use()
    return [sorted(set(offsets)) for offsets in reads]


def header_places(memory: AddressSpace, addresses: U64, header: int) -> list[int]:
    """Offsets of the headers before blocks."""
    offsets = memory.locate(addresses - np.uint64(header), header)
    return [int(offset) for offset in offsets[offsets >= 0]]
