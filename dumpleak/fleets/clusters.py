"""Clusters: rows of growth with one fingerprint are one leak, as far as they are a leak at all.

What a trend calls a suspect is one. What only pairs show, or a few lost blocks in single dumps, is one where
more than half of the series of those programs and versions show it: a cache that filled once does not grow on
most machines at the time two dumps happen to be taken.

A site that mostly grows as a part of another one is no leak of its own, but a part of that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dumpleak.files.columns import arrow
from dumpleak.fleets.belonging import COLUMNS, SINGLE, Series, series, version_order
from dumpleak.fleets.datasets import batches, rows_of
from dumpleak.fleets.fingerprints import without_place
from dumpleak.fleets.growth import SURE
from dumpleak.fleets.known import Known
from dumpleak.fleets.tables import CLUSTERS, schema_of

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLES = 5
MOST_SHARE = 0.5
STRENGTHENED = 3  # series that show the same growth make a suspect of it
_CONFIDENCES = ("growth", "suspect", "leaked")
_GROWTH = (
    *("series", "series_kind", "fingerprint", "key", "kind", "name", "dumps", "first", "last"),
    *("delta_bytes", "delta_count", "bytes_per_hour", "confidence", "program", "version"),
    *("computer", "weight", "part_of"),
)


@dataclass
class _Cluster:
    """What is added up of one fingerprint; rows that are noise are not among it."""

    kind: str
    names: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    sure: bool = False
    series: dict[str, bool] = field(default_factory=dict)  # with whether it is of a single dump
    dumps: int = 0
    computers: set[str] = field(default_factory=set)
    versions: set[tuple[str, str]] = field(default_factory=set)  # (program, version)
    first: datetime | None = None
    last: datetime | None = None
    bytes: int = 0
    count: int = 0
    rates: list[float] = field(default_factory=list)
    confidence: int = 0
    roots: Counter[str] = field(default_factory=Counter)
    parts: set[str] = field(default_factory=set)
    last_dumps: dict[str, int] = field(default_factory=dict)  # with the growth of the series

    def add(self, row: Mapping[str, Any]) -> None:
        """One row of growth."""
        self.rows += 1
        self.names[row["name"]] += 1
        self.sure |= row["weight"] == SURE
        self.bytes += row["delta_bytes"] or 0
        self.count += row["delta_count"] or 0
        self.confidence = max(self.confidence, _CONFIDENCES.index(row["confidence"]))
        if row["part_of"]:
            self.roots[row["part_of"]] += 1
        if row["bytes_per_hour"] is not None:
            self.rates.append(row["bytes_per_hour"])
        if row["first"] is not None:
            self.first = min(self.first or row["first"], row["first"])
        if row["last"] is not None:
            self.last = max(self.last or row["last"], row["last"])
        if row["series"] in self.series:
            return
        self.series[row["series"]] = row["series_kind"] == SINGLE
        self.dumps += len(row["dumps"])
        self.versions.add((row["program"] or "", row["version"] or ""))
        if row["computer"]:
            self.computers.add(row["computer"])
        self.last_dumps[row["dumps"][-1]] = row["delta_bytes"] or 0
        if len(self.last_dumps) > 8 * EXAMPLES:
            self.last_dumps = dict(self._best(EXAMPLES))

    def _best(self, most: int) -> list[tuple[str, int]]:
        return nsmallest(most, self.last_dumps.items(), key=lambda pair: (-pair[1], pair[0]))

    @property
    def examples(self) -> list[str]:
        """The last dumps of the series that grew most."""
        return [id_ for id_, _ in self._best(EXAMPLES)]

    @property
    def name(self) -> str:
        """What most rows call it."""
        return min(self.names, key=lambda name: (-self.names[name], name))

    @property
    def only_singles(self) -> bool:
        """No two dumps show it."""
        return all(self.series.values())


class _Places:
    """Makes one of fingerprints with and without the place of the code, where that can be told.

    A site has its place in its fingerprint only in dumps where another one shares its names. The key of a
    site says which it is in the same build of its modules; in other builds it is the only one, if it is.

    Args:
        folder: The fleet's.
    """

    def __init__(self, folder: str) -> None:
        self._of_key: dict[tuple[str, str], str] = {}
        self._exact: dict[str, set[str]] = defaultdict(set)
        for row in rows_of(Path(folder, "growth.parquet"), ("fingerprint", "key", "weight")):
            fingerprint = row["fingerprint"]
            named = without_place(fingerprint)
            if row["weight"] and fingerprint != named:
                self._of_key[named, row["key"]] = fingerprint
                self._exact[named].add(fingerprint)

    def fingerprint(self, fingerprint: str, key: str) -> str:
        """What a row of growth is counted under."""
        named = without_place(fingerprint)
        if len(self._exact.get(named, ())) == 1:
            return named
        return self._of_key.get((named, key), fingerprint)


class _Fleet:
    """The series of a fleet, as far as versions and shares need them.

    Args:
        all_series: All of them.
    """

    def __init__(self, all_series: Sequence[Series]) -> None:
        self._counts: Counter[tuple[str, str, bool]] = Counter(
            (one.program, one.version, one.kind == SINGLE) for one in all_series
        )
        self._versions: dict[tuple[str, bool], set[str]] = defaultdict(set)
        for one in all_series:
            if one.version:
                self._versions[one.program, one.kind == SINGLE].add(one.version)

    def is_leak(self, cluster: _Cluster) -> bool:
        """Whether people would call it one."""
        if cluster.sure:
            return True
        single = cluster.only_singles
        of = sum(self._counts[program, version, single] for program, version in cluster.versions)
        seen = sum(is_single == single for is_single in cluster.series.values())
        return seen > MOST_SHARE * of

    def span(self, cluster: _Cluster) -> tuple[list[str], str | None, str | None]:
        """Versions it grew in, where it appeared and where it disappeared; None where nothing tells."""
        grew: dict[str, set[str]] = defaultdict(set)
        for program, version in cluster.versions:
            if version:
                grew[program].add(version)
        versions = sorted(set().union(*grew.values()), key=version_order)
        ends = {self._ends(program, found, cluster) for program, found in grew.items()}
        if len(ends) != 1:  # none, or programs whose versions have nothing in common
            return versions, None, None
        return versions, *ends.pop()

    def _ends(
        self, program: str, found: set[str], cluster: _Cluster
    ) -> tuple[str | None, str | None]:
        every = self._versions[program, cluster.only_singles]
        first, last = (end(found, key=version_order) for end in (min, max))
        older = [v for v in every if version_order(v) < version_order(first)]
        later = [v for v in every if version_order(v) > version_order(last)]
        return (first if older else None), min(later, key=version_order, default=None)


def clustered(
    folder: str,
    known: Known | None = None,
    previous: pa.Table | None = None,
    not_compared: Collection[str] = (),
) -> pa.Table:
    """The leaks of a fleet, those on most machines first.

    Args:
        folder: The fleet's, with its datasets of dumps and growth.
        known: Leaks with a name of their own.
        previous: What this gave in the run before; None where there was none.
        not_compared: Ids of series of which nothing can be told: no version is without a leak for these.

    Raises:
        OSError: a dataset cannot be read.
    """
    unknown = set(not_compared)
    every = series(batches(Path(folder, "dumps.parquet"), COLUMNS))
    fleet = _Fleet([one for one in every if one.id not in unknown])
    found: dict[str, _Cluster] = {}
    places = _Places(folder)
    for row in rows_of(Path(folder, "growth.parquet"), _GROWTH):
        if row["weight"]:
            name = places.fingerprint(row["fingerprint"], row["key"])
            found.setdefault(name, _Cluster(row["kind"])).add(row)
    leaks = {name: cluster for name, cluster in found.items() if fleet.is_leak(cluster)}
    for name in _folded(leaks):
        del leaks[name]
    urls = _urls(folder, {id_ for cluster in leaks.values() for id_ in cluster.examples})
    before: set[Any] = set()
    if previous is not None:
        before.update(previous["fingerprint"].to_pylist())
    rows = [
        _row(name, cluster, fleet, known or Known(), before, urls)
        for name, cluster in leaks.items()
    ]
    rows.sort(key=lambda r: (-r["machines"], -(r["bytes_per_hour"] or 0.0), r["fingerprint"]))
    table: pa.Table = arrow().Table.from_pylist(rows, schema=schema_of(CLUSTERS))
    return table


def _folded(leaks: Mapping[str, _Cluster]) -> list[str]:
    """Fingerprints of what is mostly a part of another leak; that is told of it."""
    folded = []
    for name in sorted(leaks):
        cluster = leaks[name]
        root, count = min(cluster.roots.items(), key=lambda r: (-r[1], r[0]), default=("", 0))
        if root in leaks and root != name and count > MOST_SHARE * cluster.rows:
            above = leaks[root].roots.get(name, 0)
            if above <= MOST_SHARE * leaks[root].rows:
                leaks[root].parts.add(cluster.name)
                folded.append(name)
    return folded


def _row(
    name: str,
    cluster: _Cluster,
    fleet: _Fleet,
    known: Known,
    previous: Collection[str],
    urls: Mapping[str, str],
) -> dict[str, Any]:
    versions, appeared, disappeared = fleet.span(cluster)
    entry = known.of(name, cluster.name)
    rates = np.array(sorted(cluster.rates), np.float64)
    low, middle, high = np.percentile(rates, (10, 50, 90)).tolist() if len(rates) else [None] * 3
    confidence = cluster.confidence
    if len(cluster.series) >= STRENGTHENED:
        confidence = max(confidence, _CONFIDENCES.index("suspect"))
    return {
        "fingerprint": name,
        "name": cluster.name,
        "known": entry.name if entry is not None else None,
        "state": _state(name, known, cluster.name, previous),
        "kind": cluster.kind,
        "programs": sorted({program for program, _ in cluster.versions if program}),
        "dumps": cluster.dumps,
        "series": len(cluster.series),
        "machines": len(cluster.computers),
        "first_seen": cluster.first,
        "last_seen": cluster.last,
        "versions": versions,
        "appeared_in": appeared,
        "disappeared_in": disappeared,
        "delta_bytes": cluster.bytes,
        "delta_count": cluster.count,
        "bytes_per_hour": middle,
        "bytes_per_hour_p10": low,
        "bytes_per_hour_p90": high,
        "confidence": _CONFIDENCES[confidence],
        "examples": [urls[id_] for id_ in cluster.examples if id_ in urls],
        "parts": sorted(cluster.parts),
    }


def _state(fingerprint: str, known: Known, name: str, previous: Collection[str]) -> str:
    entry = known.of(fingerprint, name)
    if entry is not None and not entry.is_expired:
        return "muted" if entry.muted else "known"
    return "seen" if fingerprint in previous else "new"


def _urls(folder: str, ids: Collection[str]) -> dict[str, str]:
    """Where the dumps with these ids are."""
    if not ids:
        return {}
    dumps = rows_of(Path(folder, "dumps.parquet"), ("id", "url"))
    return {row["id"]: row["url"] for row in dumps if row["id"] in ids}
