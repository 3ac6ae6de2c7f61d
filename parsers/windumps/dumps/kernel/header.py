"""The header of a kernel crash dump, 32 or 64 bits, as one dataclass without filler."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from windumps.arrays import U8
from windumps.dumps.kernel import structures as c
from windumps.dumps.minidump.structures import CONTEXT_REGISTERS
from windumps.errors import TruncatedDumpError, UnsupportedDumpError
from windumps.file_structure import Layout
from windumps.times import filetime


@dataclass(frozen=True)
class KernelHeader:
    """`_DUMP_HEADER` or `_DUMP_HEADER64`. None: the field was never written.

    Attributes:
        is_64bit: Which of the two.
        size: Bytes of the header.
        build: Windows build number; 0 when unknown.
        architecture: "x86", "x64", "arm64", …; "" when the machine type is unknown.
        pae_enabled: 32-bit: page tables are PAE ones.
        runs: PhysicalMemoryBlock.Run as (BasePage, PageCount), None when the block is not written.
        run_count: PhysicalMemoryBlock.NumberOfRuns, which can be more than the header has room for.
        page_count: PhysicalMemoryBlock.NumberOfPages.
        registers: Integer registers of the processor that stopped, by lower-case name.
        required_bytes: RequiredDumpSpace: how large the file should be.
        system_time: When the dump was taken.
        up_time: Since the system started.
        comment: Text of whoever made the dump.
        fields: All plain integer fields under their own names, None where not written.
    """

    is_64bit: bool
    size: int
    build: int
    architecture: str
    dump_type: int
    pae_enabled: bool | None
    runs: tuple[tuple[int, int], ...] | None
    run_count: int
    page_count: int | None
    registers: dict[str, int]
    required_bytes: int | None
    system_time: datetime | None
    up_time: timedelta | None
    comment: str
    fields: dict[str, int | None]

    def integer(self, name: str) -> int:
        """A field's value, 0 when it was not written."""
        return self.fields.get(name) or 0


def read_header(data: U8) -> KernelHeader:
    """Reads the header at the start of a kernel dump.

    Raises:
        TruncatedDumpError: the file ends inside it.
        UnsupportedDumpError: a dump of a processor that is not read.
    """
    is_64bit = data[:8].tobytes() == c.SIGNATURE64
    layout = c.HEADER64 if is_64bit else c.HEADER32
    if len(data) < layout.size:
        raise TruncatedDumpError("the header of a kernel crash dump", layout.size, len(data))
    raw = layout.record(data, 0)
    fields = {name: _written(layout, raw, name) for name in _integers(layout)}
    machine = fields["MachineImageType"]
    architecture = c.ARCHITECTURES.get(machine or 0, "")
    if not architecture and machine is None:
        architecture = "x64" if is_64bit else "x86"
    if architecture not in ("x86", "x64", "arm64") or (architecture == "x86") == is_64bit:
        raise UnsupportedDumpError(
            f"this is a kernel dump of a processor that is not read ({architecture or 'machine type'} "
            f"0x{machine or 0:x}); x86, x64 and ARM64 are"
        )
    runs, page_count, run_count = _physical_memory(raw.PhysicalMemoryBlock, is_64bit)
    pae = fields.get("PaeEnabled")
    return KernelHeader(
        is_64bit=is_64bit,
        size=layout.size,
        build=fields["MinorVersion"] or 0,
        architecture=architecture,
        dump_type=fields["DumpType"] or 0,
        pae_enabled=bool(pae) if pae in (0, 1) else None,
        runs=runs,
        run_count=run_count,
        page_count=page_count,
        registers=_registers(raw.ContextRecord, architecture),
        required_bytes=fields["RequiredDumpSpace"],
        system_time=filetime(fields["SystemTime"] or 0),
        up_time=_up_time(fields["SystemUpTime"]),
        comment=_text(raw.Comment),
        fields=fields,
    )


def _integers(layout: Layout) -> list[str]:
    names = layout.dtype.names or ()
    return [name for name in names if layout.dtype[name].kind == "u"]


def _written(layout: Layout, raw: Any, name: str) -> int | None:
    """An integer field, or None where the filler still stands."""
    offset = layout.dtype.fields[name][1] if layout.dtype.fields else 0
    size = layout.dtype[name].itemsize
    value = int(raw[name])
    filler = (c.FILLER * 4)[offset % 4 : offset % 4 + size]
    return None if value.to_bytes(size, "little") == filler else value


def _text(raw: bytes) -> str:
    if raw.startswith(c.FILLER):
        return ""
    text = raw.split(b"\0", 1)[0].decode("cp1252", "replace")
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _physical_memory(
    block: bytes, is_64bit: bool
) -> tuple[tuple[tuple[int, int], ...] | None, int | None, int]:
    """Runs, page count and number of runs told; None where they were not written or cannot be.

    A machine can have more runs than the header has room for (42 in 64-bit dumps): those it holds
    are read.
    """
    head_layout = c.MEMORY_DESCRIPTOR64 if is_64bit else c.MEMORY_DESCRIPTOR32
    run_layout = c.MEMORY_RUN64 if is_64bit else c.MEMORY_RUN32
    head = head_layout.parser.parse(block)
    room = (len(block) - head_layout.size) // run_layout.size
    if block.startswith(c.FILLER) or not head.NumberOfRuns:
        return None, None, 0
    runs = []
    for number in range(min(head.NumberOfRuns, room)):
        at = head_layout.size + number * run_layout.size
        if head.NumberOfRuns > room and block[at : at + run_layout.size].startswith(c.FILLER):
            break
        run = run_layout.parser.parse(block[at:])
        runs.append((run.BasePage, run.PageCount))
    return tuple(runs) or None, head.NumberOfPages, head.NumberOfRuns


def _registers(context: bytes, architecture: str) -> dict[str, int]:
    if context.startswith(c.FILLER):
        return {}
    first, width, names = CONTEXT_REGISTERS[architecture]
    return {
        name: int.from_bytes(context[first + i * width : first + (i + 1) * width], "little")
        for i, name in enumerate(names)
    }


def _up_time(value: int | None) -> timedelta | None:
    # More than a century is no up time but damage.
    return timedelta(microseconds=value // 10) if value and value < 1 << 55 else None
