"""Commands: one file each, one row each in `COMMANDS`."""

import click

from dumpleak.commands.allocations import allocations
from dumpleak.commands.diff import diff
from dumpleak.commands.heaps import heaps
from dumpleak.commands.info import info
from dumpleak.commands.modules import modules
from dumpleak.commands.stat import stat

# In the order of `--help`.
COMMANDS: tuple[click.Command, ...] = (info, heaps, allocations, stat, modules, diff)

__all__ = ["COMMANDS"]
