"""Three streams of minidumps read with `struct` alone, by minidumpapiset.h: no code of the package."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass

HANDLE_DATA, SYSTEM_MEMORY_INFO, PROCESS_VM_COUNTERS = 12, 21, 22
PAGE = 0x1000


@dataclass(frozen=True)
class Counted:
    """What Windows counted of a process; None what the stream's version does not have."""

    working_set: int
    private: int
    virtual: int | None


def stream(raw: bytes, number: int) -> bytes | None:
    """The first stream of a type; None where the dump has none."""
    if raw[:4] != b"MDMP":
        return None
    count, directory = struct.unpack_from("<II", raw, 8)
    for row in range(count):
        kind, size, place = struct.unpack_from("<III", raw, directory + 12 * row)
        if kind == number and size:
            return raw[place : place + size]
    return None


def text(raw: bytes, place: int) -> str:
    """A MINIDUMP_STRING; "" for none."""
    if not place:
        return ""
    (size,) = struct.unpack_from("<I", raw, place)
    return raw[place + 4 : place + 4 + size].decode("utf-16-le")


def handles(raw: bytes) -> Counter[str] | None:
    """How many handles of each type; None where the dump lists none."""
    found = stream(raw, HANDLE_DATA)
    if found is None:
        return None
    head, each, count = struct.unpack_from("<III", found)
    types: Counter[str] = Counter()
    for row in range(count):
        (kind,) = struct.unpack_from("<I", found, head + each * row + 8)
        types[text(raw, kind)] += 1
    return types


def commit(raw: bytes) -> tuple[int, int] | None:
    """(committed, limit) of the system in bytes; None where the dump does not tell."""
    found = stream(raw, SYSTEM_MEMORY_INFO)
    if found is None:
        return None
    basic, cache = 6 * 4 + 3 * 8 + 4, 2 * 8 + 4 + 4 * 8 + 2 * 4
    _, charged, limit = struct.unpack_from("<QQQ", found, 4 + basic + cache)
    return charged * PAGE, limit * PAGE


def counters(raw: bytes) -> Counted | None:
    """What Windows counted; None where the dump does not tell."""
    found = stream(raw, PROCESS_VM_COUNTERS)
    if found is None:
        return None
    (revision,) = struct.unpack_from("<H", found)
    (working_set,) = struct.unpack_from("<Q", found, 16)
    if revision == 1:
        return Counted(working_set, struct.unpack_from("<Q", found, 72)[0], None)
    virtual, private = struct.unpack_from("<QQ", found, 80)
    return Counted(working_set, private, virtual)
