"""Times as Windows keeps them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_LAST_FILETIME = 0x24C85A5ED1C04000  # the year 10000, which datetime does not have


def filetime(value: int) -> datetime | None:
    """A FILETIME (100 ns since 1601, UTC); None for 0 and for what no calendar holds."""
    if not 0 < value < _LAST_FILETIME:
        return None
    return _EPOCH + timedelta(microseconds=value // 10)
