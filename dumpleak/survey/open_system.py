"""A whole system, opened: its side of the one door, loaded when there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dumpleak.kernel.info import KernelInfo
from dumpleak.kernel.pools import PoolReader
from dumpleak.kernel.system_info import describe
from dumpleak.model.block_page import BlockPage
from dumpleak.model.errors import CannotAnswerError, Progress
from dumpleak.model.explanation import Explanation, SitesExplained
from dumpleak.model.populations import POOL
from dumpleak.model.snapshot import Snapshot
from dumpleak.process.session import Session
from dumpleak.survey.addresses import addresses_of
from dumpleak.survey.explain_pool import explain_pool
from dumpleak.survey.pages import pool_pages
from dumpleak.survey.pool_recording import write_pool_snapshot
from dumpleak.survey.pools import take_pool_snapshot
from dumpleak.survey.populations import is_produced
from dumpleak.survey.populations.system import SYSTEM_PRODUCERS, take_system_population
from dumpleak.survey.wanted import Recording, Wanted, require_population
from windumps import Dump
from windumps.blocks import State
from windumps.diagnostics import Diagnostic
from windumps.dumps.kernel.dump import KernelDump
from windumps.errors import BETTER_KERNEL_DUMP

if TYPE_CHECKING:
    from windumps.symbols.provider import Symbols


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
        require_population(self.dump.path, wanted.of, POOL, self.dump.kind)
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

    def left_out(self) -> str:
        """What `pages` gave nothing of and can give; always ""."""
        return ""

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
