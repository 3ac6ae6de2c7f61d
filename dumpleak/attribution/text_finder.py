"""Kinds of text in blocks, and samples where somebody asks for them.

Of each group some blocks are looked at, evenly over its addresses, and of these only the beginning.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.contents import (
    NO_TEXT,
    UTF16_TEXT,
    WORDS,
    begins_with_length,
    text_kind,
)
from dumpleak.attribution.text_kinds import kind_of
from dumpleak.model.texts import SAMPLES, Texts, few
from windumps.arrays import I64, U64
from windumps.memory import AddressSpace

LOOKED_AT = 1000  # blocks of a group, at most
ALL_LOOKED_AT = 20_000  # of all groups, about
FEW = 40  # of each, however many groups there are
BEGINNING = 256  # bytes of a block
SHOWN = 60  # characters of a sample

_WORD = 8
_RUN = re.compile("[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]*")
_ESCAPES = {"\t": "\\t", "\r": "\\r", "\n": "\\n"}


class Held(NamedTuple):
    """Blocks, one row each.

    Attributes:
        address: uint64.
        size: int64, bytes of the program.
        group: A number that the caller gives each.
        width: uint8, pointer size of the heap.
    """

    address: U64
    size: I64
    group: NDArray[np.int32]
    width: NDArray[np.uint8]

    def of(self, rows: NDArray[np.intp]) -> Held:
        """Some of them."""
        return Held(self.address[rows], self.size[rows], self.group[rows], self.width[rows])


def find_texts(
    memory: AddressSpace, blocks: Held, wanted: Collection[int], *, samples: bool = False
) -> dict[int, Texts]:
    """What kinds of text blocks of some groups begin with.

    Args:
        memory: Where they lie.
        blocks: They, and maybe others.
        wanted: Groups.
        samples: Also give a few texts of each.
    """
    rows, counts = _some_of_each(blocks.group, wanted)
    groups = blocks.group[rows]
    looked = np.bincount(groups, minlength=len(counts))
    kinds: dict[int, Counter[str]] = {}
    written: dict[int, dict[str, list[str]]] = {}
    for number, text in _texts(memory, blocks.of(rows)):
        group = int(groups[number])
        kind = kind_of(text)
        kinds.setdefault(group, Counter())[kind] += 1
        if samples:
            written.setdefault(group, {}).setdefault(kind, []).append(text)
    found = {}
    for group in wanted:
        many = kinds.get(group, Counter())
        known = {kind: count for kind, count in many.items() if kind}
        some = {kind: _some(texts) for kind, texts in written.get(group, {}).items()}
        seen, total = (int(c[group]) if group < len(c) else 0 for c in (looked, counts))
        found[group] = Texts(total, seen, many.total(), known, some)
    return found


def _some_of_each(
    group: NDArray[np.int32], wanted: Collection[int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to look at, and how many rows each group has."""
    counts = np.bincount(group)
    chosen = np.zeros(len(counts), np.bool_)
    chosen[[number for number in wanted if number < len(counts)]] = True
    rows = np.flatnonzero(chosen[group])
    rows = rows[np.argsort(group[rows], kind="stable")]
    most = min(LOOKED_AT, max(FEW, ALL_LOOKED_AT // max(int(chosen.sum()), 1)))
    mine = group[rows]
    first = np.searchsorted(mine, mine)  # of the group
    stride = -(-counts // most)
    return rows[(np.arange(len(rows)) - first) % np.maximum(stride[mine], 1) == 0], counts


def _texts(memory: AddressSpace, blocks: Held) -> Iterator[tuple[int, str]]:
    """The row and the text of each block that begins with some."""
    offsets = np.arange(0, BEGINNING, _WORD, dtype=np.uint64)
    words, _ = memory.gather(blocks.address[:, None] + offsets, "<u8")
    for width in np.unique(blocks.width).tolist():
        rows = np.flatnonzero(blocks.width == width)
        mine, room = words[rows], blocks.size[rows]
        # What stands behind the end of a small block is another's.
        raw = np.ascontiguousarray(mine).view(np.uint8)
        raw[np.arange(BEGINNING) >= room[:, None]] = 0
        first = raw.view(f"<u{width}")[:, :WORDS].astype(np.uint64)
        kind = text_kind(first, width, room)
        prefixed = begins_with_length(first, width, room) & (kind == NO_TEXT)
        start = np.where(prefixed, np.where(raw[:, 6] != 0, 4, 8), 0)
        wide = prefixed | (kind == UTF16_TEXT)
        for row in np.flatnonzero(prefixed | (kind != NO_TEXT)).tolist():
            code = "utf-16-le" if wide[row] else "utf-8"
            text = raw[row, start[row] :].tobytes().decode(code, "replace")
            run = _RUN.match(text)
            yield int(rows[row]), run[0] if run else ""


def _shown(text: str) -> str:
    """A text that can be put on a line: cut, what cannot be seen escaped."""
    cut = text[:SHOWN]
    told = "".join(
        sign
        if sign.isprintable()
        else _ESCAPES.get(sign) or sign.encode("unicode_escape", "backslashreplace").decode()
        for sign in cut
    )
    return told + "…" * (len(text) > len(cut))


def _some(texts: list[str]) -> tuple[str, ...]:
    """A few as they are shown, from all over."""
    different = list(dict.fromkeys(texts))
    return few(_shown(text) for text in different[:: -(-len(different) // SAMPLES)])
