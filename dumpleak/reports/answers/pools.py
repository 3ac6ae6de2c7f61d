"""The kernel's pools in each format; a row in `POOL_REPORTS` each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import IO, Any, Protocol

from rich.text import Text

from dumpleak.compare.answers import Verdict
from dumpleak.compare.pool_answers import PoolAnswer, PoolGrowth
from dumpleak.model.owners import Ownership
from dumpleak.model.pool import POOLS, WALK, Counters, TagDelta, TagRow
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.pool_blocks import said_of_new
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.units import format_address, format_bytes, format_count
from dumpleak.reports.answers.summary_kernel import summarize_pool, summarize_pool_growth
from dumpleak.reports.csv_report import CsvReport
from dumpleak.reports.json_report import JsonReport, _diagnostics, _source
from dumpleak.reports.page.kernel import PoolHtmlReport
from dumpleak.reports.text.report import DEFAULT_TOP, TextReport
from dumpleak.reports.text.tables import TextColumn, Width, clean, delta_style, print_table

EXPLAINED = 6  # tags of a comparison that are explained below the table
MAX_RESIDUALS = 5
# PoolMon's words for its column Type.
_TYPES = {"nonpaged": "Nonp", "paged": "Paged", "session": "Sess"}
_TAG_COLUMNS = (TextColumn("Tag", left=True), TextColumn("Type", left=True))
_QUANTITIES = ("allocs", "frees", "count", "bytes")


class PoolReport(Protocol):
    """Writes answers about pools in one format; see `Report`."""

    def __init__(self, stream: IO[str]) -> None: ...

    def pool(self, answer: PoolAnswer, top: int | None) -> None:
        """The pools of one dump."""
        ...

    def pool_growth(self, growth: PoolGrowth, top: int | None) -> None:
        """The pools of two dumps."""
        ...


class PoolTextReport(TextReport):
    """See `PoolReport`. Columns as PoolMon has them, one row a tag and pool."""

    def pool(self, answer: PoolAnswer, top: int | None) -> None:
        """The summary, the table, then how sure it is."""
        self._summary(summarize_pool(answer))
        limit = DEFAULT_TOP if top is None else top
        columns = (
            *_TAG_COLUMNS,
            TextColumn("Allocs"),
            TextColumn("Frees"),
            TextColumn("Diff"),
            TextColumn("Bytes"),
            TextColumn("Per Alloc"),
        )
        rows: list[tuple[tuple[str | Text, ...], list[Text]]] = []
        for row in answer.rows[:limit]:
            for pool, counters in _shown(row.pools, answer.selection.pools):
                cells: tuple[str | Text, ...] = (
                    clean(row.tag),
                    _TYPES[pool],
                    *(_number(getattr(counters, name)) for name in _QUANTITIES),
                    _number(counters.per_alloc),
                )
                rows.append((cells, [_owner(row.owner)]))
        print_table(self._console, columns, "Driver", rows)
        self._left_out(len(answer.rows) - limit, "tag")
        self._pool_source("File", answer.source)
        self._account("", answer.account)
        self._diagnostics(answer.diagnostics)

    def pool_growth(self, growth: PoolGrowth, top: int | None) -> None:
        """The summary, the table with changes, what is known of the tags that grew most, and how sure
        it is.
        """
        comparison = growth.comparison
        self._summary(summarize_pool_growth(growth))
        if comparison.verdict is not Verdict.NOT_COMPARABLE:
            if not comparison.same_boot:
                self._line(
                    "Restarted in between, or it cannot be told: allocs and frees begin anew.",
                    "yellow",
                )
            self._growth_table(growth, DEFAULT_TOP if top is None else top)
        self._pool_source("Base", comparison.base)
        self._account("Base: ", growth.base)
        self._pool_source("Current", comparison.current)
        self._account("Current: ", growth.current)
        self._diagnostics(comparison.diagnostics)

    def _growth_table(self, growth: PoolGrowth, limit: int) -> None:
        columns = (
            *_TAG_COLUMNS,
            TextColumn("Allocs +/-", width=Width.WIDE),
            TextColumn("Frees +/-", width=Width.WIDE),
            TextColumn("Diff +/-"),
            TextColumn("Bytes +/-"),
            TextColumn("Diff", width=Width.WIDE),
            TextColumn("Bytes"),
            TextColumn("Per Alloc", width=Width.WIDE),
        )
        changes = [delta.total("bytes") or 0 for delta in growth.deltas]
        total = sum(change for change in changes if change > 0)
        rows: list[tuple[tuple[str | Text, ...], list[Text]]] = []
        for delta in growth.deltas[:limit]:
            for pool, change in _shown(delta.deltas, growth.selection.pools):
                now = delta.current.pools.get(pool) or Counters(0, 0, 0, 0)
                share = (change.bytes or 0) / total if total else 0.0
                cells: tuple[str | Text, ...] = (
                    clean(delta.current.tag),
                    _TYPES[pool],
                    *(_number(getattr(change, name), True) for name in _QUANTITIES[:3]),
                    Text(_number(change.bytes, True), delta_style(change.bytes or 0, share)),
                    _number(now.count),
                    _number(now.bytes),
                    _number(now.per_alloc),
                )
                rows.append((cells, [_owner(delta.owner)]))
        print_table(self._console, columns, "Driver", rows)
        self._left_out(len(growth.deltas) - limit, "changed tag")
        grown = [delta for delta in growth.deltas if (delta.total("bytes") or 0) > 0]
        for delta in grown[: min(EXPLAINED, limit)]:
            self._explain(delta, 4 if growth.comparison.current.architecture == "x86" else 8)

    def _explain(self, delta: TagDelta, pointer_size: int) -> None:
        size, count = delta.total("bytes") or 0, delta.total("count")
        blocks = "" if count is None else f", {format_count(count, True)} blocks"
        name = f"{delta.current.tag}: {format_bytes(size, True)}{blocks}"
        self._line(name, "bold")
        owner = delta.owner
        if owner.description:
            self._line(f"  {owner.description}")
        for candidate in owner.owners[:2]:
            self._line(
                f"  {candidate.driver} ({candidate.confidence}): {'; '.join(candidate.evidence)}"
            )
        if owner.note:
            self._line(f"  {owner.note}", "yellow")
        for clause in said_of_new(delta.new, pointer_size) if delta.new is not None else ():
            self._line(f"  {clause}")
        for holder in delta.holders:
            self._line(f"  {holder}")

    def _pool_source(self, label: str, source: SourceInfo) -> None:
        when = f"{source.time:%Y-%m-%d %H:%M:%S} UTC" if source.time else "unknown time"
        self._line(f"{label}: {source.file}", "bold")
        self._line(f"  {source.kind}, {source.machine or 'unknown system'}, {when}")

    def _account(self, label: str, account: PoolAccount) -> None:
        ranking = "a walk over the blocks" if account.ranking == WALK else "the kernel's trackers"
        self._line(
            f"{label}Counted by {ranking}: {account.reason}.",
            "yellow" if account.ranking == WALK else "",
        )
        self._line(f"  Trackers: {account.trackers}")
        if account.unknown_tags:
            self._line(
                f"  {account.unknown_tags} tags have counters that are only partly in the dump: unknown.",
                "yellow",
            )
        if account.said_of_blocks:
            self._line(f"  {account.said_of_blocks}.", "yellow")
        if account.walked_bytes is not None:
            covered = account.covered()
            share = f", {covered.share_text} of the pools" if covered is not None else ""
            lost = ""
            if account.absent_bytes or account.damaged_bytes:
                lost = (
                    f"; {format_bytes(account.absent_bytes)} of pool are not in the dump, "
                    f"{format_bytes(account.damaged_bytes)} damaged"
                )
            self._line(
                f"  Blocks found: {format_bytes(account.walked_bytes)} in "
                f"{format_count(account.walked_count or 0)}{share}{lost}"
            )
        for residual in account.residuals[:MAX_RESIDUALS]:
            self._line(
                f"  Residual: {residual.tag} {residual.pool} {format_count(residual.count, True)} blocks, "
                f"{format_bytes(residual.bytes, True)}"
            )
        for note in account.notes:
            self._line(f"  {note}")
        more = len(account.residuals) - MAX_RESIDUALS
        if more > 0:
            self._line(f"  … and {more} more residuals; --format json has all of them.")


class PoolJsonReport(JsonReport):
    """See `PoolReport`; schema dumpleak/pool/1, all tags that match are written."""

    def pool(self, answer: PoolAnswer, top: int | None) -> None:
        """Counters of each tag."""
        self._write(
            {
                "schema": "dumpleak/pool/1",
                **_source(answer.source),
                "sort": answer.selection.order.name,
                "account": _account(answer.account),
                "tags": [_tag(row, rank) for rank, row in enumerate(answer.rows, start=1)],
                "diagnostics": _diagnostics(answer.diagnostics),
            }
        )

    def pool_growth(self, growth: PoolGrowth, top: int | None) -> None:
        """Counters of each tag that changed, each with its `delta_` twin."""
        comparison = growth.comparison
        self._write(
            {
                "schema": "dumpleak/pool/1",
                "base": _source(comparison.base),
                "current": _source(comparison.current),
                "same_boot": comparison.same_boot,
                "verdict": comparison.verdict,
                "reasons": list(comparison.reasons),
                "sort": growth.selection.order.name,
                "account": {"base": _account(growth.base), "current": _account(growth.current)},
                "tags": [_delta(delta, rank) for rank, delta in enumerate(growth.deltas, start=1)],
                "diagnostics": _diagnostics(comparison.diagnostics),
            }
        )


class PoolCsvReport(CsvReport):
    """See `PoolReport`: one row a tag."""

    def pool(self, answer: PoolAnswer, top: int | None) -> None:
        """Counters of each tag; empty where unknown."""
        self._rows((_tag(row, rank) for rank, row in enumerate(answer.rows[:top], start=1)), False)

    def pool_growth(self, growth: PoolGrowth, top: int | None) -> None:
        """Counters of each tag that changed, each with its `delta_` twin."""
        rows = (_delta(delta, rank) for rank, delta in enumerate(growth.deltas[:top], start=1))
        self._rows(rows, True)

    def _rows(self, rows: Iterable[dict[str, Any]], with_deltas: bool) -> None:
        names = [f"{pool}_{quantity}" for pool in POOLS for quantity in _QUANTITIES]
        twins = [f"delta_{name}" for name in (*names, "bytes", "count")] if with_deltas else []
        columns = ["rank", "tag", "driver", "confidence", *names, *twins, "source", "evidence"]
        self._table(columns, (_flat(row, columns) for row in rows))


# The first is the default.
POOL_REPORTS: dict[str, type[PoolReport]] = {
    "text": PoolTextReport,
    "json": PoolJsonReport,
    "csv": PoolCsvReport,
    "html": PoolHtmlReport,
}


def _shown(pools: dict[str, Counters], wanted: tuple[str, ...]) -> Iterator[tuple[str, Counters]]:
    """The pools of a tag that are asked for and not empty."""
    for pool in wanted:
        if pool in pools and not pools[pool].is_empty:
            yield pool, pools[pool]


def _number(value: int | None, signed: bool = False) -> str:
    return "unknown" if value is None else format_count(value, signed)


def _owner(owner: Ownership) -> Text:
    text = clean(owner.label or "unknown")
    if owner.description:
        text.append(f" {clean(owner.description).plain}", "dim")
    return text


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


def _flat(row: dict[str, Any], columns: list[str]) -> list[object]:
    best = row["drivers"][0] if row["drivers"] else {"confidence": "", "evidence": []}
    values = row | {
        "driver": row["driver"] or "",
        "confidence": best["confidence"],
        "evidence": "; ".join(best["evidence"]),
    }
    return ["" if values.get(name) is None else values[name] for name in columns]
