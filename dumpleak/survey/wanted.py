"""What can be wanted of what a user names, and what must be refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dumpleak.model.block_filter import NO_FILTER, BlockFilter
from dumpleak.model.errors import CannotAnswerError, Progress, no_progress
from dumpleak.model.populations import POPULATIONS

if TYPE_CHECKING:
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
        retained: Let `Snapshot.holders` also tell what groups retain; what cannot is refused.
        contents: Let `Snapshot.holders` also give texts that blocks hold; what cannot is refused.
        progress: Told of the work.
        pooltag: A `pooltag.txt` that tells of pool tags; one beside the dump is found without.
        walk: Look for blocks of the pools also where the kernel's counters do without.
        even_short: Also take of the pools what is no answer, for what the dump lacks.
        blocks: Which single blocks are wanted.
    """

    of: str | None = None
    by: str = "site"
    symbols: Symbols | None = None
    process: str | None = None
    skip_frames: tuple[str, ...] = ()
    details: bool = False
    keep_blocks: bool = False
    holders: bool = False
    retained: bool = False
    contents: bool = False
    progress: Progress = no_progress
    pooltag: Path | None = None
    walk: bool = True
    even_short: bool = False
    blocks: BlockFilter = NO_FILTER


@dataclass(frozen=True)
class Recording:
    """What is asked of a snapshot file, as `write_snapshot` has it."""

    include: tuple[str, ...] = ()
    strip_names: bool = False
    keep_names: tuple[str, ...] = ()
    holders: bool | int = True
    of: str | None = None


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
            raise CannotAnswerError(
                f"{path}: a {kind} of one process, which tells of {told}, not of {wanted}; {elsewhere}"
            )
        raise CannotAnswerError(f"{path} tells of {told}, not of {wanted}")
