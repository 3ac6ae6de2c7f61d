"""What the .NET objects of a process come to."""

from __future__ import annotations

from dataclasses import dataclass

from dumpleak.model.coverage import MIN_WALKED_SHARE
from dumpleak.model.totals import Groups


@dataclass(frozen=True)
class ManagedMemory:
    """The heap of a .NET process.

    Attributes:
        runtime: File name of the image that has the runtime; "" when it is not known.
        version: Its file version; "" when it is not known.
        count: Objects.
        bytes: In objects.
        free_bytes: Between objects.
        committed_bytes: All memory of the heap.
        walked_bytes: Of that, what is known to be objects, free or not used yet.
        present_bytes: Of that, what is in the dump.
        segments: Segments or regions that it consists of.
    """

    runtime: str
    version: str
    count: int
    bytes: int
    free_bytes: int
    committed_bytes: int
    walked_bytes: int
    present_bytes: int
    segments: int

    @property
    def is_enough(self) -> bool:
        """So much of it was walked that it can be compared."""
        return self.walked_bytes >= MIN_WALKED_SHARE * self.committed_bytes


# Keys of objects by what holds them: the key of the type, this, and the key of the type that holds them.
HELD = "|held|"
GARBAGE_KEY = "|garbage"  # behind the key of what nothing leads to


@dataclass(frozen=True)
class HeldObjects:
    """Objects by type and by the type of what holds them.

    Attributes:
        groups: By a key made with `HELD` and `GARBAGE_KEY`.
        garbage_told: It is known which objects are garbage; else none is called so.
    """

    groups: Groups
    garbage_told: bool
