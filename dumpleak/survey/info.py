"""What a dump file is, what it holds, what it lacks, and whether leaks can be looked for in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from dumpleak.model.account_rows import account_of
from dumpleak.model.coverage import MIN_WALKED_SHARE, Coverage
from dumpleak.model.errors import Progress, no_progress
from dumpleak.model.info import Info, advice_of_others, coverage_advice
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals, sum_of
from dumpleak.process.memory_use import memory_by_use
from dumpleak.process.session import Session
from dumpleak.survey.heaps import snapshot_of
from windumps.blocks import Blocks
from windumps.heaps.debug_crt import read_source_name


def source_names(blocks: Blocks) -> Counter[int]:
    """How many used blocks a debug C runtime keeps a source file for, by the address of its name."""
    files = blocks.used.source_file
    addresses, counts = np.unique(files[files != 0], return_counts=True)
    return Counter(dict(zip(addresses.tolist(), counts.tolist(), strict=True)))


def process_snapshot(
    session: Session, progress: Progress = no_progress, sources: Counter[int] | None = None
) -> Snapshot:
    """Walks all heaps to account for their memory: a snapshot without groups.

    Args:
        session: The open dump.
        progress: Told of each heap.
        sources: Where to add what `source_names` tells of the blocks.
    """
    for _, blocks in session.blocks(progress):  # the walk fills the heaps' accounts
        if sources is not None:
            sources += source_names(blocks)
    taken = snapshot_of(session, "", {}, Totals())
    used = [Totals(row.used_count or 0, row.used_bytes or 0) for row in taken.heaps]
    return replace(taken, totals=sum_of(used))


def take_info(session: Session, progress: Progress = no_progress) -> Info:
    """Walks all heaps to account for their memory, and describes the dump."""
    sources: Counter[int] = Counter()
    taken = process_snapshot(session, progress, sources)
    dump, covered, managed = session.dump, taken.coverage, session.managed.memory
    arenas = _are_arenas_enough(session)
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
        usable=(bool(session.readable_heaps) and not covered.shortfall)
        or (managed is not None and managed.is_enough)
        or arenas,
        advice=advice_of_others(_advice(session, covered), managed, arenas=arenas),
        diagnostics=(*session.diagnostics, *session.managed.diagnostics),
        account=account_of(taken),
        handles=handle_types(session),
        sourced_blocks=sum(
            count for name, count in sources.items() if read_source_name(dump.memory, name)
        ),
        managed=managed,
        why_no_managed=session.managed.why if session.managed.applies else "",
    )


def handle_types(session: Session) -> tuple[tuple[str, int], ...] | None:
    """How many handles of each type are open, the most first; None where the dump does not list them."""
    handles = session.dump.handles
    return None if handles is None else tuple(handles.types.counts())


def _are_arenas_enough(session: Session) -> bool:
    """Blocks of other allocators are read, most of them; they were walked before."""
    accounts = [s.entry.heap.account for s in session.arenas if s.entry.heap is not None]
    committed = sum(account.committed_bytes for account in accounts)
    walked = sum(account.walked_bytes for account in accounts)
    return walked > 0 and walked >= MIN_WALKED_SHARE * committed


def _advice(session: Session, covered: Coverage) -> str:
    if not session.readable_heaps:
        return f"no: this is {session.why_no_heaps()}"
    return coverage_advice(covered, session.diagnostics)
