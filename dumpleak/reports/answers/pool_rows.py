"""What documents about pools share: their columns, what stands in a row, and what is known of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dumpleak.model.owners import Ownership
from dumpleak.model.pool import POOLS, WALK, Counters, TagDelta, TagRow, minus
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.units import format_address, format_bytes, format_count
from dumpleak.reports.document import (
    Column,
    Kind,
    Line,
    Meter,
    Part,
    Row,
    Source,
    Table,
    View,
    Width,
    data_columns,
    left_out,
)
from dumpleak.reports.profiles.stack_tree import Node
from dumpleak.reports.values import Absent, Change, Detail, Name, Style

MAX_RESIDUALS = 5
# PoolMon's words for its column Type.
_TYPES = {"nonpaged": "Nonp", "paged": "Paged", "session": "Sess"}
_QUANTITIES = ("allocs", "frees", "count", "bytes")
COUNTERS = " ".join(f"{pool}_{name}" for pool in POOLS for name in _QUANTITIES)
LEVELS = "Drivers on top, their tags below, by pool."
_BOTH = Column("Tag"), Column("Type")
_DRIVER = Column("Driver", Kind.NAME)
TAG_COLUMNS = (
    *_BOTH,
    *(Column(title, Kind.COUNT) for title in ("Allocs", "Frees", "Diff", "Bytes", "Per Alloc")),
    _DRIVER,
)
GROWTH_COLUMNS = (
    *_BOTH,
    Column("Allocs +/-", Kind.COUNT, signed=True, width=Width.WIDE),
    Column("Frees +/-", Kind.COUNT, signed=True, width=Width.WIDE),
    Column("Diff +/-", Kind.COUNT, signed=True),
    Column("Bytes +/-", Kind.COUNT, signed=True),
    Column("Diff", Kind.COUNT, width=Width.WIDE),
    Column("Bytes", Kind.COUNT),
    Column("Per Alloc", Kind.COUNT, width=Width.WIDE),
    _DRIVER,
)
# One row a tag, over all pools that were asked for.
RANK = Column("rank", Kind.COUNT, "rank", width=Width.WIDE)
CHANGES = (
    Column("bytes +/-", Kind.BYTES, signed=True, hint="current minus base"),
    Column("blocks +/-", Kind.COUNT, signed=True, hint="current minus base"),
)
TOTALS = (
    Column("allocs", Kind.COUNT, width=Width.WIDE),
    Column("frees", Kind.COUNT, width=Width.WIDE),
    Column("blocks", Kind.COUNT),
    Column("bytes", Kind.BYTES),
    Column("confidence", width=Width.WIDE, hint="how sure the driver is"),
    *data_columns("tag driver confidence source evidence", evidence=Kind.CLAUSES),
    *data_columns(COUNTERS),
)
NAMED = Column("tag and driver", Kind.NAME)


class ShownCounters(NamedTuple):
    """One row a tag and pool: what was counted, what is, and whose it is."""

    tag: str
    pool: str
    counted: Counters
    now: Counters
    owner: Ownership
    share: float = 0.0


def more_tags(count: int, noun: str) -> list[Line]:
    """A tag has several rows here, so the table cannot tell how many are left out."""
    return [Line(left_out(count, noun))] if count > 0 else []


def side_parts(
    label: str, prefix: str, pool: str, source: SourceInfo, account: PoolAccount
) -> list[Part]:
    """A dump, and what is known of its pools; no meter where nobody looked for blocks."""
    covered = account.covered()
    meters = [] if covered is None else [Meter(f"{pool}: blocks found", covered, View.PAGE)]
    return [Source(label, source), *_account_lines(prefix, account), *meters]


def _account_lines(label: str, account: PoolAccount) -> Iterator[Line]:
    walked = account.ranking == WALK
    ranking = "a walk over the blocks" if walked else "the kernel's trackers"
    yield Line(
        f"{label}Counted by {ranking}: {account.reason}.",
        Style.WARNING if walked else Style.PLAIN,
    )
    yield Line(f"  Trackers: {account.trackers}")
    if account.unknown_tags:
        yield Line(
            f"  {account.unknown_tags} tags have counters that are only partly in the dump: unknown.",
            Style.WARNING,
        )
    if account.said_of_blocks:
        yield Line(f"  {account.said_of_blocks}.", Style.WARNING)
    if account.walked_bytes is not None:
        covered = account.covered()
        share = f", {covered.share_text} of the pools" if covered is not None else ""
        lost = ""
        if account.absent_bytes or account.damaged_bytes:
            lost = (
                f"; {format_bytes(account.absent_bytes)} of pool are not in the dump, "
                f"{format_bytes(account.damaged_bytes)} damaged"
            )
        yield Line(
            f"  Blocks found: {format_bytes(account.walked_bytes)} in "
            f"{format_count(account.walked_count or 0)}{share}{lost}"
        )
    for residual in account.residuals[:MAX_RESIDUALS]:
        yield Line(
            f"  Residual: {residual.tag} {residual.pool} {format_count(residual.count, signed=True)} blocks, "
            f"{format_bytes(residual.bytes, signed=True)}"
        )
    yield from (Line(f"  {note}") for note in account.notes)
    more = len(account.residuals) - MAX_RESIDUALS
    if more > 0:
        yield Line(f"  … and {more} more residuals; --format json has all of them.")


def not_empty(pools: dict[str, Counters], wanted: Sequence[str]) -> Iterator[tuple[str, Counters]]:
    """The pools of a tag that are asked for and not empty."""
    for pool in wanted:
        if pool in pools and not pools[pool].is_empty:
            yield pool, pools[pool]


def _known(values: Iterable[Any]) -> list[Any]:
    return [Absent.UNKNOWN if value is None else value for value in values]


def pool_cells(_: int, shown: ShownCounters) -> Row:
    """By `TAG_COLUMNS`."""
    numbers = (*_quantities(shown.now), shown.now.per_alloc)
    return shown.tag, _TYPES[shown.pool], *_known(numbers), _driver(shown.owner)


def growth_cells(_: int, shown: ShownCounters) -> Row:
    """By `GROWTH_COLUMNS`."""
    change, now = shown.counted, shown.now
    return (
        *(shown.tag, _TYPES[shown.pool]),
        *_known((change.allocs, change.frees, change.count)),
        Change(change.bytes, shown.share),
        *_known((now.count, now.bytes, now.per_alloc)),
        _driver(shown.owner),
    )


def _quantities(counters: Counters) -> tuple[int | None, ...]:
    return counters.allocs, counters.frees, counters.count, counters.bytes


def _driver(owner: Ownership) -> Name:
    return Name(owner.label or "unknown", more=owner.description)


def tag_cells(row: TagRow, owner: Ownership, pools: tuple[str, ...]) -> Row:
    """By `TOTALS`."""
    best = owner.owners[0] if owner.owners else None
    counters = flat_counters(row.pools)
    return (
        *(row.total(name, pools) for name in _QUANTITIES),
        Absent.UNKNOWN if best is None else best.confidence,
        *(row.tag, owner.driver, best and best.confidence, row.source, best and best.evidence),
        *(counters.get(f"{pool}_{name}") for pool in POOLS for name in _QUANTITIES),
    )


def tag_name(row: TagRow, owner: Ownership, detail: Callable[[], Detail]) -> Name:
    """A tag with its driver, and what its row opens to."""
    name = f"{row.tag}  {owner.label or 'unknown'}"
    if owner.description:
        name += f"  {owner.description}"
    return Name(name, id=f"{row.number:08x}", detail=detail)


def owner_detail(owner: Ownership, more: Sequence[str] = ()) -> Detail:
    """Whose tag it is, and how that is known."""
    clauses = [*more, owner.description, owner.note]
    for candidate in owner.owners:
        evidence = "; ".join(candidate.evidence)
        clauses.append(f"{candidate.driver} ({candidate.confidence}): {evidence}")
    return Detail(evidence=tuple(clause for clause in clauses if clause))


def growth_detail(delta: TagDelta, width: int, alike: Sequence[str] = ()) -> Detail:
    """Whose a tag that changed is, what it grew together with, in which pools, and its new blocks."""
    pools = [
        f"{pool} pool: {format_bytes(change.bytes, signed=True)}, "
        f"{format_count(change.count or 0, signed=True)} blocks"
        for pool, change in delta.deltas.items()
        if change.bytes is not None and not change.is_empty
    ]
    detail, new = owner_detail(delta.owner, [*alike, *pools, *delta.holders]), delta.new
    if new is None:
        return detail
    return replace(
        detail,
        sizes=(("new blocks", sorted(new.sizes)),),  # in the order of the bars
        exact=True,
        samples=tuple(format_address(address, width) for address in new.samples),
        samples_of="new blocks" if new.are_new else "current",
    )


def totals_by_pool(
    rows: Sequence[TagRow], pools: tuple[str, ...], base: Sequence[TagRow] | None
) -> Table[str]:
    """Bytes and blocks of the tags shown, by pool; unknown where one of them is."""
    columns = [Column("pool"), Column("bytes", Kind.BYTES), Column("blocks", Kind.COUNT)]
    if base is not None:
        columns += CHANGES

    def row(_: int, pool: str) -> Row:
        now = [_sum(rows, pool, name) for name in ("bytes", "count")]
        before = [_sum(base or (), pool, name) for name in ("bytes", "count")]
        changes = [minus(after, old) for after, old in zip(now, before, strict=True)]
        return pool, *now, *(changes if base is not None else ())

    shown = [pool for pool in POOLS if pool in pools and any(pool in row.pools for row in rows)]
    return Table("heaps", "Totals by pool, of the tags above", columns, shown, row, View.PAGE)


def _sum(rows: Sequence[TagRow], pool: str, name: str) -> int | None:
    values = [row.total(name, (pool,)) for row in rows if pool in row.pools]
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def driver_tree(rows: Iterable[tuple[Ownership, str, TagRow | None, TagRow]]) -> Node:
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


def flat_counters(pools: dict[str, Counters], prefix: str = "") -> dict[str, int | None]:
    """Flat counters; session pool only where there is any."""
    return {
        f"{prefix}{pool}_{quantity}": getattr(pools.get(pool, Counters(0, 0, 0, 0)), quantity)
        for pool in POOLS
        if pool in pools or pool != "session"
        for quantity in _QUANTITIES
    }
