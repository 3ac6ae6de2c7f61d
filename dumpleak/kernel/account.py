"""The account of a system: pools, processes, handles, threads, and what the memory manager counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dumpleak.kernel.info import checked_counters
from dumpleak.kernel.pools import PoolReader
from dumpleak.kernel.processes import SystemProcesses, read_processes, total
from dumpleak.model.account import Figure
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.pool import POOLS, TagRow
from windumps.arrays import PAGE_SIZE
from windumps.dumps.kernel.dump import KernelDump
from windumps.kernel.page_frames import read_page_use
from windumps.memory.table_pages import count_table_pages

NO_TAGS = "counters of some pool tags are not in the dump"
NO_COMMIT = "the dump does not tell what every process has committed"
NO_TABLES = "the roots of the processes' page tables are not in the dump"
NO_THREADS = "the dump does not tell how many threads every process has"
# Rows of the account and the counters of the memory manager that tell them.
_MEMORY = {
    "pool.nonpaged_limit_bytes": "nonpaged_pool_limit",
    "pool.paged_limit_bytes": "paged_pool_limit",
    "memory.physical_bytes": "physical_memory",
    "memory.available_bytes": "available",
    "memory.committed_bytes": "committed",
    "memory.commit_limit_bytes": "commit_limit",
    "memory.driver_bytes": "driver_commit",
    "memory.shared_bytes": "shared_commit",
}
_OF_PROCESSES = (
    "processes.count",
    "processes.ended_count",
    "processes.bytes",
    "handles.count",
    "threads.count",
)
UNEXPLAINED = "memory.unexplained_bytes"
# Of the PFN database: lists first, then what pages in use are used for. Page tables have a row of their own.
OF_PAGES = (
    *("zeroed", "free", "standby", "modified", "bad", "active"),
    *("private", "shared", "awe", "system", "locked"),
)
# What commits memory, and what is left when all of it is taken off.
_COMMITTED = "memory.committed_bytes"
_EXPLAINED = "processes.bytes", "pool.bytes", "memory.driver_bytes", "memory.shared_bytes"


def system_account(
    dump: KernelDump,
    pools: PoolReader | None,
    rows: Sequence[TagRow] | None = None,
    processes: SystemProcesses | None = None,
    *,
    walk: bool = True,
) -> tuple[Figure, ...]:
    """All figures of a system that its dump may tell.

    Args:
        dump: The dump.
        pools: Its pools; None where they cannot be told about.
        rows: Its tags, where they were put together already.
        processes: Its processes, likewise.
        walk: Pool blocks may be looked at for processes that no list has.
    """
    of_processes: list[Figure]
    try:
        of_processes = _of_processes(processes or read_processes(dump, pools, walk=walk))
    except CannotAnswerError as error:
        of_processes = [Figure(name, None, str(error)) for name in _OF_PROCESSES]
    of_pools: list[Figure] = []
    if pools is not None:
        counted = pools.has_trackers and not pools.pools.is_walked and rows is None
        of_pools = _of_trackers(pools) if counted else _of_pools(rows or pools.rows())
    figures = [*of_pools, *of_processes, *_with_pages(_of_memory(dump), _of_pages(dump))]
    return (*figures, *_unexplained({figure.name: figure for figure in figures}))


def _figure(name: str, value: int | None, reason: str) -> Figure:
    return Figure(name, value, "" if value is not None else reason)


def _of_processes(processes: SystemProcesses) -> list[Figure]:
    running, everyone = processes.running, processes.all
    ended = None if processes.why_not_all else len(processes.ended)
    handles = None
    if not processes.why_no_handles:
        handles = sum(len(table.objects) for table in processes.tables)
    values = (
        (len(running), ""),
        (ended, processes.why_not_all),
        (total(everyone, lambda process: process.private_commit_bytes), NO_COMMIT),
        (handles, processes.why_no_handles),
        (total(running, lambda process: process.thread_count), NO_THREADS),
    )
    return [_figure(name, *value) for name, value in zip(_OF_PROCESSES, values, strict=True)]


def _of_pools(rows: Sequence[TagRow]) -> list[Figure]:
    found = {pool: [row.pools[pool] for row in rows if pool in row.pools] for pool in POOLS}
    everything = [counters for mine in found.values() for counters in mine]
    return [
        _figure("pool.count", _sum(counters.count for counters in everything), NO_TAGS),
        _figure("pool.bytes", _sum(counters.bytes for counters in everything), NO_TAGS),
        *(
            _figure(f"pool.{pool}_bytes", _sum(each.bytes for each in found[pool]), NO_TAGS)
            for pool in POOLS[:2]
        ),
    ]


def _of_trackers(pools: PoolReader) -> list[Figure]:
    """The same by the kernel's counters alone, without looking for whose the tags are."""
    sessions = [session.totals for session in pools.pools.sessions]
    totals = pools.pools.trackers
    whole = all(each.complete.all() for each in (totals, *sessions))
    sums = {
        name: sum(int(getattr(each, name).sum()) for each in (totals, *sessions))
        for name in ("nonpaged_count", "paged_count")
    }
    nonpaged, paged = int(totals.nonpaged_bytes.sum()), int(totals.paged_bytes.sum())
    of_sessions = sum(int((t.nonpaged_bytes + t.paged_bytes).sum()) for t in sessions)
    values = {
        "pool.count": sum(sums.values()),
        "pool.bytes": nonpaged + paged + of_sessions,
        "pool.nonpaged_bytes": nonpaged,
        "pool.paged_bytes": paged,
    }
    return [_figure(name, value if whole else None, NO_TAGS) for name, value in values.items()]


def _sum(values: Iterable[int | None]) -> int | None:
    """The sum; None where one is not known."""
    known, unknown = 0, False
    for value in values:
        known, unknown = known + (value or 0), unknown or value is None
    return None if unknown else known


def _of_memory(dump: KernelDump) -> list[Figure]:
    counters = {counter.name: counter for counter in checked_counters(dump)}
    return [
        _figure(row, counters[name].bytes, counters[name].source)
        for row, name in _MEMORY.items()
        if name in counters
    ]


def _of_pages(dump: KernelDump) -> list[Figure]:
    """Page tables, and all frames of the machine by use; the latter only where the dump tells them."""
    name = "memory.page_table_bytes"
    if dump.physical is None or dump.paging is None or not dump.processes:
        return [Figure(name, None, NO_TABLES)]
    mask = dump.paging.root_mask
    roots = list(dict.fromkeys(process.directory_table_base & mask for process in dump.processes))
    pages = count_table_pages(dump.physical, dump.paging, roots)
    reason = f"{pages.absent} pages of page tables are not in the dump"
    tables = _figure(name, pages.bytes, reason)
    if pages.bytes is None:
        return [tables]
    use = read_page_use(dump.kernel, dump.physical, dump.paging, roots[0], pages.frames)
    counts = {**use.lists, **use.uses, "locked": use.locked} if not use.unknown else {}
    return [
        tables,
        *(
            Figure(f"pages.{name}_bytes", counts[name] * PAGE_SIZE)
            for name in OF_PAGES
            if name in counts
        ),
    ]


def _with_pages(memory: Sequence[Figure], pages: Sequence[Figure]) -> list[Figure]:
    """Both; what no counter tells is added up from pages where these are known."""
    known = {figure.name: figure.value or 0 for figure in pages}
    if "pages.active_bytes" not in known:
        return [*memory, *pages]
    lists = [known[f"pages.{name}_bytes"] for name in OF_PAGES[:6]]
    told = {
        "memory.physical_bytes": sum(lists),
        "memory.available_bytes": sum(lists[:3]),  # zeroed, free and standby pages
    }
    found = [
        Figure(figure.name, told[figure.name])
        if figure.value is None and figure.name in told
        else figure
        for figure in memory
    ]
    return [*found, *pages]


def _unexplained(figures: dict[str, Figure]) -> list[Figure]:
    """What is committed and nothing in the dump explains."""
    committed = figures.get(_COMMITTED)
    if committed is None:
        return []
    parts = [figures[name] for name in _EXPLAINED if name in figures]
    unknown = [figure for figure in (committed, *parts) if figure.value is None]
    missing = [name for name in _EXPLAINED if name not in figures]
    if unknown or missing or committed.value is None:
        names = ", ".join([*(figure.name for figure in unknown), *missing])
        return [Figure(UNEXPLAINED, None, f"it takes figures that are not known: {names}")]
    explained = sum(figure.value or 0 for figure in parts)
    return [Figure(UNEXPLAINED, committed.value - explained)]
