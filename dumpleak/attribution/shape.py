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
    begins_with_length,
    first_words,
    text_kind,
)
from dumpleak.attribution.table import SiteTable
from dumpleak.model.sites import LENGTH_PREFIXED, Site, SiteKind
from dumpleak.process.session import HeapSource, Session
from windumps.arrays import ADDRESS_LIMIT, I64, U64, ColumnCache
from windumps.blocks import SIZE_UNKNOWN, Blocks
from windumps.images.rtti import VftableResolver
from windumps.images.type_names import class_name
from windumps.process.views import ProcessView

IMAGE_HEADER_BYTES = 0x1000  # pointers to an image's very beginning are handles, not code or data
AGREEMENT = 0.9  # share of a shape's blocks that must begin alike before its name says so

# What one block begins with: nothing known, text, a GUID, or FIRST_WORD + the index of the word that
# points into an image.
_NOTHING, _ASCII, _UTF16, _GUID, _PREFIXED, _FIRST_WORD = NO_TEXT, ASCII_TEXT, UTF16_TEXT, 3, 4, 5
_BEGINNINGS = _FIRST_WORD + WORDS
_NAMES = {
    _ASCII: "ASCII text",
    _UTF16: "UTF-16 text",
    _GUID: "begins with a GUID",
    _PREFIXED: LENGTH_PREFIXED,
}

_MAX_MODULE_BITS = 20

SAMPLES = 64  # blocks of a shape whose pointers are followed, about
SAMPLES_AT_ONCE = 1024  # of all shapes, in one piece of a walk


class ShapeAttributor:
    """Names every block by heap, size and the image its first pointer leads into."""

    def __init__(self, session: Session, table: SiteTable) -> None:
        self._session = session
        self._table = table
        self._shapes: dict[str, _ViewShapes] = {}  # by architecture

    def assign(self, source: HeapSource, blocks: Blocks) -> I64:
        """See `Attributor`; no block is left out."""
        architecture = source.view.architecture
        if architecture not in self._shapes:
            self._shapes[architecture] = _ViewShapes(self._session, self._table, source.view)
        return self._shapes[architecture].assign(blocks)


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


class _Codes:
    """Shapes as single integers: heap, size + 1 and image + 1; unknown sizes and no image become 0.

    Heaps and images get the bits they need, sizes all others, which are 40 and more in any real process.

    Args:
        session: The dump; tells how many heaps and images there are.
    """

    def __init__(self, session: Session) -> None:
        heaps = max((source.entry.ordinal for source in session.heaps), default=0)
        self._module_bits = min((len(session.images.modules) + 1).bit_length(), _MAX_MODULE_BITS)
        self._heap_at = 64 - heaps.bit_length()
        self._last_module = (1 << self._module_bits) - 2
        self._last_size = (1 << self._heap_at - self._module_bits) - 2

    def pack(self, heap: NDArray[np.uint16], size: I64, module: I64) -> U64:
        """One integer a row (uint64); those of one heap stand together when sorted."""
        codes = np.minimum(size, self._last_size) + 1 << self._module_bits
        codes |= np.minimum(module, self._last_module) + 1
        packed = codes.view(np.uint64)
        if self._heap_at < 64:
            packed |= heap.astype(np.uint64) << np.uint64(self._heap_at)
        return packed

    def unpack(self, code: int) -> tuple[int, int, int]:
        """Heap, size and image."""
        rest = code & ((1 << self._heap_at) - 1)
        module = rest & ((1 << self._module_bits) - 1)
        return code >> self._heap_at, (rest >> self._module_bits) - 1, module - 1


class _ViewShapes:
    """The shapes of the heaps of one view, numbered, and what their blocks begin with so far.

    Heaps are walked one after the other, and their shapes numbered as they are met: those of one piece
    have numbers near each other, and only that range is looked at again.
    """

    def __init__(self, session: Session, table: SiteTable, view: ProcessView) -> None:
        self._session = session
        self._table = table
        self._view = view
        self._codes = _Codes(session)
        self._numbers = ColumnCache(self._add)
        self._shapes: list[_Shape] = []
        # The columns grow as shapes appear, faster than these.
        self._sites = np.empty(0, np.int64)
        self._counts = np.zeros((0, _BEGINNINGS), np.int64)
        self._shown = np.empty((0, 2), np.int64)  # beginning and pointee that the name tells
        self._pointees = _Pointees(session, view)

    def assign(self, blocks: Blocks) -> I64:
        words = first_words(self._view, blocks)
        room = blocks.counted_bytes
        beginnings, modules = _beginnings(self._session, self._view, words, room)
        shapes = self._numbers(self._codes.pack(blocks.heap, blocks.size, modules))
        if len(shapes):
            first, end = int(shapes.min()), int(shapes.max()) + 1
            found = np.bincount(
                (shapes - first) * _BEGINNINGS + beginnings, minlength=(end - first) * _BEGINNINGS
            )
            self._counts[first:end] += found.reshape(-1, _BEGINNINGS)
            self._pointees.follow(shapes, words, beginnings == _NOTHING, len(self._sites))
            self._rename(first, end)
        return self._sites[shapes]

    def _add(self, codes: U64) -> I64:
        """Numbers for shapes that were not seen before; each becomes a site."""
        first = len(self._shapes)
        for code in codes.tolist():
            heap, size, module = self._codes.unpack(code)
            source = self._session.heap_of[self._view.architecture, heap]
            image = self._session.images.modules[module].name if module >= 0 else ""
            amount = "unknown size" if size == SIZE_UNKNOWN else f"{size} bytes"
            name = f"{amount} in {source.label} ({source.entry.kind})"
            parts = (SiteKind.SHAPE, source.label, source.entry.kind, str(size), image.lower())
            shown = f"{name} -> {image}" if image else name
            site = self._table.index_of(Site(SiteKind.SHAPE, "|".join(parts), shown))
            self._shapes.append(_Shape(site, name, image))
        end = len(self._shapes)
        if end > len(self._sites):
            more = max(end, 2 * len(self._sites)) - len(self._sites)
            self._sites = np.pad(self._sites, (0, more))
            self._counts = np.pad(self._counts, ((0, more), (0, 0)))
            self._shown = np.pad(self._shown, ((0, more), (0, 0)), constant_values=-1)
        self._sites[first:end] = [shape.site for shape in self._shapes[first:]]
        return np.arange(first, end, dtype=np.int64)

    def _rename(self, first: int, end: int) -> None:
        """Brings the names of a range of shapes up to date with what nearly all their blocks agree on."""
        counts, shown = self._counts[first:end], self._shown[first:end]
        agreed = counts.max(axis=1) >= AGREEMENT * counts.sum(axis=1)
        beginning = np.where(agreed, counts.argmax(axis=1), -1)
        pointee = np.where(beginning == _NOTHING, self._pointees.agreed(first, end), -1)
        now = np.stack((beginning, pointee), axis=1)
        for row in np.flatnonzero((now != shown).any(axis=1)).tolist():
            shape = self._shapes[first + row]
            name = shape.name_with(
                int(beginning[row]),
                self._pointees.class_name(int(pointee[row])),
                self._view.pointer_size,
            )
            self._table.sites[shape.site] = replace(self._table.sites[shape.site], name=name)
        shown[:] = now


class _Pointees:
    """Which class of object the blocks of each shape point to, from samples."""

    def __init__(self, session: Session, view: ProcessView) -> None:
        self._memory = view.memory
        self._width = view.pointer_size
        self._resolver = VftableResolver(
            view.memory, session.modules, view.pointer_size, session.log
        )
        self._sampled = np.zeros(0, np.int64)  # by shape
        self._votes: dict[int, Counter[int]] = {}

    def follow(self, shapes: I64, words: U64, wanted: NDArray[np.bool_], total: int) -> None:
        """Looks where some of the blocks wanted point to, of shapes with too few samples."""
        if total > len(self._sampled):
            self._sampled = np.pad(self._sampled, (0, total - len(self._sampled)))
        rows = np.flatnonzero(wanted & (self._sampled < SAMPLES)[shapes])
        rows = rows[:: len(rows) // SAMPLES_AT_ONCE + 1]
        heads, _ = self._memory.gather(words[rows], f"<u{self._width}")
        numbers = self._resolver.numbers(heads.astype(np.uint64).ravel()).reshape(-1, WORDS)
        first = (numbers >= 0).argmax(axis=1)
        classes = numbers[np.arange(len(rows)), first]
        np.add.at(self._sampled, shapes[rows], 1)
        votes = Counter(zip(shapes[rows].tolist(), classes.tolist(), strict=True))
        for (shape, number), count in votes.items():
            self._votes.setdefault(shape, Counter())[number] += count

    def agreed(self, first: int, end: int) -> I64:
        """For each shape of a range the number of the class, -1 where there is none or samples differ."""
        found = np.full(end - first, -1, np.int64)
        for shape in range(first, end):
            votes = self._votes.get(shape)
            if votes:
                number, count = votes.most_common(1)[0]
                if count >= AGREEMENT * self._sampled[shape]:
                    found[shape - first] = number
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
    words = first_words(source.view, blocks)
    return _beginnings(session, source.view, words, blocks.counted_bytes)[1]


def _beginnings(session: Session, view: ProcessView, words: U64, room: I64) -> tuple[I64, I64]:
    """What each block begins with, and the image that its first pointer into any leads to."""
    beginnings = text_kind(words, view.pointer_size, room).astype(np.int64)
    modules = np.full(len(words), -1, np.int64)
    beginnings[(beginnings == NO_TEXT) & _begins_with_guid(view, words)] = _GUID
    rows, columns = image_pointers(session, words)
    keep = (beginnings[rows] != _ASCII) & (beginnings[rows] != _UTF16)
    rows, first = np.unique(rows[keep], return_index=True)
    columns = columns[keep][first]
    modules[rows] = session.images.index_of(words[rows, columns])
    beginnings[rows] = _FIRST_WORD + columns
    other = np.flatnonzero(beginnings == _NOTHING)
    prefixed = begins_with_length(words[other], view.pointer_size, room[other])
    beginnings[other[prefixed]] = _PREFIXED
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
    images_of = session.images.index_of
    hits = images_of(pointers)
    inside = np.flatnonzero(hits >= 0)
    behind_header = images_of(pointers[inside] - np.uint64(IMAGE_HEADER_BYTES)) == hits[inside]
    inside = inside[behind_header]
    return rows[inside], columns[inside]


def _begins_with_guid(view: ProcessView, words: U64) -> NDArray[np.bool_]:
    """True where the first 16 bytes have version and variant of a GUID (RFC 9562, 4.1 and 4.2)."""
    if view.pointer_size == 8:
        version, variant = words[:, 0] >> np.uint64(60), words[:, 1]
    else:
        version, variant = words[:, 1] >> np.uint64(28), words[:, 2]
    guid: NDArray[np.bool_] = (version - np.uint64(1) < 5) & (variant & np.uint64(0xC0) == 0x80)
    return guid
