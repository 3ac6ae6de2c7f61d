"""Finds tags of the kernel's pools that grow together, and which of them the others hang on.

What hangs on one leaked thing grows with it: a file that stays open keeps names, contexts and a security
descriptor. Such tags grow by one number of blocks, or by twice that.

Two tags grow by the same number by chance, too. So they must be many blocks (`MIN_GROWTH`), and the fewer
tags there are the more alike: two within 0.5 % (0.1 % where one grows by twice as much), three and more
within 1 %. A tag that grows for reasons of its own as well may join three others within 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dumpleak.compare.roots import find_root, why_not_seen
from dumpleak.model.boots import is_same_boot, was_restarted
from dumpleak.model.pool import POOLS
from dumpleak.model.pools import Pools
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.together import Together

MIN_GROWTH = 100  # blocks
MAX_TAGS = 64  # those that grew by most blocks are held against each other
_MANY, _TWO, _TWO_TIMES, _JOINING = 0.01, 0.005, 0.001, 0.05
_CURVE = 0.1  # of the whole growth, that two series may differ by on the way
_TIMES = (1.0, 2.0, 0.5)


class _Grown(NamedTuple):
    """One tag: by how many blocks it had grown since the first dump, in each."""

    tag: int
    growth: tuple[int, ...]

    @property
    def total(self) -> int:
        return self.growth[-1]


def find_together(snapshots: Sequence[Snapshot]) -> tuple[Together, ...]:
    """Groups of tags, the one with most new blocks first.

    Args:
        snapshots: Of one system in order of time, two at least; the last may be none after idle.

    Returns:
        None where the system was restarted, or where the snapshots do not tell of tags.
    """
    pools = [snapshot.pool for snapshot in snapshots if snapshot.pool is not None]
    first, last = snapshots[0], snapshots[-1]
    if len(pools) < len(snapshots):
        return ()
    if first.boot is not None and last.boot is not None and was_restarted(first.boot, last.boot):
        return ()
    same_boot = is_same_boot(first.boot, last.boot)
    found = [
        (cluster, by_counters)
        for by_counters, grown in ((False, _by_blocks(pools)), (True, _by_counters(pools)))
        for cluster in _clusters(grown)
    ]
    found.sort(key=lambda row: -sum(member.total for member in row[0]))
    groups = []
    for number, (cluster, by_counters) in enumerate(found, start=1):
        tags = [member.tag for member in cluster]
        why_unseen = "there are no new blocks" * by_counters or why_not_seen(
            pools[0], pools[-1], same_boot=same_boot
        )
        root, evidence = find_root(pools[0], pools[-1], tags, why_unseen)
        ordered = sorted(cluster, key=lambda member: (member.tag != root, -member.total))
        groups.append(
            Together(
                number,
                tuple(member.tag for member in ordered),
                tuple(member.total for member in ordered),
                root,
                by_counters,
                evidence,
            )
        )
    return tuple(groups)


def _by_blocks(pools: Sequence[Pools]) -> list[_Grown]:
    """How many blocks each tag has more; tags of which a dump does not tell are left out."""
    rows = [{row.number: row for row in side.rows} for side in pools]
    grown = []
    for tag in set().union(*rows):
        counts = []
        for side, known in zip(pools, rows, strict=True):
            if tag in known:
                counts.append(known[tag].total("count"))
            else:
                counts.append(None if side.absent_entries or side.may_lack_tags else 0)
        told = [count for count in counts if count is not None]
        if len(told) == len(counts):
            grown.append(_Grown(tag, tuple(count - told[0] for count in told)))
    return _most(grown)


def _by_counters(pools: Sequence[Pools]) -> list[_Grown]:
    """By how many blocks the counters of each tag rose beyond those that were found."""
    beyond = [_beyond(side) for side in pools]
    grown = []
    for tag in set().union(*beyond):
        counts = [found.get(tag, 0) for found in beyond]
        grown.append(_Grown(tag, tuple(count - counts[0] for count in counts)))
    return _most(grown)


def _beyond(side: Pools) -> dict[int, int]:
    """How many blocks the counters say beyond those found, of tags where the blocks refute them."""
    rows = {row.number: row for row in side.rows}
    found: dict[int, int] = {}
    for tag, pool, count, _ in side.refuted:
        row = rows.get(tag)
        held = row.pools[POOLS[pool]].count if row and POOLS[pool] in row.pools else 0
        found[tag] = found.get(tag, 0) + count - (held or 0)
    return found


def _most(grown: Sequence[_Grown]) -> list[_Grown]:
    rows = [row for row in grown if row.total >= MIN_GROWTH]
    return sorted(rows, key=lambda row: (-row.total, row.tag))[:MAX_TAGS]


def _clusters(grown: list[_Grown]) -> list[list[_Grown]]:
    """Tags that grew alike, each in one cluster."""
    found: list[list[_Grown]] = []
    while True:
        best = max(
            (_around(seed, grown) for seed in grown),
            key=lambda cluster: (len(cluster), sum(row.total for row in cluster)),
            default=[],
        )
        if len(best) < 2:
            return found
        found.append(best)
        taken = {row.tag for row in best}
        grown = [row for row in grown if row.tag not in taken]


def _around(seed: _Grown, grown: Sequence[_Grown]) -> list[_Grown]:
    """What grew like one tag, itself included."""
    many = [row for row in grown if _is_alike(seed, row, dict.fromkeys(_TIMES, _MANY))]
    if len(many) > 2:
        return [row for row in grown if _is_alike(seed, row, dict.fromkeys(_TIMES, _JOINING))]
    two = {times: _TWO if times == 1 else _TWO_TIMES for times in _TIMES}
    return [row for row in grown if _is_alike(seed, row, two)]


def _is_alike(seed: _Grown, other: _Grown, allowed: dict[float, float]) -> bool:
    """One grew by so many times the other's growth, within what is allowed, and did so all the way."""
    near = any(
        abs(other.total - times * seed.total) <= share * times * seed.total
        for times, share in allowed.items()
    )
    return near and all(
        abs(mine / seed.total - its / other.total) <= _CURVE
        for mine, its in zip(seed.growth, other.growth, strict=True)
    )
