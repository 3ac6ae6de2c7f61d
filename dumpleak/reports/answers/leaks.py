"""Blocks that nothing points to, in each format; a row in `LEAKS_REPORTS` each."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import IO, Protocol

from dumpleak.model.units import format_address, format_bytes, format_count
from dumpleak.reports.answers.summary import summarize_leaks
from dumpleak.reports.csv_report import write_table
from dumpleak.reports.json_report import _diagnostics, _source
from dumpleak.reports.page.leaks import LeaksHtmlReport
from dumpleak.reports.text.report import DEFAULT_TOP, TextReport
from dumpleak.reports.text.tables import TextColumn, Width, print_table, site_lines
from dumpleak.survey.leaks import LeakGroup, Leaks


class LeaksReport(Protocol):
    """Writes what nothing points to in one format; see `Report`."""

    def __init__(self, stream: IO[str]) -> None: ...

    def leaks(self, leaks: Leaks, top: int | None) -> None:
        """One row a group that has unreferenced blocks."""
        ...


class LeaksTextReport(TextReport):
    """See `LeaksReport`."""

    def leaks(self, leaks: Leaks, top: int | None) -> None:
        """What was found, what was scanned, the groups."""
        self._summary(summarize_leaks(leaks))
        if leaks.groups:
            columns = (
                TextColumn("bytes"),
                TextColumn("blocks"),
                TextColumn("nothing points to"),
                TextColumn("of all its blocks", width=Width.WIDE),
            )
            limit = DEFAULT_TOP if top is None else top
            rows = [
                (
                    (
                        format_bytes(group.unreferenced_bytes),
                        format_count(group.unreferenced_count),
                        format_count(group.head_count),
                        f"{group.unreferenced_count / group.used.count:.0%}",
                    ),
                    site_lines(group.site),
                )
                for group in leaks.groups[:limit]
            ]
            print_table(self._console, columns, leaks.grouping, rows)
            self._left_out(len(leaks.groups) - limit, "group")
        self._source("File", leaks.source)
        self._line(
            "Any word that is an address inside a block counts as a pointer to it. A block can be "
            "unreferenced and still be in use, if its address is kept in another form."
        )
        self._coverage("Heap memory walked", leaks.coverage)
        self._diagnostics(leaks.diagnostics)


class LeaksJsonReport:
    """See `LeaksReport`."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def leaks(self, leaks: Leaks, top: int | None) -> None:
        """Schema dumpleak/leaks/1; `top` is for people, all groups are written."""
        document = {
            "schema": "dumpleak/leaks/1",
            **_source(leaks.source),
            "by": leaks.grouping,
            "coverage": asdict(leaks.coverage),
            "totals": {
                "unreferenced_bytes": leaks.unreferenced_bytes,
                "unreferenced_count": leaks.unreferenced_count,
                "head_count": leaks.head_count,
                "used_bytes": leaks.used.bytes,
                "used_count": leaks.used.count,
            },
            "lost_share": leaks.lost_share,
            "roots": {str(kind): asdict(amount) for kind, amount in leaks.roots.items()},
            "groups": [
                {
                    "kind": group.site.kind,
                    "name": group.site.name,
                    "frames": list(group.site.frames),
                    "type": group.site.type,
                    "tag": group.site.tag,
                    "unreferenced_bytes": group.unreferenced_bytes,
                    "unreferenced_count": group.unreferenced_count,
                    "head_count": group.head_count,
                    "used_bytes": group.used.bytes,
                    "used_count": group.used.count,
                    "addresses": [
                        format_address(address, leaks.pointer_size)
                        for address in group.addresses.tolist()
                    ],
                }
                for group in leaks.groups
            ],
            "diagnostics": _diagnostics(leaks.diagnostics),
        }
        json.dump(document, self._stream, indent=1)
        self._stream.write("\n")


class LeaksCsvReport:
    """See `LeaksReport`."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def leaks(self, leaks: Leaks, top: int | None) -> None:
        """One row a group."""
        write_table(
            self._stream,
            (
                *("kind", "name", "type", "tag", "unreferenced_bytes", "unreferenced_count"),
                *("head_count", "used_bytes", "used_count"),
            ),
            (_row(group) for group in leaks.groups[:top]),
        )


def _row(group: LeakGroup) -> tuple[object, ...]:
    site = group.site
    return (
        *(site.kind, site.name, site.type or "", site.tag or ""),
        *(group.unreferenced_bytes, group.unreferenced_count, group.head_count),
        *(group.used.bytes, group.used.count),
    )


# The first is the default.
LEAKS_REPORTS: dict[str, type[LeaksReport]] = {
    "text": LeaksTextReport,
    "json": LeaksJsonReport,
    "csv": LeaksCsvReport,
    "html": LeaksHtmlReport,
}
