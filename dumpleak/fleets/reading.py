"""One input -> its snapshot and its rows: the work of the process that may be killed for it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import IO, Any

from dumpleak.files.columns import arrow
from dumpleak.files.detect import HEAD_BYTES, is_snapshot_file
from dumpleak.fleets.belonging import Series
from dumpleak.fleets.contents import (
    SNAPSHOT_SUFFIX,
    container_of,
    is_log_or_snapshot,
    member_content,
)
from dumpleak.fleets.growth import grown
from dumpleak.fleets.identity import described, site_rows
from dumpleak.fleets.places import is_url, opened
from dumpleak.fleets.store import ERROR, ID_BYTES, READ, SNAPSHOTS, Task, lost_id
from dumpleak.model.errors import no_progress
from dumpleak.survey.open import open_snapshot, open_subject
from dumpleak.survey.wanted import Recording, Wanted
from dumpleak.symbols.dump_symbols import environment_elements, given_elements
from windumps.errors import ContainerError, WindumpsError
from windumps.files import DiskRoom, open_file, read_head
from windumps.symbols.provider import Symbols
from windumps.unpack.containers import MAX_RATIO, SMALL_BYTES, unpacked

HOLDERS_BYTES = 1 << 30  # of used blocks, up to which is looked for who holds them
SNAPSHOT_FILE, SITES_FILE, GROWTH_FILE = "snapshot", "sites.arrow", "growth.arrow"
_PIECE = 1 << 20
_NAME = 200  # of bytes of a copy's name


@dataclass(frozen=True)
class ReadingRequest:
    """What the process is asked to read.

    Attributes:
        task: The input.
        scratch: A folder for files that nobody keeps; the snapshot and the rows are left there.
        known: A folder with snapshots by content, which are used again; "" for none.
        by: The grouping of sites.
        symbols: Values of `--symbols`.
        machine_from: As `described` has it.
    """

    task: Task
    scratch: str
    known: str = ""
    by: str = "site"
    symbols: tuple[str, ...] = ()
    machine_from: str = ""


@dataclass(frozen=True)
class GrowthRequest:
    """What the process is asked to compare.

    Attributes:
        series: Inputs that belong together.
        folder: Where the folder of their snapshots is.
        scratch: Where the rows are left.
        by: The grouping of sites.
    """

    series: Series
    folder: str
    scratch: str
    by: str = "site"


def _nobody(told: dict[str, Any]) -> None:
    """Is not interested."""


def read_input(
    request: ReadingRequest, begun: Callable[[dict[str, Any]], None] = _nobody
) -> dict[str, Any]:
    """Makes the snapshot of an input, or finds it, and says what it tells.

    Args:
        request: What to read.
        begun: Told of what is known before the long work begins, which may end the process.

    Returns:
        Columns of its row; those of an error where it cannot be read or used.

    Raises:
        MemoryError: which another process may have.
    """
    started = time.process_time()
    task = request.task
    path: Path | None = None
    told: dict[str, Any] = {"id": lost_id(task.url), "bytes": None}
    try:
        with _located(task, Path(request.scratch)) as path:
            told = {"id": content_id(path), "bytes": path.stat().st_size}
            begun(told)
            told |= _snapshot_of(path, told["id"], request)
            told["status"] = READ
    except (WindumpsError, OSError) as error:
        if _lacked_memory(error):
            raise MemoryError from error
        told |= failed(type(error).__name__, _why(error, path, task.url))
    return told | {"seconds": round(time.process_time() - started, 6)}


def _lacked_memory(error: BaseException | None) -> bool:
    """True where a reader took a lack of memory for damage."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, MemoryError):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def failed(kind: str, why: str) -> dict[str, Any]:
    """Columns of an input that could not be read."""
    return {"status": ERROR, "error_kind": kind, "error": why}


def task_name(task: Task) -> str:
    """The name of an input's file, without folders; the end of it, where no disk would take it whole."""
    name = PurePosixPath((task.member or task.url).replace("\\", "/").replace("\0", "_")).name
    if name in ("", ".."):
        return "input"
    return os.fsdecode(os.fsencode(name)[-_NAME:])


def _why(error: WindumpsError | OSError, path: Path | None, url: str) -> str:
    """One line, with the place where the input is and not that of its copy."""
    if isinstance(error, OSError) and not isinstance(error, WindumpsError):
        return f"{url}: {error.strerror or error}"
    text = " ".join(str(error).split())
    if path is not None:
        text = text.replace(str(path), url)
    return text if url in text else f"{url}: {text}"


def content_id(path: Path) -> str:
    """Hash of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    digest = blake2b(digest_size=ID_BYTES)
    with open_file(path) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def _located(task: Task, scratch: Path) -> Iterator[Path]:
    """The input as a file on a disk: itself where it is mounted, else a copy that goes away."""
    if not task.archive and not is_url(task.url):
        yield Path(task.url)
        return
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        # Its name says what a raw image or a stranger is.
        copy = Path(folder, task_name(task))
        with opened(task.archive or task.url) as file:
            if task.archive:
                most = max(SMALL_BYTES, file.seek(0, os.SEEK_END) * MAX_RATIO)
                file.seek(0)
                with member_content(file, task.archive, task.member) as content:
                    _copy(content, copy, task.url, most)
            else:
                _copy(file, copy, task.url)
        yield copy


def _copy(source: IO[bytes], target: Path, url: str, most: int | None = None) -> None:
    room = DiskRoom(target.parent)
    with target.open("wb") as file:
        while piece := source.read(_PIECE):
            if most is not None and file.tell() + len(piece) > most:
                raise ContainerError(
                    f"{url}: unpacks to more than {MAX_RATIO} times the archive's size: this looks like a "
                    "zip bomb; unpack it yourself if you trust it"
                )
            if not room.has(len(piece)):
                raise ContainerError(
                    f"{url}: its copy needs more than the {room.free >> 20} MiB free in {target.parent}; set "
                    "TMPDIR of the workers to a larger disk"
                )
            file.write(piece)


def _snapshot_of(path: Path, id_: str, request: ReadingRequest) -> dict[str, Any]:
    """Leaves the snapshot and its rows in the scratch folder."""
    known = next(Path(request.known).glob(f"{id_}.*"), None) if request.known else None
    made, shortfall = Path(request.scratch, SNAPSHOT_FILE), ""
    if known is None:
        shortfall = _make(path, made, request)
    snapshot = open_snapshot(known or made, Wanted(by=request.by))
    snapshot.source = replace(snapshot.source, file=request.task.url)
    suffix = SNAPSHOT_SUFFIX if is_snapshot_file(known or made) else ".log"
    told = described(snapshot, request.task.url, request.machine_from)
    told |= {"snapshot": f"{SNAPSHOTS}/{id_}{suffix}"}
    if shortfall:
        told |= {"error_kind": "shortfall", "error": shortfall.replace(str(path), request.task.url)}
    write_rows(Path(request.scratch, SITES_FILE), site_rows(snapshot))
    return told


def _make(path: Path, made: Path, request: ReadingRequest) -> str:
    """Writes the snapshot of a dump, or copies a file that is one; gives why it says too little."""
    head = read_head(path, HEAD_BYTES)
    if is_log_or_snapshot(head):
        shutil.copyfile(path, made)
        return ""
    if container_of(head) is not None:
        with unpacked(path) as file:
            if is_log_or_snapshot(file.read(HEAD_BYTES)):
                file.seek(0)
                with made.open("wb") as target:
                    shutil.copyfileobj(file, target)
                return ""
    elements = [*given_elements(request.symbols), *environment_elements()]
    symbols = Symbols.along(list(dict.fromkeys(elements))) if elements else None
    try:
        asked = Recording(holders=HOLDERS_BYTES)
        return open_subject(path, symbols).record(str(made), asked, no_progress)
    finally:
        if symbols is not None:
            symbols.close()


def compare_series(request: GrowthRequest) -> dict[str, Any]:
    """Leaves the rows of a series in the scratch folder; says why where it has none."""
    try:
        rows = grown(request.series, request.folder, request.by)
    except (WindumpsError, OSError) as error:
        text = " ".join(str(error).split())
        # Snapshots by id, which rows of inputs have, too.
        text = text.replace(f"{Path(request.folder, SNAPSHOTS)}{os.sep}", "")
        return {"error": text}
    write_rows(Path(request.scratch, GROWTH_FILE), rows)
    return {"error": ""}


def write_rows(path: Path, table: Any) -> None:
    """Writes an Arrow stream."""
    pa = arrow()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
