"""Counters against blocks: what the kernel says each tag holds, and what the walk found of it.

This is the one place that decides, tag by tag, which of the two is believed. Counters that the blocks
refute may not rank: a tag of a live image, whose processors were copied at different times, can be
counted with thousands of blocks that nothing holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U32
from windumps.pool_tags import OVERFLOW_TAG, POOL_TAG
from windumps.pools.coverage import PoolCoverage
from windumps.pools.pages.chain import FRAGMENT_TAG
from windumps.pools.trackers.balance import Balance, pool_keys
from windumps.pools.trackers.totals import TagTotals

TRACKERS, BLOCKS, NOTHING = "trackers", "blocks", ""
# Blocks that a tag may have on look-aside lists, which look used and are counted as freed: a few dozen
# on each processor's lists; more than a quarter of what was found is no list.
_LISTED = 64
_LISTED_SHARE = 0.25
_TRUSTED_UNSEEN = 0.02  # of what was walked: with more unseen, blocks are no total
# Tags of which the walk misses more than it can have missed: so many are not all counted wrong, but lie
# where nothing says that memory is missing (the table of large blocks, or of pages, was overwritten).
_MANY_SHORT = 4
_MANY_SHORT_SHARE = 0.02
# What may be gone without a trace: some slots of a table. More of one tag alone was counted wrong.
_LOSABLE_COUNT, _LOSABLE_BYTES = 16, 1 << 16


class Source(IntEnum):
    """What a tag's numbers come from."""

    COUNTED = 0  # the kernel's counters
    WALKED = 1  # the blocks that were found: there are no counters, or the blocks refute them
    UNKNOWN = 2  # neither tells


@dataclass(frozen=True)
class Evidence:
    """What counters are held against besides the blocks.

    Attributes:
        unseen_bytes: Most bytes that the walk may have missed; None where nothing bounds it (the table
            of large allocations, or part of it, is not in the dump).
        unit: Bytes of the smallest block.
        own_tables: Tables of the pool's own that are charged to "Pool" and are no blocks.
        most_bytes: What the memory manager says of nonpaged and of paged pool; None where unknown.
        memory_bytes: Memory in the dump: more than that cannot have vanished from it; None where unknown.
    """

    unseen_bytes: int | None
    unit: int
    own_tables: int
    most_bytes: tuple[int | None, int | None] = (None, None)
    memory_bytes: int | None = None


@dataclass(frozen=True)
class PoolAudit:
    """One row for each tag and pool (paged or not) that is counted or was found; session pool apart.

    Attributes:
        tag: uint32.
        paged: bool.
        is_counted: bool, the trackers know this tag's totals; where false the next two say nothing.
        source: uint8, `Source`: which numbers are believed.
        counted_count: int64, blocks by the trackers.
        counted_bytes: int64, their bytes.
        walked_count: int64, used blocks the walk found.
        walked_bytes: int64, their bytes.
        residual_count: int64, blocks counted, not found as blocks of the tag, and not explained
            otherwise; negative where more were found; 0 where nothing is counted.
        residual_bytes: int64, the same in bytes.
        ranking: Which of the two should rank tags: "trackers", "blocks", or "" when there is
            neither.
        reason: Why, in one sentence for people.
        is_short: Memory of the pools is missing where nothing says so: blocks are nowhere a total.
        doubt_bytes: By which counters and blocks differ where neither is proven to be right; and memory that
            may hold more blocks, unless counters of all tags are known to tell.
        is_bounded: False where tables of pages are missing, and no counters tell what is missing with them.
    """

    tag: U32
    paged: NDArray[np.bool_]
    is_counted: NDArray[np.bool_]
    source: NDArray[np.uint8]
    counted_count: I64
    counted_bytes: I64
    walked_count: I64
    walked_bytes: I64
    residual_count: I64
    residual_bytes: I64
    ranking: str
    reason: str
    is_short: bool = False
    doubt_bytes: int = 0
    is_bounded: bool = True

    def __len__(self) -> int:
        return len(self.tag)

    @property
    def differs(self) -> NDArray[np.bool_]:
        """bool: rows where counters and blocks do not agree."""
        unequal: NDArray[np.bool_] = (self.residual_count != 0) | (self.residual_bytes != 0)
        return self.is_counted & unequal

    def total(self, paged: bool) -> tuple[int, int, int, int]:
        """Of one pool: counted blocks and bytes, walked blocks and bytes of the counted tags."""
        rows = self.is_counted & (self.paged == paged)

        def added(column: I64) -> int:
            return int(column[rows].sum())

        counted = added(self.counted_count), added(self.counted_bytes)
        return *counted, added(self.walked_count), added(self.walked_bytes)


def make_audit(
    totals: TagTotals, walked: Balance, coverage: PoolCoverage, evidence: Evidence
) -> PoolAudit:
    """Compares counters with the blocks of a finished walk."""
    missing = walked.missing(totals)
    keys = sorted(set(missing) | set(walked.walked) | set(_incomplete(totals)))
    rows = np.array([walked.walked.get(key, (0, 0)) for key in keys], np.int64).reshape(-1, 2)
    gap = np.array([missing.get(key, (0, 0)) for key in keys], np.int64).reshape(-1, 2)
    counted = np.array([key in missing for key in keys], np.bool_)
    both = np.where(counted[:, None], rows + gap, 0)
    key = np.array(keys, np.int64)
    left = _less_own_tables(key, gap, coverage, evidence)
    own = (left != gap).any(axis=1)
    gap = _less_overflow(key, left, rows, counted)
    doubtful = np.isin((key >> 1).astype(np.uint32), totals.tag[totals.is_doubtful])
    compared = _Compared(key, gap, rows, both, counted, doubtful, own)
    is_alone = _is_alone(totals, compared)
    if is_alone and not coverage.is_bounded:
        evidence = replace(evidence, unseen_bytes=None)
    refuted = _refuted(compared, evidence)
    is_short = _is_short(compared, refuted)
    if is_short:
        evidence = replace(evidence, unseen_bytes=None)
        refuted = _refuted(compared, evidence)
    source = np.full(len(keys), Source.UNKNOWN, np.uint8)
    unseen = evidence.unseen_bytes
    if unseen is not None and unseen <= _TRUSTED_UNSEEN * max(int(rows[:, 1].sum()), 1):
        source[:] = Source.WALKED
    source[key >> 1 == POOL_TAG] = Source.UNKNOWN  # of the pool's own tables no walk finds all
    source[counted & ~refuted] = Source.COUNTED
    idle = counted & ~refuted & ~both.any(axis=1) & ~rows.any(axis=1)
    keep = ~idle
    ranking, reason = _choose(totals, walked, coverage, gap[counted & ~refuted], int(refuted.sum()))
    if is_short:
        reason += (
            "; blocks of many tags are missing where nothing says that memory is: a table that tells where "
            "they are was overwritten"
        )
    return PoolAudit(
        tag=(key >> 1).astype(np.uint32)[keep],
        paged=(key & 1).astype(np.bool_)[keep],
        is_counted=counted[keep],
        source=source[keep],
        counted_count=both[keep, 0],
        counted_bytes=both[keep, 1],
        walked_count=rows[keep, 0],
        walked_bytes=rows[keep, 1],
        residual_count=gap[keep, 0],
        residual_bytes=gap[keep, 1],
        ranking=ranking,
        reason=reason,
        is_short=is_short,
        doubt_bytes=_doubt(compared, refuted, source, evidence)
        + coverage.doubtful_bytes * is_alone,
        is_bounded=coverage.is_bounded or not is_alone,
    )


def _incomplete(totals: TagTotals) -> list[int]:
    """Keys of the tags whose totals are not known."""
    tags = totals.tag[~totals.complete]
    keys = [pool_keys(tags, np.full(len(tags), paged)) for paged in (False, True)]
    found: list[int] = np.concatenate(keys).tolist()
    return found


def _less_own_tables(key: I64, gap: I64, coverage: PoolCoverage, evidence: Evidence) -> I64:
    """Blocks counted less blocks walked, without the pool's own tables: they are charged to "Pool"."""
    left = gap.copy()
    own = (key >> 1 == POOL_TAG) & (gap[:, 0] > 0) & (gap[:, 0] <= evidence.own_tables)
    own &= gap[:, 1] >= gap[:, 0] * PAGE_SIZE
    if own.any():
        count, held = gap[own].sum(axis=0).tolist()
        coverage.notes.append(
            f"{count} tables of the pool's own ({held} bytes charged to the tag Pool) are no blocks"
        )
        left[own] = 0
    return left


def _less_overflow(key: I64, gap: I64, rows: I64, counted: NDArray[np.bool_]) -> I64:
    """Blocks counted less blocks walked; of "Ovfl" less the blocks of tags without a slot of their own.

    Tags that found no slot are counted together as "Ovfl", and their blocks keep their tags: they
    are shown as the blocks found.
    """
    left = gap.copy()
    for paged in (0, 1):
        mine = (key & 1) == paged
        left[mine & (key >> 1 == OVERFLOW_TAG)] -= rows[mine & ~counted].sum(axis=0)
    return left


class _Compared(NamedTuple):
    """Tags in one pool, as columns.

    Attributes:
        key: int64, see `pool_keys`.
        gap: int64, blocks and bytes counted less walked.
        rows: int64, blocks and bytes walked.
        both: int64, blocks and bytes counted; 0 where they are not.
        counted: bool, the trackers know the total.
        doubtful: bool, see `TagTotals.is_doubtful`.
        own: bool, what is counted are not only blocks that a walk finds: tables of the pool's own.
    """

    key: I64
    gap: I64
    rows: I64
    both: I64
    counted: NDArray[np.bool_]
    doubtful: NDArray[np.bool_]
    own: NDArray[np.bool_]

    @property
    def possible(self) -> NDArray[np.bool_]:
        """bool: counters that can be any."""
        possible: NDArray[np.bool_] = self.counted & (self.both >= 0).all(axis=1)
        return possible & (self.both < 1 << 56).all(axis=1)


def _refuted(compared: _Compared, evidence: Evidence) -> NDArray[np.bool_]:
    """Which counters cannot be right, whatever the dump lacks."""
    key, gap, rows, both, counted, doubtful, own = compared
    held, most = both[:, 1], evidence.most_bytes
    bad: NDArray[np.bool_] = ~compared.possible | ((both[:, 0] == 0) != (held == 0))
    for paged, limit in enumerate(most):
        if limit is not None:
            bad |= ((key & 1) == paged) & (held > limit)
    bad |= ~_makes_sense(gap, evidence.unit)
    over = -gap[:, 0]
    bad |= over > np.maximum(_LISTED, _LISTED_SHARE * rows[:, 0])
    bad |= (over > 0) & (key >> 1 == FRAGMENT_TAG)  # no list has them
    unseen = evidence.unseen_bytes
    if unseen is not None:
        bad |= (gap[:, 1] > unseen) | (gap[:, 0] > unseen // evidence.unit)
        # What is missing of all tags must be unseen as well; which of them is wrong nothing tells.
        short = ~bad & (gap[:, 1] > 0)
        if int(gap[short, 1].sum()) > unseen:
            bad |= short
    bad |= doubtful & (over > 0)
    if (bad & counted & doubtful).any():
        # Some page of zeros is none of a table: of its tags only those are sure whose blocks are all here.
        bad |= doubtful & (gap.any(axis=1) | own | (unseen != 0))
    return bad & counted


def _is_alone(totals: TagTotals, compared: _Compared) -> bool:
    """Of some tag only the blocks found tell how much it holds, so that lost ones are missed by nothing.

    Tags that found no slot are counted together: where that sum is borne out, they are counted.
    """
    if totals.absent_entries or not totals.is_found:
        return True
    alone = ~compared.counted
    overflow = compared.counted & (compared.key >> 1 == OVERFLOW_TAG) & ~compared.gap.any(axis=1)
    for paged in (compared.key[overflow] & 1).tolist():
        alone &= ((compared.key & 1) != paged) | ~compared.rows.any(axis=1)
    return bool(alone.any())


def _makes_sense(gap: I64, unit: int) -> NDArray[np.bool_]:
    """Which differences can be of blocks that are missing, or of blocks that are too many."""
    count, held = gap[:, 0], gap[:, 1]
    fits: NDArray[np.bool_] = np.abs(held) // unit >= np.abs(count)
    fits &= np.sign(held) == np.sign(count)
    return fits


def _is_short(compared: _Compared, refuted: NDArray[np.bool_]) -> bool:
    """The walk, not the counters, is what is wrong: it misses blocks of many tags, and has few too many."""
    sure = compared.possible & ~compared.doubtful
    missing = sure & refuted & (compared.gap > 0).all(axis=1)
    short, over = int(missing.sum()), int((sure & (compared.gap[:, 0] < 0)).sum())
    known = int((sure & compared.both.any(axis=1)).sum())
    return short >= max(_MANY_SHORT, _MANY_SHORT_SHARE * known) and over <= short // 4


def _doubt(
    compared: _Compared,
    refuted: NDArray[np.bool_],
    source: NDArray[np.uint8],
    evidence: Evidence,
) -> int:
    """Bytes that a tag may hold more or less than is said of it, though no memory is known to be missing.

    Blocks too many may be freed ones, or the counters are too low; blocks too few may have vanished with
    the slot of a table, or the counters are too high.
    """
    count, held = compared.gap[:, 0], compared.gap[:, 1]
    sure = compared.possible & ~compared.doubtful & (source != Source.UNKNOWN)
    over = sure & (held < 0)
    small = (np.abs(count) <= _LOSABLE_COUNT) | (held <= _LOSABLE_BYTES)
    lost = sure & refuted & (held > 0) & small
    if evidence.memory_bytes is not None:
        lost &= held <= evidence.memory_bytes
    return int(-held[over].sum()) + int(held[lost].sum())


def _choose(
    totals: TagTotals, walked: Balance, coverage: PoolCoverage, gap: I64, refuted: int
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
    if refuted:
        parts.append(
            f"of {refuted} the blocks refute them (counted while memory was copied, or damaged)"
        )
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
