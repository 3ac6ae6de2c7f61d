"""What the .NET objects of a process come to."""

from __future__ import annotations

from dataclasses import dataclass

from dumpleak.model.coverage import MIN_WALKED_SHARE


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
