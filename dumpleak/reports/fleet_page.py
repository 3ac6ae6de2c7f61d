"""`report.html` of a fleet: one file, without scripts; whatever a name says is text.

Rows open to examples, versions and rates. The policy in its head allows its own style by its hash and nothing
else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape

from dumpleak import __version__
from dumpleak.fleets.summary import FleetLeak, FleetSummary
from dumpleak.model.units import format_bytes, format_count
from dumpleak.reports.answers.fleet import (
    error_told,
    fleet_document,
    headline,
    kind_told,
    leak_lines,
    leaks_in,
    leaks_of_version,
)
from dumpleak.reports.names import visible

MOST_LEAKS = 500  # that have a row of their own
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--bar:#c0392b;--soft:#8881}
body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .3rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}
.headline{font-size:1.15rem;font-weight:600;padding:.6rem .8rem}
.headline{border-left:.3rem solid #888;background:var(--soft)}
.bad{border-color:#c0392b}.good{border-color:#27ae60}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem}dt{opacity:.7}dd{margin:0}
table{border-collapse:collapse;width:100%}th,td{padding:.25rem .6rem;text-align:left;vertical-align:top}
th{border-bottom:2px solid var(--line);font-weight:600}td{border-bottom:1px solid var(--line)}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.w{overflow-wrap:anywhere}summary{cursor:pointer;overflow-wrap:anywhere}
meter{width:8rem;height:.7rem}.state{font-size:.85em;opacity:.8}.muted{opacity:.55}
code,.mono{font-family:ui-monospace,monospace;font-size:.9em;overflow-wrap:anywhere}
ul{margin:.2rem 0 .6rem;padding-left:1.2rem}footer{margin-top:3rem;opacity:.6;font-size:.85em}
"""


def fleet_page(summary: FleetSummary) -> str:
    """The page as HTML."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'"
    document = fleet_document(summary)
    first = document.summary
    tone = first.tone.value if first is not None else ""
    facts = "".join(
        f"<dt>{_text(label)}</dt><dd>{_text(told)}</dd>"
        for label, told in (first.facts if first is not None else ())
    )
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        f'<meta http-equiv=Content-Security-Policy content="{policy}">',
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>dumpleak: fleet</title><style>{_STYLE}</style></head><body>",
        f"<h1>Fleet</h1><p class='headline {escape(tone)}'>{_text(headline(summary))}</p>",
        f"<dl>{facts}</dl>",
        *_leaks(summary),
        *_rates(summary),
        *_versions(summary),
        *_failures(summary),
        f"<footer>dumpleak {escape(__version__)}; the data are in dumps, sites, growth and "
        "clusters.parquet beside this page</footer></body></html>",
    ]
    return "\n".join(parts)


def _text(value: object) -> str:
    """Anything as text of a page."""
    return escape(visible(str(value)))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: int) -> str:
    """A table; the first columns are numbers. Cells are HTML."""
    head = "".join(
        f"<th{' class=n' * (n < numbers)}>{escape(each)}</th>" for n, each in enumerate(heads)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td class={'n' if n < numbers else 'w'}>{cell}</td>" for n, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _leaks(summary: FleetSummary) -> list[str]:
    if not summary.leaks:
        return []
    most = max(max(leak.machines for leak in summary.leaks), 1)
    rows = [_leak_row(leak, most) for leak in summary.leaks[:MOST_LEAKS]]
    heads = ("machines", "", "series", "dumps", "an hour", "growth", "blocks", "leak")
    more = len(summary.leaks) - MOST_LEAKS
    said = f"<p>… and {more:,} more in clusters.parquet</p>" if more > 0 else ""
    return ["<h2>Leaks, by machines</h2>", _table(heads, rows, 7), said]


def _leak_row(leak: FleetLeak, most: int) -> list[str]:
    return [
        format_count(leak.machines),
        f"<meter max={most} value={leak.machines}></meter>",
        format_count(leak.series),
        format_count(leak.dumps),
        _rate(leak.bytes_per_hour),
        format_bytes(leak.delta_bytes, signed=True),
        format_count(leak.delta_count, signed=True),
        _drill_down(leak),
    ]


def _rate(rate: float | None) -> str:
    return "unknown" if rate is None else format_bytes(round(rate))


def _drill_down(leak: FleetLeak) -> str:
    """The name, which opens to what is known of the leak."""
    said = "".join(f"<li>{_text(line)}</li>" for line in leak_lines(leak))
    if leak.bytes_per_hour is not None:
        low, high = _rate(leak.bytes_per_hour_p10), _rate(leak.bytes_per_hour_p90)
        said += f"<li>bytes an hour: a tenth below {low}, a tenth above {high}</li>"
    if leak.first_seen is not None and leak.last_seen is not None:
        said += f"<li>seen {leak.first_seen:%Y-%m-%d %H:%M} to {leak.last_seen:%Y-%m-%d %H:%M}</li>"
    said += f"<li>{_text(leak.confidence)}; {_text(leak.kind)}; fingerprint "
    said += f"<code>{_text(leak.fingerprint)}</code></li>"
    examples = "".join(f"<li><code>{_text(url)}</code></li>" for url in leak.examples)
    state = f"<span class=state>{_text(leak.state)}</span>"
    fade = " class=muted" if leak.state == "muted" else ""
    return (
        f"<details{fade}><summary>{_text(leak.shown)} {state}</summary>"
        f"<ul>{said}</ul>Dumps to open:<ul>{examples}</ul></details>"
    )


def _rates(summary: FleetSummary) -> list[str]:
    """Leaks by bytes an hour on all machines together."""
    timed = [leak for leak in summary.counted if leak.bytes_per_hour]
    if len(timed) < 2:
        return []
    timed.sort(key=lambda leak: (-(leak.bytes_per_hour or 0), leak.fingerprint))
    most = max(round(timed[0].bytes_per_hour or 0), 1)
    rows = [
        (
            _rate(leak.bytes_per_hour),
            f"<meter max={most} value={max(round(leak.bytes_per_hour or 0), 0)}></meter>",
            format_count(leak.machines),
            _text(leak.shown),
        )
        for leak in timed[:10]
    ]
    return [
        "<h2>Fastest, by bytes an hour</h2>",
        _table(("an hour", "", "machines", "leak"), rows, 3),
    ]


def _versions(summary: FleetSummary) -> list[str]:
    rows = [
        (
            format_count(each.machines) if each.machines else "unknown",
            format_count(each.dumps),
            format_count(each.compared),
            format_count(leaks_in(summary, each))
            if each.compared or leaks_in(summary, each)
            else "unknown",
            _text(each.program or "(system)"),
            _text(each.version or "unknown"),
            "<br>".join(_text(leak.shown) for leak in leaks_of_version(summary, each)),
        )
        for each in summary.versions
    ]
    heads = ("machines", "dumps", "compared", "leaks", "program", "version", "which")
    return ["<h2>Versions</h2>", _table(heads, rows, 4)] if rows else []


def _failures(summary: FleetSummary) -> list[str]:
    parts = []
    if summary.error_kinds:
        rows = [
            (format_count(count), _text(kind_told(kind))) for kind, count in summary.error_kinds
        ]
        parts += ["<h2>Could not be read</h2>", _table(("inputs", "why"), rows, 1)]
        listed = "".join(
            f"<li><code>{_text(each.url)}</code><br>{_text(error_told(each))}</li>"
            for each in summary.failed
        )
        shown = len(summary.failed)
        many = f"{shown:,}" if shown == summary.errors else f"the first {shown:,}"
        parts.append(f"<details><summary>Which: {many}</summary><ul>{listed}</ul></details>")
    if summary.not_compared:
        rows = [(_text(name), _text(why)) for name, why in summary.not_compared[:MOST_LEAKS]]
        parts += ["<h2>Could not be compared</h2>", _table(("series", "why"), rows, 0)]
    return parts
