"""The pools of a dump as a whole: the kernel's trackers held against the blocks that were found."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from dumpleak.kernel.info import checked_counters
from dumpleak.model.pool import POOLS, TRACKERS, WALK
from dumpleak.model.pool_account import PoolAccount, Residual
from dumpleak.model.pool_blocks import PoolBlocks
from windumps.dumps.kernel.dump import KernelDump
from windumps.pool_tags import OVERFLOW_TAG, tag_text
from windumps.pools.kernel_pools import KernelPools
from windumps.pools.trackers.audit import PoolAudit, Source


class OpenedPools(Protocol):
    """What the account takes of a kernel dump whose pools are read, see `PoolReader`."""

    @property
    def dump(self) -> KernelDump:
        """The dump."""

    @property
    def pools(self) -> KernelPools:
        """Its pools."""

    @property
    def has_trackers(self) -> bool:
        """The kernel's own counters are in the dump, at least for some tags."""

    @property
    def blocks(self) -> PoolBlocks:
        """Used blocks; asking for them walks all pools."""


def account_for(reader: OpenedPools, *, walk: bool) -> PoolAccount:
    """Holds trackers and blocks against each other.

    Args:
        reader: The dump.
        walk: Look for blocks also where the trackers are complete.
    """
    totals = reader.pools.trackers
    walk = walk or not reader.has_trackers
    walked = reader.blocks.total if walk else None  # here the walk happens
    audit = reader.pools.audit if walk else None
    coverage = reader.pools.coverage if walk else None
    by_blocks = audit.source == Source.WALKED if audit is not None else np.zeros(0, np.bool_)
    large_unknown = audit is not None and (
        audit.is_short or not audit.is_bounded or not reader.pools.is_whole
    )
    return PoolAccount(
        ranking=TRACKERS if reader.has_trackers else WALK,
        reason=audit.reason if audit is not None else "blocks were not looked for",
        trackers="; ".join(filter(None, (totals.source, totals.layout))),
        walk=coverage.method if coverage is not None else "",
        tracked_bytes=_tracked(reader, audit),
        tag_count=len(np.unique(audit.tag)) if audit is not None else len(totals),
        unknown_tags=_unknown_tags(reader, audit),
        walked_bytes=walked[1] if walked is not None else None,
        walked_count=walked[0] if walked is not None else None,
        uncounted_bytes=int(audit.walked_bytes[audit.source != Source.COUNTED].sum())
        if audit is not None
        else 0,
        matched_bytes=_matched(audit) if audit is not None and reader.has_trackers else None,
        absent_bytes=coverage.absent_bytes if coverage is not None else 0,
        damaged_bytes=coverage.damaged_bytes if coverage is not None else 0,
        missing_bytes=reader.dump.missing_bytes,
        residuals=tuple(_residuals(audit)) if audit is not None else (),
        notes=tuple(coverage.notes) if coverage is not None else (),
        tags_by_blocks=len(np.unique(audit.tag[by_blocks])) if audit is not None else 0,
        by_blocks_bytes=int(audit.walked_bytes[by_blocks].sum()) if audit is not None else 0,
        refuted_tags=len(np.unique(audit.tag[by_blocks & audit.is_counted]))
        if audit is not None
        else 0,
        pool_count=_pool_count(reader, walk=walk),
        large_unknown=large_unknown,
        pool_bytes=_pool_bytes(reader) if large_unknown else None,
        doubt_bytes=audit.doubt_bytes if audit is not None else 0,
    )


def _pool_count(reader: OpenedPools, *, walk: bool) -> int:
    """Nonpaged, paged, and session pool where something of it is known."""
    counted = any(len(session.totals) for session in reader.pools.sessions)
    session = POOLS.index("session")
    found = walk and not reader.has_trackers and reader.blocks.has_pool(session)
    return len(POOLS[:2]) + bool(counted or found)


def _pool_bytes(reader: OpenedPools) -> int | None:
    """The memory manager's total of both pools; None unless it is known of both."""
    known = {counter.name: counter.bytes for counter in checked_counters(reader.dump)}
    held = [known.get(f"{pool}_pool") for pool in POOLS[:2]]
    return None if None in held else sum(size for size in held if size is not None)


def _tracked(reader: OpenedPools, audit: PoolAudit | None) -> int | None:
    """Bytes by the counters that are believed; None when there are none.

    In Python's own integers: counters of a damaged dump may be anything.
    """
    if not reader.has_trackers:
        return None
    if audit is not None:
        believed: list[int] = audit.counted_bytes[audit.source == Source.COUNTED].tolist()
        return sum(believed) - _overflow_bytes(audit)
    totals = reader.pools.trackers
    held = totals.nonpaged_bytes[totals.complete], totals.paged_bytes[totals.complete]
    counted: list[int] = np.concatenate(held).tolist()
    return sum(counted)


def _overflow_bytes(audit: PoolAudit) -> int:
    """Of what is counted together as "Ovfl", the blocks of tags without a slot, which are shown as theirs."""
    split = 0
    counted = (audit.tag == OVERFLOW_TAG) & (audit.source == Source.COUNTED)
    for paged in audit.paged[counted].tolist():
        mine = audit.paged == paged
        both = audit.counted_bytes[counted & mine], audit.walked_bytes[mine & ~audit.is_counted]
        split += min(int(both[0].sum()), int(both[1].sum()))
    return split


def _unknown_tags(reader: OpenedPools, audit: PoolAudit | None) -> int:
    totals = reader.pools.trackers
    if not totals.is_found:
        return 0
    if audit is not None:
        return len(np.unique(audit.tag[audit.source == Source.UNKNOWN]))
    return int((~totals.complete).sum())


def _matched(audit: PoolAudit) -> int:
    both = np.minimum(audit.counted_bytes, audit.walked_bytes)[audit.source == Source.COUNTED]
    return int(np.maximum(both, 0).sum())


def _residuals(audit: PoolAudit) -> list[Residual]:
    rows = audit.differs
    columns = (audit.tag, audit.paged, audit.residual_count, audit.residual_bytes)
    found = [
        Residual(tag_text(tag), "paged" if paged else "nonpaged", count, held)
        for tag, paged, count, held in zip(
            *(column[rows].tolist() for column in columns), strict=True
        )
    ]
    return sorted(found, key=lambda item: (-abs(item.bytes), item.tag, item.pool))
