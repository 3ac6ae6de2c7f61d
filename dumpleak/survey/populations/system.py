"""Populations of a whole system: processes, their handles and threads, drivers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dumpleak.files.metadata import StoredPopulation
from dumpleak.kernel.account import system_account
from dumpleak.kernel.answerable import pools_of
from dumpleak.kernel.info import kernel_source
from dumpleak.kernel.pools import PoolReader
from dumpleak.kernel.processes import SystemProcesses, read_processes, state_of, total
from dumpleak.model.account import Figure
from dumpleak.model.coverage import ListCovered
from dumpleak.model.errors import CannotAnswerError, Progress, no_progress
from dumpleak.model.populations import HANDLES, MODULES, POPULATIONS, PROCESSES, THREADS
from dumpleak.model.process_rows import RUNNING
from dumpleak.model.sites import OWN_CODE, Site, SiteKind, key_site, process_key
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Group, Totals, sum_of
from dumpleak.model.units import count_of
from dumpleak.survey.populations.handles import handle_site
from dumpleak.survey.populations.members import (
    Members,
    added_up,
    numbered,
    only_counted,
    partly_known,
)
from dumpleak.survey.populations.threads import start_site
from windumps.dumps.kernel.dump import KernelDump
from windumps.images.modules import ModuleMap
from windumps.kernel.object_names import ObjectNames
from windumps.kernel.object_types import object_type
from windumps.kernel.processes import KernelProcess, KernelThread, threads
from windumps.kernel.thread_stacks import kernel_stacks
from windumps.symbols.provider import Symbols

BY_PROCESS, BY_NAME = "process", "name"
NO_TYPES = "the types of kernel objects are known by their pool blocks, which cannot be read"
_NOWHERE = "(object not in a known pool block)"


@dataclass(frozen=True)
class System:
    """A system opened to list what is in it.

    Attributes:
        dump: The dump.
        pools: Its pools; None where it has none.
    """

    dump: KernelDump
    pools: PoolReader | None

    @classmethod
    def of(
        cls, dump: KernelDump, symbols: Symbols | None = None, progress: Progress = no_progress
    ) -> System:
        """Opens one."""
        return cls(dump, pools_of(dump, symbols, progress))

    @cached_property
    def processes(self) -> SystemProcesses:
        """Its processes.

        Raises:
            CannotAnswerError: the dump has no list of them.
        """
        return read_processes(self.dump, self.pools)

    def account(self) -> tuple[Figure, ...]:
        """The account of the system."""
        try:
            processes = self.processes
        except CannotAnswerError:
            processes = None
        return system_account(self.dump, self.pools, processes=processes)


def _processes(system: System, by: str) -> Members:
    """All processes; ended ones apart, since a list of a live system shows none."""
    found = system.processes
    if found.why_not_all:
        raise CannotAnswerError(f"there may be more processes: {found.why_not_all}")
    make = process_site if by == "name" else _state_site
    sites, group = numbered(make(process) for process in found.all)
    sizes = [process.private_commit_bytes for process in found.all]
    known = total(found.all, lambda process: process.private_commit_bytes) is not None
    return Members(sites, group, np.array(sizes, np.int64) if known else None)


def process_site(process: KernelProcess) -> Site:
    """All processes of one program, and apart from them those that ended."""
    state = state_of(process)
    name = process.name or "(no name)"
    if state == RUNNING:
        return Site(SiteKind.GROUP, process_key(name), name)
    return Site(SiteKind.GROUP, f"{process_key(name)}|{state}", f"{name} ({state})")


def _state_site(process: KernelProcess) -> Site:
    return key_site("state", state_of(process))


def _handles(system: System, by: str) -> Members:
    """Open handles; those of tables that are partly in the dump as far as they are."""
    found = system.processes
    tables = [table for table in found.tables if len(table.objects)]
    if not tables:
        raise CannotAnswerError(found.why_no_handles)
    lacking = _lacking("handle", [each for each in found.all if each.handle_count is None])
    if by == BY_PROCESS:
        sites, owner = numbered(_owner_site("handle", table.process) for table in tables)
        count = [len(table.objects) for table in tables]
        return Members(sites, owner.repeat(count), None, lacking=lacking)
    if system.pools is None or (why := system.pools.why_no_walk):
        raise CannotAnswerError(NO_TYPES if system.pools is None else why)
    objects, index = np.unique(
        np.concatenate([table.objects for table in tables]), return_inverse=True
    )
    tags = system.pools.blocks.tags_at(objects)
    types = [object_type(tag) if tag >= 0 else _NOWHERE for tag in tags.tolist()]
    names = types
    if by == BY_NAME:
        found_names = ObjectNames(system.dump.kernel).of(objects, tags)
        names = [_name_told(*each) for each in zip(found_names, types, strict=True)]
    sites, group = numbered(handle_site(by, name) for name in names)
    return Members(sites, group[index], None, lacking=lacking)


def _name_told(name: str | None, kind: str) -> str:
    """An object for people; most have no name."""
    if name is None:
        return "(name not in the dump)"
    return name or f"({kind} without a name)"


def _lacking(label: str, processes: Sequence[KernelProcess]) -> tuple[Group, ...]:
    """Processes of which not all members are known, as groups by process."""
    sites, group = numbered(_owner_site(label, process) for process in processes)
    count = np.bincount(group, minlength=len(sites)).tolist()
    return tuple((site, Totals(many)) for site, many in zip(sites, count, strict=True))


def _owner_site(label: str, process: KernelProcess) -> Site:
    name = process.name or "(no name)"
    return Site(SiteKind.GROUP, f"{label}|{BY_PROCESS}|{process_key(name)}", name)


def _threads(system: System, by: str) -> Members:
    """Threads that run; those of lists that are partly in the dump as far as they are."""
    dump = system.dump
    layout = dump.process_layout
    images = ModuleMap(dump.kernel.drivers)
    if layout is None:
        raise CannotAnswerError(dump.why_no_processes)
    found: list[Site] = []
    addresses: list[int] = []
    lost: list[KernelProcess] = []
    for process in system.processes.running:
        listed = threads(dump.kernel.memory, layout, dump.architecture, dump.build, process)
        # Where the kernel's own count is not known, an empty list is a list that was not read.
        if len(listed) < (1 if process.thread_count is None else process.thread_count):
            lost.append(process)
        addresses += [thread.address for thread in listed]
        if by == BY_PROCESS:
            found += [_owner_site("thread", process)] * len(listed)
        else:
            found += [_start_site(images, process, thread) for thread in listed]
    if lost and not found:
        many = count_of(len(lost), "process")
        raise CannotAnswerError(f"lists of threads of {many} are not whole in the dump")
    sites, group = numbered(found)
    stacks = kernel_stacks(dump.kernel, np.array(addresses, np.uint64))
    size = stacks if (stacks >= 0).all() else None
    return Members(sites, group, size, lacking=_lacking("thread", lost))


def _start_site(images: ModuleMap, process: KernelProcess, thread: KernelThread) -> Site:
    """By the driver's function a thread began with; those of programs by the program."""
    image = images.at(thread.start_address) if thread.start_address else None
    if image is not None:
        return start_site(image, thread.start_address - image.base_address, "")
    if not thread.start_address:
        return key_site("thread|start", "(start address not in the dump)")
    name = process.name or "(no name)"
    return Site(SiteKind.GROUP, f"thread|start|{process_key(name)}", f"{name}{OWN_CODE}")


def _drivers(system: System, by: str) -> Members:
    drivers = system.dump.kernel.drivers
    if not drivers:
        raise CannotAnswerError("the dump has no list of drivers")
    sites, group = numbered(key_site(f"module|{by}", driver.name) for driver in drivers)
    return Members(sites, group, np.array([driver.size_bytes for driver in drivers], np.int64))


SYSTEM_PRODUCERS: dict[str, Callable[[System, str], Members]] = {
    PROCESSES: _processes,
    HANDLES: _handles,
    THREADS: _threads,
    MODULES: _drivers,
}
# What only systems, or only processes, are grouped by.
_KEYS = {HANDLES: ("process", "type"), THREADS: ("start", "process")}


def take_system_population(
    dump: KernelDump,
    of: str,
    by: str,
    symbols: Symbols | None = None,
    progress: Progress = no_progress,
) -> Snapshot:
    """A population of a system, grouped; the account is that of the whole system.

    Raises:
        CannotAnswerError: the dump does not tell of it, or not of all members.
    """
    if of not in SYSTEM_PRODUCERS:
        raise CannotAnswerError(
            f"a whole system does not tell of {of}; name one process with --process"
        )
    return system_snapshot(System.of(dump, symbols, progress), of, by)


def system_snapshot(system: System, of: str, by: str) -> Snapshot:
    """A population of an opened system, a key of `SYSTEM_PRODUCERS`; errors as above."""
    dump = system.dump
    members = SYSTEM_PRODUCERS[of](system, by)
    groups = added_up(members)
    covered = ListCovered.of(of, members.lacking)
    notes = [*partly_known(covered), *only_counted(of, "_EPROCESS", sized=members.size is not None)]
    return Snapshot(
        source=kernel_source(dump),
        grouping=by,
        groups={site.key: (site, totals) for site, totals in groups},
        totals=sum_of([totals for _, totals in groups]),
        private={},
        heaps=[],
        coverage=covered,
        diagnostics=[*dump.diagnostics, *notes],
        modules=tuple(dump.modules),
        outside=system.account(),
        population=of,
        sized=members.size is not None,
        boot=system.pools.boot if system.pools is not None else None,
    )


def all_of_system(system: System) -> dict[str, StoredPopulation]:
    """Every population with its groupings, as a snapshot file keeps them, or why the dump lacks it."""
    found = {}
    for of, produce in SYSTEM_PRODUCERS.items():
        members, reason = {}, ""
        for by in _KEYS.get(of, tuple(POPULATIONS[of].groupings)):
            try:
                members[by] = produce(system, by)
            except CannotAnswerError as error:
                reason = reason or str(error)
        sized = all(each.size is not None for each in members.values())
        groups = {by: added_up(each) for by, each in members.items()}
        lacking = next((each.lacking for each in members.values()), ())
        found[of] = StoredPopulation(groups, sized, reason, lacking=lacking)
    return found
