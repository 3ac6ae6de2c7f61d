"""Recorded allocation stacks: from what a block says of its trace to the addresses of its frames.

What a block keeps is the address of a record, or on XP with `+ust` a record's number. There are three
kinds of record (`RECORD_FORMS`), and they are told apart by what checks out, since neither the heap nor the
build says which one a pointer leads to. No two forms accept the same bytes: their counts stand in places
where the others keep something larger.

A record that does not check out gives no stack and a diagnostic, never a guessed one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.images.modules import Module, ModuleMap
from windumps.layouts.rows import LayoutRow, candidates
from windumps.layouts.stack_trace import STACK_TRACE_LAYOUTS
from windumps.memory import AddressSpace
from windumps.process.stack_trace_database import StackTraceDatabase, find_database

Mask = NDArray[np.bool_]

MAX_FRAMES = 32  # BackTrace[32] in every public type
PIECE = 0x1000  # traces read at once: 1 MiB of frames on x64
INDEX_LIMIT = 0x10000  # the lowest 64 KiB of a process are never mapped, so this is no address
LOW_32 = np.uint64(0xFFFFFFFF)
TRACE_BLOCK_MAGIC = 0xABCDAAAA


class CodeMap:
    """The images frames lie in: loaded ones, then those unloaded before the dump was taken.

    Attributes:
        modules: All of them; what `index_of` gives is an index into this list.
    """

    def __init__(self, loaded: list[Module], unloaded: list[Module]) -> None:
        self._loaded = ModuleMap(loaded)
        self._unloaded = ModuleMap(unloaded)
        self.modules = [*self._loaded.modules, *self._unloaded.modules]

    def index_of(self, addresses: U64) -> I64:
        """int64 indices into `modules`, -1 for addresses in no image."""
        index = self._loaded.index_of(addresses)
        behind = self._unloaded.index_of(addresses)
        return np.where((index < 0) & (behind >= 0), behind + len(self._loaded.modules), index)


class Frames(NamedTuple):
    """Frames of many records.

    Attributes:
        addresses: uint64, shape (n, most frames of any), zero behind a record's last.
        used: True where `addresses` holds a frame.
        complete: bool, shape (n,): all frames of the record are in the dump.
        in_image: True where a frame lies in an image.
    """

    addresses: U64
    used: Mask
    complete: Mask
    in_image: Mask

    @property
    def hashes(self) -> U64:
        """uint64, shape (n,): ntdll's hash, the sum of the low 32 bits of the frames modulo 2**32."""
        total: U64 = (self.addresses & LOW_32).sum(axis=1, dtype=np.uint64)
        return total & LOW_32

    @property
    def none_is_zero(self) -> Mask:
        """bool, shape (n,): false where the count takes in words that were never written."""
        written: Mask = ((self.addresses != 0) | ~self.used).all(axis=1)
        return written


class RecordForm(NamedTuple):
    """One kind of trace record.

    Attributes:
        structure: Its name in the layouts.
        count_field: The number of frames.
        frames_field: Where its frames start, or "" when they stand behind the structure.
        fields: Further fields that `check` looks at.
        check: Tells of each record (address, fields, frames) whether it holds together.
    """

    structure: str
    count_field: str
    frames_field: str
    fields: tuple[str, ...]
    check: Callable[[StackTraces, U64, NDArray[np.void], Frames], Mask]


def _log_entry_holds(
    traces: StackTraces, address: U64, fields: NDArray[np.void], frames: Frames
) -> Mask:
    """The hash proves the frames; some of them must be code of an image."""
    proved: Mask = (frames.hashes == fields["Hash"]) & frames.in_image.any(axis=1)
    return proved


def _trace_block_holds(
    traces: StackTraces, address: U64, fields: NDArray[np.void], frames: Frames
) -> Mask:
    """Magic number and the pointer to its own frames; some of them must be code of an image."""
    behind = address + np.uint64(traces.layout.size("_RTL_TRACE_BLOCK"))
    holds: Mask = (
        (fields["Magic"] == TRACE_BLOCK_MAGIC)
        & (fields["Trace"] == behind)
        & frames.in_image.any(axis=1)
        & frames.none_is_zero
    )
    return holds


def _database_entry_holds(
    traces: StackTraces, address: U64, fields: NDArray[np.void], frames: Frames
) -> Mask:
    """The database's hash chain leads to it, or, where that cannot be told, all frames are code.

    The record itself has no hash: the bucket it hangs in is one.
    """
    all_code: Mask = (frames.in_image == frames.used).all(axis=1)
    database = traces.database
    if database is None:
        return all_code
    inside = database.holds(address)
    reached, unknown = database.reached(address, frames.hashes)
    return inside & frames.none_is_zero & (reached | (unknown & all_code))


RECORD_FORMS: tuple[RecordForm, ...] = (
    RecordForm("HEAP_STACK_TRACE_LOG_ENTRY", "Count", "Frames", ("Hash",), _log_entry_holds),
    RecordForm("_RTL_STACK_TRACE_ENTRY", "Depth", "BackTrace", (), _database_entry_holds),
    RecordForm("_RTL_TRACE_BLOCK", "Size", "", ("Magic", "Trace"), _trace_block_holds),
)


class StackTraces:
    """Reads the recorded stacks of a process, as one pointer size sees it.

    Args:
        memory: The process's memory.
        architecture: "x86" or "x64".
        build: Windows build number, 0 when unknown.
        ntdll: The ntdll of that architecture; None when the dump does not list it.
        code: The images of the process.
        log: Told of every trace that cannot be read.
        exact: Layout out of ntdll's own symbols; goes before the built-in rows.
    """

    def __init__(
        self,
        memory: AddressSpace,
        architecture: str,
        build: int,
        ntdll: Module | None,
        code: CodeMap,
        log: DiagnosticLog,
        exact: LayoutRow | None = None,
    ) -> None:
        self._memory = memory
        self._ntdll = ntdll
        self._code = code
        self._log = log
        self._layouts = candidates(STACK_TRACE_LAYOUTS, architecture, build)
        if exact is not None:
            self._layouts.insert(0, exact)
        # The records themselves are alike in all rows of an architecture.
        self.layout: LayoutRow = self._layouts[0]
        self._database: StackTraceDatabase | None = None
        self._searched = False

    @property
    def database(self) -> StackTraceDatabase | None:
        """Ntdll's stack trace database; None when it was not found. Searched for once."""
        if not self._searched:
            self._searched = True
            if self._ntdll is not None:
                self._database = find_database(self._memory, self._layouts, self._ntdll)
        return self._database

    def frames(self, traces: U64) -> list[tuple[int, ...]]:
        """The frames of each trace.

        Args:
            traces: `Blocks.trace` values, each once: addresses of records, or numbers below 2**16.

        Returns:
            For each trace the return addresses, innermost first; () where there is no stack.
        """
        stacks: list[tuple[int, ...]] = []
        for start in range(0, len(traces), PIECE):
            stacks += self._read(traces[start : start + PIECE].astype(np.uint64))
        return stacks

    def _read(self, traces: U64) -> list[tuple[int, ...]]:
        stacks: list[tuple[int, ...]] = [()] * len(traces)
        numbered = (traces != 0) & (traces < INDEX_LIMIT)
        address = np.where(numbered, 0, traces)
        if numbered.any() and self.database is not None:
            address[numbered] = self.database.records(traces[numbered])
        pending = np.flatnonzero(address)
        for form in RECORD_FORMS:
            if not len(pending):
                break
            good, frames = self._try(form, address[pending])
            counts = frames.used.sum(axis=1)
            for row in np.flatnonzero(good).tolist():
                stacks[pending[row]] = tuple(frames.addresses[row, : counts[row]].tolist())
            pending = pending[~good]
        self._report(traces[(address == 0) & (traces != 0)], numbers=True)
        self._report(address[pending], numbers=False)
        return stacks

    def _try(self, form: RecordForm, address: U64) -> tuple[Mask, Frames]:
        """Which records are of this form, and their frames."""
        layout = self.layout
        fields, present = self._memory.gather(
            address, layout.dtype(form.structure, form.count_field, *form.fields)
        )
        counts = fields[form.count_field].astype(np.int64)
        possible = present & (counts >= 1) & (counts <= MAX_FRAMES)
        at = (
            layout.offset(form.structure, form.frames_field)
            if form.frames_field
            else layout.size(form.structure)
        )
        frames = self._gather_frames(address + np.uint64(at), np.where(possible, counts, 0))
        return possible & frames.complete & form.check(self, address, fields, frames), frames

    def _gather_frames(self, start: U64, counts: I64) -> Frames:
        width = self.layout.pointer_size
        column = np.arange(max(int(counts.max(initial=0)), 1))
        used = column[None, :] < counts[:, None]
        slots = start[:, None] + (column * width).astype(np.uint64)[None, :]
        addresses = np.zeros(used.shape, np.uint64)
        present = np.zeros(used.shape, bool)
        addresses[used], present[used] = self._memory.gather(slots[used], f"<u{width}")
        in_image = np.zeros(used.shape, bool)
        in_image[used] = self._code.index_of(addresses[used]) >= 0
        return Frames(addresses, used, (present == used).all(axis=1), in_image)

    def _report(self, failed: U64, *, numbers: bool) -> None:
        """Says of each trace why it gives no stack; the log folds what comes too often."""
        if numbers:
            where = "the stack trace database" + (
                " was not found" if self.database is None else " has no such record"
            )
            for value in failed.tolist():
                self._log.add(
                    "stack-trace-unknown",
                    Severity.WARNING,
                    "_STACK_TRACE_DATABASE",
                    None,
                    f"blocks with recorded stack number {value} have no stack: {where}",
                )
            return
        absent = self._memory.locate(failed, self.layout.size("HEAP_STACK_TRACE_LOG_ENTRY")) < 0
        for value, missing in zip(failed.tolist(), absent.tolist(), strict=True):
            code, why = (
                ("stack-trace-absent", "is not in the dump")
                if missing
                else ("stack-trace-damaged", "does not check out as one of any known form")
            )
            self._log.add(
                code,
                Severity.WARNING,
                "_RTL_STACK_TRACE_ENTRY",
                value,
                f"blocks whose stack record is at 0x{value:x} have no stack: the record {why}",
            )
