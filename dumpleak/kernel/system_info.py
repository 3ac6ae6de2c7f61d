"""A kernel dump described as a whole: `info` of a system."""

from __future__ import annotations

from dataclasses import replace

from dumpleak.kernel.account import system_account
from dumpleak.kernel.answerable import what_answers
from dumpleak.kernel.info import KernelInfo, take_kernel_info
from dumpleak.kernel.processes import read_processes
from dumpleak.kernel.unloaded_with_pool import left_pool
from dumpleak.symbols.kernel import use_symbols
from windumps.dumps.kernel.dump import KernelDump
from windumps.symbols.provider import Symbols


def describe(dump: KernelDump, symbols: Symbols | None = None) -> KernelInfo:
    """Describes a kernel dump; its pools are walked where they can be.

    Args:
        dump: The dump.
        symbols: Where names come from.
    """
    use_symbols(dump, symbols)  # before anything is read with them
    found = what_answers(dump, symbols)
    known = dump.process_layout is not None
    processes = read_processes(dump, found.pools) if known else None
    account = system_account(dump, found.pools, processes=processes)
    listed = None if processes is None else processes.all
    info = take_kernel_info(dump, symbols, (found.why_not, found.note), listed, account)
    return replace(info, left=found.pools.left if found.pools is not None else left_pool(dump))
