"""What a dump file gives once it is open, whatever its format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from windumps.diagnostics import Diagnostic, DiagnosticLog
from windumps.images.modules import Module
from windumps.memory import AddressSpace
from windumps.process.handles import Handles


@dataclass(frozen=True)
class Thread:
    """One thread.

    Attributes:
        thread_id: Its id.
        teb: Address of its TEB; 0 when unknown.
        stack_start: Lowest address of the stack memory in the dump; 0 when unknown.
        stack_size: Bytes of it.
        registers: Integer registers by lower-case name; empty when the dump has no context.
        start_address: Of the function it began with; 0 when unknown.
    """

    thread_id: int
    teb: int
    stack_start: int = 0
    stack_size: int = 0
    registers: dict[str, int] = field(default_factory=dict)
    start_address: int = 0


@dataclass(frozen=True)
class VmCounters:
    """What Windows itself counted of a process, in bytes; None where the dump does not say.

    Attributes:
        private: Committed memory that is the process's alone (its commit charge).
        virtual: Address space that is taken.
        working_set: Pages that were in memory.
    """

    private: int | None
    virtual: int | None
    working_set: int | None


@dataclass
class Dump:
    """An open dump.

    Attributes:
        path: The file as the user named it (an archive, when it was unpacked).
        kind: Name of the format, "minidump".
        architecture: "x86", "x64", "arm64", … or "" when the dump does not say.
        platform: "Windows", or the name of another system.
        os_version: (major, minor, build); zeros when the dump does not say.
        time: When the dump was taken, UTC; None when the dump does not say.
        process_id: None when the dump does not say.
        process_times: (created, user seconds, kernel seconds); None, each or all, when the dump does not
            say.
        full_memory: The writer was asked for all memory of the process.
        memory: All memory in the file.
        modules: Loaded images.
        unloaded_modules: Images unloaded before the dump.
        threads: All threads.
        comments: Text the writer added.
        streams: Stream or block types in the file, with their sizes in bytes.
        log: Diagnostics of opening.
        commit: Bytes that the whole system has committed, and the most it can; None when the dump does not
            say.
        pebs: PEBs that the dump names itself, by architecture ("x86", "x64").
        release: Gives mapped pages back to the system; what is read again is mapped again.
        threads_whole: False when the dump has no list of threads, or one that is cut.
        modules_whole: False when the list of modules is missing or cut; those found in memory are among
            `modules` all the same.
        handles: Open handles of the process; None when the dump does not list them.
        vm_counters: None when the dump does not hold them.
    """

    path: Path
    kind: str
    architecture: str
    platform: str
    os_version: tuple[int, int, int]
    time: datetime | None
    process_id: int | None
    process_times: tuple[datetime, int | None, int | None] | None
    full_memory: bool
    memory: AddressSpace
    modules: list[Module]
    unloaded_modules: list[Module]
    threads: list[Thread]
    comments: list[str]
    streams: list[tuple[int, int]]
    log: DiagnosticLog
    commit: tuple[int, int] | None = None
    release: Callable[[], None] = lambda: None
    pebs: dict[str, int] = field(default_factory=dict)
    threads_whole: bool = True
    modules_whole: bool = True
    handles: Handles | None = None
    vm_counters: VmCounters | None = None

    @property
    def build(self) -> int:
        """Windows build number; 0 when unknown."""
        return self.os_version[2]

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """What was left out while the file was opened."""
        return self.log.collect()
