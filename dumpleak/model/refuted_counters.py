"""What the kernel's counters say of tags where the blocks refute them, grouped like everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dumpleak.model.pool import NONE, POOLS, TagRow
from dumpleak.model.pool_sites import Refuted, driver_of, tag_site
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Groups, Totals, add_to

# Groupings of what the trackers count, and the group of a tag's counters in one of `POOLS`.
COUNTED: dict[str, Callable[[TagRow, int], Site]] = {
    "site": tag_site,
    "tag": lambda row, pool: tag_site(row),
    "driver": lambda row, pool: driver_of(row.owner.driver),
}


def keep_refuted(snapshot: Snapshot, rows: Iterable[TagRow], refuted: Sequence[Refuted]) -> None:
    """Fills `Snapshot.refuted` and `Snapshot.refuted_unknown`, of `refuted_counters`.

    A group of several tags or pools counts those that are not refuted as they are.
    """
    group_of = COUNTED.get(snapshot.grouping)
    snapshot.refuted, snapshot.refuted_unknown = {}, ""
    if refuted and group_of is None:
        snapshot.refuted_unknown = (
            f"the blocks refute counters of pool tags, and counters do not tell the {snapshot.grouping} of "
            f"blocks: what grows by counters only is shown by {', '.join(COUNTED)}"
        )
    if not refuted or group_of is None:
        return
    said = {(tag, pool): Totals(count, held, held) for tag, pool, count, held in refuted}
    groups: Groups = {}
    doubted = set()
    for row in rows:
        for number, pool in enumerate(POOLS):
            held = row.pools.get(pool, NONE)
            counted = said.get((row.number, number))
            site = group_of(row, number)
            if counted is not None:
                doubted.add(site.key)
            size = held.bytes or 0
            more = counted or Totals(held.count or 0, size, size)
            add_to(groups, site, more)
    snapshot.refuted = {key: group for key, group in groups.items() if key in doubted}
