"""Writes minidumps byte by byte, with its own numbers, so that a wrong layout of ours is caught.

Sizes and offsets are those of the MINIDUMP_* pages of the Windows SDK reference; CONTEXT offsets
those of winnt.h.

    data = (
        MinidumpBuilder(architecture="x64", build=19041)
        .memory(0x10000, b"...")
        .module("C:\\\\app.exe", 0x400000, 0x5000, pdb=("app.pdb", 32 * "A", 3))
        .thread(teb=0x7FFE0000, registers={"rip": 0x401000})
        .build()
    )
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

ARCHITECTURE_NUMBERS = {"x86": 0, "arm": 5, "x64": 9, "arm64": 12}
# Size of CONTEXT, and offset and bytes of each register in it.
CONTEXT_SIZES = {"x86": 716, "x64": 1232, "arm64": 912}
CONTEXT_FIELDS: dict[str, dict[str, tuple[int, int]]] = {
    "x86": {
        "edi": (156, 4),
        "esi": (160, 4),
        "ebx": (164, 4),
        "edx": (168, 4),
        "ecx": (172, 4),
        "eax": (176, 4),
        "ebp": (180, 4),
        "eip": (184, 4),
        "cs": (188, 4),
        "eflags": (192, 4),
        "esp": (196, 4),
    },
    "x64": {
        "rax": (120, 8),
        "rcx": (128, 8),
        "rdx": (136, 8),
        "rbx": (144, 8),
        "rsp": (152, 8),
        "rbp": (160, 8),
        "rsi": (168, 8),
        "rdi": (176, 8),
        **{f"r{n}": (184 + 8 * (n - 8), 8) for n in range(8, 16)},
        "rip": (248, 8),
    },
    "arm64": {
        **{f"x{n}": (8 + 8 * n, 8) for n in range(29)},
        "fp": (240, 8),
        "lr": (248, 8),
        "sp": (256, 8),
        "pc": (264, 8),
    },
}


def rsds(name: str, guid: str, age: int) -> bytes:
    """A CodeView record of a PDB 7.0."""
    return b"RSDS" + UUID(hex=guid).bytes_le + struct.pack("<I", age) + name.encode() + b"\0"


def nb10(name: str, stamp: int, age: int) -> bytes:
    """A CodeView record of a PDB 2.0."""
    return b"NB10" + struct.pack("<III", 0, stamp, age) + name.encode() + b"\0"


@dataclass
class _Module:
    path: str
    base: int
    size: int
    timestamp: int
    version: tuple[int, int, int, int] | None
    codeview: bytes


@dataclass
class _Thread:
    thread_id: int
    teb: int
    stack: tuple[int, int]
    registers: dict[str, int]


class MinidumpBuilder:
    """Collects what a dump shall hold; streams without content are not written.

    `architecture` may also be the number of a processor architecture. With `padded` the counted
    lists get four bytes of padding behind their count, as some writers do.
    """

    def __init__(
        self,
        architecture: str | int = "x64",
        build: int = 19041,
        os_version: tuple[int, int] = (10, 0),
        platform_id: int = 2,
        timestamp: int = 1_700_000_000,
        flags: int = 0x2,
        padded: bool = False,
        with_system_info: bool = True,
    ) -> None:
        self.architecture = architecture
        self.build_number = build
        self.os_version = os_version
        self.platform_id = platform_id
        self.timestamp = timestamp
        self.flags = flags
        self.padded = padded
        self.with_system_info = with_system_info
        self._memory64: list[tuple[int, bytes]] = []
        self._memory32: list[tuple[int, bytes]] = []
        self._regions: list[tuple[int, int, int, int, int, int, int]] = []
        self._modules: list[_Module] = []
        self._unloaded: list[_Module] = []
        self._threads: list[_Thread] = []
        self._streams: list[tuple[int, bytes]] = []
        self._handles: list[tuple[int, str, str]] = []
        self._handle_size = 32

    def memory(self, address: int, data: bytes) -> MinidumpBuilder:
        """Memory for Memory64List, in the order of the calls."""
        self._memory64.append((address, data))
        return self

    def overwrite(self, address: int, data: bytes) -> MinidumpBuilder:
        """Other bytes in memory that is there already."""
        for row, (start, old) in enumerate(self._memory64):
            at = address - start
            if 0 <= at <= len(old) - len(data):
                self._memory64[row] = start, old[:at] + data + old[at + len(data) :]
        return self

    def memory_list(self, address: int, data: bytes) -> MinidumpBuilder:
        """Memory for MemoryList, the list of small dumps."""
        self._memory32.append((address, data))
        return self

    def region(
        self,
        base: int,
        size: int,
        state: int = 0x1000,
        protect: int = 0x04,
        kind: int = 0x20000,
        allocation_base: int | None = None,
    ) -> MinidumpBuilder:
        """A row of MemoryInfoList; committed private read-write memory unless said otherwise."""
        start = base if allocation_base is None else allocation_base
        self._regions.append((base, start, protect, size, state, protect, kind))
        return self

    def module(
        self,
        path: str,
        base: int,
        size: int,
        timestamp: int = 0x5F000000,
        version: tuple[int, int, int, int] | None = None,
        pdb: tuple[str, str, int] | None = None,
        codeview: bytes = b"",
    ) -> MinidumpBuilder:
        """A loaded module; `pdb` is (name, GUID in hex, age), `codeview` a record as it is."""
        record = rsds(*pdb) if pdb is not None else codeview
        self._modules.append(_Module(path, base, size, timestamp, version, record))
        return self

    def unloaded_module(
        self, path: str, base: int, size: int, timestamp: int = 0x5F000000
    ) -> MinidumpBuilder:
        """An unloaded module."""
        self._unloaded.append(_Module(path, base, size, timestamp, None, b""))
        return self

    def thread(
        self,
        thread_id: int = 1,
        teb: int = 0,
        stack: tuple[int, int] = (0, 0),
        registers: dict[str, int] | None = None,
    ) -> MinidumpBuilder:
        """A thread, with a CONTEXT if it has registers; `stack` is (address, size)."""
        self._threads.append(_Thread(thread_id, teb, stack, registers or {}))
        return self

    def misc_info(
        self,
        process_id: int | None = None,
        times: tuple[int, int, int] | None = None,
    ) -> MinidumpBuilder:
        """MiscInfo; `times` is (created as Unix time, user seconds, kernel seconds)."""
        flags = (1 if process_id is not None else 0) | (2 if times is not None else 0)
        body = struct.pack("<IIIIII", 24, flags, process_id or 0, *(times or (0, 0, 0)))
        return self.stream(15, body)

    def handles(self, rows: list[tuple[int, str, str]], size: int = 32) -> MinidumpBuilder:
        """HandleDataStream: (value, type, name) each, "" for no string; `size` of a descriptor: 32 or 40."""
        self._handles += rows
        self._handle_size = size
        return self

    def vm_counters(
        self,
        private: int,
        virtual: int = 0,
        working_set: int = 0,
        revision: int = 2,
        flags: int = 0xF,
        size: int = 152,
    ) -> MinidumpBuilder:
        """ProcessVmCountersStream; revision 1 has no virtual size and is 80 bytes."""
        head = struct.pack("<HHIQQ", revision, flags, 1000, working_set, working_set) + bytes(48)
        if revision == 1:
            return self.stream(22, head + struct.pack("<Q", private))
        body = head + struct.pack("<QQQ", virtual, virtual, private)
        return self.stream(22, body.ljust(size, b"\0"))

    def comment(self, text: str, wide: bool = False) -> MinidumpBuilder:
        """CommentStreamA, or CommentStreamW when `wide`."""
        raw = (text + "\0").encode("utf-16-le" if wide else "cp1252")
        return self.stream(11 if wide else 10, raw)

    def stream(self, kind: int, body: bytes) -> MinidumpBuilder:
        """Any stream as it is; also a second one of a type."""
        self._streams.append((kind, body))
        return self

    def build(self) -> bytes:
        """The file."""
        kinds = [7] if self.with_system_info else []
        lists = (
            *((4, self._modules), (14, self._unloaded), (3, self._threads)),
            *((16, self._regions), (5, self._memory32), (9, self._memory64), (12, self._handles)),
        )
        count = len(kinds) + len(self._streams) + sum(1 for _, items in lists if items)
        out = bytearray(32 + 12 * count)
        directory: list[tuple[int, int, int]] = []

        def put(kind: int, body: bytes) -> None:
            directory.append((kind, len(body), len(out)))
            out.extend(body)

        if self.with_system_info:
            put(7, self._system_info())
        for kind, body in self._streams:
            put(kind, body)
        if self._modules:
            put(4, self._counted([self._module_record(out, m) for m in self._modules]))
        if self._unloaded:
            rows = [
                struct.pack("<QIIII", m.base, m.size, 0, m.timestamp, self._string(out, m.path))
                for m in self._unloaded
            ]
            put(14, struct.pack("<III", 12, 24, len(rows)) + b"".join(rows))
        if self._threads:
            put(3, self._counted([self._thread_record(out, t) for t in self._threads]))
        if self._regions:
            rows = [struct.pack("<QQIIQIIII", *r[:3], 0, *r[3:], 0) for r in self._regions]
            put(16, struct.pack("<IIQ", 16, 48, len(rows)) + b"".join(rows))
        if self._handles:
            rows = []
            for value, *texts in self._handles:
                places = [self._string(out, text) if text else 0 for text in texts]
                row = struct.pack("<QIIIIII", value, *places, 0, 0x1F0003, 2, 3)
                rows.append(row.ljust(self._handle_size, b"\0"))
            head = struct.pack("<IIII", 16, self._handle_size, len(rows), 0)
            put(12, head + b"".join(rows))
        if self._memory32:
            rows = []
            for address, data in self._memory32:
                rows.append(struct.pack("<QII", address, len(data), len(out)))
                out += data
            put(5, self._counted(rows))
        if self._memory64:
            base = len(out) + 16 + 16 * len(self._memory64)
            rows = [struct.pack("<QQ", address, len(data)) for address, data in self._memory64]
            put(9, struct.pack("<QQ", len(rows), base) + b"".join(rows))
            out += b"".join(data for _, data in self._memory64)

        out[:32] = struct.pack(
            "<4sIIIIIQ", b"MDMP", 0x1234A793, count, 32, 0, self.timestamp, self.flags
        )
        out[32 : 32 + 12 * count] = b"".join(struct.pack("<III", *row) for row in directory)
        return bytes(out)

    def _system_info(self) -> bytes:
        processor = self.architecture
        if isinstance(processor, str):
            processor = ARCHITECTURE_NUMBERS[processor]
        numbers = (*self.os_version, self.build_number, self.platform_id)
        # ..., CSDVersionRva, SuiteMask, Reserved2, and 24 bytes of CPU information.
        return struct.pack("<HHHBBIIIIIHH", processor, 6, 0, 4, 1, *numbers, 0, 0, 0) + bytes(24)

    def _counted(self, rows: list[bytes]) -> bytes:
        return struct.pack("<I", len(rows)) + bytes(4 if self.padded else 0) + b"".join(rows)

    @staticmethod
    def _string(out: bytearray, text: str) -> int:
        raw = text.encode("utf-16-le", "surrogatepass")
        rva = len(out)
        out += struct.pack("<I", len(raw)) + raw + b"\0\0"
        return rva

    def _module_record(self, out: bytearray, module: _Module) -> bytes:
        name = self._string(out, module.path)
        codeview = (len(module.codeview), len(out)) if module.codeview else (0, 0)
        out += module.codeview
        fixed = bytes(52)
        if module.version is not None:
            a, b, c, d = module.version
            fixed = struct.pack("<IIII", 0xFEEF04BD, 0x10000, a << 16 | b, c << 16 | d) + bytes(36)
        head = struct.pack("<QIIII", module.base, module.size, 0, module.timestamp, name)
        return head + fixed + struct.pack("<IIII", *codeview, 0, 0) + bytes(16)

    def _thread_record(self, out: bytearray, thread: _Thread) -> bytes:
        context = (0, 0)
        if thread.registers:
            assert isinstance(self.architecture, str)
            raw = bytearray(CONTEXT_SIZES[self.architecture])
            for name, value in thread.registers.items():
                at, size = CONTEXT_FIELDS[self.architecture][name]
                raw[at : at + size] = value.to_bytes(size, "little")
            context = (len(raw), len(out))
            out += raw
        head = struct.pack("<IIIIQ", thread.thread_id, 0, 0x20, 0, thread.teb)
        stack_address, stack_size = thread.stack
        return head + struct.pack("<QIIII", stack_address, stack_size, 0, *context)


def stream_row(data: bytes, kind: int) -> int:
    """File offset of the directory row of the first stream of a type."""
    count, rva = struct.unpack_from("<II", data, 8)
    for at in range(rva, rva + 12 * count, 12):
        if struct.unpack_from("<I", data, at)[0] == kind:
            return int(at)
    raise KeyError(kind)


def stream_place(data: bytes, kind: int) -> tuple[int, int]:
    """(file offset, size) of the first stream of a type."""
    size, rva = struct.unpack_from("<II", data, stream_row(data, kind) + 4)
    return rva, size


def patched(data: bytes, offset: int, replacement: bytes) -> bytes:
    """The same file with some bytes replaced."""
    return data[:offset] + replacement + data[offset + len(replacement) :]
