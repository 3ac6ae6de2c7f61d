"""speedscope's JSON (https://www.speedscope.app/file-format-schema.json): one profile a question.

Its weights cannot be negative, so growth and shrinkage are profiles of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import IO, Any

from dumpleak import __version__
from dumpleak.compare.answers import Comparison
from dumpleak.gate.gate import Judged
from dumpleak.model.snapshot import Snapshot
from dumpleak.reports.names import visible
from dumpleak.reports.profiles.stack_tree import SitePair, compared_pairs, path_of, site_pairs

SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_Weight = Callable[[SitePair], int]

# (name, with what members are called in it, unit, weight of a site)
_DIFF_PROFILES: tuple[tuple[str, str, _Weight], ...] = (
    ("growth in bytes", "bytes", lambda pair: pair.current.bytes - pair.base.bytes),
    ("shrinkage in bytes", "bytes", lambda pair: pair.base.bytes - pair.current.bytes),
    ("growth in {members}", "none", lambda pair: pair.current.count - pair.base.count),
    ("shrinkage in {members}", "none", lambda pair: pair.base.count - pair.current.count),
    ("current bytes", "bytes", lambda pair: pair.current.bytes),
    ("base bytes", "bytes", lambda pair: pair.base.bytes),
)
_PROFILES: tuple[tuple[str, str, _Weight], ...] = (
    ("bytes in use", "bytes", lambda pair: pair.current.bytes),
    ("{members} in use", "none", lambda pair: pair.current.count),
)


def write_diff(judged: Judged[Comparison], _: int | None, stream: IO[str]) -> None:
    """All sites; a comparison that was refused has none."""
    comparison = judged.answer
    pairs = [] if comparison.refused else compared_pairs(comparison)
    files = comparison.base.source.file, comparison.current.source.file
    _write(f"{files[0]} → {files[1]}", pairs, _DIFF_PROFILES, comparison.base.members, stream)


def write_stat(snapshot: Snapshot, stream: IO[str]) -> None:
    """All groups of one dump."""
    pairs = site_pairs({}, snapshot.groups)
    _write(snapshot.source.file, pairs, _PROFILES, snapshot.members, stream)


def _write(
    title: str,
    pairs: list[SitePair],
    profiles: Iterable[tuple[str, str, _Weight]],
    members: str,
    stream: IO[str],
) -> None:
    frames: dict[str, int] = {}
    document = {
        "$schema": SCHEMA,
        "name": visible(title),
        "exporter": f"dumpleak@{__version__}",
        "activeProfileIndex": 0,
        "profiles": [
            _profile(pairs, frames, name.format(members=members), unit, weight)
            for name, unit, weight in profiles
        ],
        "shared": {"frames": [{"name": frame} for frame in frames]},
    }
    json.dump(document, stream)
    stream.write("\n")


def _profile(
    pairs: list[SitePair], frames: dict[str, int], name: str, unit: str, weight: _Weight
) -> dict[str, Any]:
    """A sampled profile of the sites with a weight, the heaviest first."""
    weighted = [(weight(pair), pair) for pair in pairs]
    shown = sorted(
        ((value, pair) for value, pair in weighted if value > 0),
        key=lambda entry: (-entry[0], entry[1].site.key),
    )
    return {
        "type": "sampled",
        "name": name,
        "unit": unit,
        "startValue": 0,
        "endValue": sum(value for value, _ in shown),
        "samples": [
            [frames.setdefault(visible(step), len(frames)) for step in path_of(pair.site)]
            for _, pair in shown
        ],
        "weights": [value for value, _ in shown],
    }
