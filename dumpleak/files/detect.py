"""What comparing commands accept besides dumps: files that hold a snapshot, told apart by their beginning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dumpleak.files.columns import is_snapshot
from dumpleak.model.snapshot import Snapshot
from windumps.dumps import DUMP_FORMATS
from windumps.files import read_head
from windumps.later import later
from windumps.unpack.containers import CONTAINERS


class Asked(NamedTuple):
    """What is asked of a file that holds a snapshot.

    Attributes:
        by: The grouping, a key of `GROUPINGS`.
        skip_frames: See `Session.skip_frames`.
        process: Which one, of a log of several; None for all.
        pooltag: A `pooltag.txt` the user named.
    """

    by: str
    skip_frames: tuple[str, ...] = ()
    process: str | None = None
    pooltag: Path | None = None


class SnapshotReader(NamedTuple):
    """One kind of file that holds a snapshot.

    Attributes:
        detect: True when the first bytes of a file (`HEAD_BYTES` at most) are of this kind; cheap.
        read: Reads the file into a snapshot; raises `WindumpsError` when it cannot be used or knows too
            little for what is asked.
    """

    detect: Callable[[bytes], bool]
    read: Callable[[Path, Asked], Snapshot]


HEAD_BYTES = 0x10000


_read_counters = later("dumpleak.files.counter_log", "read_log")
_read_processes = later("dumpleak.files.process_list", "read_log")
_read_handles = later("dumpleak.files.handle_summary", "read_log")
_read_poolmon = later("dumpleak.files.poolmon_log", "read_log")
_read_umdh = later("dumpleak.files.umdh_log", "read_log")
_read_file = later("dumpleak.files.reader", "read_snapshot_file")
_read_counter_series = later("dumpleak.files.counter_log", "read_series")
_is_counters = later("dumpleak.files.counter_log", "is_log")

SNAPSHOT_READERS: tuple[SnapshotReader, ...] = (
    SnapshotReader(
        is_snapshot,
        lambda path, asked: _read_file(path, asked.by, asked.skip_frames, asked.pooltag),
    ),
    # Text with no magic number, so these come last.
    SnapshotReader(_is_counters, lambda path, asked: _read_counters(path, asked.by, asked.process)),
    SnapshotReader(
        later("dumpleak.files.process_list", "is_log"),
        lambda path, asked: _read_processes(path, asked.by, asked.process),
    ),
    SnapshotReader(
        later("dumpleak.files.handle_summary", "is_log"),
        lambda path, asked: _read_handles(path, asked.by),
    ),
    SnapshotReader(
        later("dumpleak.files.poolmon_lines", "is_log"),
        lambda path, asked: _read_poolmon(path, asked.by, asked.pooltag),
    ),
    SnapshotReader(
        later("dumpleak.files.umdh_lines", "is_log"),
        lambda path, asked: _read_umdh(path, asked.by, asked.skip_frames),
    ),
)


def read_snapshot(
    path: Path | str,
    by: str,
    skip_frames: tuple[str, ...] = (),
    process: str | None = None,
    pooltag: Path | None = None,
) -> Snapshot | None:
    """The snapshot a file holds; None when it is no such file, but a dump or anything else.

    Args:
        path: The file.
        by: As `Asked` has it, and so the others.
        skip_frames: Frames.
        process: Process.
        pooltag: Table.

    Raises:
        WindumpsError: the file is a snapshot that cannot be used.
        OSError: it cannot be read.
    """
    reader = _reader(path)
    return (
        reader.read(Path(path), Asked(by, skip_frames, process, pooltag))
        if reader is not None
        else None
    )


def read_series(path: Path | str, process: str | None) -> list[Snapshot] | None:
    """The snapshots of a file that holds one process at many moments; None when it is no such file.

    Raises:
        WindumpsError: it cannot be used, or holds several processes and none was chosen.
        OSError: it cannot be read.
    """
    return _read_counter_series(path, process) if is_series(path) else None


def is_series(path: Path | str) -> bool:
    """True for files that hold one process at many moments.

    Raises:
        OSError: it cannot be read.
    """
    head = read_head(path, HEAD_BYTES)
    return not _is_dump(head) and bool(_is_counters(head))


def is_snapshot_file(path: Path | str) -> bool:
    """True for the files that `dumpleak snapshot` writes.

    Raises:
        OSError: it cannot be read.
    """
    return is_snapshot(read_head(path, HEAD_BYTES))


def why_no_dump(path: Path | str) -> str:
    """One line about a file that is a snapshot where a dump is needed; "" for all other files."""
    return (
        f"{path}: a snapshot, which has no memory in it; stat, diff and trend take it, this needs the dump"
        if Path(path).is_file() and _reader(path)
        else ""
    )


def _is_dump(head: bytes) -> bool:
    """True for what begins as dumps or compressed files do: no text, whose readers need not be loaded."""
    return head.startswith(tuple(magic for row in CONTAINERS for magic in row.magics)) or any(
        row.detect(head) for row in DUMP_FORMATS
    )


def _reader(path: Path | str) -> SnapshotReader | None:
    head = read_head(path, HEAD_BYTES)
    if _is_dump(head):
        return None
    return next((reader for reader in SNAPSHOT_READERS if reader.detect(head)), None)
