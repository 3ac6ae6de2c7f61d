"""Compares two snapshots: which sites grew, by how much, and whether the two may be compared at
all.

As pprof does it: base, current, delta = current - base, which may be negative; both absolute
values are kept.
Only snapshots come in, so a dump and a snapshot file are compared by the same code.

What a comparison shows is growth. It is never called a leak here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dumpleak.sites import Site
from dumpleak.snapshot import HeapRow, Snapshot
from dumpleak.totals import Totals
from windumps.diagnostics import Diagnostic, Severity

# Shares of walked memory that differ by more than this make totals incomparable.
COVERAGE_TOLERANCE = 0.02


class Verdict(StrEnum):
    """What a comparison comes to."""

    NO_GROWTH = "no-growth"
    GROWTH = "growth"
    NOT_COMPARABLE = "not-comparable"


@dataclass(frozen=True)
class SiteDelta:
    """One site in both dumps.

    Attributes:
        site: Who allocated.
        base: Totals before; zeros when the site was not there.
        current: Totals after.
        evidence: Why this deserves attention, one clause each.
    """

    site: Site
    base: Totals
    current: Totals
    evidence: tuple[str, ...] = ()

    @property
    def delta_bytes(self) -> int:
        """Current minus base."""
        return self.current.bytes - self.base.bytes

    @property
    def delta_count(self) -> int:
        """Current minus base."""
        return self.current.count - self.base.count

    @property
    def confidence(self) -> str:
        """The word for what two dumps can show."""
        return "growth"


@dataclass(frozen=True)
class Comparison:
    """Two dumps compared.

    Attributes:
        base: The earlier dump.
        current: The later dump.
        verdict: See `Verdict`.
        reasons: Why they are not comparable; also given when that was overruled.
        sites: Sites whose bytes or count changed, largest growth first.
        private: The same for private memory outside heaps, which is not part of the totals.
        base_totals: Over all heaps compared.
        current_totals: Over all heaps compared.
        diagnostics: Of both dumps; messages begin with the dump they concern.
    """

    base: Snapshot
    current: Snapshot
    verdict: Verdict
    reasons: tuple[str, ...]
    sites: tuple[SiteDelta, ...]
    private: tuple[SiteDelta, ...]
    base_totals: Totals
    current_totals: Totals
    diagnostics: tuple[Diagnostic, ...]

    @property
    def delta_bytes(self) -> int:
        """Growth over all sites, current minus base."""
        return self.current_totals.bytes - self.base_totals.bytes

    @property
    def delta_count(self) -> int:
        """Growth over all sites, current minus base."""
        return self.current_totals.count - self.base_totals.count


def compare(base: Snapshot, current: Snapshot, force: bool = False) -> Comparison:
    """Compares two snapshots made with the same grouping.

    Args:
        base: The earlier one.
        current: The later one.
        force: Compare even where coverage or process differ so much that the answer may mislead.

    Raises:
        ValueError: the snapshots were grouped differently.
    """
    if base.grouping != current.grouping:
        raise ValueError(f"cannot compare groups by {base.grouping} with {current.grouping}")
    reasons = tuple(why_not_comparable(base, current))
    diagnostics = (
        *_labelled("base", base.diagnostics),
        *_labelled("current", current.diagnostics),
        *(
            Diagnostic("not-comparable", Severity.ERROR, "comparison", None, reason)
            for reason in reasons
        ),
    )
    refused = bool(reasons) and not force
    sites = () if refused else _deltas(base.groups, current.groups)
    private = () if refused else _deltas(base.private, current.private)
    grew = any(delta.delta_bytes > 0 for delta in (*sites, *private))
    verdict = Verdict.GROWTH if grew else Verdict.NO_GROWTH
    return Comparison(
        base,
        current,
        Verdict.NOT_COMPARABLE if refused else verdict,
        reasons,
        sites,
        private,
        base.totals,
        current.totals,
        diagnostics,
    )


def _deltas(
    base: dict[str, tuple[Site, Totals]], current: dict[str, tuple[Site, Totals]]
) -> tuple[SiteDelta, ...]:
    """What changed, largest growth of bytes first; ties by count, then by key."""
    nothing = Totals()
    pairs = []
    for key in base.keys() | current.keys():
        site, after = current.get(key, (None, nothing))
        older, before = base.get(key, (None, nothing))
        shown = site or older
        if shown is not None and (before.count, before.bytes) != (after.count, after.bytes):
            pairs.append(SiteDelta(shown, before, after))
    pairs.sort(key=lambda pair: (-pair.delta_bytes, -pair.delta_count, pair.site.key))
    growth = sum(pair.delta_bytes for pair in pairs if pair.delta_bytes > 0)
    return tuple(
        SiteDelta(pair.site, pair.base, pair.current, tuple(_evidence(pair, growth)))
        for pair in pairs
    )


def why_not_comparable(base: Snapshot, current: Snapshot) -> list[str]:
    """Differences between two snapshots that would make a comparison lie; empty when there are
    none.
    """
    reasons = []
    before, after = base.source, current.source
    if before.architecture != after.architecture:
        reasons.append(
            f"the base is of a {before.architecture or 'unknown'} process, "
            f"the current dump of a {after.architecture or 'unknown'} one"
        )
    if before.program.lower() != after.program.lower() and before.program and after.program:
        reasons.append(
            f"the base is a dump of {before.program}, the current one of {after.program}"
        )
    reasons += _heaps_read_once(base.heaps, current.heaps)
    for which, snapshot in (("base", base), ("current dump", current)):
        if snapshot.coverage.shortfall:
            reasons.append(f"{which}: {snapshot.coverage.shortfall}")
    shares = base.coverage.walked_share, current.coverage.walked_share
    if not reasons and abs(shares[0] - shares[1]) > COVERAGE_TOLERANCE:
        reasons.append(
            f"{shares[0]:.1%} of the heap memory of the base could be walked and {shares[1]:.1%} of the "
            "current dump's: a difference may be a hole"
        )
    return reasons


def _heaps_read_once(base: list[HeapRow], current: list[HeapRow]) -> list[str]:
    """Heaps that both processes have and only one dump can tell about."""
    after = {row.label: row for row in current}
    reasons = []
    for row in base:
        other = after.get(row.label)
        if other is None or row.read == other.read:
            continue
        missing, which = (other, "current dump") if row.read else (row, "base")
        reasons.append(f"{row.label} could not be read in the {which}: {missing.reason}")
    return reasons


def _evidence(pair: SiteDelta, growth: int) -> list[str]:
    """Clauses that put a site's growth in proportion."""
    evidence = []
    if pair.delta_bytes > 0 and growth:
        evidence.append(f"{pair.delta_bytes / growth:.1%} of all growth")
    if not pair.base.count and pair.current.count:
        evidence.append("not in the base")
    elif pair.delta_bytes > 0 and pair.base.bytes:
        evidence.append(f"{pair.current.bytes / pair.base.bytes:.1f} times the base")
    if not pair.current.count:
        evidence.append("gone in the current dump")
    return evidence


def _labelled(which: str, diagnostics: list[Diagnostic]) -> list[Diagnostic]:
    return [
        Diagnostic(
            item.code,
            item.severity,
            item.structure,
            item.address,
            f"{which}: {item.message}",
            item.bytes_affected,
        )
        for item in diagnostics
    ]
