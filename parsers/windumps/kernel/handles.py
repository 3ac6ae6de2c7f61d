"""Handles of processes: which kernel objects each process keeps open.

A handle table has one to three levels of pages; the lowest bits of its TableCode say how many. An entry
leads to the `_OBJECT_HEADER` in front of the object.

Sources: `_EPROCESS.ObjectTable` from public kernel symbols and published headers (vergiliusproject.com),
as in `layouts/kernel.py`; `_HANDLE_TABLE` and `_HANDLE_TABLE_ENTRY` from published headers and volatility3's
`handles.py`. Windows 8 (9200) on x64 keeps the pointer otherwise, and what it keeps is not known well enough:
its handles are not read. Whether a layout fits is checked for each process: the table names its owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import PAGE_SIZE, U64
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.kernel.kernel import Kernel
from windumps.kernel.processes import KernelProcess, distance_told
from windumps.layouts.kernel import PROCESS_LAYOUTS
from windumps.layouts.rows import LayoutRow, candidates
from windumps.memory.address_space import AddressSpace

_LEVEL_MASK = 3
_MAX_LEVELS = 2
_SPARE_PAGES = 1 << 12  # of tables read at least, however small the dump
_MIN_SHARE = 0.9  # of tables that must name their owner

# (first build, last build, _EPROCESS.ObjectTable, TableCode, QuotaProcess, UniqueProcessId, bits an entry's
# pointer is shifted left by).
_X64 = (
    (3790, 3790, 0x158, 0x0, 0x8, 0x10, 0),
    (6000, 6003, 0x160, 0x0, 0x8, 0x10, 0),
    (7600, 7601, 0x200, 0x0, 0x8, 0x10, 0),
    (9600, 9600, 0x408, 0x8, 0x10, 0x28, 16),
    (10240, 18363, 0x418, 0x8, 0x10, 0x28, 16),
    (19041, 22631, 0x570, 0x8, 0x10, 0x28, 16),
    (26100, 26200, 0x300, 0x8, 0x10, 0x28, 16),
)
_X86 = (
    (2600, 2600, 0xC4, 0x0, 0x4, 0x8, 0),
    (3790, 3790, 0xD4, 0x0, 0x4, 0x8, 0),
    (6000, 6003, 0xDC, 0x0, 0x4, 0x8, 0),
    (7600, 7601, 0xF4, 0x0, 0x4, 0x8, 0),
    (9200, 9600, 0x150, 0x8, 0xC, 0x18, 0),
    (10240, 14393, 0x154, 0x8, 0xC, 0x18, 0),
    (15063, 18363, 0x15C, 0x8, 0xC, 0x18, 0),
    (19041, 19045, 0x18C, 0x8, 0xC, 0x18, 0),
)
HANDLE_LAYOUTS = tuple(
    LayoutRow(
        "handle",
        architecture,
        first,
        last,
        {
            "_EPROCESS": {"ObjectTable": (table, "ptr")},
            "_HANDLE_TABLE": {
                "TableCode": (code, "ptr"),
                "QuotaProcess": (owner, "ptr"),
                "UniqueProcessId": (number, "u4"),
            },
            # Two pointers; the object's is the first, above this many bits of flags and counts.
            "_HANDLE_TABLE_ENTRY": {
                "shift": (shift, ""),
                "sizeof": (16 if architecture == "x64" else 8, ""),
            },
        },
        "published headers",
    )
    for architecture, rows in (("x64", _X64), ("x86", _X86))
    for first, last, table, code, owner, number, shift in rows
)


@dataclass(frozen=True)
class HandleTable:
    """The handles of one process.

    Attributes:
        process: Whose they are.
        objects: uint64, address of the `_OBJECT_HEADER` of each open handle; one object may come more than
            once.
        absent_pages: Pages of the table that are not in the dump: that many times 256 handles or fewer
            (512 on x86) are not known. Where what leads to the pages is not there either, more.
        blank_pages: Pages that hold nothing, not even free entries: nobody wrote them. A table without any
            page is one, too.
    """

    process: KernelProcess
    objects: U64
    absent_pages: int
    blank_pages: int = 0

    @property
    def is_whole(self) -> bool:
        """These are all handles of the process, be they none."""
        return not self.absent_pages and not self.blank_pages


def read_handles(
    kernel: Kernel, processes: Sequence[KernelProcess], log: DiagnosticLog
) -> list[HandleTable]:
    """Reads the handle tables of processes.

    Returns:
        One for each process, read or not. Empty when it is not certain how handle tables
        of this build are laid out; `log` says so.
    """
    reader = _Reader(kernel, log)
    heads = {process.address: reader.head(process) for process in processes} if reader.row else {}
    owned = {
        process.address: reader.names_owner(process, head)
        for process in processes
        if (head := heads.get(process.address))
    }
    told = [names for names in owned.values() if names is not None]
    if not told or sum(told) < _MIN_SHARE * len(told):
        log.add(
            "handles-unknown",
            Severity.INFO,
            "_HANDLE_TABLE",
            None,
            "who holds kernel objects is unknown: handle tables are not in the dump, or how those of build "
            f"{kernel.build} are laid out is not known for certain",
        )
        return []
    tables = []
    for process in processes:
        head = heads[process.address]
        if head and owned[process.address]:
            tables.append(reader.read(process, head))
        else:  # a process without a table has no handles: what the kernel needs has none, and who ended
            tables.append(HandleTable(process, np.empty(0, np.uint64), int(head != 0)))
    return tables


class _Reader:
    def __init__(self, kernel: Kernel, log: DiagnosticLog) -> None:
        self._memory: AddressSpace = kernel.memory
        self._log = log
        self._pointer = kernel.pointer_size
        rows = candidates(HANDLE_LAYOUTS, kernel.architecture, kernel.build)
        # A build without a row of its own is not guessed at.
        self.row = next((r for r in rows if r.first_build <= kernel.build <= r.last_build), None)
        # On ARM64 all that follows the `_KPROCESS` lies elsewhere; KDBG says by how much.
        process = candidates(PROCESS_LAYOUTS, kernel.architecture, kernel.build)[0]
        self._moved = distance_told(kernel.kdbg, process)
        self._budget = len(kernel.memory.data) // PAGE_SIZE + _SPARE_PAGES
        self._seen: set[int] = set()

    def head(self, process: KernelProcess) -> int | None:
        """Address of the table; 0 when the process has none, None where that is not in the dump."""
        return self._field("_EPROCESS", "ObjectTable", process.address + self._moved)

    def names_owner(self, process: KernelProcess, head: int) -> bool | None:
        """The table says that it belongs to the process (System's names no process, but the id).

        None where it is not in the dump.
        """
        owner = self._field("_HANDLE_TABLE", "QuotaProcess", head)
        number = self._field("_HANDLE_TABLE", "UniqueProcessId", head)
        if owner is None or number is None:
            return None
        return number == process.process_id and owner in (0, process.address)

    def read(self, process: KernelProcess, head: int) -> HandleTable:
        code = self._field("_HANDLE_TABLE", "TableCode", head)
        levels, first = (code or 0) & _LEVEL_MASK, (code or 0) & ~_LEVEL_MASK
        if not first or levels > _MAX_LEVELS:
            unread = code is None or levels > _MAX_LEVELS
            return HandleTable(process, np.empty(0, np.uint64), int(unread), int(not unread))
        pages, absent, blank = [first], 0, 0
        for _ in range(levels):
            lower = []
            for page in pages:
                words = self._page(page)
                if words is None:
                    absent += 1
                    continue
                lower += words[words != 0].tolist()
            pages = lower
        objects = [np.empty(0, np.uint64)]
        for page in pages:
            words = self._page(page)
            if words is None:
                absent += 1
            elif not words.any():
                blank += 1
            else:
                # The first entry of each page is not a handle.
                objects.append(self._objects(words[2::2]))
        return HandleTable(process, np.concatenate(objects), absent, blank)

    def _objects(self, values: U64) -> U64:
        """Addresses of object headers in the first words of entries; free entries are left out."""
        shift = self.row.offset("_HANDLE_TABLE_ENTRY", "shift") if self.row is not None else 0
        if shift:
            signed: NDArray[np.int64] = values.view(np.int64) >> np.int64(shift)
            pointers = (signed & np.int64(~0xF)).view(np.uint64)
        else:
            pointers = values & ~np.uint64(7)
        # Free entries hold a link of their list in another word, or a number that is no kernel address.
        lowest = np.uint64(0x8000_0000 if self._pointer == 4 else 0xFFFF_8000_0000_0000)
        return pointers[pointers >= lowest]

    def _page(self, address: int) -> U64 | None:
        """A page of a table as words; None when it is not in the dump or was read before."""
        if address in self._seen or len(self._seen) >= self._budget:
            return None
        self._seen.add(address)
        try:
            raw = self._memory.view(address, PAGE_SIZE)
        except MemoryReadError:
            return None
        return np.frombuffer(raw.tobytes(), f"<u{self._pointer}").astype(np.uint64)

    def _field(self, structure: str, name: str, address: int) -> int | None:
        if self.row is None:
            return None
        try:
            return self.row.read_field(self._memory, structure, name, address)
        except MemoryReadError:
            return None
