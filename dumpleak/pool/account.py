"""The pools of a dump as a whole: the kernel's trackers held against the blocks that were found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dumpleak.pool.counters import TRACKERS, WALK
from windumps.dumps.kernel_dump import BETTER_KERNEL_DUMP
from windumps.pools.audit import PoolAudit, Source
from windumps.pools.tags import tag_text

if TYPE_CHECKING:
    from dumpleak.pool.reader import PoolReader

# Blocks alone are no answer when less than this share of the pool could be walked.
MIN_WALKED_SHARE = 0.98
MAX_UNKNOWN_SHARE = 0.5  # of tags, beyond which counters are no answer


@dataclass(frozen=True)
class Residual:
    """One tag in one pool where trackers and blocks do not agree: trackers less walk.

    Attributes:
        tag: Four characters.
        pool: One of `POOLS`.
        count: Blocks that were not found; negative for blocks that no tracker knows.
        bytes: Their bytes.
    """

    tag: str
    pool: str
    count: int
    bytes: int


@dataclass(frozen=True)
class PoolAccount:
    """What is known of the pools of one dump.

    Attributes:
        ranking: `TRACKERS` or `WALK`: where the numbers come from by which tags are ranked.
        reason: Why.
        trackers: How the trackers were found and read.
        walk: How blocks were found; "" when they were not looked for.
        tracked_bytes: By the trackers; None when they are not in the dump.
        tag_count: Tags that the trackers know, or blocks were found of.
        unknown_tags: Tags of which neither counters nor blocks tell how much they hold.
        walked_bytes: Of blocks in use that were found; None when they were not looked for.
        walked_count: How many.
        uncounted_bytes: Of these, of tags whose counters are not in the dump, or refuted by the blocks.
        matched_bytes: Of these, what the trackers know as well.
        absent_bytes: Pages of pool that are not in the dump and may hold more blocks.
        damaged_bytes: Parts that could not be walked because of damage.
        missing_bytes: Memory that the dump's tables promise and its file does not have.
        residuals: Where the two do not agree, most bytes first.
        notes: What else a reader of the numbers must know, one sentence each.
        tags_by_blocks: Tags whose numbers are those of the blocks: their counters are not in the dump,
            or the blocks refute them.
    """

    ranking: str
    reason: str
    trackers: str
    walk: str
    tracked_bytes: int | None
    tag_count: int
    unknown_tags: int
    walked_bytes: int | None
    walked_count: int | None
    uncounted_bytes: int
    matched_bytes: int | None
    absent_bytes: int
    damaged_bytes: int
    missing_bytes: int
    residuals: tuple[Residual, ...]
    notes: tuple[str, ...] = ()
    tags_by_blocks: int = 0

    @property
    def blocks_are_total(self) -> bool:
        """So much of the pools was walked that a tag without blocks has none worth telling."""
        walked, lost = self.walked_bytes or 0, self.absent_bytes + self.damaged_bytes
        return bool(
            walked and not self.missing_bytes and walked / (walked + lost) >= MIN_WALKED_SHARE
        )

    @property
    def shortfall(self) -> str:
        """Why the answer cannot stand; "" when it can."""
        if self.ranking == TRACKERS:
            if self.unknown_tags <= MAX_UNKNOWN_SHARE * self.tag_count:
                return ""
            return (
                f"the counters of {self.unknown_tags} of {self.tag_count} tags are only partly in the dump; "
                + self._advice
            )
        if self.blocks_are_total:
            return ""
        why = f"the kernel's own counters are {'only partly' if self.unknown_tags else 'not'} in the dump"
        found = (
            "and what blocks were found may be a small part"
            if self.walked_bytes
            else "and no block was found"
        )
        return f"{why}, {found}; {self._advice}"

    @property
    def _advice(self) -> str:
        if self.missing_bytes:
            return "the file is cut: copy it again from where it was written"
        return BETTER_KERNEL_DUMP


def account_for(reader: PoolReader, walk: bool) -> PoolAccount:
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
    )


def _tracked(reader: PoolReader, audit: PoolAudit | None) -> int | None:
    """Bytes by the counters that are believed; None when there are none.

    In Python's own integers: counters of a damaged dump may be anything.
    """
    if not reader.has_trackers:
        return None
    if audit is not None:
        believed: list[int] = audit.counted_bytes[audit.source == Source.COUNTED].tolist()
        return sum(believed)
    totals = reader.pools.trackers
    held = totals.nonpaged_bytes[totals.complete], totals.paged_bytes[totals.complete]
    counted: list[int] = np.concatenate(held).tolist()
    return sum(counted)


def _unknown_tags(reader: PoolReader, audit: PoolAudit | None) -> int:
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
