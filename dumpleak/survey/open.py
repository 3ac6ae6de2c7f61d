"""The one door: whatever a user names, as a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dumpleak.attribution.late_symbols import with_symbols
from dumpleak.files.detect import is_snapshot_file, read_snapshot
from dumpleak.kernel.info import KernelInfo
from dumpleak.kernel.pools import PoolReader
from dumpleak.kernel.system_info import describe
from dumpleak.model.block_filter import NO_FILTER, BlockFilter
from dumpleak.model.block_page import BlockPage
from dumpleak.model.errors import CannotAnswerError, Progress, no_progress
from dumpleak.model.explanation import Explanation, SitesExplained
from dumpleak.model.info import Info
from dumpleak.model.populations import BLOCKS, POOL, POPULATIONS
from dumpleak.model.snapshot import Snapshot
from dumpleak.pointers.holders import HolderFinder
from dumpleak.process.coverage import coverage
from dumpleak.process.session import HeapSource, Session
from dumpleak.survey.addresses import addresses_of
from dumpleak.survey.explain import explain
from dumpleak.survey.explain_pool import explain_pool
from dumpleak.survey.explain_sites import explain_sites
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.info import take_info
from dumpleak.survey.pages import pool_pages
from dumpleak.survey.pool_recording import write_pool_snapshot
from dumpleak.survey.pools import take_pool_snapshot
from dumpleak.survey.populations import PRODUCERS, is_produced, stored_population, take_population
from dumpleak.survey.populations.system import SYSTEM_PRODUCERS, take_system_population
from dumpleak.survey.recording import write_snapshot
from dumpleak.survey.selected import selected_pages
from windumps import Dump
from windumps.blocks import Blocks, State
from windumps.diagnostics import Diagnostic
from windumps.dumps.kernel.dump import KernelDump
from windumps.errors import BETTER_KERNEL_DUMP
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


def open_snapshot(path: Path | str, wanted: Wanted) -> Snapshot:
    """Reads a snapshot file or a log, or opens and walks a dump.

    Raises:
        CannotAnswerError: the input does not tell of what is wanted.
        WindumpsError: it cannot be used.
    """
    found = _open_snapshot(path, wanted)
    if wanted.retained and not isinstance(found.holders, HolderFinder):
        raise CannotAnswerError(
            f"{path}: what blocks keep alive takes a look at all memory of a process; name a dump of one, "
            "and ask for blocks"
        )
    return found


def _open_snapshot(path: Path | str, wanted: Wanted) -> Snapshot:
    of_blocks = not is_produced(wanted.of)
    if not of_blocks and is_snapshot_file(path):
        return stored_population(path, wanted.of or "", wanted.by)
    by = wanted.by if of_blocks else "site"  # a log of other members knows no other grouping
    held = read_snapshot(path, by, wanted.skip_frames, wanted.process, wanted.pooltag)
    if held is not None:
        require_population(path, wanted.of, held.population, "snapshot")
        if not of_blocks and held.grouping != wanted.by:
            held = read_snapshot(path, wanted.by, wanted.skip_frames, wanted.process) or held
        return with_symbols(held, wanted.symbols, wanted.skip_frames)
    return open_subject(path, wanted.symbols, wanted.process).snapshot(wanted)


class OpenedProcess:
    """One process, opened.

    Attributes:
        dump: The dump.
    """

    why_no_images = ""  # a process without a list of images has none to show

    def __init__(self, session: Session) -> None:
        self.dump: Dump = session.dump
        self._session = session
        self._walk: Iterator[tuple[HeapSource, Blocks]] = iter(())

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """What was left out so far."""
        return self._session.diagnostics

    def system(self, what: str) -> KernelDump:
        """The dump as one of a system.

        Args:
            what: What it is asked for.

        Raises:
            CannotAnswerError: it is none.
        """
        raise CannotAnswerError(f"{self.dump.path}: a {self.dump.kind} of one process; {what}")

    def snapshot(self, wanted: Wanted) -> Snapshot:
        """What is wanted of it; errors as `open_snapshot` has them."""
        session = self._session
        if wanted.of is not None and is_produced(wanted.of):
            return take_population(session, wanted.of, wanted.by, wanted.progress)
        require_population(self.dump.path, wanted.of, BLOCKS, self.dump.kind)
        session.skip_frames = wanted.skip_frames
        return take_snapshot(
            session,
            wanted.by,
            wanted.progress,
            details=wanted.details,
            keep_blocks=wanted.keep_blocks,
            holders=wanted.holders,
            retained=wanted.retained,
        )

    def info(self, progress: Progress) -> Info:
        """What it is and holds."""
        return take_info(self._session, progress)

    def pages(self, state: State | None, wanted: Wanted) -> Iterator[BlockPage]:
        """Its blocks, or those of one state.

        Raises:
            CannotAnswerError: no heap can be read, or it cannot be told which blocks are wanted.
        """
        self._session.skip_frames = wanted.skip_frames
        self._session.require_heaps()
        asked, base = wanted.blocks, None
        if asked.new_since is not None:
            base = open_snapshot(
                asked.new_since, replace(wanted, keep_blocks=True, blocks=NO_FILTER)
            )
        self._walk = self._session.blocks(wanted.progress)
        return selected_pages(self._session, self._walk, state, asked, base)

    def addresses(self, words: Sequence[str]) -> list[int]:
        """What words mean; errors as `addresses_of` has them."""
        symbols = self._session.symbols
        return addresses_of(words, self.dump.modules, symbols.provider if symbols else None)

    def explain(self, addresses: Sequence[int], count: int, wanted: Wanted) -> Explanation:
        """What lies at some addresses, with so many bytes of contents."""
        self._session.skip_frames = wanted.skip_frames
        return explain(self._session, addresses, count, wanted.progress)

    def explain_sites(self, wanted: Wanted) -> SitesExplained:
        """What the blocks of some sites hang on; errors as `survey.explain_sites` has them."""
        self._session.skip_frames = wanted.skip_frames
        return explain_sites(self._session, wanted.blocks, wanted.progress)

    def shortfall(self) -> str:
        """Why what `pages` gave is too little; "" when it is enough."""
        for _ in self._walk:
            pass  # what nobody asked to see still tells how much of the heaps can be read
        return coverage(self._session).shortfall

    def record(self, path: str, asked: Recording, progress: Progress) -> str:
        """Writes its snapshot file; gives why that says too little, "" when it is enough."""
        if asked.of not in PRODUCERS:
            require_population(self.dump.path, asked.of, BLOCKS)
        written = write_snapshot(
            *(self._session, path, asked.include),
            strip_names=asked.strip_names,
            keep_names=asked.keep_names,
            holders=asked.holders,
            progress=progress,
            of=asked.of,
        )
        kept = written.populations.get(asked.of or "")
        covered = kept.coverage if kept is not None else None
        return (covered or coverage(self._session)).shortfall


class OpenedSystem:
    """A whole system, opened; asked as a process is.

    Attributes:
        dump: The dump.
    """

    def __init__(self, session: Session, dump: KernelDump, symbols: Symbols | None) -> None:
        self.dump: Dump = dump
        self._session, self._system, self._symbols = session, dump, symbols
        self._reader: PoolReader | None = None

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """What was left out so far."""
        return self._reader.diagnostics if self._reader else self.dump.diagnostics

    @property
    def why_no_images(self) -> str:
        """Why it lists no drivers; "" when it does."""
        dump = self._system
        if dump.modules:
            return ""
        cut = "the file is cut: copy it again from where it was written"
        advice = cut if dump.missing_bytes else BETTER_KERNEL_DUMP
        return dump.why_no_pool or f"the list of drivers is not in the dump; {advice}"

    def system(self, what: str) -> KernelDump:
        """The dump as one of a system."""
        return self._system

    def snapshot(self, wanted: Wanted) -> Snapshot:
        """What is wanted of it; errors as `open_snapshot` has them."""
        if wanted.of is not None and is_produced(wanted.of):
            return take_system_population(
                self._system, wanted.of, wanted.by, self._symbols, wanted.progress
            )
        require_population(self.dump.path, wanted.of, POOL, self.dump.kind)
        return take_pool_snapshot(
            self._pools(wanted.progress, wanted.pooltag),
            wanted.by,
            details=wanted.details,
            walk=wanted.walk,
            even_short=wanted.even_short,
        )

    def info(self, progress: Progress) -> KernelInfo:
        """What it is and holds."""
        return describe(self._system, self._symbols)

    def pages(self, state: State | None, wanted: Wanted) -> Iterator[BlockPage]:
        """The blocks of its pools, or those of one state; errors as `PoolReader` has them.

        Raises:
            CannotAnswerError: it cannot be told which blocks are wanted.
        """
        asked = wanted.blocks
        if asked.unreferenced or asked.new_since is not None:
            raise CannotAnswerError(
                f"{self.dump.path}: who holds blocks of pools, and since when, is not looked for; name a "
                "process with --process"
            )
        pages = pool_pages(self._pools(wanted.progress), state)
        return (found for page in pages if (found := asked.selected(page)) is not None)

    def addresses(self, words: Sequence[str]) -> list[int]:
        """What words mean; errors as `addresses_of` has them."""
        return addresses_of(words, self.dump.modules, self._symbols)

    def explain(self, addresses: Sequence[int], count: int, wanted: Wanted) -> Explanation:
        """What lies at some addresses, with so many bytes of contents; errors as `PoolReader` has them."""
        return explain_pool(self._pools(wanted.progress), addresses, count, self._symbols)

    def explain_sites(self, wanted: Wanted) -> SitesExplained:
        """Refused: who holds pool blocks is not looked for."""
        raise CannotAnswerError(
            f"{self.dump.path}: who holds blocks of pools is not looked for; name a process with --process"
        )

    def shortfall(self) -> str:
        """Why what `pages` gave is too little; "" when it is enough."""
        lost = self._system.missing_bytes
        if not lost:
            return ""
        return (
            f"{self.dump.path}: the file is cut: {lost} bytes of memory are missing, and blocks in "
            "them; copy it again from where it was written"
        )

    def record(self, path: str, asked: Recording, progress: Progress) -> str:
        """Writes its snapshot file; one that says too little is not written."""
        if asked.of not in SYSTEM_PRODUCERS:
            require_population(self.dump.path, asked.of, POOL)
        write_pool_snapshot(
            self._pools(progress),
            path,
            asked.include,
            strip_names=asked.strip_names,
            keep_names=asked.keep_names,
            of=asked.of,
        )
        return ""

    def _pools(self, progress: Progress, pooltag: Path | None = None) -> PoolReader:
        self._reader = PoolReader(self._system, self._symbols, pooltag, progress)
        return self._reader


def open_subject(
    path: Path | str, symbols: Symbols | None = None, process: str | None = None
) -> OpenedProcess | OpenedSystem:
    """Opens a dump, of whatever it is; arguments and errors as `Session.open` has them."""
    return subject_in(Session.open(path, symbols, process), symbols)


def subject_in(session: Session, symbols: Symbols | None) -> OpenedProcess | OpenedSystem:
    """What an open dump is of."""
    if isinstance(session.dump, KernelDump):
        return OpenedSystem(session, session.dump, symbols)
    return OpenedProcess(session)


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
