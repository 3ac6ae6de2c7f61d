"""The one door: whatever a user names, as a snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dumpleak.attribution.late_symbols import with_symbols
from dumpleak.files.detect import is_snapshot_file, read_snapshot
from dumpleak.kernel.pools import PoolReader
from dumpleak.model.errors import CannotAnswerError, Progress, no_progress
from dumpleak.model.populations import BLOCKS, POOL, POPULATIONS
from dumpleak.model.snapshot import Snapshot
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.pools import take_pool_snapshot
from dumpleak.survey.populations import PRODUCERS, stored_population, take_population
from windumps.dumps.kernel.dump import KernelDump
from windumps.symbols.provider import Symbols


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a dump, a snapshot file or a log.

    Attributes:
        of: A key of `POPULATIONS`; None for blocks of a process, and the pools of a system.
        by: One of its groupings.
        symbols: Where names of functions come from; None for none.
        process: A process of a kernel dump, by id or by the name of its program, or of a log of several.
        skip_frames: Patterns of frames that name no site, besides the built-in ones.
        details: Also collect what only some reports show, `Snapshot.details` and `Snapshot.memory`.
        keep_blocks: Keep what tells whether single blocks are still there in another dump.
        holders: Keep what `Snapshot.holders` needs.
        progress: Told of the work.
        pooltag: A `pooltag.txt` that tells of pool tags; one beside the dump is found without.
        walk: Look for blocks of the pools also where the kernel's counters do without.
        even_short: Also take of the pools what is no answer, for what the dump lacks.
    """

    of: str | None = None
    by: str = "site"
    symbols: Symbols | None = None
    process: str | None = None
    skip_frames: tuple[str, ...] = ()
    details: bool = False
    keep_blocks: bool = False
    holders: bool = False
    progress: Progress = no_progress
    pooltag: Path | None = None
    walk: bool = True
    even_short: bool = False


def open_snapshot(path: Path | str, wanted: Wanted) -> Snapshot:
    """Reads a snapshot file or a log, or opens and walks a dump.

    Raises:
        CannotAnswerError: the input does not tell of what is wanted.
        WindumpsError: it cannot be used.
    """
    of_blocks = wanted.of not in PRODUCERS
    if not of_blocks and is_snapshot_file(path):
        return stored_population(path, wanted.of or "", wanted.by)
    by = wanted.by if of_blocks else "site"  # a log of other members knows no other grouping
    held = read_snapshot(path, by, wanted.skip_frames, wanted.process, wanted.pooltag)
    if held is not None:
        require_population(path, wanted.of, held.population, "snapshot")
        if not of_blocks and held.grouping != wanted.by:
            held = read_snapshot(path, wanted.by, wanted.skip_frames, wanted.process) or held
        return with_symbols(held, wanted.symbols, wanted.skip_frames)
    session = Session.open(path, wanted.symbols, wanted.process)
    return walked(session, wanted)


def walked(session: Session, wanted: Wanted) -> Snapshot:
    """The snapshot of an open dump; errors as `open_snapshot` has them."""
    if wanted.of is not None and wanted.of in PRODUCERS:
        return take_population(session, wanted.of, wanted.by, wanted.progress)
    is_system = isinstance(session.dump, KernelDump)
    told = POOL if is_system else BLOCKS
    require_population(session.dump.path, wanted.of, told, session.dump.kind)
    if isinstance(session.dump, KernelDump):
        reader = PoolReader(session.dump, wanted.symbols, wanted.pooltag, wanted.progress)
        return take_pool_snapshot(
            reader,
            wanted.by,
            details=wanted.details,
            walk=wanted.walk,
            even_short=wanted.even_short,
        )
    session.skip_frames = wanted.skip_frames
    return take_snapshot(
        session, wanted.by, wanted.progress, wanted.details, wanted.keep_blocks, wanted.holders
    )


def require_population(path: Path | str, wanted: str | None, told: str, kind: str = "") -> None:
    """Refuses what a file does not tell of.

    Args:
        path: The file.
        wanted: A population; None for whatever it tells of.
        told: The one it tells of.
        kind: What the file is, "minidump".

    Raises:
        CannotAnswerError: it tells of another population.
    """
    if wanted is not None and wanted != told:
        elsewhere = POPULATIONS[wanted].found_in
        if kind and elsewhere:
            raise CannotAnswerError(f"{path}: a {kind} of one process; {elsewhere}")
        raise CannotAnswerError(f"{path} tells of {told}, not of {wanted}")
