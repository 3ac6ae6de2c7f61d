"""Compares two snapshots: which sites grew, by how much, and whether the two may be compared at
all.

As pprof does it: base, current, delta = current - base, which may be negative; both absolute
values are kept.
Only snapshots come in, so a dump and a snapshot file are compared by the same code.

What a comparison shows is growth. It is never called a leak here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from dumpleak.builds import align_builds, more_is_named
from dumpleak.identities import identified
from dumpleak.process_life import Life, LifeAnswer, same_life
from dumpleak.renaming import followed
from dumpleak.same_private import with_same_private
from dumpleak.sites import Site, SiteKind
from dumpleak.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.snapshots.privacy import alike, hashed_name
from dumpleak.survivors import Fate, Survivors
from dumpleak.totals import Totals
from dumpleak.units import format_bytes
from windumps.diagnostics import MEMORY_CUT, Diagnostic, Severity
from windumps.windows.process import HEAP_LIST_CUT

if TYPE_CHECKING:
    from dumpleak.gate import GateResult

# Shares of walked memory that differ by more than this make totals incomparable.
COVERAGE_TOLERANCE = 0.02
BY_STACK = ("site", "stack")  # groupings whose names come from recorded stacks
MOST = 0.5
EXPLAINED_SITES = 20  # of which more is told than totals


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
        fate: What became of its blocks; None where the dumps are not of one process life.
        notes: Those clauses of the evidence that a table shows under the site's name.
    """

    site: Site
    base: Totals
    current: Totals
    evidence: tuple[str, ...] = ()
    fate: Fate | None = None
    notes: tuple[str, ...] = ()

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
        life: Whether both dumps are of one process life.
        survivors: What became of the blocks; None where that cannot be told.
        gate: What the gate says, when the user asked for one.
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
    life: LifeAnswer
    survivors: Survivors | None = None
    gate: GateResult | None = None

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
    (base, current), private_notes = with_same_private(identified(alike(base, current)))
    reasons = tuple(why_not_comparable(base, current))
    diagnostics = (
        *labelled("base", base.diagnostics),
        *labelled("current", current.diagnostics),
        *(
            Diagnostic("not-comparable", Severity.ERROR, "comparison", None, reason)
            for reason in reasons
        ),
    )
    diagnostics += (*order_diagnostics(base.source, current.source), *private_notes)
    refused = bool(reasons) and not force
    sites: tuple[SiteDelta, ...] = ()
    private: tuple[SiteDelta, ...] = ()
    life = same_life(base, current)
    survivors: Survivors | None = None
    names: dict[str, str] = {}
    if not refused:
        if life.life is Life.SAME:
            base, current, survivors, names = followed(base, current)
        fates = survivors.by_key if survivors is not None else {}
        aligned = align_builds((base.groups, current.groups), (base.modules, current.modules))
        diagnostics += tuple(aligned.diagnostics)
        sites = _deltas(aligned.groups[0], aligned.groups[1], names | aligned.notes, fates)
        sites = _explained(base, current, sites)
        private = _deltas(base.private, current.private, {}, {})
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
        life,
        survivors,
    )


def _deltas(
    base: dict[str, tuple[Site, Totals]],
    current: dict[str, tuple[Site, Totals]],
    notes: dict[str, str],
    fates: dict[str, Fate],
) -> tuple[SiteDelta, ...]:
    """What changed, largest growth of bytes first; ties by count, then by key.

    `notes` are added to the evidence of the sites with these keys; `fates` are by the sites' own.
    """
    nothing = Totals()
    pairs = []
    for key in base.keys() | current.keys():
        site, after = current.get(key, (None, nothing))
        older, before = base.get(key, (None, nothing))
        shown = older if site is None or (older and more_is_named(older, site)) else site
        if shown is not None and (before.count, before.bytes) != (after.count, after.bytes):
            note = (notes[key],) if key in notes else ()
            pairs.append(SiteDelta(shown, before, after, note, fates.get(shown.key)))
    pairs.sort(key=lambda pair: (-pair.delta_bytes, -pair.delta_count, pair.site.key))
    growth = sum(pair.delta_bytes for pair in pairs if pair.delta_bytes > 0)
    return tuple(
        replace(pair, evidence=(*_evidence(pair, growth), *pair.evidence)) for pair in pairs
    )


def _explained(
    base: Snapshot, current: Snapshot, sites: tuple[SiteDelta, ...]
) -> tuple[SiteDelta, ...]:
    """The sites that grew most, with what the snapshots can tell of their growth."""
    explain = current.explain
    if explain is None:
        return sites
    grown = [delta for delta in sites[:EXPLAINED_SITES] if delta.delta_bytes > 0]
    notes = [explain(base, delta.site) for delta in grown]
    told = [
        replace(delta, notes=note, evidence=(*delta.evidence, *note))
        for delta, note in zip(grown, notes, strict=True)
    ]
    return (*told, *sites[len(told) :])


def why_not_comparable(
    base: Snapshot, current: Snapshot, names: tuple[str, str] = ("the base", "the current dump")
) -> list[str]:
    """Differences between two snapshots that would make a comparison lie; empty when there are
    none.

    Args:
        base: The earlier one.
        current: The later one.
        names: What to call them.
    """
    reasons = []
    older, newer = names
    before, after = base.source, current.source
    if base.is_pool != current.is_pool:
        what = {True: "the kernel's pools", False: "the heaps of a process"}
        return [f"{older} is of {what[base.is_pool]}, {newer} of {what[current.is_pool]}"]
    if before.architecture != after.architecture:
        reasons.append(
            f"{older} is of a {before.architecture or 'unknown'} process, "
            f"{newer} of a {after.architecture or 'unknown'} one"
        )
    programs = before.program.lower(), after.program.lower()
    if base.stripped and base.kept_names != current.kept_names:
        programs = hashed_name("module", programs[0]), hashed_name("module", programs[1])
    if programs[0] != programs[1] and before.program and after.program:
        reasons.append(f"{older} is a dump of {before.program}, {newer} of {after.program}")
    reasons += _heaps_read_once(base.heaps, current.heaps, names)
    if not base.is_pool:
        reasons += _heaps_listed_once(base, current, names)
        reasons += _cut(base, current, names)
        reasons += _stacks_once(base, current, names)
    for which, snapshot in zip(names, (base, current), strict=True):
        if snapshot.coverage.shortfall:
            reasons.append(f"{which}: {snapshot.coverage.shortfall}")
    shares = base.coverage.walked_share, current.coverage.walked_share
    if not reasons and abs(shares[0] - shares[1]) > COVERAGE_TOLERANCE:
        reasons.append(
            f"{shares[0]:.1%} of the heap memory of {older} could be walked and {shares[1]:.1%} of "
            f"that of {newer}: a difference may be a hole"
        )
    return reasons


def _heaps_read_once(
    base: list[HeapRow], current: list[HeapRow], names: tuple[str, str]
) -> list[str]:
    """Heaps that both processes have and only one dump can tell about."""
    after = {row.label: row for row in current}
    reasons = []
    for row in base:
        other = after.get(row.label)
        if other is None or row.read == other.read:
            continue
        missing, which = (other, names[1]) if row.read else (row, names[0])
        reasons.append(f"{row.label} could not be read in {which}: {missing.reason}")
    return reasons


def _heaps_listed_once(base: Snapshot, current: Snapshot, names: tuple[str, str]) -> list[str]:
    """Heaps that were read in one dump, where the other lacks part of its list of heaps."""
    reasons = []
    for which, snapshot, other in ((names[0], base, current), (names[1], current, base)):
        cut = any(item.code == HEAP_LIST_CUT for item in snapshot.diagnostics)
        known = {row.label for row in snapshot.heaps}
        lost = [row.label for row in other.heaps if row.read and row.label not in known]
        if cut or snapshot.coverage.heaps_listed > len(snapshot.heaps):
            reasons += [
                f"{label} could not be read in {which}: the list of heaps is not whole in that dump"
                for label in lost
            ]
    return reasons


def _stacks_once(base: Snapshot, current: Snapshot, names: tuple[str, str]) -> list[str]:
    """Stacks that only one process recorded: none of its sites has its name in the other dump."""
    if base.grouping not in BY_STACK:
        return []
    shares = [_stack_share(snapshot) for snapshot in (base, current)]
    if max(shares) <= MOST or min(shares) > 0 or not (base.totals.count and current.totals.count):
        return []
    having, lacking = names if shares[0] > shares[1] else names[::-1]
    return [
        f"{having} has recorded stacks and {lacking} has none, so that no site of one is found in the other "
        "(--by type, size or heap compares them)"
    ]


def _stack_share(snapshot: Snapshot) -> float:
    """The share of blocks that have a recorded stack."""
    stacks = (n.count for site, n in snapshot.groups.values() if site.kind is SiteKind.STACK)
    return sum(stacks) / max(snapshot.totals.count, 1)


def _cut(base: Snapshot, current: Snapshot, names: tuple[str, str]) -> list[str]:
    """Files that end early: a heap whose structures are lost does not know how much it had."""
    reasons = []
    for which, snapshot in zip(names, (base, current), strict=True):
        lost = sum(i.bytes_affected for i in snapshot.diagnostics if i.code == MEMORY_CUT)
        if lost > COVERAGE_TOLERANCE * snapshot.coverage.committed_bytes:
            reasons.append(
                f"the file of {which} is cut and lacks {format_bytes(lost)} of memory, which may have "
                "been of a heap: a difference may be a hole; copy it again"
            )
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
    elif pair.fate is not None and pair.base.count:
        fate = pair.fate
        evidence.append(
            f"{fate.kept:,} of {pair.base.count:,} blocks of the base are still there; {fate.new:,} are new"
        )
    return evidence


def is_older(base: SourceInfo, current: SourceInfo) -> bool:
    """True when the current dump was taken before the base: the two are probably swapped."""
    return base.time is not None and current.time is not None and current.time < base.time


SWAPPED = (
    "the current dump was taken before the base: if the two are swapped, what shrank has grown"
)


def order_diagnostics(base: SourceInfo, current: SourceInfo) -> tuple[Diagnostic, ...]:
    """Says so when two dumps stand in the wrong order."""
    if not is_older(base, current):
        return ()
    return (Diagnostic("dumps-swapped", Severity.WARNING, "comparison", None, SWAPPED),)


def labelled(which: str, diagnostics: list[Diagnostic]) -> list[Diagnostic]:
    """Diagnostics whose messages begin with the dump they concern."""
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
