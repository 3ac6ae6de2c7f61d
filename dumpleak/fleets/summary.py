"""A fleet at a glance: what its datasets come to, read piece by piece."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dumpleak.fleets.belonging import COLUMNS, PAIR, SINGLE, TREND, series, version_order
from dumpleak.fleets.datasets import batches, rows_of

if TYPE_CHECKING:
    import pyarrow as pa

MUTED, NEW = "muted", "new"
MOST_ERRORS = 200  # that are kept one by one


@dataclass(frozen=True)
class FleetLeak:
    """One row of the dataset of clusters; its attributes are the columns."""

    fingerprint: str
    name: str
    known: str | None
    state: str
    kind: str
    programs: tuple[str, ...]
    dumps: int
    series: int
    machines: int
    first_seen: datetime | None
    last_seen: datetime | None
    versions: tuple[str, ...]
    appeared_in: str | None
    disappeared_in: str | None
    delta_bytes: int
    delta_count: int
    bytes_per_hour: float | None
    bytes_per_hour_p10: float | None
    bytes_per_hour_p90: float | None
    confidence: str
    examples: tuple[str, ...]
    parts: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """What to call it."""
        return self.known or self.name


@dataclass(frozen=True)
class VersionRow:
    """A version of a program.

    Attributes:
        program: Its executable.
        version: "" where it is unknown.
        machines: That run it.
        dumps: That could be read.
        compared: Series of two dumps and more.
    """

    program: str
    version: str
    machines: int
    dumps: int
    compared: int


@dataclass(frozen=True)
class FailedInput:
    """An input that could not be read."""

    url: str
    kind: str
    error: str


@dataclass(frozen=True)
class FleetSummary:
    """What a fleet comes to.

    Attributes:
        folder: Where the datasets are.
        leaks: All of them, those on most machines first.
        inputs: How many there are.
        errors: Of these, how many could not be read.
        machines: Computers, or what stands for them.
        leaking: Machines with a leak that is not muted.
        first: Time of the earliest dump.
        last: Time of the latest one.
        series: How many there are, by kind.
        walked_bytes: Coverage, over all inputs that tell of it.
        committed_bytes: Coverage, over all inputs that tell of it.
        versions: What was looked at.
        error_kinds: How often each was met.
        failed: Inputs that could not be read, the first of them.
        not_compared: Series of which nothing can be told, and why.
        copies: Places with the content of another one; they are no inputs of their own.
    """

    folder: str
    leaks: tuple[FleetLeak, ...]
    inputs: int
    errors: int
    machines: int
    leaking: int
    first: datetime | None
    last: datetime | None
    series: dict[str, int]
    walked_bytes: int
    committed_bytes: int
    versions: tuple[VersionRow, ...]
    error_kinds: tuple[tuple[str, int], ...]
    failed: tuple[FailedInput, ...]
    not_compared: tuple[tuple[str, str], ...] = ()
    copies: int = 0

    @property
    def counted(self) -> list[FleetLeak]:
        """Leaks that are not muted."""
        return [leak for leak in self.leaks if leak.state != MUTED]


def leaks_of(clusters: pa.Table) -> tuple[FleetLeak, ...]:
    """Rows of the dataset of clusters."""
    names = FleetLeak.__dataclass_fields__.keys() & set(clusters.column_names)
    rows: list[dict[str, Any]] = clusters.select(sorted(names)).to_pylist()
    return tuple(map(_leak, rows))


def _leak(row: dict[str, Any]) -> FleetLeak:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
    }
    return FleetLeak(**values)


def summarised(
    folder: Path | str, clusters: pa.Table, not_compared: Iterable[tuple[str, str]] = ()
) -> FleetSummary:
    """Adds up the datasets of a fleet.

    Args:
        folder: Where they are.
        clusters: What `clustered` gave.
        not_compared: Series of which nothing can be told, by their ids, and why.

    Raises:
        OSError: a dataset cannot be read.
    """
    sums = _Sums()
    dumps = Path(folder, "dumps.parquet")
    for row in rows_of(dumps, _DUMPS):
        sums.add(row)
    leaks = leaks_of(clusters)
    counted = {leak.fingerprint for leak in leaks if leak.state != MUTED}
    leaking = {
        row["computer"]
        for row in rows_of(Path(folder, "growth.parquet"), ("fingerprint", "computer", "weight"))
        if row["fingerprint"] in counted and row["weight"] and row["computer"]
    }
    every = series(batches(dumps, COLUMNS))
    names = {one.id: one.told for one in every}
    return FleetSummary(
        str(folder),
        leaks,
        sums.inputs,
        sums.errors,
        len(sums.machines),
        len(leaking),
        min(sums.times, default=None),
        max(sums.times, default=None),
        {kind: sum(one.kind == kind for one in every) for kind in (TREND, PAIR, SINGLE)},
        sums.walked,
        sums.committed,
        sums.version_rows(
            Counter((one.program, one.version) for one in every if one.kind != SINGLE)
        ),
        tuple(sorted(sums.kinds.items(), key=lambda pair: (-pair[1], pair[0]))),
        tuple(sums.failed),
        tuple((names.get(id_, id_), why) for id_, why in not_compared),
        sums.copies,
    )


_DUMPS = (
    *("url", "also", "status", "error_kind", "error", "computer", "time", "program", "version"),
    *("walked_bytes", "committed_bytes"),
)


class _Sums:
    """What is added up of the dumps."""

    def __init__(self) -> None:
        self.inputs = self.copies = self.errors = self.walked = self.committed = 0
        self.machines: set[str] = set()
        self.times: list[datetime] = []  # two at most
        self.kinds: Counter[str] = Counter()
        self.failed: list[FailedInput] = []
        self._dumps: Counter[tuple[str, str]] = Counter()
        self._machines: dict[tuple[str, str], set[str]] = defaultdict(set)

    def add(self, row: dict[str, Any]) -> None:
        self.inputs += 1
        self.copies += len(row.get("also") or ())
        if row["status"] != "read":
            self.errors += 1
            kind = row["error_kind"] or "error"
            self.kinds[kind] += 1
            if len(self.failed) < MOST_ERRORS:
                self.failed.append(FailedInput(row["url"] or "", kind, row["error"] or ""))
            return
        self.walked += row["walked_bytes"] or 0
        self.committed += row["committed_bytes"] or 0
        if row["time"] is not None:
            times = (*self.times, row["time"])
            self.times = [min(times), max(times)]
        key = row["program"] or "", row["version"] or ""
        self._dumps[key] += 1
        if row["computer"]:
            self.machines.add(row["computer"])
            self._machines[key].add(row["computer"])

    def version_rows(self, compared: Counter[tuple[str, str]]) -> tuple[VersionRow, ...]:
        keys = sorted(self._dumps, key=lambda key: (key[0], version_order(key[1])))
        return tuple(
            VersionRow(*key, len(self._machines[key]), self._dumps[key], compared[key])
            for key in keys
        )
