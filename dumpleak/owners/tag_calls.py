"""Which function the constant before a call is for: the pool's, some import, or the image's own.

There is no disassembler here. Behind the operand the first bytes that read as a call whose target makes sense
are taken: a slot of the image's import table, or code of some image. Windows may have replaced a call through
the import table by a direct one while it loaded the image (import optimization); both lead to the same name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from dumpleak.owners.tag_scan import BEFORE, BEHIND, TagHits
from windumps.arrays import U8, U64
from windumps.errors import MemoryReadError
from windumps.images.image_tables import ImportTable, exported_names
from windumps.images.modules import Module, ModuleMap
from windumps.images.sections import MEM_EXECUTE, SectionMap
from windumps.memory import AddressSpace

# Routines that take a pool tag: the executive's, and those of NDIS, the filter manager and others.
_POOL_ROUTINE = re.compile(
    r"(Allocate|Free)\w{0,64}Pool|Lookaside|(Allocate|Free)Memory\w{0,64}Tag"
)
_ARM64_CALLS = BEHIND // 4
_MAX_NAMES = 1 << 14  # distinct targets looked up

# Gives the function at an address of an image, by symbols; None when it is not known.
Symbolize = Callable[[Module, int], str | None]


class Call(IntEnum):
    """What follows a tag, by rising worth."""

    NONE = 0  # nothing that reads as a call
    OTHER = 1  # a function that is known and takes no tag
    DIRECT = 2  # code whose name is not known
    IMPORT = 3  # a slot of the import table whose name is not known
    POOL = 4  # a routine that takes a pool tag


class CallFinder:
    """Finds the calls behind operands.

    Args:
        memory: Kernel memory.
        modules: Its images.
        pointer_size: 4 or 8.
        symbolize: Names by symbols, for functions that are not exported.
    """

    def __init__(
        self,
        memory: AddressSpace,
        modules: list[Module],
        pointer_size: int,
        symbolize: Symbolize | None = None,
    ) -> None:
        self._memory = memory
        self._modules = modules
        self._pointer_size = pointer_size
        self._symbolize = symbolize
        self._sections = SectionMap(memory, modules)
        self._map = ModuleMap(modules)
        self._imports: dict[int, ImportTable] = {}
        self._exports: dict[int, dict[int, str]] = {}
        self._names: dict[tuple[int, int], str] = {}

    def find(self, hits: TagHits, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
        """`Call` of some finds (int64, shape (n,)), and the name of each called function or ""."""
        behind = hits.context[rows, BEFORE + 4 :]
        address, module = hits.address[rows], hits.module[rows]
        slot, target = self._x86_calls(behind, address, module)
        self._arm64_calls(hits.context[rows, BEFORE:], address, slot, target)
        kinds = np.where(slot != 0, Call.IMPORT, np.where(target != 0, Call.DIRECT, Call.NONE))
        names = []
        for row, (at_slot, at_code) in enumerate(zip(slot.tolist(), target.tolist(), strict=True)):
            name = self._name(int(module[row]), at_slot, at_code) if at_slot or at_code else ""
            if name:
                kinds[row] = Call.POOL if _POOL_ROUTINE.search(name) else Call.OTHER
            names.append(name)
        return kinds.astype(np.int64), names

    def _x86_calls(self, code: U8, address: U64, module: NDArray[np.int64]) -> tuple[U64, U64]:
        """(import slot or 0, target or 0) of the first call or jump behind each operand."""
        count = len(code)
        slots, targets = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
        wide = self._pointer_size == 8
        for at in range(code.shape[1] - 6):
            open_ = (slots == 0) & (targets == 0)
            one, two = code[:, at], code[:, at + 1]
            rows = np.flatnonzero(open_ & (one == 0xFF) & np.isin(two, (0x15, 0x25)))
            if len(rows):
                offset = _signed(code[rows, at + 2 : at + 6])
                slot = address[rows] + np.uint64(4 + at + 6) + offset if wide else offset
                slot = slot if wide else slot & np.uint64(0xFFFF_FFFF)
                good = self._is_slot(slot, module[rows])
                slots[rows[good]] = slot[good]
            rows = np.flatnonzero(open_ & np.isin(one, (0xE8, 0xE9)))
            if len(rows):
                target = (
                    address[rows] + np.uint64(4 + at + 5) + _signed(code[rows, at + 1 : at + 5])
                )
                target = target if wide else target & np.uint64(0xFFFF_FFFF)
                good = self._sections.access(target) & np.uint32(MEM_EXECUTE) != 0
                targets[rows[good]] = target[good]
        return slots, targets

    def _arm64_calls(self, code: U8, address: U64, slots: U64, targets: U64) -> None:
        """Calls in A64 code, where nothing of x86 was found: BL, and BLR of a slot that was loaded."""
        rows = np.flatnonzero((slots == 0) & (targets == 0) & (address & np.uint64(3) == 0))
        for row in rows.tolist():
            words = np.ascontiguousarray(code[row, : 4 * _ARM64_CALLS]).view("<u4").tolist()
            if words[0] & 0xFF80_0000 not in (0x5280_0000, 0x7280_0000):  # MOVZ or MOVK of 32 bits
                continue
            start = int(address[row])
            for number, word in enumerate(words):
                here = start + 4 * number
                if word >> 26 == 0b100101:  # BL
                    target = np.uint64((here + 4 * _sign_extend(word & 0x3FF_FFFF, 26)) % (1 << 64))
                    if self._sections.access(np.array([target]))[0] & MEM_EXECUTE:
                        targets[row] = target
                    break
                if word & 0xFFFF_FC1F == 0xD63F_0000:  # BLR
                    slots[row] = _loaded_from(words[:number], start, word >> 5 & 31)
                    break

    def _is_slot(self, slot: U64, module: NDArray[np.int64]) -> NDArray[np.bool_]:
        good = np.zeros(len(slot), np.bool_)
        data = self._sections.access(slot) & np.uint32(MEM_EXECUTE) == 0
        for number in np.unique(module).tolist():
            mine = np.flatnonzero(module == number)
            table, image = self._table(number), self._modules[number]
            for row in mine.tolist():
                at = int(slot[row])
                good[row] = (
                    table.holds(at)
                    if table.size
                    else bool(data[row]) and image.base_address <= at < image.end_address
                )
        return good

    def _table(self, number: int) -> ImportTable:
        table = self._imports.get(number)
        if table is None:
            table = ImportTable(self._memory, self._modules[number], self._pointer_size)
            self._imports[number] = table
        return table

    def _name(self, module: int, slot: int, target: int) -> str:
        key = (slot, target)
        if key not in self._names:
            if len(self._names) >= _MAX_NAMES:
                return ""
            self._names[key] = self._look(module, slot, target)
        return self._names[key]

    def _look(self, module: int, slot: int, target: int) -> str:
        if slot:
            name = self._table(module).name(slot)
            if name:
                return name
            try:
                target = self._memory.read_uint(slot, self._pointer_size)
            except MemoryReadError:
                return ""
        image = self._map.at(target)
        if image is None:
            return ""
        exports = self._exports.get(image.base_address)
        if exports is None:
            exports = self._exports[image.base_address] = exported_names(self._memory, image)
        name = exports.get(target, "")
        if not name and self._symbolize is not None:
            name = self._symbolize(image, target - image.base_address) or ""
        return name


def _signed(raw: U8) -> U64:
    """Four bytes a row as a signed number, as uint64 that wraps."""
    return np.ascontiguousarray(raw).view("<i4")[:, 0].astype(np.int64).view(np.uint64)


def _sign_extend(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _loaded_from(words: list[int], start: int, register: int) -> int:
    """Address of the pointer that A64 code loaded a register from (ADRP and LDR); 0 when not seen."""
    base, offset = -1, 0
    for number in range(len(words) - 1, -1, -1):
        word = words[number]
        if base < 0 and word & 0xFFC0_001F == 0xF940_0000 | register:  # LDR Xt, [Xn, #offset]
            base, offset = word >> 5 & 31, (word >> 10 & 0xFFF) * 8
        elif base >= 0 and word & 0x9F00_001F == 0x9000_0000 | base:  # ADRP
            pages = _sign_extend((word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3, 21)
            return (((start + 4 * number) & ~0xFFF) + pages * 0x1000 + offset) % (1 << 64)
    return 0
