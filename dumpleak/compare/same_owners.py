"""Pool tags whose driver not every dump names: one that was unloaded is named by the dumps before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import Snapshot


def with_same_owners(series: Sequence[Snapshot]) -> list[Snapshot]:
    """Snapshots whose tags of unknown drivers are called as the last dump that knows calls them."""
    known: dict[str, Site] = {}
    for snapshot in series:
        known |= {key: site for key, (site, _) in snapshot.groups.items() if _is_owned(site)}
    return [_named(snapshot, known) for snapshot in series] if known else list(series)


def _is_owned(site: Site) -> bool:
    return site.kind is SiteKind.TAG and site.driver is not None


def _named(snapshot: Snapshot, known: dict[str, Site]) -> Snapshot:
    lacking = {
        key: (known[key], totals)
        for key, (site, totals) in snapshot.groups.items()
        if site.kind is SiteKind.TAG and site.driver is None and key in known
    }
    return replace(snapshot, groups=snapshot.groups | lacking) if lacking else snapshot
