"""The pages about kernel dumps: what a dump is, and its pools by tag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import IO, Any

from dumpleak.compare.answers import Verdict
from dumpleak.compare.pool_answers import PoolAnswer, PoolGrowth
from dumpleak.kernel.info import KernelInfo
from dumpleak.model.owners import Ownership
from dumpleak.model.pool import POOLS, TagDelta, TagRow
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.units import format_address, format_bytes, format_count
from dumpleak.reports.answers.summary import Tone
from dumpleak.reports.answers.summary_kernel import (
    summarize_kernel,
    summarize_pool,
    summarize_pool_growth,
)
from dumpleak.reports.page.data import (
    ROW_NAME,
    Column,
    Fact,
    Grid,
    Meter,
    Page,
    meter,
    notes,
    shown,
    source_facts,
    tree_data,
)
from dumpleak.reports.page.grids import module_grid
from dumpleak.reports.page.page import write
from dumpleak.reports.profiles.stack_tree import Node
from windumps.diagnostics import Diagnostic
from windumps.kernel.processes import KernelProcess

_LEVELS = "Drivers on top, their tags below, by pool."
_TAG_COLUMNS = (
    Column("allocs", "count", minor=True),
    Column("frees", "count", minor=True),
    Column("blocks", "count"),
    Column("bytes", "bytes"),
    Column("confidence", "text", "how sure the driver is", minor=True),
    Column("tag and driver", "name"),
)


class KernelHtmlReport:
    """See `KernelReport`."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def kernel_info(self, info: KernelInfo) -> None:
        """Description, counters, drivers, processes."""
        write(kernel_page(info), self._stream)

    def processes(
        self,
        source: SourceInfo,
        processes: Sequence[KernelProcess],
        layout: str,
        diagnostics: Iterable[Diagnostic],
        top: int | None,
    ) -> None:
        """One row a process; all of them."""
        summary = summarize_kernel(source, f"{len(processes)} processes", True, Tone.GOOD)
        page = Page("Processes", summary, [_facts("File", source)], [])
        page.notes, page.notes_left_out = notes(list(diagnostics))
        page.grids.append(_process_grid(processes))
        write(page, self._stream)


class PoolHtmlReport:
    """See `PoolReport`."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def pool(self, answer: PoolAnswer, top: int | None) -> None:
        """All tags that were asked for."""
        write(pool_page(answer), self._stream)

    def pool_growth(self, growth: PoolGrowth, top: int | None) -> None:
        """All tags that changed."""
        write(pool_growth_page(growth), self._stream)


def kernel_page(info: KernelInfo) -> Page:
    """The page of `dumpleak info` for a kernel dump."""
    advice = f"Good enough to look for leaks? {info.advice}"
    summary = summarize_kernel(info.source, advice, info.usable, Tone.GOOD)
    check = info.bug_check
    facts = [
        *_facts("File", info.source),
        Fact("Type", shown(info.dump_type_name)),
        Fact("Memory", f"{format_bytes(info.memory_bytes)} in the file"),
        Fact("Bug check", f"0x{check.code:X} {check.name}" if check else "none, or unknown"),
        Fact("Build lab", shown(info.build_lab) or "unknown"),
        *(Fact("Comment", shown(comment)) for comment in info.comments),
    ]
    page = Page("Kernel dump", summary, [facts], [])
    page.notes, page.notes_left_out = notes(info.diagnostics)
    counters = Grid(
        "counters",
        "Memory counters",
        (Column("counter", "text"), Column("value", "text"), Column("from", "name")),
    )
    for counter in info.counters:
        value = "unknown" if counter.bytes is None else format_count(counter.bytes)
        counters.rows.append([counter.name.replace("_", " "), value, shown(counter.source)])
    page.grids.append(counters)
    page.grids.append(module_grid("Drivers", info.drivers, info.unloaded))
    if info.processes is not None:
        page.grids.append(_process_grid(info.processes))
    return page


def pool_page(answer: PoolAnswer) -> Page:
    """The page of `dumpleak pool` for one dump."""
    page = Page(
        "Kernel pool by tag",
        summarize_pool(answer),
        [_facts("File", answer.source)],
        _meters("Pool", answer.account),
    )
    page.notes, page.notes_left_out = notes(answer.diagnostics)
    grid = Grid("sites", "Tags", (Column("rank", "count", minor=True), *_TAG_COLUMNS), chosen=5)
    for rank, row in enumerate(answer.rows, start=1):
        grid.rows.append([rank, *_tag_values(row, row.owner, answer.selection.pools)])
        grid.ids.append(_tag_id(row))
        grid.details.append(_detail(row.owner, []))
    page.grids.append(grid)
    page.grids.append(_pool_totals(answer.rows, answer.selection.pools, None))
    tree = _tree((row.owner, row.tag, None, row) for row in answer.rows)
    page.tree = tree_data(tree, page.strings, single=True, levels=_LEVELS)
    return page


def pool_growth_page(growth: PoolGrowth) -> Page:
    """The page of `dumpleak pool` for two dumps."""
    comparison = growth.comparison
    page = Page(
        "Kernel pool: growth by tag",
        summarize_pool_growth(growth),
        [_facts("Base", comparison.base), _facts("Current", comparison.current)],
        [*_meters("Base", growth.base), *_meters("Current", growth.current)],
    )
    page.notes, page.notes_left_out = notes(comparison.diagnostics)
    if comparison.verdict is Verdict.NOT_COMPARABLE:
        return page
    pools = growth.selection.pools
    columns = (
        Column("rank", "count", minor=True),
        Column("bytes +/-", "delta-bytes", "current minus base"),
        Column("blocks +/-", "delta-count", "current minus base"),
        *_TAG_COLUMNS,
    )
    grid = Grid(
        "sites",
        "Tags that changed",
        columns,
        chosen=7,
        note="Growth alone is not a leak: look at what still grows in a third dump.",
    )
    width = 4 if comparison.current.architecture == "x86" else 8
    for rank, delta in enumerate(growth.deltas, start=1):
        values = _tag_values(delta.current, delta.owner, pools)
        grid.rows.append([rank, delta.total("bytes", pools), delta.total("count", pools), *values])
        grid.ids.append(_tag_id(delta.current))
        grid.details.append(_growth_detail(delta, width))
    page.grids.append(grid)
    rows, older = [d.current for d in growth.deltas], [d.base for d in growth.deltas]
    page.grids.append(_pool_totals(rows, pools, older))
    tree = _tree((d.owner, d.current.tag, d.base, d.current) for d in growth.deltas)
    page.tree = tree_data(tree, page.strings, levels=_LEVELS)
    return page


def _facts(label: str, source: SourceInfo) -> list[Fact]:
    """Of a system: there is no one process."""
    return [fact for fact in source_facts(label, source) if fact.label != "Process"]


def _meters(label: str, account: PoolAccount) -> list[Meter]:
    """How much of the pools was found as blocks; none where nobody looked for blocks."""
    covered = account.covered()
    return [] if covered is None else [meter(f"{label}: blocks found", covered)]


def _tag_values(row: TagRow, owner: Ownership, pools: tuple[str, ...]) -> list[Any]:
    confidence = owner.owners[0].confidence if owner.owners else "unknown"
    name = f"{row.tag}  {owner.label or 'unknown'}"
    if owner.description:
        name += f"  {owner.description}"
    totals = [row.total(name, pools) for name in ("allocs", "frees", "count", "bytes")]
    return [*totals, confidence, shown(name, ROW_NAME)]


def _tag_id(row: TagRow) -> str:
    return f"{row.number:08x}"


def _detail(owner: Ownership, more: list[str]) -> dict[str, Any]:
    clauses = [*more, owner.description, owner.note]
    for candidate in owner.owners:
        evidence = "; ".join(candidate.evidence)
        clauses.append(f"{candidate.driver} ({candidate.confidence}): {evidence}")
    return {"evidence": [shown(clause) for clause in clauses if clause]}


def _growth_detail(delta: TagDelta, width: int) -> dict[str, Any]:
    pools = [
        f"{pool} pool: {format_bytes(change.bytes, True)}, {format_count(change.count or 0, True)} blocks"
        for pool, change in delta.deltas.items()
        if change.bytes is not None and not change.is_empty
    ]
    detail = _detail(delta.owner, [*pools, *delta.holders])
    if delta.new is not None:
        # Exact sizes, in the order of the bars.
        detail["sizes"] = [["new blocks", sorted([size, count] for size, count in delta.new.sizes)]]
        detail["exact"] = True
        detail["samples"] = [format_address(address, width) for address in delta.new.samples]
        detail["samples_of"] = "new blocks" if delta.new.are_new else "current"
    return detail


def _pool_totals(
    rows: Sequence[TagRow], pools: tuple[str, ...], base: Sequence[TagRow] | None
) -> Grid:
    """Bytes and blocks of the tags shown, by pool; unknown where one of them is."""
    columns = [Column("pool", "text"), Column("bytes", "bytes"), Column("blocks", "count")]
    if base is not None:
        columns += [Column("bytes +/-", "delta-bytes"), Column("blocks +/-", "delta-count")]
    grid = Grid("heaps", "Totals by pool, of the tags above", tuple(columns))
    for pool in POOLS:
        if pool not in pools or not any(pool in row.pools for row in rows):
            continue
        now = [_sum(rows, pool, name) for name in ("bytes", "count")]
        values: list[Any] = [pool, *now]
        if base is not None:
            before = [_sum(base, pool, name) for name in ("bytes", "count")]
            values += [
                None if after is None or old is None else after - old
                for after, old in zip(now, before, strict=True)
            ]
        grid.rows.append(values)
    return grid


def _sum(rows: Sequence[TagRow], pool: str, name: str) -> int | None:
    values = [row.total(name, (pool,)) for row in rows if pool in row.pools]
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _tree(rows: Iterable[tuple[Ownership, str, TagRow | None, TagRow]]) -> Node:
    """Driver, then tag, then pool; what is unknown has no width."""
    root = Node("all tags")
    for owner, tag, base, current in rows:
        for pool in current.pools:
            now, before = (
                (side.total("bytes", (pool,)) or 0, side.total("count", (pool,)) or 0)
                if side is not None and pool in side.pools
                else (0, 0)
                for side in (current, base)
            )
            delta = now[0] - before[0]
            added = Node("", before[0], now[0], max(delta, 0), max(-delta, 0), now[1] - before[1])
            if not added.weight:
                continue
            node = root
            node.add(added)
            for step in (owner.label or "(unknown driver)", tag, f"{pool} pool"):
                node = node.children.setdefault(step, Node(step))
                node.add(added)
    return root


def _process_grid(processes: Sequence[KernelProcess]) -> Grid:
    grid = Grid(
        "processes",
        "Processes",
        (
            Column("pid", "count"),
            Column("parent", "count", minor=True),
            Column("private commit", "bytes"),
            Column("created (UTC)", "text", minor=True),
            Column("name", "name"),
        ),
    )
    for process in processes:
        created = process.create_time
        grid.rows.append(
            [
                process.process_id,
                process.parent_id,
                process.private_commit_bytes,
                f"{created:%Y-%m-%d %H:%M:%S}" if created else "unknown",
                shown(process.name),
            ]
        )
    return grid
