"""Writes drivers into made machines: sections, imports, exports and machine code, with numbers of their own
(the PE format's specification, Intel SDM, Arm ARM)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from builders.kernel_builder import GUID, PAGE, System

TEXT, RDATA, DATA, INIT = 0x1000, 0x3000, 0x4000, 0x5000
SIZE = 0x6000
IAT = RDATA + 0x100
NAMES = INIT  # the linker's names of imports, thrown away with INIT
_EXECUTE, _READ, _WRITE, _DISCARDABLE = 0x20000000, 0x40000000, 0x80000000, 0x02000000
_SECTIONS = (
    (b".text", TEXT, 2 * PAGE, _EXECUTE | _READ),
    (b".rdata", RDATA, PAGE, _READ),
    (b".data", DATA, PAGE, _READ | _WRITE),
    (b"INIT", INIT, PAGE, _EXECUTE | _READ | _DISCARDABLE),
)


@dataclass
class Driver:
    """One driver's image.

    Attributes:
        code: What stands in .text.
        data: What stands in .data.
        imports: Names of imported functions; their slots follow each other at `IAT`.
        pointers: What the slots hold once the image is loaded.
        with_names: The names of imports are still in memory.
        absent: Pages (RVAs) that are not in the dump.
    """

    code: bytes = b""
    data: bytes = b""
    imports: tuple[str, ...] = ()
    pointers: dict[str, int] = field(default_factory=dict)
    with_names: bool = True
    absent: tuple[int, ...] = ()


def place(system: System, number: int, driver: Driver) -> int:
    """Puts a driver in the place of one of the system's own; returns its load address."""
    _, base, _ = system.modules[number]
    raw = _headers(system, driver)
    pages = {0: raw, **_contents(system, base, driver)}
    if not driver.with_names:
        pages.pop(INIT)
    # In descending order, so that neighbours in memory are none in the file.
    for rva in sorted(pages, reverse=True):
        if rva not in driver.absent:
            system.write(base + rva, pages[rva].ljust(PAGE, b"\0")[:PAGE])
    for rva in driver.absent:
        place_of = system.entry_at(base + rva)
        system.poke(place_of, 0, system.n.entry)
    system.write(system.entries[number] + system.n.image_size, struct.pack("<I", SIZE))
    return base


def export(system: System, names: dict[str, int]) -> None:
    """Gives the kernel an export table: name → RVA."""
    base, table = system.kernel, 0x6000
    ordered = sorted(names)
    functions, strings = table + 40, table + 0x200
    pointers, ordinals = functions + 4 * len(names), functions + 8 * len(names)
    raw = bytearray(0x600)
    struct.pack_into("<III", raw, 16, 1, len(names), len(names))
    struct.pack_into("<III", raw, 28, functions, pointers, ordinals)
    at = strings
    for number, name in enumerate(ordered):
        struct.pack_into("<I", raw, functions - table + 4 * number, names[name])
        struct.pack_into("<I", raw, pointers - table + 4 * number, at)
        struct.pack_into("<H", raw, ordinals - table + 2 * number, number)
        text = name.encode() + b"\0"
        raw[at - table : at - table + len(text)] = text
        at += len(text)
    system.write(base + table, bytes(raw))
    optional = 0x98
    first = optional + (112 if system.n.pointer == 8 else 96)
    system.write(base + first - 4, struct.pack("<III", 16, table, len(raw)))


def _headers(system: System, driver: Driver) -> bytes:
    wide = system.n.machine != 0x14C
    raw = bytearray(PAGE)
    raw[:2] = b"MZ"
    struct.pack_into("<I", raw, 0x3C, 0x80)
    raw[0x80:0x84] = b"PE\0\0"
    size = 240 if wide else 224
    struct.pack_into("<HHI", raw, 0x84, system.n.machine, len(_SECTIONS), 0x5EADBEEF)
    struct.pack_into("<H", raw, 0x94, size)
    optional = 0x98
    struct.pack_into("<H", raw, optional, 0x20B if wide else 0x10B)
    struct.pack_into("<I", raw, optional + 56, SIZE)
    first = optional + (112 if wide else 96)
    struct.pack_into("<I", raw, first - 4, 16)
    if driver.imports:
        struct.pack_into("<II", raw, first + 8, RDATA, 40)
        struct.pack_into("<II", raw, first + 96, IAT, system.n.pointer * (len(driver.imports) + 1))
    for number, (name, rva, length, flags) in enumerate(_SECTIONS):
        at = optional + size + 40 * number
        raw[at : at + len(name)] = name
        struct.pack_into("<IIII", raw, at + 8, length, rva, length, rva)
        struct.pack_into("<I", raw, at + 36, flags)
    raw[0xF00 : 0xF00 + len(GUID)] = GUID
    return bytes(raw)


def _contents(system: System, base: int, driver: Driver) -> dict[int, bytes]:
    code = driver.code.ljust(2 * PAGE, b"\xcc")
    rdata, init = bytearray(PAGE), bytearray(PAGE)
    size = system.n.pointer
    if driver.imports:
        struct.pack_into("<IIIII", rdata, 0, NAMES, 0, 0, NAMES + 0x800, IAT)
        init[0x800:0x80D] = b"ntoskrnl.exe\0"
        at = 0x400
        for number, name in enumerate(driver.imports):
            init[size * number : size * (number + 1)] = (NAMES + at).to_bytes(size, "little")
            text = b"\0\0" + name.encode() + b"\0"
            init[at : at + len(text)] = text
            at += len(text)
            slot = IAT - RDATA + size * number
            value = driver.pointers.get(name, 0)
            rdata[slot : slot + size] = value.to_bytes(size, "little")
    return {
        TEXT: code[:PAGE],
        TEXT + PAGE: code[PAGE:],
        RDATA: bytes(rdata),
        DATA: driver.data,
        INIT: bytes(init),
    }


def slot_of(system: System, base: int, number: int) -> int:
    """Address of the slot of an import."""
    return base + IAT + system.n.pointer * number


# --- machine code -------------------------------------------------------------------------------------


def x64_call_slot(at: int, slot: int) -> bytes:
    """CALL [RIP+disp32] at an address."""
    return b"\xff\x15" + struct.pack("<i", slot - (at + 6))


def x64_call(at: int, target: int) -> bytes:
    """CALL rel32."""
    return b"\xe8" + struct.pack("<i", target - (at + 5))


def a64_move(register: int, value: int) -> bytes:
    """MOVZ Wd, #low and MOVK Wd, #high, lsl #16."""
    low, high = value & 0xFFFF, value >> 16
    return struct.pack("<II", 0x52800000 | low << 5 | register, 0x72A00000 | high << 5 | register)


def a64_call_slot(at: int, slot: int) -> bytes:
    """ADRP X8; LDR X8, [X8, #offset]; BLR X8."""
    pages = (slot >> 12) - (at >> 12) & 0x1FFFFF
    adrp = 0x90000008 | (pages & 3) << 29 | (pages >> 2) << 5
    return struct.pack("<III", adrp, 0xF9400108 | (slot & 0xFFF) // 8 << 10, 0xD63F0100)
