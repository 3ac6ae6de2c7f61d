"""A snapshot: everything a comparison needs of one dump, and nothing of its memory."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.account import Figure
from dumpleak.model.block_table import BlockTable
from dumpleak.model.boots import Boot
from dumpleak.model.containment import Contained
from dumpleak.model.coverage import Coverage, ListCovered
from dumpleak.model.group_sums import SiteDetail
from dumpleak.model.holding import Holding
from dumpleak.model.managed import HeldObjects
from dumpleak.model.memory import Limit, MemoryByUse
from dumpleak.model.pools import Pools
from dumpleak.model.populations import BLOCKS, POOL, POPULATIONS
from dumpleak.model.sites import Site
from dumpleak.model.subject import Subject
from dumpleak.model.totals import Totals
from windumps.diagnostics import Diagnostic
from windumps.images.modules import Module


@dataclass(frozen=True)
class HeapRow:
    """One heap of the process, read or not; byte and block numbers are None when it was not read.

    Of a heap that was not read, `committed_bytes` are known where the dump lists its regions.

    Attributes:
        label: Name that is stable across dumps, "heap 1".
        address: The handle.
        kind: "nt", "segment", …; "absent" when it is not in the dump.
        architecture: "x86" or "x64".
        flags: Creation flags as the heap keeps them.
        front_end: "lfh" or "".
        reserved_bytes: Address space it holds.
        committed_bytes: Committed of that.
        used_bytes: Asked for by the program.
        used_count: Used blocks.
        free_bytes: Free blocks.
        free_count: Free blocks.
        overhead_bytes: The heap's own structures, and headers and padding of used blocks.
        unwalked_bytes: Absent or damaged.
        residual_bytes: Unexplained; not zero only where something is damaged.
        layout: Which layout was used and how well it checked out.
        reason: Why it was not read; "" when it was.
    """

    label: str
    address: int
    kind: str
    architecture: str
    reason: str
    flags: int | None = None
    front_end: str = ""
    reserved_bytes: int | None = None
    committed_bytes: int | None = None
    used_bytes: int | None = None
    used_count: int | None = None
    free_bytes: int | None = None
    free_count: int | None = None
    overhead_bytes: int | None = None
    unwalked_bytes: int | None = None
    residual_bytes: int | None = None
    layout: str = ""

    @property
    def read(self) -> bool:
        """True when its blocks are part of the answer."""
        return not self.reason


@dataclass(frozen=True)
class SourceInfo:
    """Where a snapshot comes from.

    Attributes:
        file: As the user named it.
        kind: "minidump", …
        machine: The system, "Windows 10.0.19041 x64".
        architecture: Of the dump.
        build: Windows build number; 0 when unknown.
        time: When the dump was taken.
        process_id: None when unknown.
        program: File name of the executable; "" when unknown.
        process_created: When the process was started; None when unknown.
        program_base: Load address of the executable; None when unknown.
        subject: What it tells of.
        cut_bytes: Bytes of memory that the file promises and does not hold; it was cut.
        nt_global_flag: PEB.NtGlobalFlag; None when unknown.
        processor_seconds: Processor time that the process had taken; None when unknown.
        computer: Name of the machine, as the environment of the process has it; "" when unknown.
    """

    file: str
    kind: str
    machine: str
    architecture: str
    build: int
    time: datetime | None
    process_id: int | None
    program: str
    process_created: datetime | None
    program_base: int | None = None
    subject: Subject = Subject.PROCESS
    cut_bytes: int = 0
    nt_global_flag: int | None = None
    processor_seconds: int | None = None
    computer: str = ""


@dataclass
class Snapshot:
    """One dump, added up.

    Attributes:
        source: Where it comes from.
        grouping: The `--by` key the groups were made with, "site".
        groups: Each group's identity and totals, by key.
        totals: Over all used blocks of all heaps that were read.
        private: Private memory outside heaps, by key; not part of `totals`.
        private_unknown: Why there is no telling of it; "" when there is.
        by_regions: It is what the dump's list of regions says, and not what its file holds.
        in_file: See `PrivateMemory.in_file`.
        heaps: All heaps, read or not.
        coverage: See `Coverage`.
        diagnostics: What was left out, and why.
        limits: What the process can run into, and how much is left.
        details: More about each group, by key; empty unless asked for, and for snapshots read from files.
        memory: All memory by use; None under the same conditions.
        modules: Loaded images.
        blocks: Gives the used blocks with their groups; None where they are not known or not kept.
        holders: Tells who points to the blocks of the groups with certain keys; None as `blocks`.
        held_by: What `holders` told, by key, for reports.
        stripped: Names of types, modules and functions are hashed.
        kept_names: Patterns of those that are not.
        pool: What is known of the kernel's pools by tag; None for what is no system, and for old files.
        outside: Figures of the account that the rest of a snapshot does not tell, see `account`; None for
            logs, and for snapshot files that were written without.
        unreferenced: bool, one row a used block by ascending address: nothing leads to it. None where
            that was not looked for, or cannot be told.
        contained: Which containers hold the blocks; None where that was not looked for.
        boot: Which run of the system it is of; None for processes, and where it was not kept.
        refuted: Of the kernel's pools, groups whose counters the blocks refute, with what these count.
        refuted_unknown: Why there is no telling of such groups though there are such counters; "" when there
            is, and where there are none.
        population: What is added up, a key of `POPULATIONS`.
        sized: The bytes of its members are known; where they are not, they are all 0.
        held_objects: Of .NET objects by type: what holds them; None of all others.
        allocators_known: Allocators were looked for; older files do not tell private memory apart by them.
    """

    source: SourceInfo
    grouping: str
    groups: dict[str, tuple[Site, Totals]]
    totals: Totals
    private: dict[str, tuple[Site, Totals]]
    heaps: list[HeapRow]
    coverage: Coverage
    diagnostics: list[Diagnostic] = field(default_factory=list)
    limits: tuple[Limit, ...] = ()
    details: dict[str, SiteDetail] = field(default_factory=dict)
    memory: MemoryByUse | None = None
    modules: tuple[Module, ...] = ()
    blocks: Callable[[], BlockTable] | None = None
    holders: Callable[[Collection[str]], dict[str, Holding]] | None = None
    held_by: dict[str, Holding] = field(default_factory=dict)
    stripped: bool = False
    kept_names: tuple[str, ...] = ()
    pool: Pools | None = None
    outside: tuple[Figure, ...] | None = None
    unreferenced: NDArray[np.bool_] | None = None
    contained: Contained | None = None
    private_unknown: str = ""
    by_regions: bool = True
    in_file: tuple[Site, Totals] | None = None
    population: str = BLOCKS
    sized: bool = True
    allocators_known: bool = True
    boot: Boot | None = None
    refuted: dict[str, tuple[Site, Totals]] = field(default_factory=dict)
    refuted_unknown: str = ""
    held_objects: Callable[[], HeldObjects] | None = None

    @property
    def tells_retained(self) -> bool:
        """What groups keep alive was asked for, and is known of some."""
        return any(holding.retained_bytes is not None for holding in self.held_by.values())

    @property
    def shortfall(self) -> str:
        """Why its answer says too little to stand; "" when it covers enough."""
        return (self.pool.account.shortfall if self.pool else "") or self.coverage.shortfall

    @property
    def has_bytes(self) -> bool:
        """Its members have sizes; else they are only counted."""
        return self.sized and bool(POPULATIONS[self.population].what_bytes)

    @property
    def members(self) -> str:
        """What its members are called, "blocks"."""
        return BLOCKS if self.is_pool else POPULATIONS[self.population].many or self.population

    @property
    def of_process(self) -> bool:
        """Its members are in the memory of one process."""
        return POPULATIONS[self.population].of_process

    @property
    def noun(self) -> str:
        """What one of its groups is called, "site", and of the kernel's pools "tag"."""
        return POPULATIONS[self.population].groupings.get(self.grouping, "group")

    @property
    def is_listed(self) -> bool:
        """Its members are no blocks of heaps or pools: threads, regions, blocks of other allocators."""
        return self.population not in (BLOCKS, POOL)

    @property
    def is_walked(self) -> bool:
        """Its members were found by a walk, which may leave some out; a list has all or is refused."""
        return not isinstance(self.coverage, ListCovered)

    @property
    def is_pool(self) -> bool:
        """It is of the kernel's pools and not of a process's heaps."""
        return self.population == POOL
