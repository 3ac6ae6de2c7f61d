"""Pool pages before Windows 10 1903: chains of headers, walked in all pages of a chunk at once.

A page of the pool is filled with blocks, each behind a `_POOL_HEADER` that gives its own size and
the size of the block before. A page whose headers lead exactly from its start to its end, each
agreeing with the one before, is a pool page; nothing else passes. All pages of a chunk take one
step together, so the cost is that of the blocks, not of the pages.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U8
from windumps.memory.address_space import values_at
from windumps.pool_tags import plain_and_named

TAG_AT = 4  # in a header
_LOWEST_X86 = np.uint32(0x8000_0000)
_MIN_LINKS = 3  # of a damaged page that still counts as one of the pool
FRAGMENT_TAG = (
    0x67617246  # "Frag": the header that begins what a large block leaves of its last page
)


class HeaderForm(NamedTuple):
    """Where the bits of a header's first eight bytes are; the tag is the upper half.

    Attributes:
        unit: Bytes sizes are counted in; also the header's size.
        size_mask: Of both sizes.
        size_shift: Of BlockSize; PreviousSize is at 0.
        type_shift: Of PoolType.
        type_mask: Of PoolType, shifted.
        has_processes: Kernels without pool tagging put the address of a process in place of the tag, in
            blocks charged to its quota.
    """

    unit: int
    size_mask: int
    size_shift: int
    type_shift: int
    type_mask: int
    has_processes: bool = False

    def names(self, tags: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """bool: which could stand in the header of a used block."""
        _, plain = plain_and_named(tags)
        if not self.has_processes:
            return plain
        return np.asarray(plain | ((tags >= _LOWEST_X86) & (tags & np.uint32(7) == 0)))


# `_POOL_HEADER`: the same in all builds from Windows 2003 on (public symbols).
FORM_X64 = HeaderForm(16, 0xFF, 16, 24, 0xFF)
FORM_X86 = HeaderForm(8, 0x1FF, 16, 25, 0x7F)


class TypeRule(NamedTuple):
    """What the PoolType of a header says, from one build on.

    Attributes:
        first_build: First Windows build with this rule.
        in_use: Bit that is set in blocks in use and in no others; those on look-aside lists and on
            lists of deferred frees keep a type without it.
        bias: What is added to a POOL_TYPE before the bit.
        has_marks: Blocks on such lists bear the quota cookie in 64-bit kernels, and keep the bit.
        source: How it is known.
    """

    first_build: int
    in_use: int
    bias: int
    has_marks: bool
    source: str

    def is_used(self, types: I64) -> NDArray[np.bool_]:
        """bool: which blocks are in use."""
        used: NDArray[np.bool_] = (types & self.in_use) != 0
        return used

    def pool_type(self, types: I64) -> NDArray[np.uint32]:
        """uint32: POOL_TYPE of blocks in use."""
        plain = (types & ~self.in_use) - self.bias
        return np.asarray(np.maximum(plain, 0), np.uint32)


_GENUINE = "pools laid out by the genuine kernels of 2600, 3790, 6002 and 7601"
TYPE_RULES = (
    TypeRule(9200, 0x2, 0, True, "public kernel symbols; seen on constructed dumps"),
    TypeRule(6000, 0x2, 0, False, _GENUINE),
    TypeRule(0, 0x4, 1, False, _GENUINE),
)


def type_rule(build: int) -> TypeRule:
    """The rule of a build; the newest one where the build is unknown (0)."""
    if not build:
        return TYPE_RULES[0]
    return next(rule for rule in TYPE_RULES if build >= rule.first_build)


class Headers(NamedTuple):
    """Decoded headers, as columns."""

    previous: I64
    size: I64
    type: I64
    tag: NDArray[np.uint32]

    def select(self, keep: NDArray[np.bool_]) -> Headers:
        """The rows where `keep` is true."""
        return Headers(self.previous[keep], self.size[keep], self.type[keep], self.tag[keep])


class PageBlocks(NamedTuple):
    """Blocks of one chunk of pages, in order of page and position.

    Attributes:
        page: int64, row of the page.
        start: int64, byte offset of the header in its page.
        size: int64, bytes, header included.
        type: int64, PoolType.
        tag: uint32.
        whole: bool, one a page: its chain closes.
        end: int64, one a page: bytes from its start that blocks cover; 0 for no pool page.
    """

    page: I64
    start: I64
    size: I64
    type: I64
    tag: NDArray[np.uint32]
    whole: NDArray[np.bool_]
    end: I64

    def of_pages(self, rows: I64) -> PageBlocks:
        """The blocks of some pages; rows of pages stay as they are."""
        end = np.zeros_like(self.end)
        end[rows] = self.end[rows]
        ours = np.zeros(len(end), np.bool_)
        ours[rows] = True
        keep = ours[self.page]
        return self._replace(
            page=self.page[keep],
            start=self.start[keep],
            size=self.size[keep],
            type=self.type[keep],
            tag=self.tag[keep],
            end=end,
        )

    def without_last(self, rows: I64) -> PageBlocks:
        """Without the last block of some pages, which have one at least."""
        last = np.searchsorted(self.page, rows, "right") - 1
        keep = np.ones(len(self.page), np.bool_)
        keep[last] = False
        end = self.end.copy()
        end[rows] = self.start[last]
        return self._replace(
            page=self.page[keep],
            start=self.start[keep],
            size=self.size[keep],
            type=self.type[keep],
            tag=self.tag[keep],
            end=end,
        )


def form_of(architecture: str) -> HeaderForm:
    """The header of an architecture."""
    return FORM_X86 if architecture == "x86" else FORM_X64


def read_headers(data: U8, offset: I64, form: HeaderForm) -> Headers:
    """Headers at file offsets; eight bytes must lie behind each."""
    raw = values_at(data, offset, "<u8")
    low = raw.view(np.int64)  # the masks leave nothing of the upper half
    return Headers(
        previous=low & form.size_mask,
        size=(low >> form.size_shift) & form.size_mask,
        type=(low >> form.type_shift) & form.type_mask,
        tag=(raw >> np.uint64(32)).astype(np.uint32),
    )


def walk_pages(
    data: U8,
    offset: I64,
    form: HeaderForm,
    start: I64 | None = None,
    previous: int | None = 0,
) -> PageBlocks:
    """Walks the chains of many pages.

    Args:
        data: The file's bytes.
        offset: int64, file offset of each page; whole pages must be there.
        form: How headers look.
        start: int64, byte offset of the first header to walk in each page; None for whole pages.
        previous: What PreviousSize of the first header must be; None where it is not known.

    Returns:
        Blocks of the pages that belong to the pool; of a damaged one those before the damage.
    """
    units = PAGE_SIZE // form.unit
    first = np.zeros(len(offset), np.int64) if start is None else start // form.unit
    alive = np.flatnonzero(first < units)
    position = first[alive]
    before = None if previous is None else np.full(len(alive), previous, np.int64)
    end = first.copy()
    links = np.zeros(len(offset), np.int64)
    steps: list[tuple[I64, I64, Headers]] = []
    while len(alive):
        found = read_headers(data, offset[alive] + position * form.unit, form)
        follows = position + found.size
        # PreviousSize has fewer bits than a block that fills the page needs; none does.
        good = (found.size > 0) & (follows <= units)
        good &= found.type <= 0x7F
        if before is not None:
            good &= found.previous == before
        if not good.all():
            alive, position, follows = alive[good], position[good], follows[good]
            found = found.select(good)
        steps.append((alive, position, found))
        end[alive] = follows
        links[alive] += 1
        going = follows < units
        alive, position, before = alive[going], follows[going], found.size[going]
    return _collect(steps, first, end, links, form)


def _collect(
    steps: list[tuple[I64, I64, Headers]], first: I64, end: I64, links: I64, form: HeaderForm
) -> PageBlocks:
    """Puts blocks in order, page by page, and keeps those of pages that are the pool's."""
    units = PAGE_SIZE // form.unit
    begin = np.cumsum(links) - links
    page = np.repeat(np.arange(len(links)), links)
    start, size, kind = (np.empty(len(page), np.int64) for _ in range(3))
    tag = np.empty(len(page), np.uint32)
    for step, (rows, position, found) in enumerate(steps):
        place = begin[rows] + step  # each page's blocks were found in order, one a step
        start[place], size[place] = position, found.size
        kind[place], tag[place] = found.type, found.tag
    typed = kind != 0
    used = typed & form.names(tag)
    named = np.bincount(page[used], minlength=len(first))
    whole = (end == units) & (named > 0) & ((links > 1) | (first > 0))
    # A page that breaks off counts as the pool's where some links held and nothing spoke against.
    strange = np.bincount(page[typed & ~used], minlength=len(first))
    damaged = ~whole & (links >= _MIN_LINKS) & (named > 0) & (strange == 0)
    ours = whole | damaged
    blocks = PageBlocks(
        page, start * form.unit, size * form.unit, kind, tag, whole, end * form.unit
    )
    return blocks if ours.all() else blocks.of_pages(np.flatnonzero(ours))


def ends_in_doubt(data: U8, offset: I64, form: HeaderForm, found: PageBlocks) -> I64:
    """Pages whose chain breaks off at a block of which nothing but itself says where it ends.

    Its size is good when what follows the damage leads back to its end; but not when the header at its end
    leads to another one inside of it, whose size leads there: then it is the block's own header that is
    damaged.
    """
    doubtful = []
    for row in np.flatnonzero((found.end > 0) & ~found.whole).tolist():
        page, end = int(offset[row]), int(found.end[row])
        again = resume(data, page, form, end)
        if again is None or again - _back(data, page + again, form) != end:
            doubtful.append(row)
            continue
        inside = end - _back(data, page + end, form)
        if 0 < inside < end and _reaches(data, page + inside, form) == end - inside:
            last = int(np.searchsorted(found.page, row, "right")) - 1
            if inside > int(found.start[last]):
                doubtful.append(row)
    return np.array(doubtful, np.int64)


def _back(data: U8, offset: int, form: HeaderForm) -> int:
    """Bytes from a header back to the one before."""
    return int(read_headers(data, np.array([offset], np.int64), form).previous[0]) * form.unit


def _reaches(data: U8, offset: int, form: HeaderForm) -> int:
    """Bytes of the block behind a header."""
    return int(read_headers(data, np.array([offset], np.int64), form).size[0]) * form.unit


def resume(data: U8, offset: int, form: HeaderForm, broken: int) -> int | None:
    """Where a damaged page's chain can be taken up again behind the damage; None when nowhere.

    The first header from which the chain leads exactly to the page's end over some links; its
    PreviousSize cannot be checked.

    Args:
        data: The file's bytes.
        offset: File offset of the page.
        form: How headers look.
        broken: Byte offset in the page where the chain broke.
    """
    units = PAGE_SIZE // form.unit
    at = np.arange(broken // form.unit + 1, units, dtype=np.int64)
    if not len(at):
        return None
    found = read_headers(data, offset + at * form.unit, form)
    base = int(at[0])
    size, previous = found.size.tolist(), found.previous.tolist()
    # Number of good links from each position to the page's end, from the end backwards.
    links = [0] * (len(size) + 1)
    for number in range(len(size) - 1, -1, -1):
        after = number + size[number]
        if not size[number] or after > len(size):
            continue
        if after == len(size):
            links[number] = 1
        elif links[after] and previous[after] == size[number]:
            links[number] = links[after] + 1
    for number, count in enumerate(links[:-1]):
        if count >= _MIN_LINKS:
            return (base + number) * form.unit
    return None
