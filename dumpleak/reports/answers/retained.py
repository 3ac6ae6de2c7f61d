"""What the blocks of sites keep alive and what is written in them, as other answers show it."""

from __future__ import annotations

from typing import Any

from dumpleak.model.sites import Site
from dumpleak.model.snapshot import Snapshot
from dumpleak.reports.document import Column, Kind, data_columns
from dumpleak.reports.rows import retained_of, samples_json

RETAINED_DATA = data_columns("retained_bytes retained_count")
RETAINED_COLUMN = Column(
    "keeps alive",
    Kind.BYTES,
    hint="at least so much would become unreachable if only these blocks were released",
)


def asked_json(snapshot: Snapshot, site: Site) -> dict[str, Any]:
    """What is told of the blocks of a site only where somebody asked for it."""
    holding = snapshot.held_by.get(site.key)
    return {
        **retained_json(snapshot, site),
        **samples_json(holding.texts if holding is not None else None),
    }


def retained_json(snapshot: Snapshot, site: Site) -> dict[str, int | None]:
    """What the blocks of a site keep alive, where that was asked for."""
    if not snapshot.tells_retained:
        return {}
    return dict(zip(("retained_bytes", "retained_count"), retained_of(snapshot, site), strict=True))
