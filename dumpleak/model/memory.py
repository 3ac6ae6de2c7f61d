"""What the memory of a process is used for, and what limits it."""

from __future__ import annotations

from dataclasses import dataclass, field

from dumpleak.model.sites import Site
from dumpleak.model.totals import Totals

USES = ("heaps", "stacks", "teb-peb", "images", "mapped", "other-private")
PRIVATE_USES = ("heaps", "stacks", "teb-peb", "other-private")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        name: "address space" or "commit limit"; of a kernel "nonpaged pool" or "paged pool".
        free_bytes: What is left of it.
        total_bytes: The limit itself; None when unknown.
    """

    name: str
    free_bytes: int
    total_bytes: int | None = None


@dataclass(frozen=True)
class UseRow:
    """One use of memory.

    Attributes:
        use: One of `USES`, or "unknown" where the dump does not list its regions.
        committed_bytes: Committed in the process.
        present_bytes: Of that, in the dump.
        regions: How many regions.
    """

    use: str
    committed_bytes: int
    present_bytes: int
    regions: int


@dataclass(frozen=True)
class MemoryByUse:
    """All memory of a process by use.

    Attributes:
        rows: One for each use that occurs.
        complete: True when the dump lists all regions of the process.
    """

    rows: tuple[UseRow, ...]
    complete: bool


@dataclass(frozen=True)
class PrivateMemory:
    """Private memory outside heaps, as far as a dump tells of it.

    Attributes:
        groups: Each group's identity and totals, by key.
        unknown: Why there is no telling; "" when there is.
        by_regions: It is what the dump's list of regions says, and not what its file holds.
        in_file: What the file holds beside images, heaps and stacks, mapped memory included: what two dumps
            have in common when only one lists its regions. None when it does not hold all memory.
    """

    groups: dict[str, tuple[Site, Totals]] = field(default_factory=dict)
    unknown: str = ""
    by_regions: bool = True
    in_file: tuple[Site, Totals] | None = None
