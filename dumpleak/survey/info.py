"""What a dump file is, what it holds, what it lacks, and whether leaks can be looked for in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dumpleak.model.account import Figure, account_of, outside_figures
from dumpleak.model.coverage import is_list_cut
from dumpleak.model.snapshot import (
    Coverage,
    HeapRow,
    Snapshot,
    SourceInfo,
    coverage,
    heap_rows,
    source_info,
)
from dumpleak.model.totals import Totals, sum_of
from dumpleak.model.units import format_bytes
from dumpleak.process.memory_use import MemoryByUse, memory_by_use, private_memory
from dumpleak.process.session import Progress, Session, no_progress
from windumps.diagnostics import MEMORY_CUT, Diagnostic
from windumps.images.modules import Module


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


def process_snapshot(session: Session, progress: Progress = no_progress) -> Snapshot:
    """Walks all heaps to account for their memory: a snapshot without groups."""
    for _ in session.blocks(progress):
        pass  # the walk fills the heaps' accounts
    heaps = heap_rows(session)
    private = private_memory(session)
    used = [Totals(row.used_count or 0, row.used_bytes or 0) for row in heaps]
    return Snapshot(
        source=source_info(session),
        grouping="",
        groups={},
        totals=sum_of(used),
        private=private.groups,
        private_unknown=private.unknown,
        by_regions=private.by_regions,
        heaps=heaps,
        coverage=coverage(session),
        outside=outside_figures(session),
        modules=tuple(session.dump.modules),
        diagnostics=session.diagnostics,
    )


def take_info(session: Session, progress: Progress = no_progress) -> Info:
    """Walks all heaps to account for their memory, and describes the dump."""
    taken = process_snapshot(session, progress)
    dump, covered = session.dump, taken.coverage
    return Info(
        source=taken.source,
        full_memory=dump.full_memory,
        memory_bytes=dump.memory.total_bytes,
        thread_count=len(dump.threads),
        comments=tuple(dump.comments),
        nt_global_flag=next(
            (v.nt_global_flag for v in session.views if v.nt_global_flag is not None), None
        ),
        heaps=tuple(taken.heaps),
        coverage=covered,
        memory=memory_by_use(session),
        modules=tuple(dump.modules),
        unloaded_modules=tuple(dump.unloaded_modules),
        usable=bool(session.readable_heaps) and not covered.shortfall,
        advice=_advice(session, covered),
        diagnostics=tuple(session.diagnostics),
        account=account_of(taken),
        handles=handle_types(session),
    )


def handle_types(session: Session) -> tuple[tuple[str, int], ...] | None:
    """How many handles of each type are open, the most first; None where the dump does not list them."""
    handles = session.dump.handles
    return None if handles is None else tuple(handles.types.counts())


def _advice(session: Session, covered: Coverage) -> str:
    if not session.readable_heaps:
        return f"no: this is {session.why_no_heaps()}"
    return coverage_advice(covered, session.diagnostics)


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
