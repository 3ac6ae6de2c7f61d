"""Sites as names in tables: who called, who holds the blocks, and what a row opens to."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from dumpleak.attribution.source import shortened
from dumpleak.model.group_sums import SiteDetail
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals
from dumpleak.model.units import format_address
from dumpleak.reports.rows import quoted
from dumpleak.reports.shown import CALLERS, USUAL, Shown
from dumpleak.reports.values import Detail, Name


def site_name(
    site: Site,
    evidence: Sequence[str] = (),
    snapshots: Sequence[tuple[str, Snapshot]] = (),
    points: Sequence[Totals] = (),
    notes: Sequence[str] = (),
    shown: Shown = USUAL,
) -> Name:
    """A site with the frames behind the one that names it, and who holds its blocks.

    Args:
        site: It.
        evidence: Clauses of its details, besides who holds its blocks.
        snapshots: The dumps and what they are called, the last one last; empty where it has no details.
        points: Totals over a series.
        notes: Said under it besides.
        shown: How much of its stack.
    """
    lines = []
    if site.name in site.frames:
        own = site.frames.index(site.name)
        if site.lines and site.lines[own]:
            lines.append(f"at {shortened(site.lines[own])}")
        callers = site.frames[own + 1 :][: shown.callers]
        if len(callers) > CALLERS:  # one below the other
            lines += [f"from {frame}" for frame in callers]
        elif callers:
            lines.append("from " + ", ".join(callers))
    holding = snapshots[-1][1].held_by.get(site.key) if snapshots else None
    held = (*holding.evidence, *quoted(holding.texts)) if holding is not None else ()
    typed = site.type is not None and site.kind in (SiteKind.STACK, SiteKind.SOURCE)
    known = [(label, snapshot.details.get(site.key)) for label, snapshot in snapshots]
    return Name(
        site.name,
        told=f"{site.type} from {site.name}" if typed else "",
        lines=(*lines, *held, *notes),
        id=blake2b(site.key.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest(),
        detail=lambda: site_detail(site, (*evidence, *held), known, points),
    )


def site_detail(
    site: Site,
    evidence: Sequence[str],
    snapshots: Sequence[tuple[str, SiteDetail | None]] = (),
    points: Sequence[Totals] = (),
) -> Detail:
    """What a site's row opens to.

    Args:
        site: The site.
        evidence: Clauses.
        snapshots: The name of each dump shown, and the site's detail in it where known.
        points: Totals over a series.
    """
    known = [(label, more) for label, more in snapshots if more is not None]
    facts = (("type", site.type), ("tag", site.tag), ("driver", site.driver))
    label, last = known[-1] if known else ("", None)
    return Detail(
        site.name,
        tuple(zip(site.frames, site.lines or ("",) * len(site.frames), strict=False)),
        tuple(evidence),
        tuple((label, text) for label, text in facts if text),
        tuple((label, more.sizes) for label, more in known),
        samples=tuple(format_address(a, last.pointer_size) for a in last.samples) if last else (),
        samples_of=label,
        points=tuple(points),
    )
