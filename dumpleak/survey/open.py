"""The one door: whatever a user names, as a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dumpleak.attribution.late_symbols import with_symbols
from dumpleak.files.detect import is_snapshot_file, read_snapshot
from dumpleak.model.block_filter import NO_FILTER
from dumpleak.model.block_page import BlockPage
from dumpleak.model.coverage import ArenasCovered
from dumpleak.model.errors import CannotAnswerError, Progress
from dumpleak.model.explanation import Explanation, SitesExplained
from dumpleak.model.info import Info
from dumpleak.model.populations import ARENAS, BLOCKS
from dumpleak.model.snapshot import Snapshot
from dumpleak.pointers.holders import HolderFinder
from dumpleak.process.arenas import arena_blocks, arenas_of
from dumpleak.process.coverage import coverage
from dumpleak.process.session import HeapSource, Session
from dumpleak.survey.addresses import addresses_of
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.info import take_info
from dumpleak.survey.populations import PRODUCERS, is_produced, stored_population, take_population
from dumpleak.survey.recording import write_snapshot
from dumpleak.survey.wanted import Recording, Wanted, require_population
from windumps import Dump
from windumps.blocks import Blocks, State
from windumps.diagnostics import Diagnostic
from windumps.dumps.kinds import is_system
from windumps.later import later

if TYPE_CHECKING:
    from dumpleak.survey.open_system import OpenedSystem
    from windumps.dumps.kernel.dump import KernelDump
    from windumps.symbols.provider import Symbols


selected_pages: Callable[..., Iterator[BlockPage]] = later(
    "dumpleak.survey.selected", "selected_pages"
)
arena_pages: Callable[..., Iterator[BlockPage]] = later(
    "dumpleak.survey.selected_arenas", "arena_pages"
)
covered_arenas: Callable[[Session], ArenasCovered] = later(
    "dumpleak.survey.populations.arenas", "covered_arenas"
)
explain: Callable[..., Explanation] = later("dumpleak.survey.explain", "explain")
explain_sites: Callable[..., SitesExplained] = later(
    "dumpleak.survey.explain_sites", "explain_sites"
)


def open_snapshot(path: Path | str, wanted: Wanted) -> Snapshot:
    """Reads a snapshot file or a log, or opens and walks a dump.

    Raises:
        CannotAnswerError: the input does not tell of what is wanted.
        WindumpsError: it cannot be used.
    """
    found = _open_snapshot(path, wanted)
    # Of populations that are no blocks, those that can tell have holders here.
    tells = isinstance(found.holders, HolderFinder) or (found.is_listed and found.holders)
    if wanted.retained and not tells:
        raise CannotAnswerError(
            f"{path}: what blocks keep alive takes a look at all memory of a process; name a dump of one, "
            "and ask for blocks or for objects of .NET by type"
        )
    if wanted.contents and not isinstance(found.holders, HolderFinder):
        raise CannotAnswerError(
            f"{path}: what is written in blocks stands in dumps of a process only; name one, ask for blocks"
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
        self._of: str | None = None

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
            return take_population(
                session, wanted.of, wanted.by, wanted.progress, retained=wanted.retained
            )
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
            contents=wanted.contents,
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
        asked, base = wanted.blocks, None
        self._of = wanted.of
        if wanted.of == ARENAS:
            self._walk = self._session.blocks(wanted.progress)
            return arena_pages(self._session, self._walk, state, asked)
        require_population(self.dump.path, wanted.of, BLOCKS, self.dump.kind)
        self._session.require_heaps()
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
        if self._of == ARENAS:
            return covered_arenas(self._session).shortfall
        return coverage(self._session).shortfall

    def left_out(self) -> str:
        """What `pages` gave nothing of and can give; "" for none. Asked after `shortfall`."""
        if self._of == ARENAS:
            return ""
        names = [source.entry.kind for source in arenas_of(self._session) if source.entry.heap]
        if not names:
            return ""
        many = sum(len(blocks) for _, blocks in arena_blocks(self._session))
        of = " and ".join(names)
        return f"{many:,} used blocks of {of} are not among them: dumpleak allocations DUMP --of arenas"

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


def open_subject(
    path: Path | str, symbols: Symbols | None = None, process: str | None = None
) -> OpenedProcess | OpenedSystem:
    """Opens a dump, of whatever it is; arguments and errors as `Session.open` has them."""
    return subject_in(Session.open(path, symbols, process), symbols)


def subject_in(session: Session, symbols: Symbols | None) -> OpenedProcess | OpenedSystem:
    """What an open dump is of."""
    if is_system(session.dump):
        from dumpleak.survey.open_system import OpenedSystem  # a process does without

        return OpenedSystem(session, session.dump, symbols)
    return OpenedProcess(session)
