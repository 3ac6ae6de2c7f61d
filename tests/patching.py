"""Takes real dumps apart: the same dump with some bytes changed, or with some memory missing."""

from __future__ import annotations

import dataclasses

import numpy as np

from windumps import Dump
from windumps.memory import RunMemory


def with_bytes(dump: Dump, patches: dict[int, bytes]) -> Dump:
    """The dump with other bytes at virtual addresses."""
    data = dump.memory.data.copy()
    for address, new in patches.items():
        (offset,) = dump.memory.locate(np.array([address], np.uint64), len(new))
        assert offset >= 0, f"0x{address:x} is not in the dump"
        data[offset : offset + len(new)] = np.frombuffer(new, np.uint8)
    runs = dump.memory.runs
    memory = RunMemory(data, runs.address, runs.size, runs.offset, dump.memory.regions)
    return dataclasses.replace(dump, memory=memory)


def without(dump: Dump, start: int, size: int) -> Dump:
    """The dump as if [start, start + size) had not been captured."""
    runs = dump.memory.runs
    address, length, offset = [], [], []
    for a, s, o in zip(
        runs.address.tolist(), runs.size.tolist(), runs.offset.tolist(), strict=True
    ):
        for low, high in ((a, min(a + s, start)), (max(a, start + size), a + s)):
            if low < high:
                address.append(low)
                length.append(high - low)
                offset.append(o + low - a)
    memory = RunMemory(
        dump.memory.data,
        np.array(address, np.uint64),
        np.array(length, np.int64),
        np.array(offset, np.int64),
        dump.memory.regions,
    )
    return dataclasses.replace(dump, memory=memory)


def flipped(dump: Dump, address: int, mask: int = 0xFF) -> Dump:
    """The dump with bits of one byte flipped."""
    value = dump.memory.read_uint(address, 1)
    return with_bytes(dump, {address: bytes([value ^ mask])})
