"""Sites by shape: what can be said of any block without recorded stacks, types or symbols.

A key is the heap, the exact size asked for, and the image that the block's first code or data
pointer leads into. Exact sizes, because objects of one class have one size and any wider class
would mix them. What else blocks begin with (text, GUIDs, pointers to objects of a class) stands in
the name only, and only where nearly all blocks of the shape agree: contents change while a program
runs, and a block that moved from one key to another between two dumps would be shown as growth.

Only the first words are looked at: a vftable or a callback stands there, and every further word
makes chance hits in text and random data more likely (on x86 images cover a few percent of all
possible values).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.contents import (
    ASCII_TEXT,
    NO_TEXT,
    UTF16_TEXT,
    WORDS,
    first_words,
    text_kind,
)
from dumpleak.attribution.table import SiteTable
from dumpleak.session import HeapSource, Session
from dumpleak.sites import Site, SiteKind
from windumps.blocks import SIZE_UNKNOWN, Blocks
from windumps.column_cache import ColumnCache
from windumps.memory.address_space import ADDRESS_LIMIT
from windumps.windows.rtti import VftableResolver
from windumps.windows.type_names import class_name

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

IMAGE_HEADER_BYTES = 0x1000  # pointers to an image's very beginning are handles, not code or data
AGREEMENT = 0.9  # share of a shape's blocks that must begin alike before its name says so

# What one block begins with: nothing known, text, a GUID, or FIRST_WORD + the index of the word that
# points into an image.
_NOTHING, _ASCII, _UTF16, _GUID, _FIRST_WORD = NO_TEXT, ASCII_TEXT, UTF16_TEXT, 3, 4
_BEGINNINGS = _FIRST_WORD + WORDS
_NAMES = {_ASCII: "ASCII text", _UTF16: "UTF-16 text", _GUID: "begins with a GUID"}

# A shape as one integer: size + 1 (40 bits), module + 1 (20 bits); unknown and none become 0.
_MODULE_BITS = 20
_MAX_MODULE = (1 << _MODULE_BITS) - 2
_MAX_SIZE = (1 << 40) - 2

SAMPLES = 64  # blocks of a shape whose pointers are followed, about
SAMPLES_AT_ONCE = 1024  # of all shapes, in one piece of a walk


class ShapeAttributor:
    """Names every block by heap, size and the image its first pointer leads into."""

    def __init__(self, session: Session, table: SiteTable) -> None:
        self._session = session
        self._table = table
        self._shapes: dict[str, _HeapShapes] = {}

    def assign(self, source: HeapSource, blocks: Blocks) -> I64:
        """See `Attributor`; no block is left out."""
        if source.label not in self._shapes:
            self._shapes[source.label] = _HeapShapes(self._session, self._table, source)
        return self._shapes[source.label].assign(blocks)


@dataclass(frozen=True)
class _Shape:
    """What the name of a shape is made of, and its number in the site table."""

    site: int
    name: str
    image: str

    def name_with(self, beginning: int, pointee: str, width: int) -> str:
        """The full name; `beginning` is -1 where blocks do not agree."""
        if self.image:
            offset = width * (beginning - _FIRST_WORD)
            place = f" +0x{offset:x}" if offset > 0 else ""
            return f"{self.name}{place} -> {self.image}"
        said = _NAMES.get(beginning, "") or (pointee and f"points to {pointee}")
        return f"{self.name}, {said}" if said else self.name


class _HeapShapes:
    """The shapes of one heap, numbered, and what their blocks begin with so far."""

    def __init__(self, session: Session, table: SiteTable, source: HeapSource) -> None:
        self._session = session
        self._table = table
        self._source = source
        self._numbers = ColumnCache(self._add)
        self._shapes: list[_Shape] = []
        self._sites = np.empty(0, np.int64)
        self._counts = np.zeros((0, _BEGINNINGS), np.int64)
        self._shown = np.empty((0, 2), np.int64)  # beginning and pointee that the name tells
        self._pointees = _Pointees(session, source)

    def assign(self, blocks: Blocks) -> I64:
        words = first_words(self._source, blocks)
        room = blocks.counted_bytes
        beginnings, modules = _beginnings(self._session, self._source, words, room)
        codes = np.minimum(blocks.size, _MAX_SIZE) + 1 << _MODULE_BITS
        codes |= np.minimum(modules, _MAX_MODULE) + 1
        shapes = self._numbers(codes.view(np.uint64))
        total = len(self._shapes)
        found = np.bincount(shapes * _BEGINNINGS + beginnings, minlength=total * _BEGINNINGS)
        self._counts += found.reshape(-1, _BEGINNINGS)
        self._pointees.follow(shapes, words, beginnings == _NOTHING, total)
        self._rename()
        return self._sites[shapes]

    def _add(self, codes: U64) -> I64:
        """Numbers for shapes that were not seen before; each becomes a site."""
        first, source = len(self._shapes), self._source
        for code in codes.tolist():
            size, module = (code >> _MODULE_BITS) - 1, (code & (_MAX_MODULE + 1)) - 1
            image = self._session.images.modules[module].name if module >= 0 else ""
            amount = "unknown size" if size == SIZE_UNKNOWN else f"{size} bytes"
            name = f"{amount} in {source.label} ({source.entry.kind})"
            parts = (SiteKind.SHAPE, source.label, source.entry.kind, str(size), image.lower())
            shown = f"{name} -> {image}" if image else name
            site = self._table.index_of(Site(SiteKind.SHAPE, "|".join(parts), shown))
            self._shapes.append(_Shape(site, name, image))
        added = self._shapes[first:]
        self._sites = np.append(self._sites, [shape.site for shape in added])
        self._counts = np.append(self._counts, np.zeros((len(added), _BEGINNINGS), np.int64), 0)
        self._shown = np.append(self._shown, np.full((len(added), 2), -1, np.int64), 0)
        return np.arange(first, len(self._shapes), dtype=np.int64)

    def _rename(self) -> None:
        """Brings names up to date with what nearly all blocks of a shape agree on."""
        agreed = self._counts.max(axis=1) >= AGREEMENT * self._counts.sum(axis=1)
        beginning = np.where(agreed, self._counts.argmax(axis=1), -1)
        pointee = np.where(beginning == _NOTHING, self._pointees.agreed(), -1)
        now = np.stack((beginning, pointee), axis=1)
        for row in np.flatnonzero((now != self._shown).any(axis=1)).tolist():
            shape = self._shapes[row]
            name = shape.name_with(
                int(beginning[row]),
                self._pointees.class_name(int(pointee[row])),
                self._source.view.pointer_size,
            )
            self._table.sites[shape.site] = replace(self._table.sites[shape.site], name=name)
        self._shown = now


class _Pointees:
    """Which class of object the blocks of each shape point to, from samples."""

    def __init__(self, session: Session, source: HeapSource) -> None:
        view = source.view
        self._memory = view.memory
        self._width = view.pointer_size
        self._resolver = VftableResolver(
            view.memory, session.modules, view.pointer_size, session.log
        )
        self._sampled = np.zeros(0, np.int64)  # by shape
        self._votes: dict[int, Counter[int]] = {}

    def follow(self, shapes: I64, words: U64, wanted: NDArray[np.bool_], total: int) -> None:
        """Looks where some of the blocks wanted point to, of shapes with too few samples."""
        self._sampled = np.append(self._sampled, np.zeros(total - len(self._sampled), np.int64))
        rows = np.flatnonzero(wanted & (self._sampled < SAMPLES)[shapes])
        rows = rows[:: len(rows) // SAMPLES_AT_ONCE + 1]
        heads, _ = self._memory.gather(words[rows], f"<u{self._width}")
        numbers = self._resolver.numbers(heads.astype(np.uint64).ravel()).reshape(-1, WORDS)
        first = (numbers >= 0).argmax(axis=1)
        classes = numbers[np.arange(len(rows)), first]
        self._sampled += np.bincount(shapes[rows], minlength=total)
        for shape, number in zip(shapes[rows].tolist(), classes.tolist(), strict=True):
            self._votes.setdefault(shape, Counter())[number] += 1

    def agreed(self) -> I64:
        """For each shape the number of the class, -1 where there is none or samples differ."""
        found = np.full(len(self._sampled), -1, np.int64)
        for shape, votes in self._votes.items():
            number, count = votes.most_common(1)[0]
            if count >= AGREEMENT * self._sampled[shape]:
                found[shape] = number
        return found

    def class_name(self, number: int) -> str:
        """The readable name of a class; "" where it has none."""
        mangled = self._resolver.vftables[number].class_name if number >= 0 else None
        return class_name(mangled) if mangled else ""


def first_pointer_modules(session: Session, source: HeapSource, blocks: Blocks) -> I64:
    """For each block the image that its first pointer into any image leads to.

    Args:
        session: The dump.
        source: The heap; gives memory and pointer size.
        blocks: Blocks of that heap.

    Returns:
        int64 indices into `session.images.modules`, -1 where the first words hold no such
        pointer, the block begins with text, or its memory is not in the dump.
    """
    words = first_words(source, blocks)
    return _beginnings(session, source, words, blocks.counted_bytes)[1]


def _beginnings(session: Session, source: HeapSource, words: U64, room: I64) -> tuple[I64, I64]:
    """What each block begins with, and the image that its first pointer into any leads to."""
    beginnings = text_kind(words, source.view.pointer_size, room).astype(np.int64)
    modules = np.full(len(words), -1, np.int64)
    beginnings[(beginnings == NO_TEXT) & _begins_with_guid(source, words)] = _GUID
    rows, columns = image_pointers(session, words)
    keep = (beginnings[rows] != _ASCII) & (beginnings[rows] != _UTF16)
    rows, first = np.unique(rows[keep], return_index=True)
    columns = columns[keep][first]
    modules[rows] = session.images.index_of(words[rows, columns])
    beginnings[rows] = _FIRST_WORD + columns
    return beginnings, modules


def image_pointers(session: Session, words: U64) -> tuple[I64, I64]:
    """Rows and columns of the words that point into an image, ascending."""
    images = session.images.modules
    if not images:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # Most words are far from all images; one comparison is cheaper than a look-up.
    low = min(image.base_address for image in images)
    span = max(image.end_address for image in images) - low
    near = words - np.uint64(low) < np.uint64(min(span, ADDRESS_LIMIT - 1))
    rows, columns = np.divmod(np.flatnonzero(near), WORDS)  # much faster than np.nonzero
    pointers = words[rows, columns]
    hits = session.images.index_of(pointers)
    hits[session.images.index_of(pointers - np.uint64(IMAGE_HEADER_BYTES)) != hits] = -1
    return rows[hits >= 0], columns[hits >= 0]


def _begins_with_guid(source: HeapSource, words: U64) -> NDArray[np.bool_]:
    """True where the first 16 bytes have version and variant of a GUID (RFC 9562, 4.1 and 4.2)."""
    if source.view.pointer_size == 8:
        version, variant = words[:, 0] >> np.uint64(60), words[:, 1]
    else:
        version, variant = words[:, 1] >> np.uint64(28), words[:, 2]
    guid: NDArray[np.bool_] = (version - np.uint64(1) < 5) & (variant & np.uint64(0xC0) == 0x80)
    return guid
