"""What Driver Verifier tells of a system: settings, what each driver holds, who allocated it from where."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from dumpleak.attribution.stack import FrameNamer, no_symbols, stack_site
from dumpleak.kernel.pools import PoolReader
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.left_pool import LeftPool
from dumpleak.model.sites import Site, key_site
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.totals import Groups, Totals, add_to
from windumps.arrays import I64, U32, U64
from windumps.diagnostics import Diagnostic
from windumps.errors import BETTER_KERNEL_DUMP
from windumps.pools.verifier.drivers import VerifiedDriver
from windumps.pools.verifier.records import VerifierData
from windumps.pools.verifier.settings import VerifierSettings
from windumps.pools.verifier.trace_log import AllocationLog, newest_records
from windumps.process.stack_traces import CodeMap

STACK = "stack"  # the grouping
NOT_LOGGED = "(not in Verifier's log)"
TRACKING = 0x8  # pool tracking
_NONE = np.empty(0, np.int64)
# Bits of `verifier /flags`, as Microsoft's documentation of the command names them.
FLAGS = {
    0: "special pool",
    1: "force IRQL checking",
    2: "low resources simulation",
    3: "pool tracking",
    4: "I/O verification",
    5: "deadlock detection",
    6: "enhanced I/O verification",
    7: "DMA checking",
    8: "security checks",
    9: "force pending I/O requests",
    10: "IRP logging",
    11: "miscellaneous checks",
    13: "invariant MDL checking for stack",
    14: "invariant MDL checking for driver",
    15: "power framework delay fuzzing",
    16: "port/miniport interface checking",
    17: "DDI compliance checking",
    18: "systematic low resources simulation",
    19: "DDI compliance checking (additional)",
    21: "NDIS/WIFI verification",
    23: "kernel synchronization delay fuzzing",
    24: "VM switch verification",
    25: "code integrity checks",
}


def flag_names(level: int) -> list[str]:
    """Names of the bits that are set, the lowest first."""
    bits = [bit for bit in range(level.bit_length()) if level >> bit & 1]
    return [FLAGS.get(bit, f"bit {bit}") for bit in bits]


class UnknownDriverError(ValueError):
    """The driver that was asked for is none that Verifier watches; the message names those."""


@dataclass(frozen=True)
class Logged:
    """One record of the log, of an allocation or a free; it does not say of which.

    Attributes:
        address: What was allocated or freed.
        bytes: Its size.
        thread: Address of the thread.
        frames: The stack, named.
    """

    address: int
    bytes: int
    thread: int
    frames: tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """Blocks that were allocated from one place.

    Attributes:
        driver: Index into `VerifierAnswer.drivers`.
        tag: Their tag.
        caller: The address behind the call, named.
        frames: The stack from the caller on, as far as the log has it; empty where it does not.
        count: How many.
        bytes: Asked for in them.
    """

    driver: int
    tag: int
    caller: str
    frames: tuple[str, ...]
    count: int
    bytes: int


@dataclass(frozen=True)
class VerifierAnswer:
    """The answer of `dumpleak verifier`.

    Attributes:
        source: Where it comes from.
        settings: What Verifier was told to do, and what it counted over all drivers.
        left: What the bug check says of pool left behind; None where it says nothing.
        pointer_size: 4 or 8.
        diagnostics: What was left out, and why.
        drivers: Those that are shown, what holds most first.
        address: uint64, their blocks, as the driver got them.
        size: int64, bytes asked for.
        tag: uint32.
        driver: int64, index into `drivers`.
        caller: int64, index into `callers`.
        callers: The places blocks were allocated from, named.
        stack: int64, index into `stacks`; -1 where the log does not have it.
        stacks: Frames from the caller on, named.
        log: What is known of the log; None where none was found.
        logged: Its newest records, as many as were asked for; those of the ring's beginning where nothing
            tells the newest.
        is_filtered: One driver was asked for.
    """

    source: SourceInfo
    settings: VerifierSettings
    left: LeftPool | None
    pointer_size: int
    diagnostics: tuple[Diagnostic, ...]
    drivers: tuple[VerifiedDriver, ...] = ()
    address: U64 = field(default_factory=lambda: _NONE.astype(np.uint64))
    size: I64 = field(default_factory=lambda: _NONE)
    tag: U32 = field(default_factory=lambda: _NONE.astype(np.uint32))
    driver: I64 = field(default_factory=lambda: _NONE)
    caller: I64 = field(default_factory=lambda: _NONE)
    callers: tuple[str, ...] = ()
    stack: I64 = field(default_factory=lambda: _NONE)
    stacks: tuple[tuple[str, ...], ...] = ()
    log: AllocationLog | None = None
    logged: tuple[Logged, ...] = ()
    is_filtered: bool = False

    @property
    def is_on(self) -> bool:
        """Verifier was on."""
        return self.settings.is_on

    @property
    def counted(self) -> int | None:
        """Blocks the drivers hold by Verifier's own counters; None when these are not known."""
        if not self.is_filtered:
            return self.settings.block_count
        counted = [driver.counted for driver in self.drivers]
        return None if None in counted else sum(count or 0 for count in counted)

    @property
    def missing(self) -> int:
        """Blocks that are counted and not listed."""
        return max((self.counted or 0) - len(self.address), 0)

    @property
    def shortfall(self) -> str:
        """Why this is no answer; "" when it is one."""
        if len(self.address) or not self.is_on or self.counted == 0:
            return ""
        if self.counted is None:
            return (
                f"{self.source.file}: Driver Verifier was on, but neither counters nor records of what is "
                f"asked for are in the dump, or not in a form that is known; {BETTER_KERNEL_DUMP}"
            )
        return (
            f"{self.source.file}: Driver Verifier tracks {self.missing:,} blocks, but its records of them "
            f"are not in the dump, or in a form that is not known; {BETTER_KERNEL_DUMP}"
        )

    @cached_property
    def origins(self) -> list[Origin]:
        """Blocks by driver, tag, caller and stack, the most bytes first."""
        columns = self.driver, self.tag.astype(np.int64), self.caller, self.stack
        if not len(self.address):
            return []
        keys, number = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
        number = number.ravel()
        count = np.bincount(number, minlength=len(keys)).tolist()
        held = np.zeros(len(keys), np.int64)
        np.add.at(held, number, self.size)
        found = [
            Origin(
                driver, tag, self.callers[caller], self.stacks[stack] if stack >= 0 else (), n, b
            )
            for (driver, tag, caller, stack), n, b in zip(
                keys.tolist(), count, held.tolist(), strict=True
            )
        ]
        return sorted(found, key=lambda origin: (-origin.bytes, origin.caller))


def take_verifier(reader: PoolReader, wanted: str | None = None, logged: int = 0) -> VerifierAnswer:
    """What Verifier tells.

    Args:
        reader: The pools of the dump.
        wanted: The driver to show, with or without `.sys`; None for all.
        logged: How many records of the log to show as they are.

    Raises:
        CannotAnswerError: nothing tells whether Verifier was on, or which drivers it watches.
        UnknownDriverError: Verifier watches no driver of that name.
    """
    settings = reader.pools.verifier_settings
    if settings.why_unknown:
        raise CannotAnswerError(f"{reader.dump.path}: {settings.why_unknown}; {BETTER_KERNEL_DUMP}")
    data = reader.pools.verifier
    nothing = VerifierAnswer(
        reader.source,
        settings,
        reader.left,
        reader.dump.kernel.pointer_size,
        tuple(reader.diagnostics),
    )
    if data is None:
        return nothing
    if wanted is not None and not data.drivers:
        raise CannotAnswerError(
            f"{reader.dump.path}: nothing in the dump names the drivers that Driver Verifier watches; "
            f"{BETTER_KERNEL_DUMP}"
        )
    log = reader.pools.allocation_log
    chosen = _chosen(data, wanted)
    places = np.full(len(data.drivers), -1, np.int64)
    places[chosen] = np.arange(len(chosen))
    rows = np.flatnonzero(places[data.driver] >= 0)
    addresses, caller = np.unique(data.caller[rows], return_inverse=True)
    namer = frame_namer(reader)
    return replace(
        nothing,
        drivers=tuple(data.drivers[number] for number in chosen),
        address=data.address[rows],
        size=data.size[rows],
        tag=data.tag[rows],
        driver=places[data.driver[rows]],
        caller=caller.astype(np.int64),
        callers=tuple(frame.text for frame in namer.frames(addresses.tolist())),
        stack=log.stack[rows] if log is not None else np.full(len(rows), -1, np.int64),
        stacks=tuple(
            tuple(frame.text for frame in namer.frames(frames))
            for frames in (log.stacks if log is not None else [])
        ),
        log=log,
        logged=_logged(reader, namer, log, logged),
        is_filtered=wanted is not None,
        diagnostics=tuple(reader.diagnostics),  # symbols are asked by now
    )


def _logged(
    reader: PoolReader, namer: FrameNamer, log: AllocationLog | None, most: int
) -> tuple[Logged, ...]:
    """Records of the log as they are."""
    if log is None or not most:
        return ()
    return tuple(
        Logged(*record[:3], tuple(frame.text for frame in namer.frames(record.frames)))
        for record in newest_records(reader.dump.kernel, log, most)
    )


def _chosen(data: VerifierData, wanted: str | None) -> list[int]:
    """Numbers of the drivers to show."""
    if wanted is None:
        return list(range(len(data.drivers)))
    stem = wanted.lower().removesuffix(".sys")
    found = [
        number
        for number, driver in enumerate(data.drivers)
        if wanted.lower() == driver.name.lower() or stem == driver.name.lower().removesuffix(".sys")
    ]
    if not found:
        names = ", ".join(driver.name for driver in data.drivers)
        raise UnknownDriverError(
            f"Driver Verifier does not watch {wanted}, as far as the dump tells; it watches {names}"
        )
    return found


def frame_namer(reader: PoolReader) -> FrameNamer:
    """Names code of the kernel and its drivers, unloaded ones too."""
    kernel = reader.dump.kernel
    code = CodeMap(kernel.drivers, kernel.unloaded)
    return FrameNamer(code, reader.frame_symbols or no_symbols, ())


def require_stacks(reader: PoolReader) -> tuple[VerifierData, AllocationLog]:
    """What names the stacks of blocks.

    Raises:
        CannotAnswerError: there is no log.
    """
    path, settings = reader.dump.path, reader.pools.verifier_settings
    if not settings.is_on:
        why = settings.why_unknown or "Driver Verifier was off"
        raise CannotAnswerError(
            f"{path}: only Driver Verifier logs the stacks of pool, and {why}; turn it on with "
            "verifier /flags 0x8 /driver NAME.sys, then restart"
        )
    data, log = reader.pools.verifier, reader.pools.allocation_log
    if data is None or log is None:
        raise CannotAnswerError(f"{path}: Driver Verifier was on, but its log is not in the dump")
    return data, log


def stack_groups(reader: PoolReader) -> Groups:
    """The used blocks of the pools by the stack Verifier logged of each; errors as `require_stacks`."""
    data, log = require_stacks(reader)
    namer = frame_namer(reader)
    sites: list[Site] = [stack_site(namer.frames(frames)) for frames in log.stacks]
    sites.append(
        key_site(STACK, NOT_LOGGED)
    )  # the last one: stacks have numbers from 0, and none has -1
    address, size = reader.blocks.places()
    number = np.full(len(address), -1, np.int64)
    if len(data):
        at = np.minimum(np.searchsorted(data.address, address), len(data) - 1)
        number = np.where(data.address[at] == address, log.stack[at], -1)
    number %= len(sites)
    count = np.bincount(number, minlength=len(sites)).tolist()
    held, largest = np.zeros(len(sites), np.int64), np.zeros(len(sites), np.int64)
    np.add.at(held, number, size)
    np.maximum.at(largest, number, size)
    groups: Groups = {}
    for site, n, b, most in zip(sites, count, held.tolist(), largest.tolist(), strict=True):
        if n:
            add_to(groups, site, Totals(n, b, b, most))
    return groups
