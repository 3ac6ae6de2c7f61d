"""A fleet from its inputs to its datasets; what was done once is not done again."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dumpleak.fleets.asked import Asked, Told
from dumpleak.fleets.belonging import COLUMNS, Series, series
from dumpleak.fleets.child import Limits
from dumpleak.fleets.clusters import clustered
from dumpleak.fleets.crew import Crew, memory_of
from dumpleak.fleets.datasets import batches, stream_table, with_id, write_rows, write_tables
from dumpleak.fleets.look import Seen, look
from dumpleak.fleets.reading import failed
from dumpleak.fleets.store import ERROR, READ, STATE, Outcome, Store, Task, holds_fleet, lost_id
from dumpleak.fleets.summary import FleetSummary, summarised
from dumpleak.fleets.tables import CLUSTERS, DUMPS, GROWTH, SITES
from dumpleak.fleets.work import MARK, Grown, How, SeriesTask, grow_task, read_task
from dumpleak.model.errors import CannotAnswerError

DUMPS_FILE, SITES_FILE = "dumps.parquet", "sites.parquet"
GROWTH_FILE, CLUSTERS_FILE = "growth.parquet", "clusters.parquet"
GROWTH_VERSION = 1  # of what is compared and how: another one compares anew


@dataclass(frozen=True)
class FleetRun:
    """What a run came to.

    Attributes:
        folder: Where the datasets are.
        seen: What there was to read.
        read: Inputs of all runs that could be read.
        errors: Those that could not.
        series: How many belong together.
        clusters: The rows of `clusters.parquet`, an Arrow table.
        not_compared: Series of which nothing can be told, and why.
    """

    folder: Path
    seen: Seen
    read: int
    errors: int
    series: int
    clusters: Any
    not_compared: list[tuple[str, str]] = field(default_factory=list)

    @property
    def dumps(self) -> Any:
        """The rows of `dumps.parquet`, an Arrow table."""
        return _table(self.folder / DUMPS_FILE)

    @property
    def sites(self) -> Any:
        """The rows of `sites.parquet`, an Arrow table."""
        return _table(self.folder / SITES_FILE)

    @property
    def growth(self) -> Any:
        """The rows of `growth.parquet`, an Arrow table."""
        return _table(self.folder / GROWTH_FILE)

    @property
    def summary(self) -> FleetSummary:
        """The fleet at a glance."""
        return summarised(self.folder, self.clusters, self.not_compared)


class NoInputError(CannotAnswerError):
    """Nothing of what was named is an input."""


def seen_of(asked: Asked, told: Told, store: Store) -> Seen:
    """What there is to read.

    Raises:
        NoInputError: nothing.
        PlaceError: a word means nothing.
    """
    seen = look(
        asked.words,
        store,
        asked.folder,
        lambda count: told.progress(f"looking: {count:,} files", 0, 1),
        retry_errors=asked.retry_errors,
    )
    if not seen.inputs:
        others = f"; none of {seen.others:,} files is one" if seen.others else ""
        raise NoInputError(f"{', '.join(asked.words)}: no dumps, snapshots or logs there{others}")
    told.say(_said(seen))
    return seen


def _said(seen: Seen) -> str:
    parts = [f"{seen.inputs:,} inputs: {seen.known:,} known, {seen.to_read:,} to read"]
    if seen.others:
        parts.append(f"{seen.others:,} other files, which are no dumps, are left out")
    return "; ".join(parts)


def run(asked: Asked, told: Told) -> FleetRun:
    """Reads what is new, and writes the datasets.

    Raises:
        NoInputError: there is nothing to read.
        WindumpsError: the folder or the cluster cannot be used.
        ValueError: the file of known leaks, or the pattern of machines, says something else.
        OSError: the datasets cannot be written.
    """
    folder = asked.folder
    before = folder / CLUSTERS_FILE
    previous = _table(before) if before.exists() else None
    with Store(folder) as store:
        store.require("by", asked.by, "--by")
        store.require("machine_from", asked.machine_from, "--machine-from")
        seen = seen_of(asked, told, store)
        how = _how(asked, store)
        with Crew(asked.scheduler, asked.workers, told.say, debug=asked.debug) as crew:
            _read(store, crew, how, seen, told)
            store.save()
            write_rows(folder / DUMPS_FILE, DUMPS, store.rows())
            write_tables(folder / SITES_FILE, SITES, _sites(store))
            if asked.retry_errors:
                store.retry_growth()
            count = _compare(store, crew, how, told)
        write_tables(
            folder / GROWTH_FILE, GROWTH, (stream_table(rows) for _, rows in store.growth() if rows)
        )
        told.progress("looking for leaks that are the same", 0, 1)
        errors = store.growth_errors()
        clusters = clustered(str(folder), asked.known, previous, [name for name, _ in errors])
        write_tables(folder / CLUSTERS_FILE, CLUSTERS, [clusters])
        return FleetRun(
            folder,
            seen,
            store.total(READ),
            store.total(ERROR),
            count,
            clusters,
            errors,
        )


def dry_run(asked: Asked, told: Told) -> Iterator[tuple[str, int]]:
    """What there is to read, each with its bytes; nothing in the folder changes, and it is not made.

    Raises:
        NoInputError: nothing.
        WindumpsError: a word means nothing, or the folder is no fleet's.
    """
    with TemporaryDirectory() as elsewhere:
        if holds_fleet(str(asked.folder)):
            shutil.copyfile(asked.folder / STATE, Path(elsewhere, STATE))
        with Store(Path(elsewhere)) as store:
            seen_of(asked, told, store)
            yield from store.new_places()


def _how(asked: Asked, store: Store) -> How:
    memory = memory_of(asked.memory_limit, asked.scheduler, asked.workers)
    mark = secrets.token_hex(16)
    (store.folder / MARK).write_text(mark)
    return How(
        str(store.folder.resolve()),
        mark,
        Limits(asked.timeout, memory),
        asked.by,
        asked.symbols,
        asked.machine_from,
    )


def _table(path: Path) -> Any:
    from pyarrow import parquet

    return parquet.read_table(path)


def _sites(store: Store) -> Iterator[Any]:
    for id_, rows in store.sites():
        yield with_id(stream_table(rows), id_)


def _read(store: Store, crew: Crew, how: How, seen: Seen, told: Told) -> None:
    done = errors = 0
    started = 0.0

    def finish(task: Task, result: Outcome | BaseException) -> None:
        nonlocal done, errors
        outcome = _dead(task, result) if isinstance(result, BaseException) else result
        store.finish(task.url, outcome)
        done += 1
        errors += outcome.told["status"] == ERROR

    def tick() -> None:
        nonlocal started
        started = started or time.monotonic()  # of the workers, too, takes a while
        rate = done / max(time.monotonic() - started, 0.001)
        phase = f"reading {done:,} of {seen.to_read:,}, {rate:.1f} a second"
        told.progress(f"{phase}, {errors:,} failed" if errors else phase, done, seen.to_read)

    if seen.to_read:
        told.progress("starting workers", 0, 1)
        crew.work(read_task, store.to_read(), how, finish, tick)


def _dead(task: Task, error: BaseException) -> Outcome:
    """An input that ended one worker after the other."""
    why = f"{task.url}: workers died while they read it, or could not ({type(error).__name__})"
    told = {"attempts": 2, **failed("WorkerDied", why)}
    return Outcome(lost_id(task.url), told)


def _compare(store: Store, crew: Crew, how: How, told: Told) -> int:
    """Compares what belongs together and is not compared yet; gives how many series there are."""
    found = series(batches(store.folder / DUMPS_FILE, COLUMNS))
    store.keep_growth({each.id for each in found})
    new = [each for each in found if not store.has_growth(each.id, _asked_of(each))]
    done = 0

    def task_of(each: Series, *, with_files: bool = False) -> SeriesTask:
        snapshots = tuple(store.snapshot_of(id_) for id_ in each.ids)
        contents = (
            tuple((store.folder / name).read_bytes() for name in snapshots) if with_files else ()
        )
        return SeriesTask(each, snapshots, contents)

    unseen: list[Series] = []

    def finish(task: SeriesTask, result: Grown | BaseException) -> None:
        nonlocal done
        if isinstance(result, BaseException):
            result = Grown(error=f"{type(result).__name__}: workers died while they compared it")
        if result.needs_files:
            unseen.append(task.series)
            return
        store.put_growth(task.series.id, _asked_of(task.series), result.error, result.rows)
        done += 1

    def tick() -> None:
        told.progress("comparing", done, len(new))

    if new:
        crew.work(grow_task, map(task_of, new), how, finish, tick)
    if unseen:
        crew.work(grow_task, (task_of(each, with_files=True) for each in unseen), how, finish, tick)
    store.save()
    return len(found)


def _asked_of(each: Series) -> str:
    """Changes with what a series is of."""
    text = repr((GROWTH_VERSION, each))
    return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def words_of(given: str | Path | Iterable[str | Path]) -> tuple[str, ...]:
    """Inputs as they were named, one or many."""
    return (str(given),) if isinstance(given, str | Path) else tuple(str(word) for word in given)
