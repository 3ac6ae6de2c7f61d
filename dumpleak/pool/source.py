"""What `dumpleak pool` asks of its input, be it a dump or a snapshot file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from dumpleak.pool.account import PoolAccount
from dumpleak.pool.counters import TagRow
from dumpleak.pool.new_blocks import PoolBlocks
from dumpleak.pool.owners import Ownership
from dumpleak.snapshot import SourceInfo
from windumps.diagnostics import Diagnostic, DiagnosticLog
from windumps.windows.kernel_handles import HandleTable


@dataclass(frozen=True)
class Boot:
    """Which run of a system a dump is of.

    Attributes:
        kernel_base: Where the kernel lies; 0 when unknown.
        time: When the dump was taken; None when unknown.
        up_time: Since the system started; None when unknown.
        file: Only puts dumps of one time in an order.
    """

    kernel_base: int
    time: datetime | None
    up_time: timedelta | None
    file: str


class PoolSource(Protocol):
    """The pools of one dump: by `PoolReader` from the dump itself, by `StoredPools` from a snapshot."""

    log: DiagnosticLog

    @property
    def source(self) -> SourceInfo:
        """Where it comes from."""

    @property
    def boot(self) -> Boot:
        """Which run of the system it is of."""

    @property
    def has_trackers(self) -> bool:
        """The kernel's own counters are known, at least for some tags."""

    @property
    def counter_bits(self) -> int:
        """Width of allocs and frees: 32 or 64."""

    @property
    def absent_entries(self) -> int:
        """Entries of the tracker tables that are not in the dump."""

    @property
    def has_session_pool(self) -> bool:
        """The counters of session pool were found."""

    @property
    def why_no_session_pool(self) -> str:
        """Why there is no session pool; "" where there is or may be."""

    @property
    def blocks(self) -> PoolBlocks:
        """Used blocks."""

    @property
    def handles(self) -> list[HandleTable] | None:
        """Handle tables of all processes; None where they are not kept."""

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """What was left out so far, and how things were found."""

    def account(self, walk: bool) -> PoolAccount:
        """What is known of the pools as a whole; `walk` looks for blocks where counters do without."""

    def rows(self) -> list[TagRow]:
        """One row a tag."""

    def owner(self, tag: int) -> Ownership | None:
        """Whose tag it is; None when nobody looked for this tag."""


def is_same_boot(base: Boot, current: Boot) -> bool:
    """True when the system was not restarted between two dumps: addresses and counters go on.

    That is so when it was already up at the time of the earlier dump. Both dumps must say when they were
    taken and how long the system had been up, and have their kernel at one address.
    """
    if not base.kernel_base or base.kernel_base != current.kernel_base:
        return False
    if base.time is None or current.time is None or base.up_time is None or current.up_time is None:
        return False
    earlier, later = sorted((base, current), key=lambda boot: (boot.time, boot.file))
    if earlier.time is None or later.time is None or later.up_time is None:
        return False
    return later.time - later.up_time < earlier.time
