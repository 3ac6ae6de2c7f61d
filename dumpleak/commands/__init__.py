"""Commands: one file each, one row each in `COMMANDS`."""

import click

from dumpleak.commands.allocations import allocations
from dumpleak.commands.demo import demo
from dumpleak.commands.diff import diff
from dumpleak.commands.heaps import heaps
from dumpleak.commands.info import info
from dumpleak.commands.leaks import leaks
from dumpleak.commands.modules import modules
from dumpleak.commands.pool import pool
from dumpleak.commands.processes import processes
from dumpleak.commands.snapshot import snapshot
from dumpleak.commands.stat import stat
from dumpleak.commands.symbols import symbols
from dumpleak.commands.trend import trend
from dumpleak.commands.verifier import verifier

# In the order of `--help`.
COMMANDS: tuple[click.Command, ...] = (
    info,
    heaps,
    allocations,
    stat,
    modules,
    symbols,
    processes,
    pool,
    verifier,
    diff,
    trend,
    leaks,
    snapshot,
    demo,
)

__all__ = ["COMMANDS"]
