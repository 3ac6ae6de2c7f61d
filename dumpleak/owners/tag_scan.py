"""Finds the four bytes of pool tags in the images of a dump, and says what each find is worth.

A driver gives its tag to the pool as a constant, so its code holds the four bytes as the operand of an
instruction shortly before a call. That is what `findstr` on the driver files looks for without looking at
what stands around it (Microsoft KB298102, which warns of accidental hits). Here the instruction before and
the call behind are looked at.

All tags are sought in one pass: two tables of 64 Ki flags say which first and which last two bytes occur in
any tag, so each byte of an image costs two look-ups, however many tags there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import PAGE_SIZE, U8, U64
from windumps.images.modules import Module
from windumps.images.pe_image import read_image_header
from windumps.images.sections import MEM_EXECUTE, SectionMap
from windumps.memory import AddressSpace

CHUNK_PAGES = 4096
PROTECTED = 0x8000_0000  # set in tags of blocks that must be freed with their tag
BEFORE, BEHIND = 8, 80  # bytes of context kept of each find
MAX_HITS = 1 << 18  # kept of one dump
MAX_WEAK_HITS = 16  # of one tag in one chunk, besides operands
FINDS_AT_ONCE = 1 << 16  # looked at, so that memory does not grow with what is found
_OVERLAP = 3


class Place(IntEnum):
    """Where the four bytes stand, by rising worth."""

    BYTES = 0  # anywhere
    CODE = 1  # among code, but no operand that is recognised
    DATA = 2  # an aligned word of data
    OPERAND = 3  # a constant that an instruction loads
    ARGUMENT = 4  # a constant loaded where a call takes its arguments from


@dataclass(frozen=True)
class TagHits:
    """Finds in the images of one dump, as columns of equal length.

    Attributes:
        tag: uint32, without the protected bit.
        module: int64, index into the modules searched.
        address: uint64, of the tag's first byte (of the first instruction where it is split over two).
        place: int64, `Place`.
        context: uint8, shape (n, BEFORE + 4 + BEHIND), the bytes around; 0 where they are not in the dump.
        present_pages: int64, pages in the dump of each module searched.
        skipped: Modules that were not searched since the limits were reached.
    """

    tag: NDArray[np.uint32]
    module: NDArray[np.int64]
    address: U64
    place: NDArray[np.int64]
    context: U8
    present_pages: NDArray[np.int64]
    skipped: int


def scan_images(
    memory: AddressSpace, modules: list[Module], tags: NDArray[np.uint32], architecture: str
) -> TagHits:
    """Looks for tags in images.

    Args:
        memory: Kernel memory.
        modules: The images; where they overlap, which no undamaged list has, a byte counts for one of them.
        tags: uint32, without the protected bit; it is accepted in the images.
        architecture: Of images whose headers are not in the dump.
    """
    finder = _Finder(_telling(np.unique(tags.astype(np.uint32))))
    sections = SectionMap(memory, modules)
    present = np.zeros(len(modules), np.int64)
    parts: list[tuple[NDArray[Any], ...]] = []
    # No page of a file is worth reading twice: a list of drivers that says otherwise is damaged.
    budget = len(memory.data) // PAGE_SIZE + len(modules)
    kept, skipped, covered = 0, 0, 0
    for index in sorted(range(len(modules)), key=lambda number: modules[number].base_address):
        module = modules[index]
        start, end = max(module.base_address & -PAGE_SIZE, covered), module.end_address
        covered = max(covered, end)
        if budget <= 0 or kept >= MAX_HITS:
            skipped += 1
            continue
        header = read_image_header(memory, module.base_address)
        machine = (header.architecture if header is not None else "") or architecture
        for first in range(start, end, CHUNK_PAGES * PAGE_SIZE):
            pages = _Pages(memory, first, min(first + CHUNK_PAGES * PAGE_SIZE, end))
            present[index] += pages.count
            budget -= pages.count
            at, tag, split = finder.find(pages.bytes, is_arm64=machine == "arm64")
            inside = pages.holds(at) & pages.holds(at + 3)
            found_at, found, halves = at[inside], tag[inside], split[inside]
            for begin in range(0, len(found), FINDS_AT_ONCE):
                some = slice(begin, begin + FINDS_AT_ONCE)
                at, tag, split = found_at[some], found[some], halves[some]
                where = np.uint64(first) + at.astype(np.uint64)
                context = pages.context(at)
                access = sections.access(where)
                place = np.where(split, Place.ARGUMENT, _places(context, where, access, machine))
                keep = _kept(tag, place)[: MAX_HITS - kept]
                kept += len(keep)
                columns = (tag, np.full(len(at), index), where, place, context)
                parts.append(tuple(column[keep] for column in columns))
    if not parts:
        parts.append((np.empty(0, np.uint32), *_no_columns()))
    tag, module_of, where, place, context = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return TagHits(tag, module_of, where, place, context, present, skipped)


def _telling(tags: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Tags that tell something where they are found: four equal bytes are padding, zeros above all."""
    telling: NDArray[np.uint32] = tags[tags != (tags & np.uint32(0xFF)) * np.uint32(0x0101_0101)]
    return telling


def _no_columns() -> tuple[NDArray[Any], ...]:
    return (
        np.empty(0, np.int64),
        np.empty(0, np.uint64),
        np.empty(0, np.int64),
        np.empty((0, BEFORE + 4 + BEHIND), np.uint8),
    )


def _kept(tag: NDArray[np.uint32], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows worth keeping: all operands, and some of what a text like "File" gives by the thousand."""
    weak = np.flatnonzero(place < Place.OPERAND)
    order = weak[np.argsort(tag[weak], kind="stable")]
    new = np.ones(len(order), np.bool_)
    new[1:] = tag[order][1:] != tag[order][:-1]
    begin = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    some = order[np.arange(len(order)) - begin < MAX_WEAK_HITS]
    return np.sort(np.concatenate([np.flatnonzero(place >= Place.OPERAND), some]))


def _places(context: U8, where: U64, access: NDArray[np.uint32], machine: str) -> NDArray[np.int64]:
    """`Place` of each find by what stands before it and what its section may be used for."""
    code = access & np.uint32(MEM_EXECUTE) != 0
    data = (access != 0) & ~code & (where & np.uint64(3) == 0)
    place = np.where(code, Place.CODE, np.where(data, Place.DATA, Place.BYTES)).astype(np.int64)
    if machine not in ("x86", "x64"):
        return place
    one, two, three, four = (context[:, BEFORE - number] for number in (1, 2, 3, 4))
    seven, six, five = (context[:, BEFORE - number] for number in (7, 6, 5))
    wide = (one & 0xF8 == 0xB8) & (two != 0x0F)  # mov r32, imm32
    memory_operand = (
        (two & 0xF8 == 0x40) & (two != 0x44) & (three == 0xC7)  # mov dword [reg+disp8], imm32
        | (two == 0x24) & (three == 0x44) & (four == 0xC7)  # mov dword [esp+disp8], imm32
        | (one == 0x24) & (two == 0x04) & (three == 0xC7)  # mov dword [esp], imm32
        | (five == 0x05) & (six == 0xC7)  # mov dword [address], imm32
        | (five & 0xF8 == 0x80) & (five != 0x84) & (six == 0xC7)  # mov dword [reg+disp32], imm32
        | (five == 0x24) & (six == 0x84) & (seven == 0xC7)  # mov dword [esp+disp32], imm32
        | (one & 0xF8 == 0x00)
        & (one != 0x04)
        & (one != 0x05)
        & (two == 0xC7)  # mov dword [reg], imm32
    )
    on_stack = ((two == 0x24) & (three == 0x44) & (four == 0xC7)) | (
        (one == 0x24) & (two == 0x04) & (three == 0xC7)
    )
    if machine == "x86":
        argument = (one == 0x68) | on_stack | wide & np.isin(one, (0xB9, 0xBA))  # push; ecx, edx
    else:
        # The tag is never the first argument (rcx): edx, r8d, r9d, or on the stack.
        extended = two == 0x41
        argument = on_stack | (one == 0xBA) & ~extended | np.isin(one, (0xB8, 0xB9)) & extended
    place[code & (wide | memory_operand | (one == 0x68))] = Place.OPERAND
    place[code & argument] = Place.ARGUMENT
    return place


class _Pages:
    """Bytes of a range with its absent pages as zeros, and which pages those are."""

    def __init__(self, memory: AddressSpace, start: int, end: int) -> None:
        count = -(-(end - start) // PAGE_SIZE)
        # A little behind the range is read too, for tags and contexts that reach over its end.
        addresses = np.uint64(start) + np.arange(count + 1, dtype=np.uint64) * np.uint64(PAGE_SIZE)
        offsets = memory.locate(addresses, PAGE_SIZE)
        there = np.flatnonzero((offsets >= 0) & (offsets <= len(memory.data) - PAGE_SIZE))
        self.bytes: U8 = np.zeros((count + 1) * PAGE_SIZE, np.uint8)
        if len(there):
            window = np.ndarray(
                (len(memory.data) - PAGE_SIZE + 1, PAGE_SIZE),
                np.uint8,
                buffer=memory.data,
                strides=(1, 1),
            )
            self.bytes.reshape(-1, PAGE_SIZE)[there] = window[offsets[there]]
        self._there = np.zeros(count + 1, np.bool_)
        self._there[there] = True
        self._end = count * PAGE_SIZE
        self.count = int(self._there[:count].sum())

    def holds(self, at: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which offsets are in the dump; those of the page behind only as a tag's last byte."""
        return (at < self._end + _OVERLAP) & self._there[
            np.minimum(at // PAGE_SIZE, len(self._there) - 1)
        ]

    def context(self, at: NDArray[np.int64]) -> U8:
        wanted = at[:, None] + np.arange(-BEFORE, 4 + BEHIND)
        safe = np.clip(wanted, 0, len(self.bytes) - 1)
        return np.where(wanted == safe, self.bytes[safe], 0).astype(np.uint8)


class _Finder:
    """Finds any of many four-byte values at any offset, and split over two ARM64 instructions."""

    def __init__(self, wanted: NDArray[np.uint32]) -> None:
        self._wanted = wanted
        self._low = np.zeros(0x10000, np.bool_)
        self._high = np.zeros(0x10000, np.bool_)
        self._low[wanted & np.uint32(0xFFFF)] = True
        upper = wanted >> np.uint32(16)
        self._high[upper] = True
        self._high[upper | np.uint32(PROTECTED >> 16)] = True
        # Bit 0: the first half of some tag, bit 1: the second one.
        self._flags = self._low.view(np.uint8) | self._high.view(np.uint8) << 1

    def find(
        self, data: U8, *, is_arm64: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.bool_]]:
        """(offset, tag, split over two instructions) of each find in whole pages and one more; none
        begins in that last page.
        """
        found_at: list[NDArray[np.int64]] = []
        found: list[NDArray[np.uint32]] = []
        end = len(data) - PAGE_SIZE
        for shift in (0, 1):
            halves = data[shift : shift + end + 2].view("<u2")
            flags = self._flags[halves]
            place = np.flatnonzero((flags[:-1] & flags[1:] >> 1).view(np.bool_))
            value = halves[place].astype(np.uint32) | halves[place + 1].astype(
                np.uint32
            ) << np.uint32(16)
            self._take(2 * place + shift, value, found_at, found)
        whole = sum(len(part) for part in found)
        if is_arm64:
            self._split(data[:end].view("<u4"), found_at, found)
        at, tag = np.concatenate(found_at), np.concatenate(found)
        order = np.argsort(at, kind="stable")
        order = order[at[order] < end]
        return at[order], tag[order], order >= whole

    def _take(
        self,
        at: NDArray[np.int64],
        value: NDArray[np.uint32],
        found_at: list[NDArray[np.int64]],
        found: list[NDArray[np.uint32]],
    ) -> None:
        value = value & ~np.uint32(PROTECTED)
        row = np.searchsorted(self._wanted, value)
        good = (
            self._wanted[np.minimum(row, len(self._wanted) - 1)] == value
            if len(self._wanted)
            else row < 0
        )
        found_at.append(at[good])
        found.append(value[good])

    def _split(
        self,
        code: NDArray[np.uint32],
        found_at: list[NDArray[np.int64]],
        found: list[NDArray[np.uint32]],
    ) -> None:
        """MOVZ Wd, #half and MOVK Wd, #half, the two up to three instructions apart (A64)."""
        opcode = code & np.uint32(0xFFE0_0000)
        # MOVZ #0 then MOVK #16 (the lower half first), or MOVZ #16 then MOVK #0.
        for first, second, low_first in _MOVES:
            at = np.flatnonzero(opcode == np.uint32(first))
            at = at[(self._low if low_first else self._high)[_half(code[at])]]
            for apart in (1, 2, 3):
                place = at[at + apart < len(code)]
                one, two = code[place], code[place + apart]
                place = place[
                    (two & np.uint32(0xFFE0_0000) == np.uint32(second))
                    & ((one ^ two) & np.uint32(31) == 0)
                ]
                one, two = _half(code[place]), _half(code[place + apart])
                low, high = (one, two) if low_first else (two, one)
                self._take(4 * place, low | high << np.uint32(16), found_at, found)


_MOVES = ((0x5280_0000, 0x72A0_0000, True), (0x52A0_0000, 0x7280_0000, False))


def _half(code: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The 16 bits that MOVZ and MOVK of A64 load."""
    return code >> np.uint32(5) & np.uint32(0xFFFF)
