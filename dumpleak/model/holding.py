"""Who points to the blocks of a site: an answer, from a dump or from a snapshot file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.containment import Contained
from dumpleak.model.texts import Texts


@dataclass(frozen=True)
class Holding:
    """Who holds the blocks of one group.

    Attributes:
        blocks: Blocks of the group.
        unreferenced: Of these, how many cannot be reached from any root, as `dumpleak leaks` says.
            0 also where too little of the roots is in the dump to tell.
        holder: Who points to most of them; "" when nobody does.
        held: Blocks that the holder points to.
        fields: Where the blocks themselves point to, see `FieldFinder`.
        retained_bytes: What would become unreachable, at least, if only these blocks were released, they
            included. None where that was not asked for, or is not known.
        retained_count: Blocks of that.
        texts: What kinds of text the blocks begin with; None where none does.
    """

    blocks: int
    unreferenced: int
    holder: str = ""
    held: int = 0
    fields: tuple[str, ...] = ()
    retained_bytes: int | None = None
    retained_count: int | None = None
    texts: Texts | None = None

    @property
    def evidence(self) -> tuple[str, ...]:
        """Clauses for people."""
        return (*self.contents, *self.holders)

    @property
    def contents(self) -> tuple[str, ...]:
        """Clauses on what kinds of text the blocks hold."""
        return self.texts.evidence if self.texts is not None else ()

    @property
    def holders(self) -> tuple[str, ...]:
        """Clauses on who points to the blocks, and where they point to."""
        clauses = []
        if self.holder:
            clauses.append(f"{self.held:,} of {self.blocks:,} held by {self.holder}")
        if self.unreferenced:
            clauses.append(f"{self.unreferenced:,} of {self.blocks:,} unreferenced")
        if self.fields:
            clauses.append(f"fields: {', '.join(self.fields)}")
        return tuple(clauses)


@runtime_checkable
class Finder(Protocol):
    """Tells who points to the blocks of groups, and what nothing leads to; see `HolderFinder`."""

    @property
    def unreferenced(self) -> NDArray[np.bool_] | None:
        """By block in order of address; None before anything was looked for."""

    @property
    def contained(self) -> Contained | None:
        """Which containers hold the blocks; None before anything was looked for."""

    def __call__(self, keys: Collection[str]) -> dict[str, Holding]:
        """Who holds the blocks of the groups with these keys."""

    def retained_of(self, keys: Collection[str]) -> tuple[int, int] | None:
        """(bytes, count) of what groups keep alive together; None where that is not known."""


class StoredHolders:
    """What a snapshot file keeps of the holders, as `HolderFinder` gives it.

    Args:
        held: By key.
        unreferenced: As `HolderFinder.unreferenced`.
    """

    def __init__(self, held: dict[str, Holding], unreferenced: NDArray[np.bool_] | None) -> None:
        self._held = held
        self.unreferenced = unreferenced
        self.contained: Contained | None = None  # not kept

    def __call__(self, keys: Collection[str]) -> dict[str, Holding]:
        """Who holds the blocks of the groups with these keys."""
        return {key: self._held[key] for key in keys if key in self._held}

    def retained_of(self, keys: Collection[str]) -> tuple[int, int] | None:
        """Not kept."""
        return None
