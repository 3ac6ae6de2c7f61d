"""What the blocks of sites keep alive, as other answers show it."""

from __future__ import annotations

from dumpleak.model.sites import Site
from dumpleak.model.snapshot import Snapshot
from dumpleak.reports.document import Column, Kind, data_columns
from dumpleak.reports.rows import retained_of

RETAINED_DATA = data_columns("retained_bytes retained_count")
RETAINED_COLUMN = Column(
    "keeps alive",
    Kind.BYTES,
    hint="at least so much would become unreachable if only these blocks were released",
)


def retained_json(snapshot: Snapshot, site: Site) -> dict[str, int | None]:
    """What the blocks of a site keep alive, where that was asked for."""
    if not snapshot.tells_retained:
        return {}
    return dict(zip(("retained_bytes", "retained_count"), retained_of(snapshot, site), strict=True))
