"""What is said of one dump, alone or in a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dumpleak.model.coverage import Coverage
from dumpleak.model.sites import SiteKind
from dumpleak.model.snapshot import Snapshot, SourceInfo
from dumpleak.reports.answers.next_steps import Step, record_stacks

if TYPE_CHECKING:
    from dumpleak.compare.answers import SiteDelta
    from dumpleak.compare.site_trends import SiteTrend
    from dumpleak.survey.leaks import LeakGroup

NAMED = 3  # sites the summary names
MAX_NAME = 80  # characters of each


def heading_of(snapshot: Snapshot) -> str:
    """What stands above the names of a snapshot's groups: the sites of the kernel's pools are tags."""
    return "tag" if snapshot.is_pool and snapshot.grouping == "site" else snapshot.grouping


def stack_steps(
    source: SourceInfo, sites: Sequence[SiteDelta | SiteTrend | LeakGroup]
) -> tuple[Step, ...]:
    """How to get call stacks, when the sites that matter have none."""
    nameless = (SiteKind.TYPE, SiteKind.SHAPE)
    if any(delta.site.kind in nameless for delta in sites[:NAMED]):
        return (record_stacks(source),)
    return ()


def covered_told(sides: Sequence[Coverage]) -> str:
    """How much of the heaps the answer rests on; of several dumps the worst."""
    never = next((side.never for side in sides if side.never), "")
    if never:
        return never
    worst = min(
        sides,
        key=lambda side: (
            *(side.walked_share, side.heaps_read - side.heaps_listed),
            side.is_complete,
        ),
    )
    return worst.told(
        " of the worst dump" if len({side.walked_share for side in sides}) > 1 else ""
    )
