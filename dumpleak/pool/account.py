"""The pools of a dump as a whole: the kernel's trackers held against the blocks that were found."""

from __future__ import annotations

from dataclasses import dataclass

from dumpleak.pool.counters import POOLS, TRACKERS, WALK
from dumpleak.pool.reader import PoolReader
from dumpleak.units import format_bytes
from windumps.dumps.kernel_dump import BETTER_KERNEL_DUMP
from windumps.pools.tags import tag_text

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
        tag_count: Tags that the trackers know.
        unknown_tags: Tags whose counters are only partly in the dump.
        walked_bytes: Of blocks in use that were found; None when they were not looked for.
        walked_count: How many.
        matched_bytes: Of these, what the trackers know as well.
        absent_bytes: Pages of pool that are not in the dump and may hold more blocks.
        damaged_bytes: Parts that could not be walked because of damage.
        missing_bytes: Memory that the dump's tables promise and its file does not have.
        residuals: Where the two do not agree, most bytes first.
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
    matched_bytes: int | None
    absent_bytes: int
    damaged_bytes: int
    missing_bytes: int
    residuals: tuple[Residual, ...]

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
        walked, lost = self.walked_bytes or 0, self.absent_bytes + self.damaged_bytes
        if walked and not self.missing_bytes and walked / (walked + lost) >= MIN_WALKED_SHARE:
            return ""
        why = f"the kernel's own counters are {'only partly' if self.unknown_tags else 'not'} in the dump"
        found = (
            "and what blocks were found may be a small part" if walked else "and no block was found"
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
    known = totals.complete if reader.has_trackers else totals.complete[:0]
    tracked = None
    if reader.has_trackers:
        tracked = int(totals.nonpaged_bytes[known].sum() + totals.paged_bytes[known].sum())
    residuals, matched = _residuals(reader) if walk and reader.has_trackers else ([], 0)
    walked = reader.blocks.total if walk else None
    coverage = reader.pools.coverage if walk else None  # complete once the blocks were read
    ranking = TRACKERS if reader.has_trackers else WALK
    return PoolAccount(
        ranking=ranking,
        reason=_reason(ranking, tracked, matched, walked is not None),
        trackers="; ".join(filter(None, (totals.source, totals.layout))),
        walk=coverage.method if coverage is not None else "",
        tracked_bytes=tracked,
        tag_count=len(totals),
        unknown_tags=int((~totals.complete).sum()) if totals.is_found else 0,
        walked_bytes=walked[1] if walked is not None else None,
        walked_count=walked[0] if walked is not None else None,
        matched_bytes=matched if walked is not None and tracked is not None else None,
        absent_bytes=coverage.absent_bytes if coverage is not None else 0,
        damaged_bytes=coverage.damaged_bytes if coverage is not None else 0,
        missing_bytes=reader.dump.missing_bytes,
        residuals=tuple(residuals),
    )


def _reason(ranking: str, tracked: int | None, matched: int, walked: bool) -> str:
    if ranking == WALK:
        return "the kernel's own counters are not in the dump"
    if not walked:
        return "blocks were not looked for"
    if tracked is not None and matched < tracked:
        return f"the walk did not find blocks of {format_bytes(tracked - matched)} that the trackers count"
    return "trackers and walk agree"


def _residuals(reader: PoolReader) -> tuple[list[Residual], int]:
    """(where trackers and blocks differ, bytes they have in common)."""
    totals, blocks = reader.pools.trackers, reader.blocks
    found, matched = [], 0
    known = dict(
        zip(
            totals.tag.tolist(),
            zip(
                *(
                    getattr(totals, f"{pool}_{name}").tolist()
                    for pool in ("nonpaged", "paged")
                    for name in ("count", "bytes")
                ),
                totals.complete.tolist(),
                strict=True,
            ),
            strict=True,
        )
    )
    for tag in sorted({*known, *blocks.tags.tolist()}):
        *numbers, complete = known.get(tag, (0, 0, 0, 0, True))
        if not complete:
            continue
        for number, pool in enumerate(POOLS[:2]):
            count, held = numbers[2 * number : 2 * number + 2]
            walked_count, walked = blocks.totals(tag, number)
            matched += max(min(held, walked), 0)
            if (count, held) != (walked_count, walked):
                found.append(Residual(tag_text(tag), pool, count - walked_count, held - walked))
    found.sort(key=lambda item: (-abs(item.bytes), item.tag, item.pool))
    return found, matched
