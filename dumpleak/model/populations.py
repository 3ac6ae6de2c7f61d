"""Of what, by what: everything that a dump tells of and that can grow, one row each.

A population has members; each counts one, and may take bytes. A grouping (`--by`) gives each member a site.
Who takes the members out of a dump stands in `dumpleak.survey.populations`, a row under the same name.

A new population takes three places: its row here; its producer, named in `PRODUCERS` there; its name and keys
among `of` and `by` of the schemas of stat, diff and trend. A new key of `--by` takes two: here and there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from windumps.errors import BETTER_KERNEL_DUMP

BLOCKS, POOL, REGIONS, HEAPS = "blocks", "pool", "regions", "heaps"
HANDLES, THREADS, MODULES = "handles", "threads", "modules"
ARENAS = "arenas"
PROCESSES = "processes"  # of a system
MANAGED = "managed"


class Trace(NamedTuple):
    """How to see who makes members.

    Attributes:
        text: What the command tells.
        command: The exact command.
    """

    text: str
    command: str


@dataclass(frozen=True)
class Population:
    """One kind of thing that can grow.

    Attributes:
        groupings: Keys of `--by`, the default first, each with what one group is called.
        member: What one is called.
        what_bytes: What the bytes of a member are, for people; "" where members have none.
        of_a_system: What they are of a member of a system, where that is something else.
        traces: What to do next when members become more, by the name of the group; "" for all others.
        many: What several are called, where that is not the population's name.
        narrower: By grouping, how to see what matters of its groups.
        all_of_them: What all members together are called, where that is not the population's name.
        of_process: They are in the memory of one process, whose heaps and images name them.
        found_in: Where to look when a file of one process does not tell of them.
    """

    groupings: dict[str, str]
    member: str
    what_bytes: str = ""
    traces: dict[str, Trace] = field(default_factory=dict)
    many: str = ""
    narrower: dict[str, Trace] = field(default_factory=dict)
    all_of_them: str = ""
    of_process: bool = True
    found_in: str = ""
    of_a_system: str = ""

    @property
    def default(self) -> str:
        """The grouping when none was asked for."""
        return next(iter(self.groupings))


_OF_BLOCKS = {
    "site": "site",
    "heap": "heap",
    "size": "size",
    "kind": "block kind",
    "stack": "stack",
    "source": "source line",
    "type": "type",
    "tag": "tag",
    "driver": "driver",
    "module": "module",
}
_STARTED = Trace(
    "Record who starts threads, while they become more:",
    "xperf -on PROC_THREAD+LOADER -stackwalk ThreadCreate",
)
_BY_THREAD = Trace("Look at the threads:", "dumpleak diff BASE CURRENT --of threads")
_BY_HEAP = Trace("Look at what is in the heaps:", "dumpleak diff BASE CURRENT --by heap")
OF_VIRTUAL_ALLOC = Trace(
    "Memory outside heaps comes from VirtualAlloc; record who calls it, while it grows:",
    "wpr -start VirtualAllocation -filemode",
)
_MAPPED = Trace(
    "Record who maps views, while they become more:",
    "xperf -on PROC_THREAD+LOADER+VAMAP -stackwalk MapFile",
)
POPULATIONS: dict[str, Population] = {
    BLOCKS: Population(_OF_BLOCKS, "block", "asked for", all_of_them="the heaps of a process"),
    # The sites of the kernel's pools are tags.
    POOL: Population(
        _OF_BLOCKS | {"site": "tag"},
        "block",
        "charged",
        all_of_them="the kernel's pools",
        of_process=False,
        found_in=f"pools are in dumps of the kernel: {BETTER_KERNEL_DUMP}",
    ),
    REGIONS: Population(
        {"use": "use", "size": "size", "protection": "protection", "owner": "owner"},
        "region",
        "committed",
        {
            "": Trace("Look at what they are used for:", "dumpleak diff BASE CURRENT --of regions"),
            **dict.fromkeys(("other-private", "private memory", "private code"), OF_VIRTUAL_ALLOC),
            **dict.fromkeys(("mapped", "mapped memory", "mapped code"), _MAPPED),
            "images": Trace("Look at the modules:", "dumpleak diff BASE CURRENT --of modules"),
            "stacks": _BY_THREAD,
            "teb-peb": _BY_THREAD,
            "heaps": _BY_HEAP,
        },
    ),
    HEAPS: Population({"kind": "kind"}, "heap", "committed", {"": _BY_HEAP}),
    HANDLES: Population(
        {"type": "type", "name": "name", "process": "process"},
        "handle",
        traces={
            "": Trace(
                "Record who opens handles and leaves them open, while they become more:",
                "wpr -start Handle -filemode",
            )
        },
    ),
    THREADS: Population(
        {"start": "start function", "process": "process"},
        "thread",
        "committed for their stacks",
        {"": _STARTED},
        of_a_system="for their kernel stacks",
    ),
    MODULES: Population(
        {"name": "name"},
        "module",
        "committed",
        {
            "": Trace(
                "Record who loads images, while they become more:",
                "xperf -on PROC_THREAD+LOADER -stackwalk ImageLoad",
            )
        },
    ),
    PROCESSES: Population({"name": "program", "state": "state"}, "process", "private"),
    MANAGED: Population(
        {"type": "type", "reachable": "reachable type", "holder": "held type"},
        "object",
        "of the .NET heap",
        {
            "": Trace(
                "Record who allocates .NET objects, while they become more:",
                "dotnet-trace collect --profile gc-verbose -p PID",
            )
        },
        narrower={
            "type": Trace(
                "Leave out garbage that no collection has taken yet:",
                "dumpleak diff BASE CURRENT --of managed --by reachable",
            )
        },
        many="objects",
        all_of_them="the .NET heap",
    ),
    ARENAS: Population(
        {"kind": "allocator", "size": "size", "type": "type"},
        "block",
        "usable",
        many="blocks",
        all_of_them="blocks of other allocators",
    ),
}


def grouping(of: str | None, by: str | None) -> str:
    """The grouping to use, the population's first unless one is given.

    Raises:
        ValueError: there is no such population, or it has no such grouping.
    """
    population = POPULATIONS.get(of or BLOCKS)
    if population is None:
        raise ValueError(f"there is no population {of}; there are {', '.join(POPULATIONS)}")
    if by is not None and by not in population.groupings:
        keys = ", ".join(population.groupings)
        raise ValueError(f"{of or BLOCKS} are not grouped by {by}, but by {keys}")
    return by or population.default
