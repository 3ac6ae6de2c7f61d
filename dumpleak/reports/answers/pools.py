"""The kernel's pools, of one dump and of two. Columns as PoolMon has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from dumpleak.compare.answers import Verdict
from dumpleak.compare.pool_answers import PoolAnswer, PoolGrowth
from dumpleak.model.owners import Ownership
from dumpleak.model.pool import POOLS, WALK, Counters, TagDelta, TagRow, minus
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.pool_blocks import said_of_new
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.units import format_address, format_bytes, format_count
from dumpleak.reports.answers.summary_kernel import summarize_pool, summarize_pool_growth
from dumpleak.reports.document import (
    DEFAULT_TOP,
    Absent,
    Change,
    Column,
    Detail,
    Document,
    Kind,
    Line,
    Meter,
    Name,
    Notes,
    Part,
    Row,
    Source,
    Style,
    Table,
    Tree,
    View,
    Width,
    data_columns,
    left_out,
)
from dumpleak.reports.json_report import diagnostics_json, source_json
from dumpleak.reports.profiles.stack_tree import Node

EXPLAINED = 6  # tags of a comparison that are explained below the table
MAX_RESIDUALS = 5
# PoolMon's words for its column Type.
_TYPES = {"nonpaged": "Nonp", "paged": "Paged", "session": "Sess"}
_QUANTITIES = ("allocs", "frees", "count", "bytes")
_LEVELS = "Drivers on top, their tags below, by pool."

_BOTH = Column("Tag"), Column("Type")
_DRIVER = Column("Driver", Kind.NAME)
_TAG_COLUMNS = (
    *_BOTH,
    *(Column(title, Kind.COUNT) for title in ("Allocs", "Frees", "Diff", "Bytes", "Per Alloc")),
    _DRIVER,
)
_GROWTH_COLUMNS = (
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
_RANK = Column("rank", Kind.COUNT, "rank", width=Width.WIDE)
_CHANGES = (
    Column("bytes +/-", Kind.BYTES, signed=True, hint="current minus base"),
    Column("blocks +/-", Kind.COUNT, signed=True, hint="current minus base"),
)
_TOTALS = (
    Column("allocs", Kind.COUNT, width=Width.WIDE),
    Column("frees", Kind.COUNT, width=Width.WIDE),
    Column("blocks", Kind.COUNT),
    Column("bytes", Kind.BYTES),
    Column("confidence", width=Width.WIDE, hint="how sure the driver is"),
    *data_columns(tag=Kind.TEXT, driver=Kind.TEXT, confidence=Kind.TEXT),
    *data_columns(source=Kind.TEXT, evidence=Kind.CLAUSES),
    *data_columns(**{f"{pool}_{name}": Kind.COUNT for pool in POOLS for name in _QUANTITIES}),
)
_TWINS = [
    *(f"delta_{pool}_{name}" for pool in POOLS for name in _QUANTITIES),
    *("delta_bytes", "delta_count"),
]
_NAMED = Column("tag and driver", Kind.NAME)


class _Shown(NamedTuple):
    """One row a tag and pool: what was counted, what is, and whose it is."""

    tag: str
    pool: str
    counted: Counters
    now: Counters
    owner: Ownership
    share: float = 0.0


def pool_document(answer: PoolAnswer, top: int | None) -> Document:
    """The pools of one dump: the summary, the table, then how sure it is."""
    pools, limit = answer.selection.pools, DEFAULT_TOP if top is None else top
    shown = [
        _Shown(row.tag, pool, counters, counters, row.owner)
        for row in answer.rows[:limit]
        for pool, counters in _not_empty(row.pools, pools)
    ]
    tags = Table(
        "sites",
        "Tags",
        (_RANK, *_TOTALS, _NAMED),
        answer.rows,
        lambda rank, row: (
            rank,
            *_tag_cells(row, row.owner, pools),
            _tag_name(row, row.owner, lambda: _detail(row.owner)),
        ),
        View.PAGE | View.DATA,
        _data(()),
        top=top,
        choose="confidence",
    )
    return Document(
        "Kernel pool by tag",
        summarize_pool(answer),
        (
            Table("pools", "", _TAG_COLUMNS, shown, _pool_cells, View.TEXT),
            *_more(len(answer.rows) - limit, "tag"),
            *_side("File", "", "Pool", answer.source, answer.account),
            Notes(answer.diagnostics),
            tags,
            _totals_by_pool(answer.rows, pools, None),
            Tree(
                lambda: _tree((row.owner, row.tag, None, row) for row in answer.rows),
                single=True,
                levels=_LEVELS,
            ),
        ),
    )


def pool_growth_document(growth: PoolGrowth, top: int | None) -> Document:
    """The pools of two dumps: the summary, what changed, what is known of the tags that grew most, and
    how sure it is.
    """
    comparison, pools = growth.comparison, growth.selection.pools
    parts: list[Part] = []
    refused = comparison.verdict is Verdict.NOT_COMPARABLE
    if not refused:
        if not comparison.same_boot:
            said = "Restarted in between, or it cannot be told: allocs and frees begin anew."
            parts.append(Line(said, Style.WARNING))
        parts += _growth_lines(growth, DEFAULT_TOP if top is None else top)
    parts += [
        *_side("Base", "Base: ", "Base", comparison.base, growth.base),
        *_side("Current", "Current: ", "Current", comparison.current, growth.current),
        Notes(comparison.diagnostics),
        _delta_table(growth, top, View.DATA if refused else View.PAGE | View.DATA),
    ]
    if not refused:
        rows, older = [d.current for d in growth.deltas], [d.base for d in growth.deltas]
        parts += [
            _totals_by_pool(rows, pools, older),
            Tree(
                lambda: _tree((d.owner, d.current.tag, d.base, d.current) for d in growth.deltas),
                levels=_LEVELS,
            ),
        ]
    return Document("Kernel pool: growth by tag", summarize_pool_growth(growth), parts)


def _delta_table(growth: PoolGrowth, top: int | None, views: View) -> Table[TagDelta]:
    pools = growth.selection.pools
    width = 4 if growth.comparison.current.architecture == "x86" else 8

    def row(rank: int, delta: TagDelta) -> Row:
        twins = _counters(delta.deltas, "delta_")
        twins |= {"delta_bytes": delta.total("bytes"), "delta_count": delta.total("count")}
        return (
            *(rank, delta.total("bytes", pools), delta.total("count", pools)),
            *_tag_cells(delta.current, delta.owner, pools),
            *(twins.get(name) for name in _TWINS),
            _tag_name(delta.current, delta.owner, lambda: _growth_detail(delta, width)),
        )

    twins = data_columns(**dict.fromkeys(_TWINS, Kind.COUNT))
    return Table(
        "sites",
        "Tags that changed",
        (_RANK, *_CHANGES, *_TOTALS, *twins, _NAMED),
        growth.deltas,
        row,
        views,
        _data(_TWINS),
        top=top,
        note="Growth alone is not a leak: look at what still grows in a third dump.",
        choose="confidence",
    )


def _growth_lines(growth: PoolGrowth, limit: int) -> list[Part]:
    """The table of a terminal, and what is known of the tags that grew most."""
    changes = [delta.total("bytes") or 0 for delta in growth.deltas]
    total = sum(change for change in changes if change > 0)
    shown = [
        _Shown(
            delta.current.tag,
            pool,
            change,
            delta.current.pools.get(pool) or Counters(0, 0, 0, 0),
            delta.owner,
            (change.bytes or 0) / total if total else 0.0,
        )
        for delta in growth.deltas[:limit]
        for pool, change in _not_empty(delta.deltas, growth.selection.pools)
    ]
    width = 4 if growth.comparison.current.architecture == "x86" else 8
    grown = [delta for delta in growth.deltas if (delta.total("bytes") or 0) > 0]
    return [
        Table("pools", "", _GROWTH_COLUMNS, shown, _growth_cells, View.TEXT),
        *_more(len(growth.deltas) - limit, "changed tag"),
        *(line for delta in grown[: min(EXPLAINED, limit)] for line in _explained(delta, width)),
    ]


def _explained(delta: TagDelta, pointer_size: int) -> Iterator[Line]:
    size, count, owner = delta.total("bytes") or 0, delta.total("count"), delta.owner
    blocks = "" if count is None else f", {format_count(count, True)} blocks"
    yield Line(f"{delta.current.tag}: {format_bytes(size, True)}{blocks}", Style.HEADING)
    if owner.description:
        yield Line(f"  {owner.description}")
    for candidate in owner.owners[:2]:
        yield Line(
            f"  {candidate.driver} ({candidate.confidence}): {'; '.join(candidate.evidence)}"
        )
    if owner.note:
        yield Line(f"  {owner.note}", Style.WARNING)
    clauses = said_of_new(delta.new, pointer_size) if delta.new is not None else ()
    for clause in (*clauses, *delta.holders):
        yield Line(f"  {clause}")


def _more(count: int, noun: str) -> list[Line]:
    """A tag has several rows here, so the table cannot tell how many are left out."""
    return [Line(left_out(count, noun))] if count > 0 else []


def _side(
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
            f"  Residual: {residual.tag} {residual.pool} {format_count(residual.count, True)} blocks, "
            f"{format_bytes(residual.bytes, True)}"
        )
    yield from (Line(f"  {note}") for note in account.notes)
    more = len(account.residuals) - MAX_RESIDUALS
    if more > 0:
        yield Line(f"  … and {more} more residuals; --format json has all of them.")


# -- cells -----------------------------------------------------------------------------------------------


def _not_empty(pools: dict[str, Counters], wanted: Sequence[str]) -> Iterator[tuple[str, Counters]]:
    """The pools of a tag that are asked for and not empty."""
    for pool in wanted:
        if pool in pools and not pools[pool].is_empty:
            yield pool, pools[pool]


def _known(values: Iterable[Any]) -> list[Any]:
    return [Absent.UNKNOWN if value is None else value for value in values]


def _pool_cells(_: int, shown: _Shown) -> Row:
    numbers = (*_quantities(shown.now), shown.now.per_alloc)
    return shown.tag, _TYPES[shown.pool], *_known(numbers), _driver(shown.owner)


def _growth_cells(_: int, shown: _Shown) -> Row:
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


def _tag_cells(row: TagRow, owner: Ownership, pools: tuple[str, ...]) -> Row:
    """By `_TOTALS`."""
    best = owner.owners[0] if owner.owners else None
    counters = _counters(row.pools)
    return (
        *(row.total(name, pools) for name in _QUANTITIES),
        Absent.UNKNOWN if best is None else best.confidence,
        *(row.tag, owner.driver, best and best.confidence, row.source, best and best.evidence),
        *(counters.get(f"{pool}_{name}") for pool in POOLS for name in _QUANTITIES),
    )


def _tag_name(row: TagRow, owner: Ownership, detail: Callable[[], Detail]) -> Name:
    name = f"{row.tag}  {owner.label or 'unknown'}"
    if owner.description:
        name += f"  {owner.description}"
    return Name(name, id=f"{row.number:08x}", detail=detail)


def _data(twins: Sequence[str]) -> tuple[str, ...]:
    names = (f"{pool}_{quantity}" for pool in POOLS for quantity in _QUANTITIES)
    return ("rank", "tag", "driver", "confidence", *names, *twins, "source", "evidence")


def _detail(owner: Ownership, more: Sequence[str] = ()) -> Detail:
    clauses = [*more, owner.description, owner.note]
    for candidate in owner.owners:
        evidence = "; ".join(candidate.evidence)
        clauses.append(f"{candidate.driver} ({candidate.confidence}): {evidence}")
    return Detail(evidence=tuple(clause for clause in clauses if clause))


def _growth_detail(delta: TagDelta, width: int) -> Detail:
    pools = [
        f"{pool} pool: {format_bytes(change.bytes, True)}, {format_count(change.count or 0, True)} blocks"
        for pool, change in delta.deltas.items()
        if change.bytes is not None and not change.is_empty
    ]
    detail, new = _detail(delta.owner, [*pools, *delta.holders]), delta.new
    if new is None:
        return detail
    return replace(
        detail,
        sizes=(("new blocks", sorted(new.sizes)),),  # in the order of the bars
        exact=True,
        samples=tuple(format_address(address, width) for address in new.samples),
        samples_of="new blocks" if new.are_new else "current",
    )


def _totals_by_pool(
    rows: Sequence[TagRow], pools: tuple[str, ...], base: Sequence[TagRow] | None
) -> Table[str]:
    """Bytes and blocks of the tags shown, by pool; unknown where one of them is."""
    columns = [Column("pool"), Column("bytes", Kind.BYTES), Column("blocks", Kind.COUNT)]
    if base is not None:
        columns += _CHANGES

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


# -- JSON ------------------------------------------------------------------------------------------------


def pool_json(answer: PoolAnswer) -> dict[str, Any]:
    """Schema dumpleak/pool/1: counters of each tag; all that match are written."""
    return {
        "schema": "dumpleak/pool/1",
        **source_json(answer.source),
        "sort": answer.selection.order.name,
        "account": _account(answer.account),
        "tags": [_tag(row, rank) for rank, row in enumerate(answer.rows, start=1)],
        "diagnostics": diagnostics_json(answer.diagnostics),
    }


def pool_growth_json(growth: PoolGrowth) -> dict[str, Any]:
    """The same of two dumps: counters of each tag that changed, each with its `delta_` twin."""
    comparison = growth.comparison
    return {
        "schema": "dumpleak/pool/1",
        "base": source_json(comparison.base),
        "current": source_json(comparison.current),
        "same_boot": comparison.same_boot,
        "verdict": comparison.verdict,
        "reasons": list(comparison.reasons),
        "sort": growth.selection.order.name,
        "account": {"base": _account(growth.base), "current": _account(growth.current)},
        "tags": [_delta(delta, rank) for rank, delta in enumerate(growth.deltas, start=1)],
        "diagnostics": diagnostics_json(comparison.diagnostics),
    }


def _owners(owner: Ownership) -> dict[str, Any]:
    return {
        "driver": owner.driver,
        "drivers": [
            {
                "name": candidate.driver,
                "confidence": candidate.confidence,
                "score": candidate.score,
                "evidence": list(candidate.evidence),
            }
            for candidate in owner.owners
        ],
        "description": owner.description or None,
        "note": owner.note or None,
    }


def _counters(pools: dict[str, Counters], prefix: str = "") -> dict[str, int | None]:
    """Flat counters; session pool only where there is any."""
    return {
        f"{prefix}{pool}_{quantity}": getattr(pools.get(pool, Counters(0, 0, 0, 0)), quantity)
        for pool in POOLS
        if pool in pools or pool != "session"
        for quantity in _QUANTITIES
    }


def _tag(row: TagRow, rank: int) -> dict[str, Any]:
    return {
        "rank": rank,
        "tag": row.tag,
        **_owners(row.owner),
        **_counters(row.pools),
        "source": row.source,
    }


def _delta(delta: TagDelta, rank: int) -> dict[str, Any]:
    new = delta.new
    return {
        "rank": rank,
        "tag": delta.current.tag,
        **_owners(delta.owner),
        "delta_bytes": delta.total("bytes"),
        "delta_count": delta.total("count"),
        **_counters(delta.current.pools),
        **_counters(delta.deltas, "delta_"),
        "source": delta.current.source,
        "new_blocks": None
        if new is None
        else {
            "sizes": [{"block_bytes": size, "count": more} for size, more in new.sizes],
            "other_sizes": new.other_sizes,
            "samples": [format_address(address) for address in new.samples],
            "samples_are_new": new.are_new,
        },
        "holders": list(delta.holders),
    }


def _account(account: PoolAccount) -> dict[str, Any]:
    covered = account.covered()
    return asdict(account) | {"coverage": None if covered is None else asdict(covered)}
