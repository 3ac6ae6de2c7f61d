"""Counters against blocks: what the kernel says each tag holds, and what the walk found of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.memory.address_space import I64
from windumps.pools.balance import Balance
from windumps.pools.coverage import PoolCoverage
from windumps.pools.tags import U32
from windumps.pools.trackers import TagTotals

TRACKERS, BLOCKS, NOTHING = "trackers", "blocks", ""


@dataclass(frozen=True)
class PoolAudit:
    """One row for each tag and pool (paged or not) that is counted or was found; session pool apart.

    Attributes:
        tag: uint32.
        paged: bool.
        is_counted: bool, the trackers know this tag's totals; where false the next two say nothing.
        counted_count: int64, blocks by the trackers.
        counted_bytes: int64, their bytes.
        walked_count: int64, used blocks the walk found.
        walked_bytes: int64, their bytes.
        ranking: Which of the two should rank tags: "trackers", "blocks", or "" when there is
            neither.
        reason: Why, in one sentence for people.
    """

    tag: U32
    paged: NDArray[np.bool_]
    is_counted: NDArray[np.bool_]
    counted_count: I64
    counted_bytes: I64
    walked_count: I64
    walked_bytes: I64
    ranking: str
    reason: str

    def __len__(self) -> int:
        return len(self.tag)

    @property
    def residual_count(self) -> I64:
        """int64: blocks counted less blocks walked; 0 where nothing is counted."""
        return np.where(self.is_counted, self.counted_count - self.walked_count, 0)

    @property
    def residual_bytes(self) -> I64:
        """int64: the same in bytes."""
        return np.where(self.is_counted, self.counted_bytes - self.walked_bytes, 0)

    @property
    def differs(self) -> NDArray[np.bool_]:
        """bool: rows where counters and blocks do not agree."""
        unequal: NDArray[np.bool_] = (self.residual_count != 0) | (self.residual_bytes != 0)
        return self.is_counted & unequal

    def total(self, paged: bool) -> tuple[int, int, int, int]:
        """Of one pool: counted blocks and bytes, walked blocks and bytes of the counted tags."""
        rows = self.is_counted & (self.paged == paged)
        columns = (self.counted_count, self.counted_bytes, self.walked_count, self.walked_bytes)
        return tuple(int(column[rows].sum()) for column in columns)  # type: ignore[return-value]


def make_audit(totals: TagTotals, walked: Balance, coverage: PoolCoverage) -> PoolAudit:
    """Compares counters with the blocks of a finished walk."""
    missing = walked.missing(totals)
    keys = sorted(set(missing) | set(walked.walked))
    rows = np.array([walked.walked.get(key, (0, 0)) for key in keys], np.int64).reshape(-1, 2)
    gap = np.array([missing.get(key, (0, 0)) for key in keys], np.int64).reshape(-1, 2)
    counted = np.array([key in missing for key in keys], np.bool_)
    both = np.where(counted[:, None], rows + gap, 0)
    key = np.array(keys, np.int64)
    idle = counted & ~both.any(axis=1) & ~rows.any(axis=1)
    keep = ~idle
    ranking, reason = _choose(totals, walked, coverage, gap[counted])
    return PoolAudit(
        tag=(key >> 1).astype(np.uint32)[keep],
        paged=(key & 1).astype(np.bool_)[keep],
        is_counted=counted[keep],
        counted_count=both[keep, 0],
        counted_bytes=both[keep, 1],
        walked_count=rows[keep, 0],
        walked_bytes=rows[keep, 1],
        ranking=ranking,
        reason=reason,
    )


def _choose(
    totals: TagTotals, walked: Balance, coverage: PoolCoverage, gap: I64
) -> tuple[str, str]:
    """Trackers rank wherever they are known: they miss no block, whatever the dump lacks."""
    found = sum(count for count, _ in walked.walked.values())
    if not totals.complete.any():
        if not found:
            return NOTHING, "neither the trackers nor any block of the pools could be read"
        why = totals.source if not totals.is_found else "part of the trackers is not in the dump"
        return BLOCKS, f"tags are ranked by the blocks found, for the trackers are not known: {why}"
    short, over = gap[:, 0].clip(min=0).sum(), (-gap[:, 0]).clip(min=0).sum()
    parts = []
    if short:
        held = int(gap[:, 1].clip(min=0).sum())
        lost = f", {coverage.absent_pages} pages of pool are not in the dump" * bool(
            coverage.absent_pages
        )
        parts.append(f"the walk misses {short} of the blocks they count ({held} bytes{lost})")
    if over:
        parts.append(
            f"{over} blocks look used and are counted as freed: they wait on look-aside lists"
        )
    unknown = int((~totals.complete).sum())
    if unknown:
        parts.append(f"of {unknown} tags they are not known")
    if not parts:
        return TRACKERS, "tags are ranked by the trackers, which the walk confirms block for block"
    return TRACKERS, "tags are ranked by the trackers; " + "; ".join(parts)
