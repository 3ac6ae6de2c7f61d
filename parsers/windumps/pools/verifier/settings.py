"""Driver Verifier's settings and its counters over all drivers: MmVerifierData, which KDBG names."""

from __future__ import annotations

from dataclasses import dataclass, field

from windumps.errors import MemoryReadError
from windumps.kernel.kernel import Kernel
from windumps.layouts.rows import candidates
from windumps.layouts.verifier import VERIFIER, VERIFIER_LAYOUTS
from windumps.pools.verifier.pool_use import NONPAGED, PAGED, pool_use

_NOT_FOUND = "neither KDBG nor symbols tell where Driver Verifier's settings are"
_ABSENT = "whether Driver Verifier was on is not in the dump"


@dataclass(frozen=True)
class VerifierSettings:
    """What Driver Verifier was told to do, and what it counted.

    Attributes:
        level: Its flags, as `verifier /flags` takes them; 0 when it was off or that is unknown.
        counters: Its counters over all drivers, by Microsoft's names; without what no layout explains.
        why_unknown: Why nothing tells whether it was on; "" when that is known.
        address: Of the record; None when it was not found.
    """

    level: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    why_unknown: str = ""
    address: int | None = None

    @property
    def is_on(self) -> bool:
        """It was on, or has been."""
        return any(self.counters.values())

    @property
    def block_count(self) -> int | None:
        """Blocks that its drivers hold, by its own counters; None when these are not known."""
        names = "CurrentPagedPoolAllocations", "CurrentNonPagedPoolAllocations"
        counted = [self.counters.get(name) for name in names]
        return None if None in counted else sum(count or 0 for count in counted)


def read_settings(kernel: Kernel) -> VerifierSettings:
    """Reads them, or says why nothing tells."""
    place = kernel.symbol("MmVerifierData")
    if place is None:
        return VerifierSettings(why_unknown=_NOT_FOUND)
    level: int | None = None
    for row in candidates(VERIFIER_LAYOUTS, kernel.architecture, kernel.build):
        try:
            record = row.read(kernel.memory, VERIFIER, place)
        except MemoryReadError:
            continue
        level = record["Level"]  # at one place in all builds
        if pool_use(record, PAGED) is not None and pool_use(record, NONPAGED) is not None:
            names = (name for name in row.structures[VERIFIER] if name != "sizeof")
            return VerifierSettings(level, {name: record[name] for name in names}, address=place)
    if level is None:
        return VerifierSettings(why_unknown=_ABSENT, address=place)
    return VerifierSettings(level, {"Level": level}, address=place)
