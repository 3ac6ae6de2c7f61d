"""The pools of a dump as a whole: the kernel's counters, the blocks that were found, what is missing."""

from __future__ import annotations

from dataclasses import dataclass

from dumpleak.model.coverage import PoolsCovered
from dumpleak.model.pool import TRACKERS
from windumps.diagnostics import Diagnostic
from windumps.errors import BETTER_KERNEL_DUMP

# Blocks alone are no answer when less than this share of the pool could be walked.
MIN_WALKED_SHARE = 0.98


MAX_UNKNOWN_SHARE = 0.5  # of tags, beyond which counters are no answer
# (code, structure) of diagnostics that say what stands in a `PoolAccount`.
RANKING = ("pool-ranking", "_POOL_TRACKER_TABLE")
RESIDUAL = ("pool-residual", "_POOL_TRACKER_TABLE")
TAGS_UNKNOWN = ("pool-tags-unknown", "_POOL_TRACKER_TABLE")
LARGE_UNKNOWN = ("pool-large-unknown", "PoolBigPageTable")


def is_said_by_account(item: Diagnostic) -> bool:
    """True for what stands in a `PoolAccount` as well."""
    return (item.code, item.structure) in (RANKING, RESIDUAL, TAGS_UNKNOWN, LARGE_UNKNOWN)


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
        by_blocks_bytes: What was found of these tags.
        refuted_tags: How many of these have counters that the blocks refute.
        pool_count: Pools there are.
        large_unknown: Tables of blocks are not in the dump, so that blocks nobody looks for may be anywhere.
        pool_bytes: The memory manager's own total of both pools, where it is needed (`large_unknown`) and
            known.
        doubt_bytes: By which trackers and blocks differ where neither is proven to be right; and memory that
            may hold more blocks, unless counters of all tags are known to tell.
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
    by_blocks_bytes: int = 0
    refuted_tags: int = 0
    pool_count: int = 2
    large_unknown: bool = False
    pool_bytes: int | None = None
    doubt_bytes: int = 0

    @property
    def unseen_bytes(self) -> int:
        """Memory of the pools that may hold blocks and was not read."""
        return self.absent_bytes + self.damaged_bytes

    def covered(self, *, by_trackers: bool = True) -> PoolsCovered | None:
        """How much of the pools was read and is accounted for; None when nobody looked for blocks.

        Blocks that the trackers count and nobody found were not walked, and yet no total lacks them.

        Args:
            by_trackers: It is asked for totals to which the trackers contribute, not of blocks found.
        """
        if self.walked_bytes is None:
            return None
        if self.ranking != TRACKERS or self.tracked_bytes is None or self.matched_bytes is None:
            walked, counted = self.walked_bytes, 0
            committed = walked + self.unseen_bytes + self.doubt_bytes
            more = self.pool_bytes is not None and self.pool_bytes > committed
            if self.large_unknown and self.pool_bytes is not None:
                committed = max(committed, self.pool_bytes)
            unbounded = self.large_unknown and not more
        else:
            walked = self.matched_bytes + self.by_blocks_bytes
            missing = max(self.tracked_bytes - self.matched_bytes, 0)
            # What is known of all tags cannot hide more of them.
            unseen = self.unseen_bytes if self.tags_by_blocks or self.unknown_tags else 0
            of_unknown = max(self.uncounted_bytes - self.by_blocks_bytes, 0)
            committed = walked + max(missing, unseen) + of_unknown + self.doubt_bytes
            counted = max(missing - unseen, 0) if by_trackers else 0
            unbounded = bool(self.unknown_tags)
        present, pools = max(committed - self.absent_bytes, walked), self.pool_count
        return PoolsCovered(
            walked, present, committed, pools, pools, counted_bytes=counted, unbounded=unbounded
        )

    @property
    def counted(self) -> PoolsCovered:
        """Coverage of totals where nobody looked for blocks: all that the trackers count is known."""
        size, pools = self.tracked_bytes or 0, self.pool_count
        unbounded = bool(self.unknown_tags)
        return PoolsCovered(0, size, size, pools, pools, counted_bytes=size, unbounded=unbounded)

    @property
    def said_of_blocks(self) -> str:
        """Which tags are counted by blocks though there are trackers, and why; "" when none is."""
        if self.ranking != TRACKERS or not self.tags_by_blocks:
            return ""
        absent = self.tags_by_blocks - self.refuted_tags
        reasons = [
            f"{self.refuted_tags} with counters that the blocks refute" * bool(self.refuted_tags),
            f"{absent} without counters in the dump" * bool(absent),
        ]
        tags = f"{self.tags_by_blocks} tag{'s are' if self.tags_by_blocks > 1 else ' is'}"
        return f"{tags} counted by blocks found ({', '.join(filter(None, reasons))})"

    @property
    def blocks_are_total(self) -> bool:
        """So much of the pools was walked that a tag without blocks has none worth telling."""
        walked, lost = self.walked_bytes or 0, self.unseen_bytes
        return bool(
            walked and not self.missing_bytes and walked / (walked + lost) >= MIN_WALKED_SHARE
        )

    @property
    def shortfall(self) -> str:
        """Why the answer cannot stand; "" when it can."""
        return self._why_no_totals or (self.covered() or self.counted).shortfall

    @property
    def _why_no_totals(self) -> str:
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
