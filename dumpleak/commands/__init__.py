"""Commands: one file each, one row each in `COMMANDS`. A command is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module

import click

# What each is for, as `--help` says it.
COMMANDS = {
    "info": "What a dump is, what it holds and lacks, and whether leaks can be looked for in it.",
    "diff": "Which allocation sites grew from BASE to CURRENT, ranked by bytes.",
    "trend": "Which sites grow steadily over three dumps and more, how fast, and when memory ends.",
    "leaks": "Used blocks that no pointer leads to, from globals, stacks, registers or other such blocks.",
    "explain": "What lies at an address, who points to it, a way to it from a root, what it keeps alive.",
    "stat": "Used blocks of one dump, added up by site, by one kind of evidence, or by another key.",
    "pool": "Kernel pool by tag with the driver that owns it; with two dumps or snapshots, which tags grew.",
    "verifier": "What Driver Verifier tracks of a kernel dump: flags, the pool of its drivers, their stacks.",
    "processes": "Processes of a kernel dump: id, parent, name, start, private commit, handles; of two, "
    "which grew.",
    "heaps": "One row a heap: committed, used, free, overhead.",
    "allocations": "One row a block, with the site it belongs to.",
    "modules": "Loaded and unloaded images with version, PDB name, GUID and age.",
    "symbols": "PDBs that a dump's images want: found, missing, and those as a list to fetch elsewhere.",
    "snapshot": "What a comparison needs of a dump, in a small file without memory contents.",
    "fleet": "Reads thousands of dumps, snapshots and logs on many workers, and tells which leaks are out "
    "there.",
    "demo": "Compares two dumps that come with dumpleak, and writes the page about them.",
}


class Commands(MutableMapping[str, click.Command]):
    """The commands by name, each loaded when it is first taken out."""

    def __init__(self) -> None:
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            if name not in COMMANDS:
                raise KeyError(name)
            self[name] = getattr(import_module(f"{__name__}.{name}"), name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        # Else click says "unexpected extra argument"; `options_with` says what to do with two dumps.
        command.allow_extra_args = any(isinstance(p, click.Argument) for p in command.params)
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


__all__ = ["COMMANDS", "Commands"]
