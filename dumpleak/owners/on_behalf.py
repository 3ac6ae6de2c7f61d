"""Tags of blocks that one image allocates for whoever calls it: the allocator is not who leaks.

Sources: the documentation of each routine (Windows Driver Kit), and what Microsoft's own `pooltag.txt` says
of the tag. A new one is one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from dumpleak.model.owners import MEDIUM, Owner, Ownership
from dumpleak.owners.tag_table import KERNEL

# A driver that every block leads to is still no more than a guess: blocks also name who serves a request.
_WEIGHT = MEDIUM - 0.1
MAX_CALLERS = 3


class OnBehalf(NamedTuple):
    """One row.

    Attributes:
        routine: What callers call.
        allocator: The image whose tag it is.
    """

    routine: str
    allocator: str = KERNEL

    @property
    def note(self) -> str:
        """What limits an answer about such a tag."""
        whoever = f"whoever calls {self.routine}"
        return f"{self.allocator} allocates these blocks for {whoever}: the caller is unknown"


ON_BEHALF = {
    "Mmdi": OnBehalf("MmAllocatePagesForMdlEx"),
    "Mdl ": OnBehalf("IoAllocateMdl"),
    "Irp ": OnBehalf("IoAllocateIrp"),
    "MmCm": OnBehalf("MmAllocateContiguousMemory"),
    "MmSt": OnBehalf("MmCreateSection (mapped and cached files)"),
    "Se  ": OnBehalf("the security routines (SeXxx)"),
    "SeSd": OnBehalf("SeCaptureSecurityDescriptor"),
    "FMfn": OnBehalf("FltGetFileNameInformation", "fltmgr.sys"),
}


def with_callers(known: Ownership, found: Sequence[tuple[str, int]], looked_at: int) -> Ownership:
    """An ownership whose caller is unknown, with the drivers that the blocks' contents lead to.

    Args:
        known: What is known so far.
        found: (driver, blocks that lead to it), the most blocks first.
        looked_at: How many blocks were looked at.
    """
    guesses = [
        Owner(
            driver,
            round(_WEIGHT * count / looked_at, 4),
            "weak",
            (f"{count} of {looked_at} blocks looked at hold a pointer to it or to a device of it",),
        )
        for driver, count in found[:MAX_CALLERS]
    ]
    owners = sorted((*known.owners, *guesses), key=lambda owner: -owner.score)
    return replace(known, owners=tuple(owners))
