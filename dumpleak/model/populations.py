"""Of what, by what: everything that a dump tells of and that can grow, one row each.

A population has members; each counts one, and may take bytes. A grouping (`--by`) gives each member a site.
Who takes the members out of a dump stands in `dumpleak.survey.populations`, a row under the same name.
"""

from __future__ import annotations

from dataclasses import dataclass

BLOCKS, POOL, REGIONS, HEAPS = "blocks", "pool", "regions", "heaps"
HANDLES, THREADS, MODULES = "handles", "threads", "modules"
PROCESSES = "processes"  # so far of logs only


@dataclass(frozen=True)
class Population:
    """One kind of thing that can grow.

    Attributes:
        groupings: Keys of `--by`, the default first.
        what_bytes: What the bytes of a member are, for people; "" where members have none.
    """

    groupings: tuple[str, ...]
    what_bytes: str = ""


_OF_BLOCKS = ("site", "heap", "size", "kind", "stack", "source", "type", "tag", "driver", "module")
POPULATIONS: dict[str, Population] = {
    BLOCKS: Population(_OF_BLOCKS, "asked for"),
    POOL: Population(_OF_BLOCKS, "charged"),
    REGIONS: Population(("use", "size", "protection"), "committed"),
    HEAPS: Population(("kind",), "committed"),
    HANDLES: Population(("type", "name")),
    THREADS: Population(("start",), "committed for their stacks"),
    MODULES: Population(("name",), "committed"),
    PROCESSES: Population(("name",), "private"),
}
