"""What two dumps and many have in common: they are made alike, added up, and judged by one measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from dumpleak.compare.answers import Verdict
from dumpleak.compare.comparable import Growth, doubts
from dumpleak.compare.identities import identified
from dumpleak.compare.same_owners import with_same_owners
from dumpleak.compare.same_private import with_same_bytes, with_same_private
from dumpleak.model.account import AccountRow
from dumpleak.model.account_rows import what_grew, why_no_private
from dumpleak.model.coverage import ListCovered
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.stripping import alike
from dumpleak.model.totals import Totals, sum_of
from windumps.diagnostics import Diagnostic, Severity


class Series(NamedTuple):
    """Snapshots in which one thing has one name and one measure, in order of time.

    Attributes:
        snapshots: Two at least.
        names: What to call them.
        private_unknown: Why private memory outside heaps is not compared; "" when it is.
        said: What has to be said of how they were made alike.
    """

    snapshots: list[Snapshot]
    names: Sequence[str]
    private_unknown: str
    said: list[Diagnostic]


class Changed(Protocol):
    """A site in the first dump and the last."""

    @property
    def delta_bytes(self) -> int:
        """Last minus first."""


@dataclass(frozen=True)
class Judgement:
    """What a comparison comes to.

    Attributes:
        verdict: See `Verdict`.
        reasons: Why the dumps are not comparable; also given when that was overruled.
        doubts: Why a comparison that was made comes to no verdict.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """Says both."""
        return [
            Diagnostic("not-comparable", Severity.ERROR, "comparison", None, why)
            for why in (*self.reasons, *self.doubts)
        ]


def made_alike(snapshots: Sequence[Snapshot], names: Sequence[str] = ()) -> Series:
    """Snapshots so that they can be compared.

    Args:
        snapshots: In order of time.
        names: What to call them; their files when there are none.

    Raises:
        ValueError: they were grouped differently.
    """
    groupings = list(dict.fromkeys(snapshot.grouping for snapshot in snapshots))
    if len(groupings) > 1:
        raise ValueError(f"cannot compare groups by {' with '.join(groupings)}")
    stripped = next((snapshot for snapshot in snapshots if snapshot.stripped), None)
    if stripped is not None:
        snapshots = [alike(stripped, snapshot)[1] for snapshot in snapshots]
    series, said = with_same_private(identified(with_same_bytes(with_same_owners(snapshots))))
    names = names or [snapshot.source.file for snapshot in series]
    series, left_out = with_same_processes(series)
    # Memory that one dump does not list and another does would be growth that never was.
    unknown = "; ".join(
        f"{name}: {why}"
        for name, snapshot in zip(names, series, strict=True)
        if (why := why_no_private(snapshot))
    )
    return Series(series, names, unknown, [*said, *left_out])


def with_same_processes(
    series: Sequence[Snapshot],
) -> tuple[list[Snapshot], list[Diagnostic]]:
    """Members by process without the processes that one dump does not tell of wholly, and which these are."""
    lacking: dict[str, str] = {}
    for snapshot in series:
        if isinstance(snapshot.coverage, ListCovered) and snapshot.grouping == "process":
            lacking |= {site.key: site.name for site, _ in snapshot.coverage.lacking}
    if not lacking:
        return list(series), []
    kept = []
    for snapshot in series:
        groups = {key: group for key, group in snapshot.groups.items() if key not in lacking}
        totals = sum_of(totals for _, totals in groups.values())
        kept.append(replace(snapshot, groups=groups, totals=totals))
    members = series[0].population
    message = (
        f"{members} of {', '.join(lacking.values())} are not compared: not every dump has them all"
    )
    return kept, [Diagnostic("processes-left-out", Severity.WARNING, "comparison", None, message)]


def judge(
    series: Series,
    reasons: Sequence[str],
    sites: Sequence[Changed],
    private: Sequence[Changed],
    account: Sequence[AccountRow],
    *,
    counted: bool,
    force: bool,
) -> Judgement:
    """What a comparison comes to.

    Args:
        series: The dumps.
        reasons: Why they are not comparable.
        sites: What changed; nothing where they are not comparable.
        private: Private memory outside heaps that did.
        account: Everything that can grow, in figures.
        counted: Something grew that shows in no bytes.
        force: The reasons are overruled.
    """
    others = bool(what_grew(account)) or counted
    growth = Growth(
        sum(max(site.delta_bytes, 0) for site in sites),
        -sum(min(site.delta_bytes, 0) for site in sites),
        sum(max(site.delta_bytes, 0) for site in private),
    )
    refused = bool(reasons) and not force
    why = [] if refused else doubts(series.snapshots, series.names, growth, others_grew=others)
    if force:
        return Judgement(_verdict(growth, others=others), (*reasons, *why), ())
    found = Verdict.NOT_COMPARABLE if refused or why else _verdict(growth, others=others)
    return Judgement(found, tuple(reasons), tuple(why))


def _verdict(growth: Growth, *, others: bool) -> Verdict:
    grew = growth.grown_bytes or growth.private_bytes or others
    return Verdict.GROWTH if grew else Verdict.NO_GROWTH


def private_notes(series: Series) -> list[Diagnostic]:
    """Says that private memory outside heaps is left out, where a dump has some."""
    if not series.private_unknown or not any(snapshot.private for snapshot in series.snapshots):
        return []
    message = f"private memory outside heaps is not compared: {series.private_unknown}"
    return [Diagnostic("private-not-compared", Severity.WARNING, "comparison", None, message)]


def rows_total(snapshot: Snapshot, *, with_private: bool) -> Totals:
    """Over all rows that are compared: blocks, and private memory outside heaps where it is known."""
    private = snapshot.private.values() if with_private else ()
    return sum_of([snapshot.totals, *(totals for _, totals in private)])
