"""What a kernel dump is, what it holds and lacks, and whether pool leaks can be looked for in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from dumpleak.model.account import Figure
from dumpleak.model.left_pool import LeftPool
from dumpleak.model.snapshot import SourceInfo
from dumpleak.subjects import subject_of
from dumpleak.symbols.kernel import use_symbols
from windumps.diagnostics import Diagnostic
from windumps.dumps.kernel.dump import KernelDump
from windumps.images.modules import Module
from windumps.kernel.bug_checks import BugCheck
from windumps.kernel.counters import Counter
from windumps.kernel.processes import KernelProcess
from windumps.kernel.variables import KernelSymbol
from windumps.pools.kernel_pools import KernelPools
from windumps.symbols.provider import Symbols

# Pool in use beside what its trackers add up to: free space in its pages, and pages kept for later.
POOL_SLACK, POOL_SLACK_BYTES = 4, 16 << 20

# Variables that questions about pool start from.
SHOWN_SYMBOLS = (
    "PoolTrackTable",
    "PoolTrackTableSize",
    "ExPoolTagTables",
    "PoolTrackTableExpansion",
    "PoolBigPageTable",
    "PoolBigPageTableSize",
    "ExPoolState",
    "MiState",
)


@dataclass(frozen=True)
class KernelInfo:
    """The answer of `dumpleak info` for a kernel dump.

    Attributes:
        source: Where it comes from.
        dump_type: `_DUMP_HEADER.DumpType`; None for an image of memory, which has no header.
        dump_type_name: For people.
        full_memory: The writer was asked for all memory.
        memory_bytes: Bytes of memory in the file.
        missing_bytes: Bytes that the dump's own tables promise and the file does not have.
        paging: How addresses are translated; "" for a small dump.
        bug_check: Why the system stopped; None when it did not or is not known.
        up_time: Since the system started; None when unknown.
        processor_count: None when unknown.
        comments: Text the writer added.
        kernel_base: None when unknown.
        kernel_image: Its image, with the PDB's identity; None when unknown.
        build_lab: NtBuildLab; "" when unknown.
        kdbg_address: None when it was not found.
        kdbg_source: How it was found.
        kdbg_encoded: It was encoded in memory.
        symbols: `SHOWN_SYMBOLS` and where they are; None for those that no way leads to.
        drivers: Loaded images.
        unloaded: Images unloaded before, the newest first.
        current_process: The process that ran; None when the dump does not keep a copy of it.
        processes: All processes, ended ones that are still there included; None when the dump has no list of
            them.
        process_layout: Which layout of `_EPROCESS` was used, and how well it checked out.
        counters: The memory manager's own numbers.
        image_bytes: (bytes of all drivers, of that in the dump).
        secondary: Blocks that components added: (GUID, bytes).
        usable: Pool leaks can be looked for.
        advice: Why or why not, and what to do next.
        diagnostics: What was left out, and why.
        account: The system in figures.
        left: The pool that an unloaded driver left, where the system stopped for it.
    """

    source: SourceInfo
    dump_type: int | None
    dump_type_name: str
    full_memory: bool
    memory_bytes: int
    missing_bytes: int
    paging: str
    bug_check: BugCheck | None
    up_time: timedelta | None
    processor_count: int | None
    comments: tuple[str, ...]
    kernel_base: int | None
    kernel_image: Module | None
    build_lab: str
    kdbg_address: int | None
    kdbg_source: str
    kdbg_encoded: bool
    symbols: tuple[tuple[str, KernelSymbol | None], ...]
    drivers: tuple[Module, ...]
    unloaded: tuple[Module, ...]
    current_process: KernelProcess | None
    processes: tuple[KernelProcess, ...] | None
    process_layout: str
    counters: tuple[Counter, ...]
    image_bytes: tuple[int, int]
    secondary: tuple[tuple[str, int], ...]
    usable: bool
    advice: str
    diagnostics: tuple[Diagnostic, ...]
    account: tuple[Figure, ...]
    left: LeftPool | None = None


def checked_counters(dump: KernelDump) -> tuple[Counter, ...]:
    """The memory manager's counters; those only the build speaks for are held against the pool trackers.

    Pool in use cannot be less than what the trackers add up to, and is not many times as much. The other
    counters that only the build speaks for stand in one structure with paged pool, and fall with it; those of
    a variable that was searched for count all committed memory, of which pool is a part.
    """
    if not any(counter.by_build for counter in dump.counters):
        return tuple(dump.counters)
    totals = KernelPools(dump.kernel).trackers
    tracked = {
        "nonpaged_pool": int(totals.nonpaged_bytes[totals.complete].sum()),
        "paged_pool": int(totals.paged_bytes[totals.complete].sum()),
    }
    agrees = {
        counter.name: tracked[counter.name]
        <= (counter.bytes or 0)
        <= POOL_SLACK * tracked[counter.name] + POOL_SLACK_BYTES
        for counter in dump.counters
        if counter.name in tracked and totals.is_found
    }
    committed = next((c.bytes for c in dump.counters if c.name == "committed"), None)
    # All pool is committed memory; what the structure says of itself was checked when it was found.
    holds_pool = totals.is_found and sum(tracked.values()) <= (committed or 0)

    def is_borne_out(counter: Counter) -> bool:
        if counter.searched:
            return holds_pool and agrees.get("paged_pool", True)
        return agrees.get(counter.name, agrees.get("paged_pool", False))

    return tuple(
        replace(
            counter, bytes=None, source=f"{counter.source}: the pool trackers do not bear it out"
        )
        if counter.by_build and not is_borne_out(counter)
        else counter
        for counter in dump.counters
    )


def take_kernel_info(
    dump: KernelDump,
    symbols: Symbols | None = None,
    pools: tuple[str, str] = ("", ""),
    processes: tuple[KernelProcess, ...] | None = None,
    account: tuple[Figure, ...] = (),
) -> KernelInfo:
    """Describes a kernel dump.

    Args:
        dump: The dump.
        symbols: Where names come from.
        pools: Why its pools cannot be told about, and what to know when they can, see `Answerable`.
        processes: All processes; None when the dump has no list of them.
        account: The account of the system.
    """
    said = use_symbols(dump, symbols)
    kernel, block = dump.kernel, dump.kdbg
    memory = dump.memory if dump.physical is None else dump.physical
    return KernelInfo(
        source=kernel_source(dump),
        dump_type=None if dump.header is None else dump.dump_type,
        dump_type_name=dump.dump_type_name,
        full_memory=dump.full_memory,
        memory_bytes=memory.total_bytes,
        missing_bytes=dump.missing_bytes,
        paging=dump.paging.name if dump.paging is not None else "",
        bug_check=dump.bug_check,
        up_time=dump.up_time,
        processor_count=kernel.processor_count or None,
        comments=tuple(dump.comments),
        kernel_base=kernel.base or None,
        kernel_image=kernel.image,
        build_lab=kernel.build_lab,
        kdbg_address=(block.address or None) if block is not None else None,
        kdbg_source=block.source if block is not None else "",
        kdbg_encoded=block.was_encoded if block is not None else False,
        symbols=tuple((name, kernel.find_symbol(name)) for name in SHOWN_SYMBOLS),
        drivers=tuple(kernel.drivers),
        unloaded=tuple(kernel.unloaded),
        current_process=dump.current_process,
        processes=processes,
        process_layout="" if dump.process_layout is None else str(dump.process_layout),
        counters=checked_counters(dump),
        image_bytes=(
            sum(driver.size_bytes for driver in kernel.drivers),
            sum(
                dump.memory.present_bytes(driver.base_address, driver.end_address)
                for driver in kernel.drivers
            ),
        ),
        secondary=tuple(dump.secondary),
        usable=not (dump.why_no_pool or pools[0]),
        advice=_advice(dump, *pools),
        diagnostics=(*dump.diagnostics, *said),
        account=account,
    )


def kernel_source(dump: KernelDump) -> SourceInfo:
    """Where a kernel dump's answers come from."""
    return SourceInfo(
        file=str(dump.path),
        kind=dump.kind,
        machine=describe_system(dump),
        architecture=dump.architecture,
        build=dump.build,
        time=dump.time,
        process_id=None,
        program="",
        process_created=None,
        subject=subject_of(dump),
        cut_bytes=dump.missing_bytes,
    )


def describe_system(dump: KernelDump) -> str:
    """The text "Windows 10.0.19041 x64", as far as the dump says."""
    major, minor, build = dump.os_version
    version = f" {major}.{minor}.{build}" if build else ""
    return f"{dump.platform}{version} {dump.architecture}".strip()


def _advice(dump: KernelDump, why_not: str, note: str) -> str:
    if dump.why_no_pool:
        return f"no: this is {dump.why_no_pool}"
    if why_not:
        return f"no: {why_not}"
    if dump.missing_bytes:
        return (
            "partly: the file is cut, what it lacks counts as absent; copy it again from where it was "
            "written"
        )
    heaps = "; heaps of a process: --process NAME" if dump.full_memory else ""
    if note:
        return f"yes, without the blocks: {note}{heaps}"
    return f"yes: pool by tag and driver, dumpleak pool DUMP{heaps}"
