"""From an opened process to a snapshot: its heaps walked, their blocks added up."""

from __future__ import annotations

from collections.abc import Sequence

from dumpleak.attribution.grouping import GROUPINGS, Grouping
from dumpleak.model.errors import Progress, no_progress
from dumpleak.model.group_sums import DetailSums, GroupSums
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.model.totals import Groups, Totals, by_key
from dumpleak.pointers.arena_nodes import add_arenas
from dumpleak.pointers.holders import HolderFinder
from dumpleak.pointers.references import BlockIndexBuilder
from dumpleak.pointers.roots import find_roots, lost_share, require_roots, share_told
from dumpleak.process.account import outside_figures
from dumpleak.process.coverage import coverage
from dumpleak.process.limits import memory_limits
from dumpleak.process.memory_use import memory_by_use
from dumpleak.process.private_memory import private_memory
from dumpleak.process.session import HeapSource, Session
from dumpleak.process.unread_heaps import unread_spans
from dumpleak.process.used_pieces import used_pieces
from dumpleak.subjects import subject_of
from dumpleak.survey.block_table import BlockTableBuilder
from windumps.diagnostics import MEMORY_CUT, Diagnostic, Severity
from windumps.process.environment import computer_name


def take_snapshot(
    session: Session,
    by: str = "site",
    progress: Progress = no_progress,
    *,
    details: bool = False,
    keep_blocks: bool = False,
    holders: bool = False,
    retained: bool = False,
    contents: bool = False,
) -> Snapshot:
    """Walks all heaps of a dump and adds their used blocks up.

    Args:
        session: The open dump.
        by: A key of `GROUPINGS`.
        progress: Told of each heap.
        details: Also collect what only some reports show, `Snapshot.details` and `Snapshot.memory`.
        keep_blocks: Keep what tells whether single blocks are still there in another dump.
        holders: Keep what `Snapshot.holders` needs.
        retained: Let `Snapshot.holders` also tell what groups retain.
        contents: Let it also give texts that blocks hold.

    Raises:
        CannotAnswerError: no heap can be read, or what groups retain cannot be told.
    """
    session.require_heaps()
    grouping: Grouping = GROUPINGS[by](session)
    sums, more = GroupSums(), DetailSums()
    kept = BlockTableBuilder(session) if keep_blocks else None
    index = BlockIndexBuilder() if holders else None
    for source, used in used_pieces(session, progress):
        groups = grouping.assign(source, used)
        sums.add(groups, used.counted_bytes, used.block_bytes)
        if details:
            more.add(groups, used, source.view.pointer_size)
        if kept is not None:
            kept.add(source, used, groups)
        if index is not None:
            index.add(used, groups, source.view.pointer_size)
    snapshot = walked_snapshot(session, by, grouping, sums)
    sites = grouping.table.sites
    if kept is not None:
        table = kept.build(tuple(site.key for site in sites))
        snapshot.blocks = lambda: table
    if retained:
        snapshot.diagnostics += retained_notes(session)
    if index is not None:
        every = add_arenas(session, index, sites)
        snapshot.holders = HolderFinder(
            *(session, index.build(), every),
            retained=retained,
            contents=contents,
            own=len(sites),
        )
    if details:
        found = more.details(len(sites))
        snapshot.details = dict(zip((site.key for site in sites), found, strict=True))
        snapshot.memory = memory_by_use(session)
    return snapshot


def retained_notes(session: Session) -> list[Diagnostic]:
    """What is missing of the roots, where blocks seem to keep what something else holds, too.

    Raises:
        CannotAnswerError: too much.
    """
    amounts = find_roots(session).amounts(session.dump.memory)
    require_roots(session, amounts)
    lost = lost_share(session, amounts)
    if not lost and lost is not None:
        return []
    share = share_told(lost) if lost is not None else "an unknown share"
    message = (
        f"{share} of the memory that may hold pointers is not in the dump; what something there holds, too, "
        "is counted as kept alive by the blocks that are in it"
    )
    return [Diagnostic("roots-absent", Severity.WARNING, "roots", None, message)]


def walked_snapshot(session: Session, by: str, grouping: Grouping, sums: GroupSums) -> Snapshot:
    """The snapshot of a session whose blocks were walked and added up.

    Args:
        session: The dump.
        by: Name of the grouping.
        grouping: It, with all its groups.
        sums: Over all used blocks.
    """
    sites = grouping.table.sites
    groups = by_key((site, sums.totals(index)) for index, site in enumerate(sites))
    return snapshot_of(session, by, groups, sums.overall())


def snapshot_of(session: Session, by: str, groups: Groups, totals: Totals) -> Snapshot:
    """The snapshot of a session whose heaps were walked.

    Args:
        session: The dump.
        by: Name of the grouping.
        groups: What it gave.
        totals: Over all used blocks.
    """
    private = private_memory(session)
    return Snapshot(
        source=source_info(session),
        grouping=by,
        groups=groups,
        totals=totals,
        private=private.groups,
        private_unknown=private.unknown,
        by_regions=private.by_regions,
        in_file=private.in_file,
        heaps=heap_rows(session),
        coverage=coverage(session),
        diagnostics=session.diagnostics,
        limits=memory_limits(session),
        modules=tuple(session.dump.modules),
        outside=outside_figures(session),
    )


def source_info(session: Session) -> SourceInfo:
    """Where a session's answers come from."""
    dump, program = session.dump, session.program
    created, user, kernel = dump.process_times or (None, None, None)
    flags = (view.nt_global_flag for view in session.views)
    names = (computer_name(view.memory, view.architecture, view.peb) for view in session.views)
    return SourceInfo(
        file=str(dump.path),
        kind=dump.kind,
        machine=session.describe_system(),
        architecture=dump.architecture,
        build=dump.build,
        time=dump.time,
        process_id=dump.process_id,
        program=program.name if program else "",
        process_created=created,
        program_base=program.base_address if program else None,
        subject=subject_of(dump),
        cut_bytes=sum(d.bytes_affected for d in dump.diagnostics if d.code == MEMORY_CUT),
        nt_global_flag=next((flag for flag in flags if flag is not None), None),
        processor_seconds=None if user is None or kernel is None else user + kernel,
        computer=next(filter(None, names), ""),
    )


def heap_rows(session: Session) -> list[HeapRow]:
    """All heaps; complete once their blocks were walked."""
    unread = unread_spans(session)
    return [heap_row(source, unread.get(source.entry.address, ())) for source in session.heaps]


def heap_row(source: HeapSource, unread: Sequence[tuple[int, int]] = ()) -> HeapRow:
    """A heap's row; complete once its blocks were walked.

    Args:
        source: The heap.
        unread: (start, bytes) of its committed memory, where it was not read.
    """
    entry = source.entry
    heap = entry.heap
    if heap is None:
        return HeapRow(
            source.label,
            entry.address,
            entry.kind,
            entry.architecture,
            entry.reason or "not read",
            committed_bytes=sum(size for _, size in unread) or None,
        )
    account = heap.account
    return HeapRow(
        label=source.label,
        address=entry.address,
        kind=entry.kind,
        architecture=entry.architecture,
        reason="",
        flags=heap.flags,
        front_end=heap.front_end,
        reserved_bytes=account.reserved_bytes,
        committed_bytes=account.committed_bytes,
        used_bytes=account.used_bytes,
        used_count=account.used_count,
        free_bytes=account.free_block_bytes,
        free_count=account.free_count,
        overhead_bytes=account.overhead_bytes + account.used_block_bytes - account.used_bytes,
        unwalked_bytes=account.unwalked_bytes,
        residual_bytes=account.residual_bytes,
        layout=heap.layout,
    )
