"""Placeholder."""

from __future__ import annotations

from typing import Any

from dumpleak.files.columns import arrow
from dumpleak.model.snapshot import Snapshot


def described(snapshot: Snapshot, url: str) -> dict[str, Any]:
    """Placeholder."""
    source = snapshot.source
    return {
        "subject": str(source.subject),
        "kind": source.kind,
        "machine": source.machine,
        "build": source.build,
        "time": source.time,
        "program": source.program,
        "used_bytes": snapshot.totals.bytes,
        "used_count": snapshot.totals.count,
    }


def site_rows(snapshot: Snapshot) -> Any:
    """Placeholder."""
    pa = arrow()
    rows = [
        {
            "fingerprint": site.key,
            "key": site.key,
            "kind": str(site.kind),
            "name": site.name,
            "bytes": totals.bytes,
            "count": totals.count,
            "unreferenced_bytes": None,
            "unreferenced_count": None,
        }
        for site, totals in snapshot.groups.values()
    ]
    schema = pa.schema(
        [(n, pa.string()) for n in ("fingerprint", "key", "kind", "name")]
        + [(n, pa.int64()) for n in ("bytes", "count", "unreferenced_bytes", "unreferenced_count")]
    )
    return pa.Table.from_pylist(rows, schema=schema)
