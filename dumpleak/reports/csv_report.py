"""CSV: one table an answer, with a header row; for spreadsheets and pandas."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import fields
from typing import IO

from dumpleak.compare.answers import Comparison
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import Judged
from dumpleak.model.block_page import BLOCK_COLUMNS, BlockPage
from dumpleak.model.snapshot import HeapRow, Snapshot
from dumpleak.reports.csv_writer import write_table
from dumpleak.reports.names import cell
from dumpleak.reports.rows import block_rows, holder_evidence, ranked_groups

_MOST_KNOWN = 1 << 16
_HEAP_COLUMNS = [field.name for field in fields(HeapRow)]


class CsvReport:
    """See `Report`."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def allocations(self, pages: Iterable[BlockPage], top: int | None) -> None:
        """One row a block."""
        known = _KnownCells()
        writer = csv.writer(self._stream, lineterminator="\n")
        writer.writerow(BLOCK_COLUMNS)
        # Millions of rows with few names, so `write_table` would look at the same ones again and again.
        writer.writerows(
            (*row[:4], known[row[4]], row[5], known[row[6]], known[row[7]], known[row[8]], row[9])
            for row in block_rows(pages, top)
        )

    def stat(self, snapshot: Snapshot, top: int | None) -> None:
        """One row a group."""
        self._table(
            (
                *("kind", "name", "type", "tag", "used_bytes", "used_count", "block_bytes"),
                *("largest", "evidence"),
            ),
            (
                (
                    site.kind,
                    site.name,
                    site.type or "",
                    site.tag or "",
                    totals.bytes if snapshot.has_bytes else "",
                    totals.count,
                    totals.block_bytes if snapshot.has_bytes else "",
                    totals.largest if snapshot.has_bytes else "",
                    "; ".join(holder_evidence(snapshot, site)),
                )
                for site, totals in ranked_groups(snapshot)[:top]
            ),
        )

    def diff(self, judged: Judged[Comparison], top: int | None) -> None:
        """One row a site that changed, then private memory outside heaps."""
        comparison = judged.answer
        self._table(
            (
                *("rank", "kind", "name", "type", "tag", "delta_bytes", "delta_count"),
                *("base_bytes", "base_count", "current_bytes", "current_count"),
                *("confidence", "evidence"),
            ),
            (
                (
                    rank,
                    delta.site.kind,
                    delta.site.name,
                    delta.site.type or "",
                    delta.site.tag or "",
                    delta.delta_bytes if comparison.base.has_bytes else "",
                    delta.delta_count,
                    delta.base.bytes if comparison.base.has_bytes else "",
                    delta.base.count,
                    delta.current.bytes if comparison.base.has_bytes else "",
                    delta.current.count,
                    delta.confidence,
                    "; ".join((*delta.evidence, *holder_evidence(comparison.current, delta.site))),
                )
                for rank, delta in enumerate(
                    (*comparison.sites, *comparison.private)[:top], start=1
                )
            ),
        )

    def trend(self, judged: Judged[Trend], top: int | None) -> None:
        """One row a site that changed, then private memory outside heaps.

        `bytes_0`, `count_0` and so on are a row's points.
        """
        trend = judged.answer
        numbers = range(len(trend.snapshots))

        def size(value: int) -> int | str:
            return value if trend.base.has_bytes else ""

        self._table(
            (
                *("rank", "kind", "name", "type", "tag", "delta_bytes", "delta_count"),
                *("base_bytes", "base_count", "current_bytes", "current_count"),
                *(
                    "bytes_per_hour",
                    "count_per_hour",
                    "shape",
                    "confidence",
                    "exhaustion",
                    "evidence",
                ),
                *(f"{name}_{number}" for number in numbers for name in ("bytes", "count")),
            ),
            (
                (
                    rank,
                    site.site.kind,
                    site.site.name,
                    site.site.type or "",
                    site.site.tag or "",
                    size(site.delta_bytes),
                    site.delta_count,
                    size(site.base.bytes),
                    site.base.count,
                    size(site.current.bytes),
                    site.current.count,
                    "" if site.bytes_per_hour is None else round(site.bytes_per_hour, 3),
                    "" if site.count_per_hour is None else round(site.count_per_hour, 3),
                    site.shape,
                    site.confidence,
                    site.exhaustion.isoformat() if site.exhaustion else "",
                    "; ".join((*site.evidence, *holder_evidence(trend.current, site.site))),
                    *(value for point in site.points for value in (size(point.bytes), point.count)),
                )
                for rank, site in enumerate((*trend.sites, *trend.private)[:top], start=1)
            ),
        )

    def _table(self, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
        write_table(self._stream, columns, rows)


class _KnownCells(dict[object, object]):
    """What `cell` makes of texts that come again."""

    def __missing__(self, text: object) -> object:
        if len(self) == _MOST_KNOWN:
            self.clear()
        made = self[text] = cell(text)
        return made
