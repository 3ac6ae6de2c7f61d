"""What `dumpleak pool` asks of its input, be it a dump or a snapshot file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dumpleak.model.boots import Boot
from dumpleak.model.owners import Ownership
from dumpleak.model.pool import TagRow
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.pool_blocks import PoolBlocks
from dumpleak.model.snapshot import SourceInfo
from windumps.arrays import U64
from windumps.diagnostics import Diagnostic, DiagnosticLog


@dataclass(frozen=True)
class OpenObjects:
    """What a process of the system has handles of.

    Attributes:
        process_id: Its id.
        name: Of its program.
        objects: uint64, address of the `_OBJECT_HEADER` of each open handle; one object may come more than
            once.
        absent_pages: Pages of its handle table that are not in the dump.
    """

    process_id: int
    name: str
    objects: U64
    absent_pages: int


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
    def handles(self) -> list[OpenObjects] | None:
        """Open handles of all processes; None where they are not kept."""

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """What was left out so far, and how things were found."""

    def account(self, walk: bool) -> PoolAccount:
        """What is known of the pools as a whole; `walk` looks for blocks where counters do without."""

    def rows(self) -> list[TagRow]:
        """One row a tag."""

    def owner(self, tag: int) -> Ownership | None:
        """Whose tag it is; None when nobody looked for this tag."""
