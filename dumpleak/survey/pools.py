"""The pools of a kernel dump as a snapshot: what all comparing commands take.

Groups by tag and by driver count what the kernel's trackers count, which needs no walk and misses no block;
groups by size, kind and pool count the blocks that were found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dumpleak.compare.handle_holders import holder_clauses
from dumpleak.kernel.audit import account_for
from dumpleak.kernel.info import kernel_source
from dumpleak.kernel.pools import PoolReader
from dumpleak.model.boots import is_same_boot
from dumpleak.model.coverage import PoolsCovered
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.group_sums import DetailSums
from dumpleak.model.memory import Limit
from dumpleak.model.owners import Ownership
from dumpleak.model.pool import POOLS, WALK, Counters, TagRow, owner_of_both, sited
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.pool_blocks import new_blocks, said_of_new
from dumpleak.model.pool_sites import Groups, Refuted, driver_of, site_key, tag_site
from dumpleak.model.populations import POOL
from dumpleak.model.refuted_counters import _COUNTED, keep_refuted
from dumpleak.model.sites import Site, SiteKind, heap_name
from dumpleak.model.snapshot import HeapRow, Snapshot
from dumpleak.model.totals import Totals
from windumps.blocks import Kind
from windumps.diagnostics import Diagnostic, Severity
from windumps.pools.trackers.audit import Source

_POSSIBLE = 1 << 56  # blocks or bytes: counters beyond are of a damaged dump


@dataclass(frozen=True)
class PoolView:
    """What a pool snapshot keeps to explain growth by.

    Attributes:
        reader: The dump.
        tags: Tag, and pool of `POOLS` or None for all, of each site, by key.
        owners: Whose each tag is, by its number.
    """

    reader: PoolReader
    tags: dict[str, tuple[int, int | None]]
    owners: dict[int, Ownership]


def take_pool_snapshot(reader: PoolReader, by: str = "site", details: bool = False) -> Snapshot:
    """Adds the pools of a kernel dump up.

    Args:
        reader: The dump.
        by: One of `POOL_GROUPINGS`.
        details: Also collect what only some reports show, `Snapshot.details`.

    Raises:
        CannotAnswerError: pool blocks do not have what `by` asks for, or what the dump holds is no answer.
    """
    grouping = POOL_GROUPINGS.get(by)
    if grouping is None:
        raise CannotAnswerError(
            f"{reader.dump.path}: blocks of the kernel's pools have no {by}; they can be grouped by "
            + ", ".join(POOL_GROUPINGS)
        )
    account = account_for(reader, walk=True)
    if account.shortfall:
        raise CannotAnswerError(f"{reader.dump.path}: {account.shortfall}")
    rows = reader.rows()
    groups = grouping(reader, rows)
    heaps = _heaps(reader, rows)
    snapshot = Snapshot(
        source=kernel_source(reader.dump),
        grouping=by,
        groups=groups,
        totals=sum((totals for _, totals in groups.values()), Totals()),
        private={},
        heaps=heaps,
        coverage=account.covered(by in BY_TRACKERS) or PoolsCovered(0, 0, 0, len(heaps), 0),
        diagnostics=[*reader.diagnostics, *_said(account)],
        limits=_limits(reader),
        modules=tuple(reader.dump.modules),
        pool=PoolView(reader, _tags_of(rows), {row.number: row.owner for row in rows}),
        boot=reader.boot,
        population=POOL,
    )
    keep_refuted(snapshot, rows, refuted_counters(reader))
    snapshot.explain = lambda base, site: _explain(base, snapshot, site)
    if details and by in ("site", "tag"):
        _add_details(snapshot, reader, _tags_of(rows))
    return snapshot


def refuted_counters(reader: PoolReader) -> list[Refuted]:
    """What the trackers say where the blocks refute them: (tag, number in `POOLS`, blocks, bytes)."""
    if not reader.has_trackers:
        return []
    audit = reader.pools.audit
    rows = audit.is_counted & (audit.source != Source.COUNTED)
    columns = (audit.tag, audit.paged, audit.counted_count, audit.counted_bytes)
    found = zip(*(column[rows].tolist() for column in columns), strict=True)
    return [
        (tag, int(paged), count, held)
        for tag, paged, count, held in found
        if 0 <= count <= _POSSIBLE and 0 <= held <= _POSSIBLE
    ]


def _tags_of(rows: list[TagRow]) -> dict[str, tuple[int, int | None]]:
    pools = (None, *range(len(POOLS)))
    return {site_key(row.number, pool): (row.number, pool) for row in rows for pool in pools}


def _by_site(reader: PoolReader, rows: list[TagRow]) -> Groups:
    groups = {}
    for row, number in sited(rows):
        site = tag_site(row, number)
        groups[site.key] = site, _totals(reader, row, row.pools[POOLS[number]], number)
    return groups


def _by_tag(reader: PoolReader, rows: list[TagRow]) -> Groups:
    return _merged(reader, rows, tag_site)


def _by_driver(reader: PoolReader, rows: list[TagRow]) -> Groups:
    return _merged(reader, rows, lambda row: driver_of(row.owner.driver))


def _merged(reader: PoolReader, rows: list[TagRow], make: Callable[[TagRow], Site]) -> Groups:
    groups: Groups = {}
    for row in rows:
        for number, pool in enumerate(POOLS):
            counters = row.pools.get(pool)
            if counters is not None and counters.count:
                site = make(row)
                held = groups.get(site.key, (site, Totals()))[1]
                groups[site.key] = site, held + _totals(reader, row, counters, number)
    return groups


def _totals(reader: PoolReader, row: TagRow, counters: Counters, pool: int) -> Totals:
    held = counters.bytes or 0
    _, sizes = reader.blocks.of(row.number, pool)
    return Totals(counters.count or 0, held, held, int(sizes.max()) if len(sizes) else 0)


def _by_column(label: str, column: str, name: Callable[[int], str]) -> Callable[..., Groups]:
    def grouping(reader: PoolReader, rows: list[TagRow]) -> Groups:
        groups: Groups = {}
        values, sizes = reader.blocks.column(column)
        kinds, inverse = np.unique(values, return_inverse=True)
        count = np.bincount(inverse, minlength=len(kinds))
        for number, value in enumerate(kinds.tolist()):
            mine = sizes[inverse == number]
            text = name(value)
            total = int(mine.sum())
            site = Site(SiteKind.GROUP, f"{label}|{text}".lower(), text)
            groups[site.key] = site, Totals(int(count[number]), total, total, int(mine.max()))
        return groups

    return grouping


POOL_GROUPINGS: dict[str, Callable[[PoolReader, list[TagRow]], Groups]] = {
    "site": _by_site,
    "tag": _by_tag,
    "driver": _by_driver,
    "size": _by_column("size", "size", str),
    "heap": _by_column(
        "heap", "pool", lambda pool: heap_name(f"{(*POOLS, 'unknown')[pool]} pool", POOL)
    ),
    "kind": _by_column("kind", "kind", lambda kind: Kind(kind).label),
}
BY_TRACKERS = frozenset(_COUNTED)


def _said(account: PoolAccount) -> list[Diagnostic]:
    """How the totals were come by, and where trackers and blocks do not agree."""
    said = [
        Diagnostic(
            "pool-ranking",
            Severity.INFO,
            "_POOL_TRACKER_TABLE",
            None,
            f"totals come from the {account.ranking}: {account.reason}; {account.trackers}",
        )
    ]
    if account.residuals:
        rest = sum(residual.bytes for residual in account.residuals)
        worst = account.residuals[0]
        said.append(
            Diagnostic(
                "pool-residual",
                Severity.INFO,
                "_POOL_TRACKER_TABLE",
                None,
                f"{len(account.residuals)} tags have other blocks than the trackers count, "
                f"{rest:+} bytes in all, most {worst.tag} {worst.pool} with {worst.bytes:+} bytes",
                min(abs(rest), _POSSIBLE),
            )
        )
    if account.unknown_tags:
        said.append(
            Diagnostic(
                "pool-tags-unknown",
                Severity.WARNING,
                "_POOL_TRACKER_TABLE",
                None,
                f"{account.unknown_tags} of {account.tag_count} tags are left out: their counters are only "
                "partly in the dump",
            )
        )
    if account.large_unknown and (account.ranking == WALK or account.unknown_tags):
        said.append(
            Diagnostic(
                "pool-large-unknown",
                Severity.WARNING,
                "PoolBigPageTable",
                None,
                "the table of large blocks is not in the dump, or this kernel keeps none: they are not known",
            )
        )
    return said


def _heaps(reader: PoolReader, rows: list[TagRow]) -> list[HeapRow]:
    counters = {counter.name: counter.bytes for counter in reader.dump.counters}
    heaps = []
    for pool in POOLS:
        mine = [row.pools[pool] for row in rows if pool in row.pools]
        if not mine:
            continue
        used = sum(item.bytes or 0 for item in mine)
        heaps.append(
            HeapRow(
                label=f"{pool} pool",
                address=0,
                kind=POOL,
                architecture=reader.dump.architecture,
                reason="",
                committed_bytes=counters.get(f"{pool}_pool"),
                used_bytes=used,
                used_count=sum(item.count or 0 for item in mine),
            )
        )
    return heaps


def _limits(reader: PoolReader) -> tuple[Limit, ...]:
    """Pool of both kinds is committed memory."""
    counters = {counter.name: counter.bytes for counter in reader.dump.counters}
    committed, limit = counters.get("committed"), counters.get("commit_limit")
    if committed is None or limit is None or limit < committed:
        return ()
    return (Limit("commit limit", limit - committed, limit),)


def _add_details(
    snapshot: Snapshot, reader: PoolReader, tags: dict[str, tuple[int, int | None]]
) -> None:
    keys = list(snapshot.groups)
    sums = DetailSums()
    for number, key in enumerate(keys):
        blocks = reader.blocks.as_blocks(*tags[key])
        sums.add(np.full(len(blocks), number, np.int64), blocks, reader.dump.kernel.pointer_size)
    snapshot.details = dict(zip(keys, sums.details(len(keys)), strict=True))


def _explain(base: Snapshot, current: Snapshot, site: Site) -> tuple[str, ...]:
    """Clauses on the growth of a tag: its owner, its new blocks, who holds them."""
    before, after = base.pool, current.pool
    if not isinstance(before, PoolView) or not isinstance(after, PoolView):
        return ()
    number, pool = after.tags.get(site.key) or before.tags.get(site.key) or (None, None)
    if number is None:
        return ()
    owners = [view.owners[number] for view in (before, after) if number in view.owners]
    owner = owner_of_both(owners[0], owners[-1])
    clauses = [
        f"{candidate.driver} ({candidate.confidence}): {'; '.join(candidate.evidence)}"
        for candidate in owner.owners[:1]
    ]
    clauses += [text for text in (owner.description, owner.note) if text]
    same_boot = is_same_boot(before.reader.boot, after.reader.boot)
    found = new_blocks(before.reader.blocks, after.reader.blocks, number, same_boot, pool)
    clauses += said_of_new(found, after.reader.dump.kernel.pointer_size)
    return (*clauses, *holder_clauses(before.reader, after.reader, number))
