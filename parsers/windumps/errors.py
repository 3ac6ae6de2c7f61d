"""What can go wrong while a dump is read, as types.

Two kinds of trouble are kept apart. When reading cannot go on, one of these exceptions is raised; when only a
part is unreadable, the part is left out and a `windumps.diagnostics.Diagnostic` says so in the result.
"""

from __future__ import annotations

# CrashDumpEnabled 1: complete, from the next crash on; 2: kernel (Microsoft: "System failure and recovery").
KERNEL_DUMP_COMMAND = (
    r"reg add HKLM\SYSTEM\CurrentControlSet\Control\CrashControl"
    " /v CrashDumpEnabled /t REG_DWORD /d 1 /f"
)
BETTER_KERNEL_DUMP = (
    "take a live kernel dump in Task Manager, or let the next crash write a complete dump (2 for a kernel "
    f"dump): {KERNEL_DUMP_COMMAND}"
)


class WindumpsError(Exception):
    """Base of every error this package raises on purpose; `str()` of it is one line for people."""


class DumpError(WindumpsError):
    """The file as a whole cannot be used."""


class NotADumpError(DumpError):
    """The file is no dump of a kind this package knows."""


class UnsupportedDumpError(DumpError):
    """A valid file of a kind that cannot answer; the message says which command makes one that
    can.
    """


class ContainerError(DumpError):
    """A compressed file cannot be unpacked: damaged, ambiguous, or larger than the limit allows."""


class CorruptDumpError(DumpError):
    """A structure that everything else depends on is damaged."""

    def __init__(self, structure: str, file_offset: int, expected: str, found: str) -> None:
        super().__init__(
            f"{structure} at file offset 0x{file_offset:x} is damaged: expected {expected}, found {found}; "
            "the file was probably cut or altered on its way, copy it again"
        )
        self.structure = structure
        self.file_offset = file_offset


class TruncatedDumpError(DumpError):
    """The file ends before a structure that everything else depends on."""

    def __init__(self, structure: str, needed: int, present: int) -> None:
        super().__init__(
            f"the file ends inside {structure}: {needed} bytes are needed and {present} are there; "
            "the copy is probably incomplete, compare its size with the original"
        )
        self.needed = needed
        self.present = present


class MemoryReadError(WindumpsError):
    """Memory of the process that was asked for cannot be had."""

    def __init__(self, message: str, address: int) -> None:
        super().__init__(message)
        self.address = address


class PageNotInDumpError(MemoryReadError):
    """The first byte asked for is not in the dump."""

    def __init__(self, address: int) -> None:
        super().__init__(f"memory at 0x{address:x} is not in the dump", address)


class PartialReadError(MemoryReadError):
    """Some of the bytes asked for are in the dump, not all."""

    def __init__(self, address: int, wanted: int, got: int) -> None:
        super().__init__(f"only {got} of {wanted} bytes at 0x{address:x} are in the dump", address)
        self.wanted = wanted
        self.got = got


class HeapError(WindumpsError):
    """A heap cannot be read at all (its header is absent or no layout fits); the others still
    can.
    """

    def __init__(self, message: str, address: int) -> None:
        super().__init__(message)
        self.address = address
