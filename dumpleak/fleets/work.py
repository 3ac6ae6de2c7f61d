"""What a worker does: it has a process read an input, and gives back what came of it."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distributed import get_worker

from dumpleak.fleets.belonging import Series
from dumpleak.fleets.child import Child, ChildError, Limits
from dumpleak.fleets.reading import (
    GROWTH_FILE,
    SITES_FILE,
    SNAPSHOT_FILE,
    GrowthRequest,
    ReadingRequest,
    failed,
)
from dumpleak.fleets.store import SNAPSHOTS, Outcome, Task, lost_id

TRIES = 2  # of an input that ends the process that reads it
MARK = ".seen-by-workers"
_HERE = threading.local()


@dataclass(frozen=True)
class How:
    """What holds for all inputs of a run.

    Attributes:
        folder: The fleet's.
        mark: What stands in the file `MARK` there: a worker that finds it has the same folder.
        limits: Of one input.
        by: Grouping of sites.
        symbols: Values of `--symbols`.
        machine_from: As `Asked` has it.
    """

    folder: str
    mark: str
    limits: Limits
    by: str = "site"
    symbols: tuple[str, ...] = ()
    machine_from: str = ""

    def sees_folder(self) -> bool:
        """True where the fleet's folder is mounted."""
        try:
            return Path(self.folder, MARK).read_text() == self.mark
        except OSError:
            return False


@dataclass(frozen=True)
class SeriesTask:
    """A series to compare.

    Attributes:
        series: The inputs.
        snapshots: Their files as the folder has them.
        contents: What is in these, for workers that do not see the folder; empty for the others.
    """

    series: Series
    snapshots: tuple[str, ...]
    contents: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Grown:
    """What came of a series.

    Attributes:
        rows: An Arrow stream.
        error: Why there is none.
        needs_files: The worker does not see the folder, and was not given the files.
    """

    rows: bytes = b""
    error: str = ""
    needs_files: bool = False


def read_task(task: Task, how: How) -> Outcome:
    """Reads one input; whatever happens to it is an outcome."""
    known = str(Path(how.folder, SNAPSHOTS)) if how.sees_folder() else ""
    with _scratch() as scratch:

        def request() -> dict[str, Any]:
            return asdict(
                ReadingRequest(task, scratch, known, how.by, how.symbols, how.machine_from)
            )

        told, tries = _asked(request, how.limits, lambda error: _failure(task, error))
        told["attempts"] = tries
        return Outcome(
            told.pop("id"),
            told,
            _content(scratch, SNAPSHOT_FILE),
            _content(scratch, SITES_FILE) or b"",
        )


def _failure(task: Task, error: ChildError) -> dict[str, Any]:
    """An input that took too much; without a hash where that was so before it was read."""
    return {"id": lost_id(task.url), **error.begun, **failed(error.kind, f"{task.url}: {error}")}


def grow_task(task: SeriesTask, how: How) -> Grown:
    """Compares the inputs of a series."""
    if not task.contents and not how.sees_folder():
        return Grown(needs_files=True)
    with _scratch() as scratch:
        folder = how.folder
        if task.contents:
            folder = scratch
            Path(scratch, SNAPSHOTS).mkdir()
            for name, content in zip(task.snapshots, task.contents, strict=True):
                Path(scratch, name).write_bytes(content)
        told, _ = _asked(
            lambda: asdict(GrowthRequest(task.series, folder, scratch, how.by)),
            how.limits,
            lambda error: {"error": f"{error.kind}: {error}"},
        )
        return Grown(_content(scratch, GROWTH_FILE) or b"", told["error"])


def _asked(
    request: Callable[[], dict[str, Any]],
    limits: Limits,
    gave_up: Callable[[ChildError], dict[str, Any]],
) -> tuple[dict[str, Any], int]:
    """The answer to a request, and how often it was asked."""
    tries = 0
    while True:
        tries += 1
        try:
            return _child(limits).ask(request()), tries
        except ChildError as error:
            # Time runs out again; memory may have been somebody else's.
            if tries >= TRIES or error.kind == "TimeLimit":
                return gave_up(error), tries


def _child(limits: Limits) -> Child:
    """The process of this thread."""
    child: Child | None = getattr(_HERE, "child", None)
    if child is None or child.limits != limits:
        if child is not None:
            child.close()
        child = _HERE.child = Child(limits)
    return child


@contextmanager
def _scratch() -> Iterator[str]:
    """A folder on the worker's own disk, which goes away; with the worker, if that is killed."""
    with tempfile.TemporaryDirectory(dir=get_worker().local_directory) as folder:
        yield folder


def _content(folder: str, name: str) -> bytes | None:
    path = Path(folder, name)
    return path.read_bytes() if path.exists() else None
