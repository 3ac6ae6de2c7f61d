"""Driver Verifier's settings and its counters over all drivers: MmVerifierData, which KDBG names."""

from __future__ import annotations

from dataclasses import dataclass, field

from windumps.errors import MemoryReadError
from windumps.kernel.kernel import Kernel
from windumps.layouts.verifier import VERIFIER, VERIFIER_LAYOUTS

_NOT_FOUND = "nothing tells where Driver Verifier's settings are: KDBG is not in the dump"
_ABSENT = "whether Driver Verifier was on is not in the dump"


@dataclass(frozen=True)
class VerifierSettings:
    """What Driver Verifier was told to do, and what it counted.

    Attributes:
        level: Its flags, as `verifier /flags` takes them; 0 when it was off or that is unknown.
        counters: Its counters over all drivers, by Microsoft's names.
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
    def block_count(self) -> int:
        """Blocks that its drivers hold, by its own counters."""
        names = "CurrentPagedPoolAllocations", "CurrentNonPagedPoolAllocations"
        return sum(self.counters.get(name, 0) for name in names)


def read_settings(kernel: Kernel) -> VerifierSettings:
    """Reads them, or says why nothing tells."""
    place = kernel.symbol("MmVerifierData")
    if place is None:
        return VerifierSettings(why_unknown=_NOT_FOUND)
    row = VERIFIER_LAYOUTS["x86" if kernel.pointer_size == 4 else "x64"]
    try:
        record = row.read(kernel.memory, VERIFIER, place)
    except MemoryReadError:
        return VerifierSettings(why_unknown=_ABSENT, address=place)
    counters = {name: record[name] for name in row.structures[VERIFIER] if name != "sizeof"}
    return VerifierSettings(counters["Level"], counters, address=place)
