"""What the .NET objects of a process come to."""

from __future__ import annotations

from dataclasses import dataclass

from dumpleak.model.coverage import MIN_WALKED_SHARE
from dumpleak.model.totals import Groups


@dataclass(frozen=True)
class ManagedKind:
    """Objects of segments of one kind.

    Attributes:
        kind: "small", "large", "pinned" or "frozen".
        segments: How many.
        count: Objects.
        bytes: Bytes in them.
        free_bytes: Between them.
        largest_free_bytes: Of that, the largest stretch.
        committed_bytes: Memory of the segments.
    """

    kind: str
    segments: int
    count: int
    bytes: int
    free_bytes: int
    largest_free_bytes: int
    committed_bytes: int


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
        kinds: The same by kind of segment, most memory first.
        finalizable: Objects with a finalizer; None where that is not found.
        to_finalize: Objects that wait for their finalizer to run; None where that is not found.
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
    kinds: tuple[ManagedKind, ...] = ()
    finalizable: int | None = None
    to_finalize: int | None = None

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
