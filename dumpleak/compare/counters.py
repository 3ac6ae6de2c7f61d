"""Two snapshots of the kernel's pools by tag: what each tag did, and what its growth is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dumpleak.compare.answers import Comparison
from dumpleak.compare.handle_holders import holder_clauses
from dumpleak.compare.order import is_older
from dumpleak.model.boots import is_same_boot
from dumpleak.model.pool import (
    NO_BLOCKS,
    NONE,
    POOLS,
    TRACKERS,
    UNKNOWN,
    WALK,
    Counters,
    TagDelta,
    TagRow,
    owner_of_both,
)
from dumpleak.model.pool_blocks import new_blocks, said_of_new
from dumpleak.model.pools import Pools
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import Snapshot


def tag_deltas(comparison: Comparison) -> list[TagDelta]:
    """All tags of two snapshots, the largest growth first; those whose growth is unknown come last."""
    base, current = comparison.base, comparison.current
    if comparison.refused or base.pool is None or current.pool is None:
        return []
    sides = base.pool, current.pool
    # Only from the earlier dump to the later one do counters rise.
    onward = is_same_boot(base.boot, current.boot) and not is_older(base.source, current.source)
    bits = current.pool.counter_bits if onward else 0
    before, after = ({row.number: row for row in side.rows} for side in sides)
    told = [pool for pool in POOLS if pool != "session" or not _is_unsaid(sides)]
    deltas: list[TagDelta] = []
    for known in (after | before).values():
        # A tag that a table does not have has no blocks, unless parts of the table are absent.
        old = before.get(known.number) or _none(known, base.pool)
        new = after.get(known.number) or _none(known, current.pool)
        deltas.append(TagDelta(old, new, _deltas(old, new, bits, told)))
    deltas.sort(key=_rank)
    return deltas


def _rank(delta: TagDelta) -> tuple[bool, int, int, str]:
    size, count = delta.total("bytes"), delta.total("count")
    return size is None, -(size or 0), -(count or 0), delta.current.tag


def _none(known: TagRow, side: Pools) -> TagRow:
    owner = (side.find_owner(known.number) if side.has_trackers else None) or known.owner
    counters, source = NONE, TRACKERS
    if side.absent_entries:
        whole = side.account.blocks_are_total
        counters, source = (NO_BLOCKS, WALK) if whole else (UNKNOWN, TRACKERS)
    return TagRow(known.number, known.tag, dict.fromkeys(known.pools, counters), source, owner)


def _is_unsaid(sides: tuple[Pools, Pools]) -> bool:
    """Only one of the two tells of session pool, which is no difference."""
    one, other = sides
    differ = one.has_session_pool != other.has_session_pool
    return differ and bool(one.why_no_session_pool or other.why_no_session_pool)


def _deltas(base: TagRow, current: TagRow, bits: int, told: Sequence[str]) -> dict[str, Counters]:
    deltas = {}
    for pool in told:
        if pool in base.pools or pool in current.pools:
            change = current.pools.get(pool, NONE) - base.pools.get(pool, NONE)
            allocs, frees = _wrapped(change.allocs, bits), _wrapped(change.frees, bits)
            deltas[pool] = replace(change, allocs=allocs, frees=frees)
    return deltas


def _wrapped(delta: int | None, bits: int) -> int | None:
    """The growth of a counter that only rises and may have wrapped; `bits` is 0 where it may have sunk."""
    return delta if delta is None or not bits or delta >= 0 else delta % (1 << bits)


def with_blocks(delta: TagDelta, base: Snapshot, current: Snapshot) -> TagDelta:
    """A tag that grew, with what its new blocks are; any other as it is."""
    if (delta.total("bytes") or 0) <= 0 or base.pool is None or current.pool is None:
        return delta
    tag, same_boot = delta.current.number, is_same_boot(base.boot, current.boot)
    return replace(
        delta,
        new=new_blocks(base.pool.blocks(), current.pool.blocks(), tag, same_boot=same_boot),
        holders=holder_clauses(base.pool, current.pool, tag),
        held=current.pool.held(tag),
    )


def explained(base: Snapshot, current: Snapshot, site: Site) -> tuple[str, ...]:
    """Clauses on the growth of a site of tags: its owner, its new blocks, who holds them."""
    before, after = base.pool, current.pool
    if before is None or after is None or current.stripped:
        return ()  # without names nothing may be told that names code
    number, pool = after.tags.get(site.key) or before.tags.get(site.key) or (None, None)
    if number is None:
        return ()
    owners = [side.owners[number] for side in (before, after) if number in side.owners]
    owner = owner_of_both(owners[0], owners[-1])
    clauses = [
        f"{candidate.driver} ({candidate.confidence}): {'; '.join(candidate.evidence)}"
        for candidate in owner.owners[:1]
    ]
    clauses += [text for text in (owner.description, owner.note) if text]
    same_boot = is_same_boot(base.boot, current.boot)
    found = new_blocks(before.blocks(), after.blocks(), number, pool, same_boot=same_boot)
    clauses += said_of_new(found, 4 if current.source.architecture == "x86" else 8)
    return (*clauses, *holder_clauses(before, after, number))
