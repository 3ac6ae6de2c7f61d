"""The handles that a process has open, as columns: there may be hundreds of thousands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Texts:
    """Few different texts of many rows.

    Attributes:
        texts: Each different text once; the first is "", of rows that have none.
        index: Which of them each row has (int64, shape (n,)).
    """

    texts: tuple[str, ...]
    index: NDArray[np.int64]

    def counts(self) -> list[tuple[str, int]]:
        """How many rows have each text, the most first; texts that no row has are absent."""
        counts = np.bincount(self.index, minlength=len(self.texts)).tolist()
        found = [pair for pair in zip(self.texts, counts, strict=True) if pair[1]]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))


@dataclass(frozen=True)
class Handles:
    """A dump's list of the handles of its process.

    Attributes:
        types: Name of each handle's object type, "Event"; "" where the dump does not say.
        names: Name of each handle's object; "" where it has none or the dump does not say.
        whole: False when the list is cut or damaged: there are more than these.
        names_whole: False when some names were left out, which the diagnostics say.
        values: uint64, the handles themselves; None where they are not known.
    """

    types: Texts
    names: Texts
    whole: bool = True
    names_whole: bool = True
    values: NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.types.index)
