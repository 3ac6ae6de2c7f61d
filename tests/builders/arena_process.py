"""A process with an image, a heap and a thread, and memory of other allocators."""

from __future__ import annotations

import struct

from builders.arena_builder import Made
from builders.process_builder import (
    COMMIT,
    IMAGE_DATA,
    PAGE,
    PRIVATE,
    READ_WRITE,
    ProcessBuilder,
    Row,
)


def put(process: ProcessBuilder, base: int, memory: bytes) -> None:
    size = -(-len(memory) // PAGE) * PAGE
    process.rows.append(Row(base, size, COMMIT, READ_WRITE, PRIVATE, base))
    process.dump.memory(base, bytes(memory).ljust(size, b"\0"))


def process_with(made: Made | None = None, data: bytes = b"\0", time: int = 0) -> ProcessBuilder:
    process = ProcessBuilder(time).image("app.exe", data=data).heap(1, 4)
    process.thread(process.bases["app.exe"] + 0x1100, 2)
    for base, memory in (made.memory if made else {}).items():
        put(process, base, bytes(memory))
    return process


def headers() -> bytes:
    head = bytearray(PAGE)
    head[:2], head[0x3C:0x40] = b"MZ", struct.pack("<I", 0x80)
    head[0x80:0x84] = b"PE\0\0"
    struct.pack_into("<H", head, 0x86, 1)
    row = b".data\0\0\0" + struct.pack("<IIIIIIHHI", PAGE, IMAGE_DATA, 0, 0, 0, 0, 0, 0, 0xC0000040)
    head[0x98 : 0x98 + len(row)] = row
    return bytes(head)
