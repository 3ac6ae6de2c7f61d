"""The Python API: the same answers as the commands give, as dataclasses and as Arrow tables.

    >>> import dumpleak
    >>> folder = "testdata/10.0.19041.3324-x64/leak-pair-aslr"
    >>> comparison = dumpleak.compare(f"{folder}/before.dmp.gz", f"{folder}/after.dmp.gz")
    >>> comparison.verdict
    <Verdict.GROWTH: 'growth'>
    >>> comparison.delta_count
    3126
    >>> worst = comparison.sites[0]
    >>> worst.delta_bytes == worst.current.bytes - worst.base.bytes
    True

Dumps, snapshot files and logs are mixed freely; a log of performance counters is a series by itself.
Whatever cannot be answered raises a `WindumpsError` whose text is one line for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dumpleak.compare.account_trends import row_trends
from dumpleak.compare.answers import Comparison
from dumpleak.compare.diff import compare as compare_snapshots
from dumpleak.compare.trend import Trend, find_trend
from dumpleak.files.columns import arrow
from dumpleak.files.detect import read_series
from dumpleak.files.matching import matched
from dumpleak.fleets.call import fleet
from dumpleak.model.account_rows import account_of
from dumpleak.model.populations import grouping
from dumpleak.model.snapshot import Snapshot
from dumpleak.process.session import Session
from dumpleak.survey.open import open_snapshot, subject_in
from dumpleak.survey.recording import write_snapshot
from dumpleak.survey.wanted import Wanted, require_population
from windumps.blocks import SIZE_UNKNOWN
from windumps.symbols.provider import Symbols

if TYPE_CHECKING:
    import pyarrow as pa

Source = str | Path | Session | Snapshot


def open_dump(
    path: str | Path, symbols: Symbols | None = None, process: str | None = None
) -> Session:
    """Opens a dump file, compressed or not.

    Args:
        path: The file.
        symbols: Where names of functions come from.
        process: A process of a kernel dump, by id or by the name of its program.

    Raises:
        DumpError: the file is no dump, or one that cannot be read.

        >>> session = open_dump("testdata/10.0.19041.3324-x64/tiny/dump.dmp.gz")
        >>> session.program.name, session.dump.build, len(session.heaps)
        ('app.exe', 19041, 2)
    """
    return Session.open(path, symbols, process)


def snapshot(
    source: Source, by: str | None = None, *, of: str | None = None, process: str | None = None
) -> Snapshot:
    """Adds up the used blocks of a process, or a kernel's pools; reads a snapshot file or a UMDH log.

    Args:
        source: A file, or an open dump. A snapshot is returned as it is.
        by: What groups are, a key of the population's groupings; the first of them unless it is given.
        of: What is added up, a key of `dumpleak.model.populations.POPULATIONS`, "threads"; None for blocks
            of a process and the pools of a system.
        process: Of a kernel dump's processes or of a log of several, by id or by name; for files only.

    Raises:
        WindumpsError: the file cannot be used, or does not tell of what is wanted.
        ValueError: there is no such population, or it has no such grouping.

        >>> taken = snapshot("testdata/10.0.19041.3324-x64/tiny/dump.dmp.gz", by="kind")
        >>> sum(totals.count for _, totals in taken.groups.values()) == taken.totals.count
        True
        >>> f"{taken.coverage.walked_share:.0%}"
        '100%'
        >>> threads = snapshot("testdata/10.0.19041.3324-x64/tiny/dump.dmp.gz", of="threads")
        >>> threads.population, threads.grouping, threads.totals.count
        ('threads', 'start', 3)
    """
    wanted = Wanted(of=of, by=grouping(of, by), keep_blocks=True, process=process)
    if isinstance(source, Snapshot):
        require_population(source.source.file, of, source.population)
        return source
    if not isinstance(source, Session):
        return open_snapshot(source, wanted)
    symbols = source.symbols.provider if source.symbols is not None else None
    return subject_in(source, symbols).snapshot(wanted)


def compare(
    base: Source,
    current: Source | None = None,
    by: str | None = None,
    *,
    force: bool = False,
    of: str | None = None,
    process: str | None = None,
) -> Comparison:
    """Compares two dumps, snapshots or files.

    Args:
        base: The earlier one.
        current: The later one; None for a log of many moments, whose last one is compared with its first.
        by: The grouping, for what is not a snapshot yet.
        force: Compare even where coverage or process differ so much that the answer may mislead;
            otherwise the verdict is then `NOT_COMPARABLE` and there are no sites.
        of: As for `snapshot`.
        process: As for `snapshot`.

    Raises:
        WindumpsError: a file cannot be used, or does not tell of what is wanted.
        ValueError: as `snapshot` has it; two snapshots are grouped differently; or there is no `current`
            and `base` is of one moment.

        >>> folder = "testdata/10.0.19041.3324-x64/leak-pair-ust"
        >>> found = compare(f"{folder}/before.dmp.gz", f"{folder}/after.dmp.gz")
        >>> found.life.why
        'process id, start time and addresses agree'
        >>> found.survivors.total
        Fate(kept=3968, gone=0, new=3126, renamed=0)
        >>> found.sites[0].site.name
        'app.exe+0x4446'
        >>> of_regions = compare(f"{folder}/before.dmp.gz", f"{folder}/after.dmp.gz", of="regions")
        >>> [(s.site.name, s.delta_count) for s in of_regions.sites]
        [('heaps', 2)]
    """
    if current is None:
        series = _series(base, of, process)
        if series is None:
            raise ValueError(f"{base}: of one moment, name a later one")
        older, newer = matched(series[0], series[-1])
    else:
        sides = (snapshot(side, by, of=of, process=process) for side in (base, current))
        older, newer = matched(*sides, of=of)
    return compare_snapshots(older, newer, force=force)


def trend(
    dumps: Iterable[Source] | str | Path,
    after_idle: Source | None = None,
    by: str | None = None,
    *,
    force: bool = False,
    of: str | None = None,
    process: str | None = None,
) -> Trend:
    """Finds the sites that grow steadily over three dumps and more.

    Args:
        dumps: Taken under load; or one log of performance counters, of many moments.
        after_idle: Taken after the load stopped.
        by: The grouping, for what is not a snapshot yet.
        force: As for `compare`.
        of: As for `snapshot`.
        process: As for `snapshot`.

    Raises:
        WindumpsError: a file cannot be used, does not tell of what is wanted, or the dumps make no series.
        ValueError: as for `compare`.

        >>> folder = "testdata/10.0.22621.4541-x64/series-ust"
        >>> files = [f"{folder}/dump{number}.dmp.gz" for number in range(5)]
        >>> found = trend(files, after_idle=f"{folder}/dump5.dmp.gz")
        >>> [(s.site.name, s.confidence, round(s.bytes_per_hour)) for s in found.sites[:3]]
        ... # doctest: +NORMALIZE_WHITESPACE
        [('widgets.dll+0x2845', 'leaked', 24000), ('app.exe+0x5548', 'leaked', 16842),
         ('app.exe+0x2dc6', 'growth', 28000)]
    """
    named = [dumps] if isinstance(dumps, str | Path) else list(dumps)
    over = _series(named[0], of, process) if len(named) == 1 else None
    idle_dumps = [after_idle] if after_idle is not None else []
    under_load = [snapshot(dump, by, of=of, process=process) for dump in named if over is None]
    last = [snapshot(dump, by, of=of, process=process) for dump in idle_dumps]
    taken = list(matched(*(over or under_load), *last, of=of))
    idle = taken.pop() if after_idle is not None else None
    return find_trend(taken, idle, force=force)


def _series(source: Source, of: str | None, process: str | None) -> list[Snapshot] | None:
    """The moments of a log of performance counters; None for what is no such log."""
    series = read_series(source, process) if isinstance(source, str | Path) else None
    if series is not None:
        require_population(str(source), of, series[-1].population)
    return series


def account_table(answer: Snapshot | Comparison | Trend) -> pa.Table:
    """The process or the system as a whole in figures, one row each, as an Arrow table.

    Columns are those of the JSON of the commands: of one dump `value`, else `base`, `current`, `delta` and
    `state`; of a series `points` and `per_hour` besides. What is not known is null, and `reason` says why.

    Raises:
        MissingExtraError: pyarrow is not installed.

        >>> folder = "testdata/10.0.19041.3324-x64/leak-pair-ust"
        >>> table = account_table(compare(f"{folder}/before.dmp.gz", f"{folder}/after.dmp.gz"))
        >>> {row["name"]: row["delta"] for row in table.to_pylist()}["blocks.count"]
        3126
    """
    rows: list[dict[str, Any]]
    if isinstance(answer, Snapshot):
        rows = [
            {"name": f.name, "unit": f.measure, "value": f.value, "reason": f.reason or None}
            for f in account_of(answer)
        ]
    else:
        rows = [
            {
                "name": row.name,
                "unit": str(row.unit),
                "base": row.base,
                "current": row.current,
                "delta": row.delta,
                "state": str(row.state),
                "reason": row.reason or None,
            }
            for row in answer.account
        ]
    if isinstance(answer, Trend):
        rates = row_trends(
            answer.account, answer.snapshots, len(answer.snapshots) - answer.after_idle
        )
        for made, row in zip(rows, answer.account, strict=True):
            made |= {"points": list(row.points), "per_hour": rates[row.name].per_hour}
    table: pa.Table = arrow().Table.from_pylist(rows)
    return table


def sites_table(answer: Snapshot | Comparison | Trend) -> pa.Table:
    """The groups of an answer, one row each, as an Arrow table; `.to_pandas()` makes a frame of it.

    Columns are those of the commands' CSV, and `key`; bytes are null where members are only counted.

    Raises:
        MissingExtraError: pyarrow is not installed.

        >>> folder = "testdata/10.0.19041.3324-x64/leak-pair-ust"
        >>> table = sites_table(compare(f"{folder}/before.dmp.gz", f"{folder}/after.dmp.gz"))
        >>> table.column_names[:4]
        ['key', 'kind', 'name', 'type']
        >>> sum(table["delta_bytes"].to_pylist())
        1160719
    """
    rows: Sequence[dict[str, Any]]
    sized = answer.has_bytes if isinstance(answer, Snapshot) else answer.base.has_bytes
    if isinstance(answer, Snapshot):
        rows = [
            {
                **_identity(site),
                "used_bytes": totals.bytes,
                "used_count": totals.count,
                "block_bytes": totals.block_bytes,
                "largest": totals.largest,
            }
            for site, totals in answer.groups.values()
        ]
    else:
        rows = [_changed(site) for site in answer.sites]
    if not sized:
        rows = [_without_bytes(row) for row in rows]
    table: pa.Table = arrow().Table.from_pylist(rows)
    return table


def blocks_table(source: Snapshot) -> pa.Table:
    """The used blocks of a snapshot as an Arrow table: `address`, `size`, `key` of the group.

    Raises:
        ValueError: the snapshot does not know its blocks.
        MissingExtraError: pyarrow is not installed.

        >>> table = blocks_table(snapshot("testdata/10.0.19041.3324-x64/tiny/dump.dmp.gz"))
        >>> table.column_names
        ['address', 'size', 'key']
    """
    if source.blocks is None:
        raise ValueError("this snapshot does not know single blocks")
    pyarrow = arrow()
    blocks = source.blocks()
    table: pa.Table = pyarrow.table(
        {
            "address": blocks.address,
            "size": pyarrow.array(blocks.size, mask=blocks.size == SIZE_UNKNOWN),
            "key": pyarrow.DictionaryArray.from_arrays(blocks.group, list(blocks.keys)),
        }
    )
    return table


def _without_bytes(row: dict[str, Any]) -> dict[str, Any]:
    """A row of members that are only counted."""
    empty: dict[str, Any] = {name: None for name in row if "bytes" in name or name == "largest"}
    if "points" in row:
        empty["points"] = [{**point, "bytes": None} for point in row["points"]]
    return row | empty


def _identity(site: Any) -> dict[str, Any]:
    return {
        "key": site.key,
        "kind": str(site.kind),
        "name": site.name,
        "type": site.type,
        "tag": site.tag,
        "frames": list(site.frames),
    }


def _changed(site: Any) -> dict[str, Any]:
    row = {
        **_identity(site.site),
        "delta_bytes": site.delta_bytes,
        "delta_count": site.delta_count,
        "base_bytes": site.base.bytes,
        "base_count": site.base.count,
        "current_bytes": site.current.bytes,
        "current_count": site.current.count,
        "confidence": site.confidence,
        "evidence": list(site.evidence),
    }
    if hasattr(site, "points"):
        row |= {
            "bytes_per_hour": site.bytes_per_hour,
            "count_per_hour": site.count_per_hour,
            "shape": str(site.shape),
            "exhaustion": site.exhaustion,
            "points": [{"bytes": point.bytes, "count": point.count} for point in site.points],
        }
    return row


__all__ = [
    "Comparison",
    "Session",
    "Snapshot",
    "Trend",
    "account_table",
    "blocks_table",
    "compare",
    "fleet",
    "open_dump",
    "sites_table",
    "snapshot",
    "trend",
    "write_snapshot",
]
