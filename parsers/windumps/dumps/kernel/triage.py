"""Small memory dumps (type 4): no pages, but stacks, data blocks, the driver list and KDBG.

Offsets inside are file offsets. Checked on two public dumps (Windows 10 19041 x64, 11 22000 ARM64);
the 32-bit form follows public declarations only.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np

from windumps.arrays import PAGE_SIZE, U8
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.dumps.kernel import structures as c
from windumps.dumps.kernel.header import KernelHeader
from windumps.images.modules import Module, file_name
from windumps.images.pe_image import MAX_IMAGE_BYTES
from windumps.memory import RunMemory

_COUNT_SLOT = {True: 8, False: 4}  # before the unloaded drivers


@dataclass(frozen=True)
class Triage:
    """What a triage dump holds.

    Attributes:
        memory: Its blocks of virtual memory.
        drivers: Loaded drivers, complete, in load order.
        unloaded: Drivers unloaded before; names are cut after 12 characters.
        kdbg: The dump's own copy of KDBG; empty when it has none.
        process: A copy of the `_EPROCESS` that ran; empty when it has none.
        end: File offset behind it, where blocks of components may follow.
    """

    memory: RunMemory
    drivers: list[Module]
    unloaded: list[Module]
    kdbg: bytes
    process: bytes
    end: int


def read_triage(data: U8, header: KernelHeader, log: DiagnosticLog) -> Triage:
    """Reads everything behind the header.

    Raises:
        TruncatedDumpError: the file ends inside the triage header.
    """
    layout = c.TRIAGE_DUMP64 if header.is_64bit else c.TRIAGE_DUMP32
    raw = layout.record(data, header.size)
    end = raw.SizeOfDump
    mark = _bytes(data, raw.ValidOffset, 4)
    if mark != c.TRIAGE_VALID or end > len(data):
        log.add(
            "memory-cut",
            Severity.ERROR,
            layout.name,
            header.size,
            "the end mark of the triage dump is not where it should be: the file was cut or altered",
            max(end - len(data), 0),
        )
    process_size = min(max(raw.ThreadOffset - raw.ProcessOffset, 0), 0x2000)
    return Triage(
        memory=_memory(data, header, raw, log),
        drivers=_drivers(data, header, raw, log),
        unloaded=_unloaded(data, header, raw.UnloadedDriversOffset),
        kdbg=_bytes(data, raw.DebuggerDataOffset, min(raw.DebuggerDataSize, 0x1000)),
        process=_bytes(data, raw.ProcessOffset, process_size),
        end=end,
    )


def secondary_blocks(data: U8, at: int) -> list[tuple[str, int]]:
    """The blocks that components added behind a dump: (GUID as hex, bytes).

    Args:
        data: The file's bytes.
        at: Where the dump ends.
    """
    if _bytes(data, at, 8) != c.BLOB_FILE_MAGIC or at + c.BLOB_FILE_HEADER.size > len(data):
        return []
    at += c.BLOB_FILE_HEADER.record(data, at).HeaderSize
    found: list[tuple[str, int]] = []
    while at + c.BLOB_HEADER.size <= len(data) and len(found) < c.MAX_BLOCKS:
        blob = c.BLOB_HEADER.record(data, at)
        if blob.HeaderSize < c.BLOB_HEADER.size:
            break
        found.append((uuid.UUID(bytes_le=blob.Tag).hex.upper(), int(blob.DataSize)))
        at += blob.HeaderSize + blob.PrePad + blob.DataSize + blob.PostPad
    return found


def _bytes(data: U8, offset: int, size: int) -> bytes:
    """Bytes of the file; fewer where it ends, none for an offset of 0."""
    return data[offset : offset + size].tobytes() if 0 < offset < len(data) else b""


def _memory(data: U8, header: KernelHeader, raw: Any, log: DiagnosticLog) -> RunMemory:
    """The stack, the data page and the data blocks, as virtual memory."""
    layout = c.DATA_BLOCK64 if header.is_64bit else c.DATA_BLOCK32
    rows = layout.records(
        data,
        min(raw.DataBlocksOffset, len(data)),
        min(raw.DataBlocksCount, c.MAX_BLOCKS),
    )
    address = rows["Address"].astype(np.uint64).tolist()
    offset = rows["Offset"].astype(np.int64).tolist()
    size = rows["Size"].astype(np.int64).tolist()
    for where, place, length in (
        (raw.TopOfStack, raw.CallStackOffset, raw.SizeOfCallStack),
        (raw.DataPageAddress, raw.DataPageOffset, raw.DataPageSize),
    ):
        address.append(where)
        offset.append(place)
        size.append(length)
    kept, cut = [], 0
    room = len(data)  # blocks that share bytes could make any amount of memory out of a small file
    for where, place, length in zip(address, offset, size, strict=True):
        there = min(length, max(len(data) - place, 0), (1 << 64) - where, room)
        if where and place and there > 0:
            kept.append((where, there, place))
            room -= there
        cut += length - max(there, 0) if where and place else 0
    if cut:
        log.add(
            "memory-cut",
            Severity.WARNING,
            layout.name,
            None,
            "data blocks reach past the end of the file",
            cut,
        )
    columns = list(zip(*kept, strict=True)) or [(), (), ()]
    return RunMemory(
        data,
        np.array(columns[0], np.uint64),
        np.array(columns[1], np.int64),
        np.array(columns[2], np.int64),
    )


def _drivers(data: U8, header: KernelHeader, raw: Any, log: DiagnosticLog) -> list[Module]:
    layout = c.DRIVER_ENTRY64 if header.is_64bit else c.DRIVER_ENTRY32
    told = raw.DriverCount
    count = min(told, c.MAX_DRIVERS)
    rows = layout.records(data, min(raw.DriverListOffset, len(data)), count)
    if len(rows) < told:
        log.add(
            "driver-list-cut",
            Severity.ERROR,
            layout.name,
            None,
            f"{len(rows)} of {told} drivers are in the file",
        )
    possible = (rows["DllBase"] != 0) & (rows["DllBase"] % PAGE_SIZE == 0)
    possible &= (rows["SizeOfImage"] > 0) & (rows["SizeOfImage"] <= MAX_IMAGE_BYTES)
    if not possible.all():
        log.add(
            "bad-module",
            Severity.WARNING,
            layout.name,
            None,
            f"{int((~possible).sum())} entries of the list of drivers cannot be any and are left out",
        )
    rows = rows[possible]
    return [
        Module(
            name=file_name(path) or f"module_{base:x}",
            path=path,
            base_address=base,
            size_bytes=size,
            timestamp=stamp,
        )
        for path, base, size, stamp in zip(
            (_name(data, offset) for offset in rows["DriverNameOffset"].tolist()),
            rows["DllBase"].tolist(),
            rows["SizeOfImage"].tolist(),
            rows["TimeDateStamp"].tolist(),
            strict=True,
        )
    ]


def _name(data: U8, offset: int) -> str:
    units = min(int.from_bytes(_bytes(data, offset, 4), "little"), c.MAX_NAME_UNITS)
    return _bytes(data, offset + 4, units * 2).decode("utf-16-le", "replace").rstrip("\0")


def _unloaded(data: U8, header: KernelHeader, offset: int) -> list[Module]:
    layout = c.UNLOADED_DRIVER64 if header.is_64bit else c.UNLOADED_DRIVER32
    slot = _COUNT_SLOT[header.is_64bit]
    count = min(int.from_bytes(_bytes(data, offset, 4), "little"), c.MAX_DRIVERS)
    rows = layout.records(data, min(offset + slot, len(data)), count)
    found = []
    for row in rows:
        length = min(int.from_bytes(row["Name"].tobytes()[:2], "little"), 24)
        name = row["DriverName"].tobytes()[:length].decode("utf-16-le", "replace").rstrip("\0")
        start, end = int(row["StartAddress"]), int(row["EndAddress"])
        found.append(Module(name, name, start, max(end - start, 0), 0))
    return found
