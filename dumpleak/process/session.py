"""A dump opened for analysis: its process, that process's heaps, and a walk over all blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dumpleak.model.errors import BETTER_DUMP, CannotAnswerError, Progress, no_progress
from dumpleak.process.known_memory import KnownMemory, inside_spans
from windumps import Dump, open_dump
from windumps.blocks import Blocks
from windumps.diagnostics import MEMORY_CUT, Diagnostic, DiagnosticLog, Severity
from windumps.dumps.kinds import PROCESS_OF_KERNEL, is_system
from windumps.heaps import Heap, ProcessHeap, process_heaps
from windumps.heaps.debug_crt import DebugCrt
from windumps.heaps.page_heap import heap as page_heap
from windumps.heaps.slabs import SlabArena
from windumps.images.modules import Module, ModuleMap
from windumps.images.search import vacated
from windumps.memory.regions import MEM_COMMIT, MEM_PRIVATE
from windumps.process.stack_traces import CodeMap
from windumps.process.views import MAX_HEAPS, ProcessView, process_views

if TYPE_CHECKING:
    from dumpleak.process.managed import ManagedObjects
    from dumpleak.symbols.dump_symbols import DumpSymbols
    from windumps.symbols.provider import Symbols

RELEASE_EVERY = 2  # pieces of a walk after which mapped pages are given back
CUT_FILE = "the file is cut: copy it again from where it was written"


@dataclass(frozen=True)
class HeapSource:
    """One heap of the process, and the view (pointer size) it belongs to."""

    view: ProcessView
    entry: ProcessHeap

    @property
    def label(self) -> str:
        """Stable name across dumps: "heap 1", and "x86 heap 1" for the 32-bit half of a WoW64
        process; of another allocator its name.
        """
        if isinstance(self.entry.heap, SlabArena):
            return self.entry.kind
        half = f"{self.entry.architecture} " if self.view.is_secondary else ""
        return f"{half}heap {self.entry.ordinal}"


class Session:
    """One process of one dump.

    Args:
        dump: The open dump.
        symbols: Where names and exact layouts come from; None for the built-in tables alone.

    Attributes:
        dump: The open dump.
        symbols: The symbols of its images; None when none were given.
        views: The process as each pointer size sees it; the dump's own first.
        heaps: All heaps of all views, in order.
        modules: Look-up of images by address.
        images: Look-up that has unloaded images, too, whose memory is not in use again: what still
            points there means them.
        skip_frames: Patterns of stack frames that are left out of names besides the allocators'
            (`ALLOCATOR_FRAMES`), as `module!function`; to be set before blocks are attributed.
    """

    def __init__(self, dump: Dump, symbols: Symbols | None = None) -> None:
        self.dump = dump
        self.symbols: DumpSymbols | None = None
        if symbols is not None:
            from dumpleak.symbols.dump_symbols import DumpSymbols

            self.symbols = DumpSymbols(symbols)
        self.skip_frames: tuple[str, ...] = ()
        self.log = DiagnosticLog()
        self.views: list[ProcessView] = []
        if dump.platform == "Windows" and not is_system(dump):
            self.views = process_views(
                dump.memory,
                dump.architecture,
                dump.build,
                [thread.teb for thread in dump.threads],
                dump.modules,
                dump.pebs,
                dump.process_id,
                threads_whole=dump.threads_whole,
                full_memory=dump.full_memory,
            )
        if self.symbols is not None:
            for view in self.views:
                view.exact_layouts = self.symbols.layouts(view)
        self.heaps: list[HeapSource] = []
        for view in self.views:
            room = MAX_HEAPS - len(self.heaps)
            self.heaps += [HeapSource(view, entry) for entry in process_heaps(view, room)]
        self.modules = ModuleMap(dump.modules)
        self.images = CodeMap(dump.modules, vacated(dump.memory, dump.unloaded_modules))

    @classmethod
    def open(
        cls, path: Path | str, symbols: Symbols | None = None, process: str | None = None
    ) -> Session:
        """Opens a dump file.

        Args:
            path: The file.
            symbols: See `Session`.
            process: Id or name of a process of a kernel dump.

        Raises:
            CannotAnswerError: `process` is given and the dump is of another single process.
            DumpError: as `windumps.open_dump` and `windumps.dumps.kernel.process.find_process`.
            OSError: the file cannot be read.
        """
        dump = open_dump(path)
        if process is None:
            return cls(dump, symbols)
        if not is_system(dump):
            raise CannotAnswerError(
                f"{path}: --process is for kernel dumps, this is a {dump.kind} of one process"
            )
        # Only dumps of systems need these.
        from dumpleak.symbols.kernel import use_symbols
        from windumps.dumps.kernel.process import find_process, open_process

        use_symbols(dump, symbols)  # they may say how the kernel lays processes out
        return cls(open_process(dump, find_process(dump, process)), symbols)

    @cached_property
    def managed(self) -> ManagedObjects:
        """The .NET objects of the process."""
        from dumpleak.process.managed import ManagedObjects  # walks and blocks do without

        return ManagedObjects.of(self.dump)

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """Everything left out so far, while opening and while walking."""
        found = self.dump.diagnostics + self.log.collect()
        for view in self.views:
            found += view.log.collect()
        return found + (self.symbols.diagnostics if self.symbols is not None else [])

    @property
    def program(self) -> Module | None:
        """The process's own executable."""
        for view in self.views:
            module = self.modules.at(view.image_base) if view.image_base else None
            if module is not None:
                return module
        return next((m for m in self.dump.modules if m.name.lower().endswith(".exe")), None)

    @cached_property
    def heap_of(self) -> dict[tuple[str, int], HeapSource]:
        """The heaps by architecture and ordinal, which blocks name as `Blocks.heap`."""
        return {(s.view.architecture, s.entry.ordinal): s for s in self.heaps}

    @cached_property
    def arenas(self) -> list[HeapSource]:
        """What other allocators hold, looked for when it is first asked for; see `process.arenas`."""
        from windumps.heaps.arenas import process_arenas  # walks and blocks do without

        return [HeapSource(view, entry) for view in self.views for entry in process_arenas(view)]

    @property
    def arena_ranges(self) -> list[tuple[int, int]]:
        """(start, bytes) of what other allocators took from Windows."""
        arenas = [source.entry.heap for source in self.arenas]
        return [span for arena in arenas if isinstance(arena, SlabArena) for span in arena.ranges]

    @property
    def readable_heaps(self) -> list[HeapSource]:
        """The heaps that can be walked."""
        return [source for source in self.heaps if source.entry.heap is not None]

    def require_heaps(self) -> None:
        """Checks that there is at least one heap to walk.

        Raises:
            CannotAnswerError: says what the file is, what is missing and how to take a dump that
                works.
        """
        if not self.readable_heaps:
            others = "; its .NET objects can be looked at: --of managed" * bool(self.managed.heap)
            if any(source.entry.heap for source in self.arenas):
                others += "; its blocks of other allocators can be looked at: --of arenas"
            raise CannotAnswerError(f"{self.dump.path}: {self.why_no_heaps()}{others}")

    def why_no_heaps(self) -> str:
        """One line: what this file is, what it lacks, and how to take a dump that has it."""
        dump = self.dump
        if dump.platform != "Windows":
            return (
                f"a minidump of a process on {dump.platform}; its heaps are not Windows heaps, "
                "use the tools of that system"
            )
        what = f"a {dump.kind} of {self.describe_system()}"
        if is_system(dump):
            if dump.why_no_processes:
                return dump.why_no_processes
            return (
                f"{what}: say which process's heaps, --process NAME; dumpleak processes lists them"
            )
        if dump.kind == PROCESS_OF_KERNEL:
            if not dump.pebs:
                return f"{what}: this one runs in the kernel and has no heaps"
            if not dump.memory.total_bytes:
                return (
                    f"{what}: the dump holds the kernel's memory and none of the process; take a complete "
                    "memory dump (CrashDumpEnabled 1), or of the process alone: procdump -ma PID app.dmp"
                )
        if self.heaps:
            unread = [source.entry for source in self.heaps]
            absent = [entry for entry in unread if entry.kind == "absent"]
            if len(absent) == len(unread):
                count = max(sum(view.heap_count for view in self.views), len(unread))
                return (
                    f"{what} without heap memory: none of the {count} heap{'s' * (count != 1)} the process "
                    f"had is in it; {self.better_dump}"
                )
            reasons = dict.fromkeys(entry.reason for entry in unread)
            some = f"none of its {len(unread)} heaps" if len(unread) > 1 else "its heap"
            return f"{what}; {some} can{'not' * (len(unread) == 1)} be read: {'; '.join(reasons)}"
        if not dump.architecture:
            unknown = f"a {dump.kind} that does not say for which processor, and holds no heap"
            return f"{unknown}; {self.better_dump}"
        if not self.views:
            return f"{what}; heaps of {dump.architecture} processes are not read"
        return f"{what} without the list of heaps: {self._missing_list()}; {self.better_dump}"

    @property
    def better_dump(self) -> str:
        """How to get a dump that holds more."""
        cut = any(item.code == MEMORY_CUT for item in self.dump.diagnostics)
        return CUT_FILE if cut else BETTER_DUMP

    def _missing_list(self) -> str:
        if not self.dump.memory.total_bytes:
            return "it holds no memory at all"
        if not self.dump.threads and not any(view.thread_blocks for view in self.views):
            return "it lists no threads, and no thread environment block is in it"
        if not any(view.peb for view in self.views):
            return "the process environment block is not in it"
        return "the process environment block is there, the list it points to is not"

    def describe_system(self) -> str:
        """The text "Windows 10.0.19041 x64", as far as the dump says."""
        major, minor, build = self.dump.os_version
        version = f" {major}.{minor}.{build}" if build else ""
        return f"{self.dump.platform}{version} {self.dump.architecture}".strip()

    def blocks(self, progress: Progress = no_progress) -> Iterator[tuple[HeapSource, Blocks]]:
        """Walks all readable heaps, piece by piece; diagnostics are complete afterwards."""
        total = self._private_bytes()
        walked, number, others = 0, 0, KnownMemory()
        self.dump.release()  # what finding the heaps looked at
        for source in self.readable_heaps:
            heap = source.entry.heap
            if heap is None:
                continue
            progress(f"walking {source.label}", min(walked, total), total)
            runtime = DebugCrt(source.view.memory, source.view.pointer_size, self.log)
            for blocks in self._own_blocks(source, heap, others):
                rows = runtime.apply(blocks)
                if rows is not blocks:  # the program sees other rows than the heap does
                    heap.account.count(blocks, -1)
                    heap.account.count(rows)
                    # What the runtime's reader left out is in use, by whom is not known.
                    left_out = blocks.block_bytes.sum() - rows.block_bytes.sum()
                    heap.account.unwalked_bytes += int(left_out)
                yield source, rows
                done = walked + heap.account.block_bytes
                progress(f"walking {source.label}", min(done, total), total)
                number += 1  # of all heaps: many have one piece only
                if number % RELEASE_EVERY == 0:
                    self.dump.release()
            walked += heap.account.block_bytes
            for start, size in heap.account.ranges:
                others.add(start, start + size)
            residual = heap.account.residual_bytes
            if residual:
                self.log.add(
                    "heap-does-not-add-up",
                    Severity.WARNING,
                    "_HEAP",
                    heap.address,
                    f"{source.label}: {residual} committed bytes are neither blocks nor known overhead",
                    abs(residual),
                )
        progress("walked", total, total)

    def _own_blocks(self, source: HeapSource, heap: Heap, others: KnownMemory) -> Iterator[Blocks]:
        """A heap's blocks without those in memory that a heap before it holds: one of the two is damaged.

        They count as not walked.
        """
        checked, lost = 0, 0
        shared: list[tuple[int, int]] = []
        for blocks in heap.blocks():
            account = heap.account
            new = account.ranges[checked:]
            checked = len(account.ranges)
            if heap.kind == page_heap.NAME and len(blocks):
                # It tells of the normal heap's memory only once that was walked.
                low = int(blocks.address.min())
                new = [*new, (low, int(blocks.address.max()) + 1 - low)]
            for start, size in new:
                shared += others.taken(start, start + size)
            if shared:
                twice = inside_spans(blocks.address, [(a, b - a) for a, b in shared])
                dropped = blocks.select(twice)
                account.count(dropped, -1)
                lost += int(dropped.block_bytes.sum())
                account.unwalked_bytes += int(dropped.block_bytes.sum())
                blocks = blocks.select(~twice)
            yield blocks
        if shared:
            self.log.add(
                "heaps-overlap",
                Severity.WARNING,
                "_HEAP",
                heap.address,
                f"{source.label} claims memory of another heap from 0x{shared[0][0]:x} on; its blocks there "
                "are left out",
                lost,
            )

    def _private_bytes(self) -> int:
        """Committed private memory, of which the heaps are most: what a walk may come to."""
        memory = self.dump.memory
        regions = memory.regions
        private = (regions.state == MEM_COMMIT) & (regions.type == MEM_PRIVATE)
        return int(regions.region_size[private].sum()) or memory.total_bytes
