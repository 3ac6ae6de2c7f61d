"""Compares two snapshots: which sites grew, by how much, and whether the two may be compared at all.

As pprof does it: base, current, delta = current - base, which may be negative; both absolute values are kept.
Only snapshots come in, so a dump and a snapshot file are compared by the same code.

What a comparison shows is growth. It is never called a leak here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from dumpleak.compare.answers import (
    Comparison,
    Proof,
    SiteDelta,
    sites_that_grew,
    tag_number_of,
)
from dumpleak.compare.builds import align_builds, more_is_named
from dumpleak.compare.causes import joined_fates, with_causes
from dumpleak.compare.comparable import labelled, why_not_comparable
from dumpleak.compare.counters import explained
from dumpleak.compare.held_types import HeldGrowth, held_growth, with_held
from dumpleak.compare.life import Life, same_life
from dumpleak.compare.order import order_told
from dumpleak.compare.renaming import followed
from dumpleak.compare.series import judge, made_alike, private_notes, rows_total
from dumpleak.compare.survivors import Fate
from dumpleak.compare.together import find_together
from dumpleak.model.account import AccountRow
from dumpleak.model.account_rows import account_rows
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.together import Together, roots_first, told_together
from dumpleak.model.totals import Totals
from dumpleak.model.units import format_share

EXPLAINED_SITES = 20  # of which more is told than totals
SIDES = ("the base", "the current dump")


def compare(base: Snapshot, current: Snapshot, *, force: bool = False) -> Comparison:
    """Compares two snapshots made with the same grouping.

    Args:
        base: The earlier one.
        current: The later one.
        force: Compare even where coverage or process differ so much that the answer may mislead.

    Raises:
        ValueError: the snapshots were grouped differently.
    """
    series = made_alike((base, current), SIDES)
    base, current = series.snapshots
    reasons = why_not_comparable(base, current)
    notes = [*labelled("base", base.diagnostics), *labelled("current", current.diagnostics)]
    notes += series.said
    sites: tuple[SiteDelta, ...] = ()
    private: tuple[SiteDelta, ...] = ()
    account: tuple[AccountRow, ...] = ()
    together: tuple[Together, ...] = ()
    life, survivors = same_life(base, current), None
    if force or not reasons:
        names: dict[str, str] = {}
        if life.life is Life.SAME:
            base, current, survivors, names = followed(base, current)
        (base, current), causes = with_causes((base, current))
        aligned = align_builds((base.groups, current.groups), (base.modules, current.modules))
        notes += aligned.diagnostics
        fates = joined_fates(survivors.by_key, causes) if survivors is not None else {}
        names = {key: note for key, note in names.items() if key not in causes.keys}
        names |= aligned.notes
        sites = _deltas(aligned.groups[0], aligned.groups[1], names, fates)
        together = find_together((base, current))
        told = map(causes.told, _explained(base, current, sites, together))
        sites = _with_held(told, held_growth(base, current))
        if not series.private_unknown:
            private = _deltas(base.private, current.private, {}, {})
        account = account_rows((base, current))
    counted = bool(sites_that_grew((*sites, *private), has_bytes=base.has_bytes))
    judged = judge(series, reasons, sites, private, account, counted=counted, force=force)
    with_private = not series.private_unknown
    return Comparison(
        base,
        current,
        judged.verdict,
        judged.reasons,
        sites,
        private,
        rows_total(base, with_private=with_private),
        rows_total(current, with_private=with_private),
        (*notes, *order_told(base, current, account), *private_notes(series), *judged.diagnostics),
        life,
        survivors,
        doubts=judged.doubts,
        account=account,
        private_unknown=series.private_unknown,
        together=together,
    )


def with_proof(comparison: Comparison) -> Comparison:
    """A comparison with what references in the current dump say, where they were looked for."""
    current, survivors = comparison.current, comparison.survivors
    if not current.coverage.is_complete:
        return comparison  # what was not walked may hold pointers to anything
    if survivors is not None and not survivors.total.new:
        return replace(comparison, proof=Proof(0, 0, 0, True))
    lost = current.unreferenced
    if lost is None or current.blocks is None:
        return comparison
    table = current.blocks()
    if survivors is not None:
        asked = ~survivors.known
    else:
        grown = {delta.site.key for delta in comparison.sites if delta.delta_bytes > 0}
        asked = np.array([key in grown for key in table.keys], np.bool_)[table.group]
    found = lost & asked
    count, of = int(np.count_nonzero(found)), int(np.count_nonzero(asked))
    size = int(np.maximum(table.size[found], 0).sum())
    return replace(comparison, proof=Proof(count, of, size, survivors is not None))


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
    base: Snapshot,
    current: Snapshot,
    sites: tuple[SiteDelta, ...],
    together: Sequence[Together],
) -> tuple[SiteDelta, ...]:
    """The sites that grew most, with what the snapshots can tell of their growth; roots go first."""

    def tag_of(delta: SiteDelta) -> int | None:
        return tag_number_of(delta.site, base, current)

    def told(delta: SiteDelta) -> SiteDelta:
        if delta.delta_bytes <= 0:
            return delta
        note = (
            *told_together(together, tag_of(delta)),
            *explained(base, current, delta.site),
        )
        return replace(delta, notes=note, evidence=(*delta.evidence, *note))

    ordered = roots_first(sites, tag_of, together)
    first = [told(delta) for delta in ordered[:EXPLAINED_SITES]]
    return (*first, *ordered[len(first) :])


def _with_held(sites: Iterable[SiteDelta], growth: HeldGrowth) -> tuple[SiteDelta, ...]:
    """Types of objects, each with what it holds."""
    return tuple(
        replace(
            delta,
            held=growth.held.get(delta.site.key, ()),
            notes=(*delta.notes, *growth.notes.get(delta.site.key, ())),
        )
        for delta in with_held(tuple(sites), growth)
    )


def _evidence(pair: SiteDelta, growth: int) -> list[str]:
    """Clauses that put a site's growth in proportion."""
    evidence = []
    if pair.delta_bytes > 0 and growth:
        evidence.append(f"{format_share(pair.delta_bytes, growth)} of all growth")
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
