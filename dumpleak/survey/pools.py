"""The pools of a kernel dump as a snapshot: what all comparing commands take.

Groups by tag and by driver count what the kernel's trackers count, which needs no walk and misses no block;
groups by size, kind and pool count the blocks that were found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from dumpleak.kernel.account import system_account
from dumpleak.kernel.pools import POSSIBLE, PoolReader
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.group_sums import DetailSums
from dumpleak.model.memory import Limit
from dumpleak.model.pool import POOLS, WALK, TagRow, sited
from dumpleak.model.pool_account import (
    LARGE_UNKNOWN,
    RANKING,
    RESIDUAL,
    TAGS_UNKNOWN,
    PoolAccount,
)
from dumpleak.model.pool_blocks import PoolBlocks
from dumpleak.model.pools import Pools
from dumpleak.model.populations import POOL
from dumpleak.model.refuted_counters import COUNTED, keep_refuted
from dumpleak.model.sites import Site, heap_name, key_site
from dumpleak.model.snapshot import HeapRow, Snapshot
from dumpleak.model.totals import Groups, Totals, add_to, sum_of
from dumpleak.survey.verifier import STACK, require_stacks, stack_groups
from windumps.blocks import Kind
from windumps.diagnostics import Diagnostic, Severity


def take_pool_snapshot(
    reader: PoolReader,
    by: str = "site",
    *,
    details: bool = False,
    walk: bool = True,
    even_short: bool = False,
) -> Snapshot:
    """Adds the pools of a kernel dump up.

    Args:
        reader: The dump.
        by: One of `POOL_GROUPINGS`, or `STACK`.
        details: Also collect what only some reports show, `Snapshot.details`.
        walk: Look for blocks also where the kernel's counters do without.
        even_short: Also take what is no answer; `Snapshot.shortfall` says why.

    Raises:
        CannotAnswerError: pool blocks do not have what `by` asks for, or what the dump holds is no answer.
    """
    grouping = POOL_GROUPINGS.get(by)
    if by == STACK:
        require_stacks(reader)
    elif grouping is None:
        raise CannotAnswerError(
            f"{reader.dump.path}: blocks of the kernel's pools have no {by}; they can be grouped by "
            f"{', '.join(POOL_GROUPINGS)}, and where Driver Verifier logged stacks by {STACK}"
        )
    pools = reader.read(walk=walk)
    account, rows = pools.account, pools.rows
    if account.shortfall and not even_short:
        raise CannotAnswerError(f"{reader.dump.path}: {account.shortfall}")
    groups = grouping(pools) if grouping is not None else stack_groups(reader)
    heaps = _heaps(reader, rows)
    snapshot = Snapshot(
        source=reader.source,
        grouping=by,
        groups=groups,
        totals=sum_of(totals for _, totals in groups.values()),
        private={},
        heaps=heaps,
        coverage=account.covered(by_trackers=by in BY_TRACKERS) or account.counted,
        diagnostics=[*reader.diagnostics, *_said(account)],
        limits=_limits(reader),
        modules=tuple(reader.dump.modules),
        pool=pools,
        boot=reader.boot,
        outside=system_account(reader.dump, reader, rows, walk=walk),
        population=POOL,
    )
    keep_refuted(snapshot, rows, pools.refuted)
    if details and by in ("site", "tag"):
        _add_details(snapshot, pools, reader.dump.kernel.pointer_size)
    return snapshot


def _by_tag(make: Callable[[TagRow, int], Site]) -> Callable[[Pools], Groups]:
    def grouping(pools: Pools) -> Groups:
        groups: Groups = {}
        # Where nobody looked for blocks, how large the largest is is not known.
        blocks = pools.blocks() if pools.account.walked_bytes is not None else PoolBlocks(())
        for row, number in sited(pools.rows):
            site, counters = make(row, number), row.pools[POOLS[number]]
            held = counters.bytes or 0
            _, sizes = blocks.of(row.number, number)
            largest = int(sizes.max()) if len(sizes) else 0
            add_to(groups, site, Totals(counters.count or 0, held, held, largest))
        return groups

    return grouping


def _by_column(label: str, column: str, name: Callable[[int], str]) -> Callable[[Pools], Groups]:
    def grouping(pools: Pools) -> Groups:
        groups: Groups = {}
        values, sizes = pools.blocks().column(column)
        kinds, inverse = np.unique(values, return_inverse=True)
        count = np.bincount(inverse, minlength=len(kinds))
        for number, value in enumerate(kinds.tolist()):
            mine = sizes[inverse == number]
            total = int(mine.sum())
            site = key_site(label, name(value))
            groups[site.key] = site, Totals(int(count[number]), total, total, int(mine.max()))
        return groups

    return grouping


POOL_GROUPINGS: dict[str, Callable[[Pools], Groups]] = {
    **{by: _by_tag(make) for by, make in COUNTED.items()},
    "size": _by_column("size", "size", str),
    "heap": _by_column(
        "heap", "pool", lambda pool: heap_name(f"{(*POOLS, 'unknown')[pool]} pool", POOL)
    ),
    "kind": _by_column("kind", "kind", lambda kind: Kind(kind).label),
}
BY_TRACKERS = frozenset(COUNTED)


def _said(account: PoolAccount) -> list[Diagnostic]:
    """How the totals were come by, and where trackers and blocks do not agree."""
    said = [
        Diagnostic(
            *(RANKING[0], Severity.INFO, RANKING[1], None),
            f"totals come from the {account.ranking}: {account.reason}; {account.trackers}",
        )
    ]
    if account.residuals:
        rest = sum(residual.bytes for residual in account.residuals)
        worst = account.residuals[0]
        said.append(
            Diagnostic(
                *(RESIDUAL[0], Severity.INFO, RESIDUAL[1], None),
                f"{len(account.residuals)} tags have other blocks than the trackers count, "
                f"{rest:+} bytes in all, most {worst.tag} {worst.pool} with {worst.bytes:+} bytes",
                min(abs(rest), POSSIBLE),
            )
        )
    if account.unknown_tags:
        said.append(
            Diagnostic(
                *(TAGS_UNKNOWN[0], Severity.WARNING, TAGS_UNKNOWN[1], None),
                f"{account.unknown_tags} of {account.tag_count} tags are left out: their counters are only "
                "partly in the dump",
            )
        )
    if account.large_unknown and (account.ranking == WALK or account.unknown_tags):
        said.append(
            Diagnostic(
                *(LARGE_UNKNOWN[0], Severity.WARNING, LARGE_UNKNOWN[1], None),
                "the table of large blocks is not in the dump, or this kernel keeps none: they are not known",
            )
        )
    return said


def _heaps(reader: PoolReader, rows: Iterable[TagRow]) -> list[HeapRow]:
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


def _add_details(snapshot: Snapshot, pools: Pools, pointer_size: int) -> None:
    keys = list(snapshot.groups)
    sums = DetailSums()
    for number, key in enumerate(keys):
        blocks = pools.blocks().as_blocks(*pools.tags[key])
        sums.add(np.full(len(blocks), number, np.int64), blocks, pointer_size)
    snapshot.details = dict(zip(keys, sums.details(len(keys)), strict=True))
