"""Which fields of a site's blocks hold pointers into which image, or to which kind of block.

From samples, and told only where nearly all of them agree: it describes the blocks for people.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.contents import NO_TEXT, TEXT_BYTES, text_kind
from dumpleak.pointers.references import BlockIndex
from dumpleak.process.session import Session

SAMPLES = 64  # blocks of a group
MIN_SAMPLES = 4  # fewer agree by chance
FIELDS = 64  # pointer-sized words at the start of a block that are looked at
SHOWN = 4
AGREEMENT = 0.9
_IMAGE_HEADER_BYTES = np.uint64(0x1000)  # an address in it is a module's handle


class FieldFinder:
    """Looks at blocks of groups.

    Args:
        session: The dump.
        index: Its used blocks.
        labels: What to call the blocks of each group.
    """

    def __init__(self, session: Session, index: BlockIndex, labels: Sequence[str]) -> None:
        self._session = session
        self._index = index
        self._labels = labels

    def fields(self, group: int, *, skip_first: bool = False) -> tuple[str, ...]:
        """The fields that hold pointers of one kind, "+0x10 -> app::Node"; at most `SHOWN`.

        Args:
            group: Which group.
            skip_first: Leave out the first word, since the vftable there is known already.
        """
        rows = np.flatnonzero(self._index.group == group)
        rows = rows[:: len(rows) // SAMPLES + 1]
        if len(rows) < MIN_SAMPLES:
            return ()
        width = self._index.width_of(int(rows[0]))
        count = min(int(self._index.size[rows].min()) // width, FIELDS)
        offsets = np.arange(count, dtype=np.uint64) * np.uint64(width)
        places = self._index.address[rows][:, None] + offsets[None, :]
        raw, _ = self._session.dump.memory.gather(places, f"<u{width}")
        words = raw.astype(np.uint64)
        found = []
        for offset, column in zip(offsets.tolist(), words.T, strict=True):
            told = self._told(rows, column)
            if told and (offset or not skip_first):
                found.append(f"+0x{offset:x} -> {told}")
        return tuple(found[:SHOWN])

    def _told(self, rows: NDArray[np.intp], words: NDArray[np.uint64]) -> str:
        """What nearly all of some words of blocks point to; "" where they do not agree."""
        targets = self._index.find(words)
        if np.count_nonzero(targets == rows) >= AGREEMENT * len(rows):
            return "itself"
        number, agreed = _agreed(self._group_of(targets))
        if agreed:
            return self._labels[number]
        if self._are_text(targets, words):
            return "text"
        modules = self._session.modules
        images = modules.index_of(words)
        images[modules.index_of(words - _IMAGE_HEADER_BYTES) != images] = -1
        number, agreed = _agreed(images)
        if not agreed:
            return ""
        module = modules.modules[number]
        same = np.unique(words[images == number])
        if len(same) > 1:
            return module.name
        rva = int(same[0]) - module.base_address
        symbols = self._session.symbols
        name = symbols.data(module, rva) if symbols is not None else None
        return f"{module.name}!{name}" if name else f"{module.name}+0x{rva:x}"

    def _are_text(self, targets: NDArray[np.int64], words: NDArray[np.uint64]) -> bool:
        """Nearly all lead to text in blocks, of whatever size."""
        index, inside = self._index, np.flatnonzero(targets >= 0)
        if len(inside) < AGREEMENT * len(words):
            return False
        blocks, place = targets[inside], words[inside]
        room = index.size[blocks] - (place - index.address[blocks]).astype(np.int64)
        octets, _ = self._session.dump.memory.gather(place, "<u8")
        kinds = text_kind(octets.astype(np.uint64)[:, None], TEXT_BYTES, room)
        return bool(
            np.count_nonzero((kinds != NO_TEXT) & (room >= TEXT_BYTES)) >= AGREEMENT * len(words)
        )

    def _group_of(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        safe = np.maximum(blocks, 0)
        groups = self._index.group[safe] if len(self._index) else safe
        return np.where(blocks >= 0, groups, -1).astype(np.int64)


def _agreed(numbers: NDArray[np.int64]) -> tuple[int, bool]:
    """The number that comes most often, -1 left out; and whether nearly all are it."""
    values, counts = np.unique(numbers[numbers >= 0], return_counts=True)
    if not len(values):
        return -1, False
    most = int(counts.argmax())
    return int(values[most]), bool(counts[most] >= AGREEMENT * len(numbers))
