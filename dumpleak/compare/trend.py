"""Three dumps and more: which sites grow steadily, how fast, and when memory ends.

The method is the one Microsoft documents for UMDH and PoolMon: a series, growth in every interval, then a
dump after the load stopped. What two dumps show is growth; steady growth over three and more makes a site a
suspect; what a stopped load did not give back is leaked.

Only snapshots come in, so dumps and snapshot files are mixed freely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np

from dumpleak.compare.answers import Compared, Verdict, tag_number_of
from dumpleak.compare.builds import align_builds
from dumpleak.compare.causes import with_causes
from dumpleak.compare.comparable import labelled, same_dump, why_not_comparable
from dumpleak.compare.held_types import held_growth, with_held
from dumpleak.compare.life import Life, same_life
from dumpleak.compare.refuted import grown_by_counters, unknown_notes
from dumpleak.compare.renaming import joined
from dumpleak.compare.series import judge, made_alike, private_notes, rows_total
from dumpleak.compare.site_trends import (
    LAST_DATE,
    MIN_DUMPS,
    Exhaustion,
    Newcomers,
    SiteTrend,
    TrendFinder,
    has_counted_growth,
    middle_of,
)
from dumpleak.compare.stretches import Lives, Recurring
from dumpleak.compare.survivors import Survivors, find_survivors
from dumpleak.compare.together import find_together
from dumpleak.model.account import AccountRow
from dumpleak.model.account_rows import account_rows
from dumpleak.model.boots import runs_of
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.together import Together, roots_first, told_together
from dumpleak.model.totals import Totals
from windumps.diagnostics import Diagnostic, Severity
from windumps.errors import WindumpsError

_UNTIMED = Diagnostic(
    *("no-times", Severity.WARNING, "comparison", None),
    "the dumps do not tell when they were taken, or two the same time: no rates, and intervals count as "
    "equal",
)


class TrendError(WindumpsError):
    """These dumps make no series; the message says why and what to do."""


@dataclass(frozen=True)
class Trend(Compared):
    """A series of dumps compared.

    Attributes:
        snapshots: In order of time; the one after idle last.
        after_idle: True when the last one was taken after the load stopped.
        verdict: See `Verdict`.
        reasons: Why they are not comparable; also given when that was overruled.
        sites: Sites whose bytes or count changed: leaked ones first, then suspects, then the rest, each by
            growth.
        private: Private memory outside heaps that changed, in that order.
        exhaustion: When memory ends; None when no limit is known.
        diagnostics: Of all dumps; messages begin with the dump they concern.
        doubts: Why a series that was compared comes to no verdict: a dump may hide what it would need.
        account: Everything that can grow, in figures.
        private_unknown: Why private memory outside heaps is not compared; "" when it is.
        restarts: (last file before, first file after) of each restart of the system in the series. Then all
            of this is of one run of it, and `other_runs` of the others.
        other_runs: Other runs of the system, each judged by itself.
        by_counters: Groups that grow by counters only: those of some dumps are refuted by the blocks.
        boots: All dumps, those of one run of the system together, in order; one run where none was told.
        recurring: What grows at a like rate in every run.
        together: Tags of the kernel's pools that grow alike under load; `sites` has the root of each first.
    """

    snapshots: tuple[Snapshot, ...]
    after_idle: bool
    verdict: Verdict
    reasons: tuple[str, ...]
    sites: tuple[SiteTrend, ...]
    private: tuple[SiteTrend, ...]
    exhaustion: Exhaustion | None
    diagnostics: tuple[Diagnostic, ...]
    doubts: tuple[str, ...] = ()
    account: tuple[AccountRow, ...] = ()
    private_unknown: str = ""
    restarts: tuple[tuple[str, str], ...] = ()
    other_runs: tuple[Trend, ...] = ()
    by_counters: tuple[SiteTrend, ...] = ()
    boots: tuple[tuple[Snapshot, ...], ...] = ()
    recurring: tuple[Recurring, ...] = ()
    together: tuple[Together, ...] = ()

    @property
    def restarted(self) -> str:
        """Where the system was restarted; "" when it was not."""
        places = " and ".join(f"between {before} and {after}" for before, after in self.restarts)
        return f"the system was restarted {places}" if places else ""

    @property
    def base(self) -> Snapshot:
        """The first dump."""
        return self.snapshots[0]

    @property
    def current(self) -> Snapshot:
        """The last dump."""
        return self.snapshots[-1]

    @property
    def base_totals(self) -> Totals:
        """Of the first dump, over all that `sites` and `private` are of."""
        return rows_total(self.base, with_private=not self.private_unknown)

    @property
    def current_totals(self) -> Totals:
        """Of the last dump, over all that `sites` and `private` are of."""
        return rows_total(self.current, with_private=not self.private_unknown)


def find_trend(
    snapshots: Sequence[Snapshot], after_idle: Snapshot | None = None, *, force: bool = False
) -> Trend:
    """Finds the sites that grow steadily.

    Args:
        snapshots: Taken under load, in any order where all tell their time, else in order of time.
        after_idle: Taken after the load stopped and what it had taken could be given back.
        force: Go on even where coverage or process differ so much that the answer may mislead.

    Raises:
        TrendError: too few dumps, one of them given twice, or their times contradict each other.
        ValueError: the snapshots were grouped differently.
        MissingExtraError: SciPy is not installed.
    """
    series = _in_order(list(snapshots), after_idle)
    runs = runs_of([snapshot.boot for snapshot in series])
    idle = after_idle is not None
    if len(runs) == 1:
        return _judge_run(series, idle=idle, force=force)
    return _over_restarts([[series[n] for n in run] for run in runs], idle=idle, force=force)


def _over_restarts(runs: list[list[Snapshot]], *, idle: bool, force: bool) -> Trend:
    """Judges each run of the system by itself: counters and blocks begin anew with it.

    The longest run is the answer, and the last one where it ends with the dump after idle.

    Raises:
        TrendError: no run has dumps enough.
    """
    restarts = tuple(
        (before[-1].source.file, after[0].source.file) for before, after in pairwise(runs)
    )
    main = len(runs) - 1
    if not idle:
        main = max(range(len(runs)), key=lambda number: (len(runs[number]), number))
    if len(runs[main]) < MIN_DUMPS:
        places = " and ".join(f"between {before} and {after}" for before, after in restarts)
        raise TrendError(
            f"the system was restarted {places}: a trend needs {MIN_DUMPS} dumps or more of one run, and "
            f"the one that would be judged has {len(runs[main])}"
        )
    answer = _judge_run(runs[main], idle=idle, force=force)
    judged = [
        answer
        if number == main
        else _judge_run(run, idle=False, force=force)
        if len(run) > 1
        else None
        for number, run in enumerate(runs)
    ]
    lives = Lives(
        [
            None
            if each is None or each.refused
            else (each.sites, each.by_counters, len(each.snapshots))
            for each in judged
        ],
        has_bytes=answer.base.has_bytes,
    )
    said = Diagnostic(
        "restarted",
        Severity.WARNING,
        "comparison",
        None,
        f"{replace(answer, restarts=restarts).restarted}: each run is judged by itself",
    )
    return replace(
        answer,
        sites=lives.said(answer.sites),
        by_counters=lives.said(answer.by_counters),
        restarts=restarts,
        other_runs=tuple(each for each in judged if each is not None and each is not answer),
        diagnostics=(said, *answer.diagnostics),
        boots=tuple(map(tuple, runs)),
        recurring=lives.recurring(),
    )


def _judge_run(ordered: list[Snapshot], *, idle: bool, force: bool) -> Trend:
    """As `find_trend`, of dumps in order of time."""
    series = made_alike(ordered)
    _check_differ(series.snapshots)
    reasons = _reasons(series.snapshots)
    under_load = len(ordered) - idle
    finder = TrendFinder(series.snapshots, under_load)
    dumps = series.snapshots
    sites: tuple[SiteTrend, ...] = ()
    private: tuple[SiteTrend, ...] = ()
    by_counters: tuple[SiteTrend, ...] = ()
    account: tuple[AccountRow, ...] = ()
    together: tuple[Together, ...] = ()
    notes: list[Diagnostic] = []
    if force or not reasons:
        dumps, followed, notes_of_names = _followed(dumps, under_load)
        dumps, causes = with_causes(dumps, under_load - 1)
        aligned = align_builds([s.groups for s in dumps], [s.modules for s in dumps])
        sites = finder.trends(aligned.groups, _newcomers(dumps, under_load, followed))
        if not series.private_unknown:
            private = finder.trends([snapshot.private for snapshot in dumps], {})
        account = account_rows(dumps)
        by_counters = grown_by_counters(finder, dumps, sites)
        together = find_together(dumps[:under_load])
        sites = tuple(map(causes.told_of, _roots_first(sites, dumps, together)))
        sites = with_held(sites, held_growth(dumps[0], dumps[-1]))
        notes = [*aligned.diagnostics, *notes_of_names, *unknown_notes(dumps)]
    counted = has_counted_growth(dumps, sites)
    judged = judge(
        series._replace(snapshots=dumps),
        *(reasons, sites, private, account),
        counted=counted,
        force=force,
    )
    return Trend(
        tuple(dumps),
        idle,
        judged.verdict,
        judged.reasons,
        sites,
        private,
        finder.exhaustion((*sites, *private)) if force or not reasons else None,
        (
            *(item for s in dumps for item in labelled(s.source.file, s.diagnostics)),
            *judged.diagnostics,
            *([] if finder.timed else [_UNTIMED]),
            *series.said,
            *private_notes(series),
            *notes,
        ),
        doubts=judged.doubts,
        account=account,
        private_unknown=series.private_unknown,
        by_counters=by_counters,
        boots=(tuple(ordered),),
        together=together,
    )


def _roots_first(
    sites: tuple[SiteTrend, ...], dumps: Sequence[Snapshot], together: Sequence[Together]
) -> tuple[SiteTrend, ...]:
    """Sites, of tags that grow together the root first; each tells what it grows together with."""

    def tag_of(site: SiteTrend) -> int | None:
        return tag_number_of(site.site, *dumps)

    return tuple(
        replace(site, evidence=(*site.evidence, *told_together(together, tag_of(site))))
        if site.delta_bytes > 0
        else site
        for site in roots_first(sites, tag_of, together)
    )


def time_order(snapshots: Sequence[Snapshot]) -> list[int]:
    """The numbers of snapshots in order of their times; as they are where one does not tell its time.

    Names like dump10 sort before dump2: time decides, not the order on the command line.
    """
    times = [snapshot.source.time for snapshot in snapshots]
    numbers = list(range(len(times)))
    if None in times:
        return numbers
    return sorted(numbers, key=lambda number: times[number] or LAST_DATE)


def _in_order(snapshots: list[Snapshot], after_idle: Snapshot | None) -> list[Snapshot]:
    """All snapshots in order of time, as far as they tell it."""
    everything = [*snapshots, *([after_idle] if after_idle else [])]
    if len(everything) < MIN_DUMPS:
        raise TrendError(
            f"a trend needs {MIN_DUMPS} dumps or more and got {len(everything)}; "
            "two dumps are compared with `dumpleak diff`"
        )
    snapshots = [snapshots[number] for number in time_order(snapshots)]
    if after_idle is not None:
        last, idle = snapshots[-1].source.time, after_idle.source.time
        if last is not None and idle is not None and idle <= last:
            raise TrendError(
                f"{after_idle.source.file} is said to be taken after the load stopped, but "
                f"{snapshots[-1].source.file} is not older"
            )
        snapshots = [*snapshots, after_idle]
    return snapshots


def _check_differ(series: list[Snapshot]) -> None:
    """One dump given twice shows no change where nobody looked.

    Raises:
        TrendError: it was.
    """
    for one, other in combinations(series, 2):
        if same_dump(one, other):
            raise TrendError(
                f"{one.source.file} and {other.source.file} are the same dump; a trend needs dumps of "
                "different times"
            )


def _reasons(series: list[Snapshot]) -> list[str]:
    """Why the series is none: what neighbours would lie about, and a process that was started anew."""
    reasons: dict[str, None] = {}
    for before, after in pairwise(series):
        names = before.source.file, after.source.file
        for reason in why_not_comparable(before, after, names):
            reasons[reason] = None
        life = same_life(before, after)
        if life.life is Life.OTHER:
            reasons[
                f"the process was started anew between {names[0]} and {names[1]}: {life.why}"
            ] = None
    return list(reasons)


def _followed(
    series: list[Snapshot], under_load: int
) -> tuple[list[Snapshot], list[Survivors], list[Diagnostic]]:
    """The series with one name for each site that its blocks prove to be one, and what became of them."""
    found = _survivors(series, under_load)
    places = pairwise((0, middle_of(under_load), len(series) - 1))
    names = [(a, b, f.same_sites) for (a, b), f in zip(places, found, strict=False)]
    if not any(same_sites for *_, same_sites in names):
        return series, found, []
    series, notes = joined(series, names)
    said = [
        Diagnostic(
            "same-blocks",
            Severity.INFO,
            "comparison",
            None,
            f"{next(s.groups[key][0].name for s in series if key in s.groups)} is {note}",
        )
        for key, note in notes.items()
    ]
    return series, _survivors(series, under_load), said


def _survivors(series: Sequence[Snapshot], under_load: int) -> list[Survivors]:
    """From the first dump to the middle one, and from there to the last; empty where nobody can tell."""
    chosen = (series[0], series[middle_of(under_load)], series[-1])
    if any(same_life(a, b).life is not Life.SAME for a, b in pairwise(chosen)):
        return []
    found = []
    for before, after in pairwise(chosen):
        if before.blocks is None or after.blocks is None:
            return []
        found.append(find_survivors(before.blocks(), after.blocks(), (before.groups, after.groups)))
    return found


def _newcomers(
    series: Sequence[Snapshot], under_load: int, followed: Sequence[Survivors]
) -> dict[str, Newcomers]:
    """What became of blocks that came in the first half of a series, for each group by key.

    Empty where the dumps are not all of one process life, or do not know single blocks.
    """
    middle = series[middle_of(under_load)]
    if not followed or middle.blocks is None:
        return {}
    table = middle.blocks()
    new = ~followed[0].known
    kept = new & followed[1].kept
    counts = [np.bincount(table.group[rows], minlength=len(table.keys)) for rows in (new, kept)]
    return {
        key: Newcomers(int(came), int(stayed))
        for key, came, stayed in zip(table.keys, *counts, strict=True)
    }
