"""The processes of a system: those that run, and ended ones that something keeps alive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from dumpleak.kernel.audit import OpenedPools
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.pool_blocks import PoolBlocks
from dumpleak.model.process_rows import ENDED, RUNNING, UNLISTED
from dumpleak.model.units import count_of
from windumps.diagnostics import DiagnosticLog
from windumps.dumps.kernel.dump import KernelDump
from windumps.kernel.handles import HandleTable, read_handles
from windumps.kernel.object_references import ObjectHolder, holders_of, open_handles
from windumps.kernel.process_figures import PROCESS_TAG, unlisted_processes, with_figures
from windumps.kernel.processes import KernelProcess

NAMED_HOLDERS = 3
NO_HANDLES = "handle tables of processes are not in the dump, or their layout is not known"
EMPTY_HANDLES = "the handle tables in the dump hold no handles: they were not written"


class WalkedPools(OpenedPools, Protocol):
    """Pools whose blocks are walked only where the machine can hold them, see `PoolReader`."""

    @property
    def why_no_walk(self) -> str:
        """Why blocks cannot be looked at; "" when they can."""


@dataclass(frozen=True)
class SystemProcesses:
    """The processes of a system.

    Attributes:
        all: Those that run and those that ended, in the order of the kernel's list; behind them what no list
            has.
        tables: Handle tables, as far as they were read.
        why_not_all: Why there may be more that ended; "" when there are none.
        why_no_handles: Why it is not known how many handles are open; "" when it is.
        holders: Whose handles lead to ended processes, by address of these.
        open_handles: How many handles of ended processes are open, as the objects count; None where unknown.
    """

    all: tuple[KernelProcess, ...]
    tables: tuple[HandleTable, ...]
    why_not_all: str = ""
    why_no_handles: str = ""
    holders: dict[int, tuple[ObjectHolder, ...]] = field(default_factory=dict)
    open_handles: dict[int, int | None] = field(default_factory=dict)

    def held_by(self, process: KernelProcess) -> tuple[str, ...]:
        """Clauses on who keeps an ended process alive; empty for one that runs."""
        if process.exit_time is None:
            return ()
        return tuple(
            said_of_holders(
                self.holders.get(process.address, ()),
                self.open_handles.get(process.address),
                self.why_no_handles,
            )
        )

    @property
    def running(self) -> tuple[KernelProcess, ...]:
        """Those that run."""
        return tuple(process for process in self.all if is_running(process))

    @property
    def ended(self) -> tuple[KernelProcess, ...]:
        """Those that ended and are still there, since something refers to them."""
        return tuple(process for process in self.all if process.exit_time is not None)


def is_running(process: KernelProcess) -> bool:
    """It has not ended, and the kernel lists it."""
    return process.exit_time is None and process.is_listed


def state_of(process: KernelProcess) -> str:
    """What became of a process, for people."""
    if process.exit_time is not None:
        return ENDED
    return RUNNING if process.is_listed else UNLISTED


def read_processes(
    dump: KernelDump, pools: WalkedPools | None = None, *, walk: bool = True
) -> SystemProcesses:
    """All processes of a system.

    Pool blocks are walked only where the kernel counts more process objects than its list has.

    Args:
        dump: The dump.
        pools: Its pools; None where they cannot be read.
        walk: Their blocks may be looked at.

    Raises:
        CannotAnswerError: the dump has no list of processes.
    """
    layout = dump.process_layout
    if layout is None:
        raise CannotAnswerError(f"{dump.path}: {dump.why_no_processes}")
    listed = dump.processes
    blocks, why_not_all = _blocks(dump, pools, walk=walk)
    found = list(listed)
    if blocks is not None:
        found += unlisted_processes(dump.kernel, layout, listed, blocks.of(PROCESS_TAG), dump.log)
    found = with_figures(dump.kernel, layout, found)
    tables = tuple(read_handles(dump.kernel, listed, DiagnosticLog()))
    counts = {t.process.address: len(t.objects) for t in tables if t.is_whole}
    found = [replace(p, handle_count=counts.get(p.address, _none_left(p))) for p in found]
    ended = [process.address for process in found if process.exit_time is not None]
    return SystemProcesses(
        tuple(found),
        tables,
        why_not_all,
        _why_no_handles(found, tables),
        holders_of(dump.kernel, tables, ended),
        {address: open_handles(dump.kernel, address) for address in ended},
    )


def said_of_holders(
    holders: Sequence[ObjectHolder], opened: int | None, why_unknown: str
) -> list[str]:
    """Who keeps an object alive, for people.

    Args:
        holders: Whose handles lead to it.
        opened: How many handles of it are open, as it counts itself; None when unknown.
        why_unknown: Why other handles of it may not be known; "" when all are.
    """
    said = [
        f"{holder.name} (pid {holder.process_id}) has {holder.handles} handle"
        f"{'s' * (holder.handles != 1)} of it"
        for holder in holders[:NAMED_HOLDERS]
    ]
    if len(holders) > NAMED_HOLDERS:
        said.append(f"{len(holders) - NAMED_HOLDERS} more processes have handles of it")
    known = sum(holder.handles for holder in holders)
    if why_unknown and (opened is None or opened > known):
        said.append(f"who {'else ' * bool(holders)}holds it is unknown: {why_unknown}")
    elif not holders:
        said.append("no handle leads to it: a driver, or the kernel, refers to it by pointer")
    return said


def _none_left(process: KernelProcess) -> int | None:
    """An ended process has closed its handles."""
    return 0 if process.exit_time is not None else None


def _blocks(
    dump: KernelDump, pools: WalkedPools | None, *, walk: bool
) -> tuple[PoolBlocks | None, str]:
    """The pool's blocks where some may be process objects that no list has; else why nobody can tell."""
    if pools is None:
        return None, "the pools, in which process objects lie, cannot be read"
    counted = _counted(pools)
    if counted is not None and counted <= len(dump.processes):
        return None, ""
    many = "an unknown number of" if counted is None else str(counted)
    why = pools.why_no_walk or ("" if walk else "the blocks of the pools were not looked at")
    if why:
        counts = f"the kernel counts {many} process objects and lists {len(dump.processes)}"
        return None, f"{counts}: {why}"
    return pools.blocks, ""


def _counted(pools: WalkedPools) -> int | None:
    """How many process objects the pool's trackers count; None when unknown."""
    if not pools.has_trackers:
        return None
    totals = pools.pools.trackers
    mine = totals.tag == np.uint32(PROCESS_TAG)
    if not totals.complete[mine].all():
        return None
    return int((totals.nonpaged_count + totals.paged_count)[mine].sum())


def _why_no_handles(processes: list[KernelProcess], tables: tuple[HandleTable, ...]) -> str:
    if not tables:
        return NO_HANDLES
    if partly := sum(1 for table in tables if table.absent_pages):
        return f"handle tables of {count_of(partly, 'process')} are not wholly in the dump"
    if not any(len(table.objects) for table in tables):
        return EMPTY_HANDLES
    if blank := sum(1 for table in tables if table.blank_pages):
        return f"handle tables of {count_of(blank, 'process')} were not written to the dump"
    unread = sum(1 for process in processes if process.handle_count is None)
    return f"handle tables of {count_of(unread, 'process')} could not be read" if unread else ""


def total(
    processes: tuple[KernelProcess, ...], figure: Callable[[KernelProcess], int | None]
) -> int | None:
    """A figure over processes; None where that of one is not known."""
    values = [figure(process) for process in processes]
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
