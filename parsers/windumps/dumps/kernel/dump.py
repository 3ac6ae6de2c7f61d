"""What an open kernel dump gives, whatever it was opened from (`reader.py` here and in `image/`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property

from windumps.arrays import PAGE_SIZE
from windumps.dump import Dump
from windumps.dumps.kernel import structures as c
from windumps.dumps.kernel.header import KernelHeader
from windumps.errors import BETTER_KERNEL_DUMP, UnsupportedDumpError
from windumps.kernel import kdbg
from windumps.kernel.bug_checks import BugCheck
from windumps.kernel.counters import Counter, read_counters
from windumps.kernel.kernel import Kernel
from windumps.kernel.lists import list_closes
from windumps.kernel.processes import (
    KernelProcess,
    ProcessLayout,
    choose_process_layout,
    processes,
)
from windumps.kernel.variables import KernelSymbol, KernelSymbols
from windumps.layouts.kernel import PROCESS_LAYOUTS
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace, PageTableMemory
from windumps.memory.paging import Paging
from windumps.symbols.errors import SymbolError
from windumps.symbols.layout_rows import Component, layout_row_from_symbols

# Windows 8 changed a letter of the name.
_PROCESS = Component(
    PROCESS_LAYOUTS, {("_EPROCESS", "WoW64Process"): ("Wow64Process",)}, every_builds_fields=True
)


@dataclass
class KernelDump(Dump):
    """A dump of a whole system; `memory` is the kernel's address space.

    Attributes:
        dump_type: `_DUMP_HEADER.DumpType`; 0 for an image of memory without a header.
        dump_type_name: For people.
        header: The dump's header; None for an image of memory.
        kernel: The kernel: drivers, KDBG, symbols.
        physical: Physical memory; None for a triage dump, which has none.
        paging: How addresses are translated; None for a triage dump.
        physical_limit: First physical address above the machine's memory; 0 when unknown.
        missing_bytes: Memory the dump's tables promise that is not in the file.
        bug_check: Why the system stopped; None when it did not, or is not known.
        up_time: Since the system started; None when unknown.
        secondary: Blocks that components added: (GUID as hex, bytes).
        current_process: The process that ran, of which a small dump keeps a copy; else None.
    """

    kernel: Kernel = field(kw_only=True)
    dump_type: int = 0
    dump_type_name: str = ""
    header: KernelHeader | None = None
    physical: AddressSpace | None = None
    paging: Paging | None = None
    physical_limit: int = 0
    missing_bytes: int = 0
    bug_check: BugCheck | None = None
    up_time: timedelta | None = None
    secondary: list[tuple[str, int]] = field(default_factory=list)
    current_process: KernelProcess | None = None

    @property
    def kernel_base(self) -> int:
        """Load address of the kernel; 0 when unknown."""
        return self.kernel.base

    @property
    def kdbg(self) -> kdbg.Kdbg | None:
        """KDBG; None when it was not found."""
        return self.kernel.kdbg

    @property
    def symbols(self) -> KernelSymbols:
        """Where the kernel's variables are."""
        return self.kernel.symbols

    def symbol(self, name: str) -> int | None:
        """Address of a kernel variable; None when no way leads to it."""
        return self.kernel.symbols.address(name)

    def find_symbol(self, name: str) -> KernelSymbol | None:
        """A kernel variable's address and how it was found."""
        return self.kernel.symbols.find(name)

    @property
    def is_triage(self) -> bool:
        """Small memory dump: stacks and a few data blocks, no page tables."""
        return self.dump_type == c.DumpType.TRIAGE

    @property
    def why_no_pool(self) -> str:
        """Why no pool question can be answered from this file, in one line; "" when it may be."""
        if self.is_triage:
            return (
                "a small memory dump (triage): it holds the stack of one thread, the list of drivers "
                "and the bug check, but neither the pool nor its trackers; " + BETTER_KERNEL_DUMP
            )
        if self.physical is None or not self.physical.total_bytes:
            return f"a {self.dump_type_name} that holds no memory; {BETTER_KERNEL_DUMP}"
        if not self.kernel.drivers and self.kdbg is None:
            return (
                "a kernel dump whose page tables lead to no kernel: the file is cut or damaged; "
                "copy it again from where it was written"
            )
        return ""

    @cached_property
    def counters(self) -> list[Counter]:
        """The memory manager's counters, known or not."""
        found = read_counters(self.kernel)
        pages = self.header.page_count if self.header is not None else None
        if pages and self.dump_type == c.DumpType.FULL:
            told = Counter("physical_memory", pages * PAGE_SIZE, "the header's memory runs")
            found = [told if x.name == told.name and x.bytes is None else x for x in found]
        return found

    @cached_property
    def process_layout(self) -> ProcessLayout | None:
        """The layout of `_EPROCESS` that fits, with its score; None when there is no list."""
        kernel = self.kernel
        if not kernel.process_list or self.is_triage:
            return None
        return choose_process_layout(
            kernel.memory,
            kernel.architecture,
            kernel.build,
            kernel.process_list,
            kernel.kdbg,
            self._exact_process_layout(),
        )

    def _exact_process_layout(self) -> LayoutRow | None:
        """`_EPROCESS` out of the kernel's own symbols; None without symbols that describe it."""
        source, kernel = self.kernel.symbols.source, self.kernel
        if source is None:
            return None
        try:
            return layout_row_from_symbols(
                source,
                _PROCESS,
                "x86" if kernel.architecture == "x86" else "x64",
                kernel.build,
                "the kernel's own symbols",
            )
        except SymbolError:
            return None

    @cached_property
    def processes(self) -> list[KernelProcess]:
        """All processes of the kernel's list; empty when it is not in the dump."""
        layout = self.process_layout
        if layout is None:
            return []
        return processes(self.kernel.memory, layout, self.kernel.process_list, self.log)

    @property
    def why_no_processes(self) -> str:
        """Why `processes` is empty, in one line; "" when it is not."""
        if self.process_layout is not None:
            return ""
        if self.physical is None:
            return f"a {self.dump_type_name} has no list of processes; {BETTER_KERNEL_DUMP}"
        if list_closes(self.memory, self.kernel.process_list, self.kernel.pointer_size):
            return (
                f"no layout of processes fits build {self.build} {self.architecture}; the kernel's symbols "
                "have it (--symbols)"
            )
        return "the list of processes is not in the dump"

    def address_space(self, directory_table_base: int, end: int | None = None) -> PageTableMemory:
        """The address space below another root of page tables.

        Args:
            directory_table_base: The root, as in CR3 or `_KPROCESS.DirectoryTableBase`.
            end: First address that is not looked at; None for the whole address space.

        Raises:
            UnsupportedDumpError: the dump has no physical memory.
        """
        if self.physical is None or self.paging is None:
            raise UnsupportedDumpError(
                f"{self.path}: a {self.dump_type_name} has no memory of processes; "
                + BETTER_KERNEL_DUMP
            )
        return PageTableMemory(
            self.physical, self.paging, directory_table_base, self.physical_limit, self.log, end
        )

    def process_memory(self, process: KernelProcess) -> PageTableMemory:
        """The user half of a process's address space; raises as `address_space`."""
        return self.address_space(process.directory_table_base, self.kernel.user_end)
