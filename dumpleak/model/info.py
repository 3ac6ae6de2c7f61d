"""The answer of `dumpleak info` about a process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from dumpleak.model.account import Figure
from dumpleak.model.coverage import Coverage, is_list_cut
from dumpleak.model.managed import ManagedMemory
from dumpleak.model.memory import PRIVATE_USES, MemoryByUse
from dumpleak.model.programs import Mostly, mostly_of
from dumpleak.model.snapshot import HeapRow, SourceInfo
from dumpleak.model.subject import Subject
from dumpleak.model.units import format_bytes
from windumps.diagnostics import MEMORY_CUT, Diagnostic
from windumps.images.modules import Module

WOW64_IMAGE = "wow64.dll"  # the 64-bit image that runs 32-bit programs on x64


@dataclass(frozen=True)
class Info:
    """The answer of `dumpleak info`.

    Attributes:
        source: Where it comes from.
        full_memory: The writer was asked for all memory.
        memory_bytes: Bytes of process memory in the file.
        thread_count: Threads listed.
        comments: Text the writer added.
        nt_global_flag: PEB.NtGlobalFlag; None when unknown.
        heaps: All heaps of the process.
        coverage: How much of them was walked.
        memory: All memory by use.
        modules: Loaded images.
        unloaded_modules: Images unloaded before the dump.
        usable: Leaks can be looked for.
        advice: Why it is or is not usable, and what to do next.
        diagnostics: What was left out, and why.
        account: Everything that can grow, in figures.
        handles: Open handles by type ("" where the dump does not say), the most first; None where the dump
            does not list them.
        sourced_blocks: Used blocks whose file and line a debug C runtime keeps.
        managed: What the .NET objects of the process come to; None where it has none, or they are not read,
            and for snapshot files, whose account tells it.
        why_no_managed: Why those of a process with a .NET runtime are not read; "" for all others.
    """

    source: SourceInfo
    full_memory: bool
    memory_bytes: int
    thread_count: int
    comments: tuple[str, ...]
    nt_global_flag: int | None
    heaps: tuple[HeapRow, ...]
    coverage: Coverage
    memory: MemoryByUse
    modules: tuple[Module, ...]
    unloaded_modules: tuple[Module, ...]
    usable: bool
    advice: str
    diagnostics: tuple[Diagnostic, ...]
    account: tuple[Figure, ...] = ()
    handles: tuple[tuple[str, int], ...] | None = None
    sourced_blocks: int = 0
    managed: ManagedMemory | None = None
    why_no_managed: str = ""

    @property
    def is_system(self) -> bool:
        """It is of a whole system, kept in a snapshot file."""
        return self.source.subject is Subject.SYSTEM

    @property
    def private_bytes(self) -> int | None:
        """All committed private memory; None where the dump does not list it."""
        if not self.memory.complete:
            return None
        return sum(row.committed_bytes for row in self.memory.rows if row.use in PRIVATE_USES)

    @property
    def is_mostly_managed(self) -> bool:
        """The heap of .NET objects has more memory than all native heaps together."""
        if self.managed is None:
            return False
        native = sum(heap.committed_bytes or 0 for heap in self.heaps)
        return self.managed.committed_bytes > native

    @cached_property
    def mostly(self) -> Mostly | None:
        """What of it belongs to a program of another language, or to another allocator; not of .NET."""
        return mostly_of(self.account) if self.managed is None else None

    @property
    def is_mostly_other(self) -> bool:
        """Such memory is more than that of all native heaps: stacks that gflags records tell little."""
        if self.managed is not None:
            return self.is_mostly_managed
        native = sum(heap.committed_bytes or 0 for heap in self.heaps)
        return self.mostly is not None and self.mostly.bytes > native

    @property
    def is_wow64(self) -> bool:
        """A 32-bit program on a 64-bit system, in a dump that shows the 64-bit half as well."""
        return self.both_halves or any(m.name.lower() == WOW64_IMAGE for m in self.modules)

    @property
    def both_halves(self) -> bool:
        """There are heaps of two pointer sizes."""
        return len({row.architecture for row in self.heaps if row.architecture}) > 1


def pools_advice(covered: Coverage) -> str:
    """Whether leaks can be looked for in what is kept of a system's pools, and what to do next."""
    if covered.shortfall:
        return f"no: {covered.shortfall}"
    return (
        "yes: pool by tag and driver, dumpleak pool FILE; compare it with a later dump of the same system, "
        "dumpleak pool BASE CURRENT"
    )


def coverage_advice(covered: Coverage, diagnostics: Sequence[Diagnostic]) -> str:
    """Whether leaks can be looked for in a dump with heaps, and what to do next."""
    if covered.shortfall:
        return f"no: {covered.shortfall}"
    unread = covered.heaps_listed - covered.heaps_read
    cut = is_list_cut(diagnostics)
    lost = sum(item.bytes_affected for item in diagnostics if item.code == MEMORY_CUT)
    if unread or cut or lost or covered.walked_share < 0.99:
        parts = [f"{covered.share_text} of the heap memory could be walked"]
        if unread:
            parts.append(f"{unread} of {covered.heaps_listed} heaps could not be read")
        if cut:
            parts.append("the list of heaps is cut, there may be more")
        if lost:
            parts.append(f"the file is cut and lacks {format_bytes(lost)}, copy it again")
        return f"partly: {'; '.join(parts)}"
    return "yes: compare it with a later dump of the same program, dumpleak BASE CURRENT"


def advice_of_others(advice: str, managed: ManagedMemory | None, *, arenas: bool) -> str:
    """What else can be looked at in a dump with .NET objects, or blocks of other allocators.

    Args:
        advice: Of its native heaps.
        managed: What the objects come to.
        arenas: Blocks of other allocators are read.
    """
    if managed is not None and managed.is_enough:
        what, of = "its .NET objects", "managed"
    elif arenas:
        what, of = "its blocks of other allocators", "arenas"
    else:
        return advice
    verdict, _, why = advice.partition(": ")
    compare = f"dumpleak diff BASE CURRENT --of {of}"
    if verdict == "no":
        return f"partly: {what} can be compared, {compare}; {why}"
    return f"{advice}; {what} by {compare}"
