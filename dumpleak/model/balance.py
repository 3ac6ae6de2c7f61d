"""Where a system's memory is: physical memory and commit, taken apart, with the rest that nothing explains.

Each part stands there only where its figure is in the dump. What is left is said, and what it may hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dumpleak.model.account import BYTES, AccountRow, Figure


class _Part(NamedTuple):
    """A part of a whole: its row of the account, how people call it, and what is in the rest without it.

    `within` is another row that counts the same memory, where that is known.
    """

    row: str
    label: str
    unknown: str = ""
    within: str = ""


@dataclass(frozen=True)
class _Kind:
    """One balance: of what, the row with the whole, its parts, and what is in none of them."""

    of: str
    whole: str
    parts: tuple[_Part, ...]
    holds: str


_OVERLAP = "less than nothing: parts overlap, or the dump was written while they changed"
_SYSTEM = "the kernel's and drivers' own code, data and stacks"
_KINDS = (
    _Kind(
        "physical memory",
        "memory.physical_bytes",
        (
            _Part("memory.available_bytes", "available"),
            _Part("pages.modified_bytes", "modified pages", "modified pages"),
            _Part("pages.private_bytes", "private pages of processes", "working sets of processes"),
            _Part("pages.shared_bytes", "mapped files, images, sections", "file cache"),
            _Part("pool.nonpaged_bytes", "nonpaged pool", "nonpaged pool"),
            _Part(
                "memory.driver_bytes",
                "drivers outside pool, as committed",
                "memory of drivers outside pool",
            ),
            _Part("pages.awe_bytes", "AWE pages", within="memory.driver_bytes"),
            _Part("memory.page_table_bytes", "page tables", "page tables"),
        ),
        f"paged pool in memory, {_SYSTEM}",
    ),
    _Kind(
        "commit",
        "memory.committed_bytes",
        (
            _Part("processes.bytes", "private memory of processes", "private memory of processes"),
            _Part("pool.bytes", "pools", "pools"),
            _Part("memory.driver_bytes", "drivers outside pool", "memory of drivers outside pool"),
            _Part("memory.shared_bytes", "shared sections", "shared sections"),
            _Part("memory.page_table_bytes", "page tables", "page tables"),
        ),
        _SYSTEM,
    ),
)


@dataclass(frozen=True)
class Share:
    """A part, or the rest.

    Attributes:
        name: Row of the account; "" for the rest.
        label: For people.
        points: Its bytes in each dump.
    """

    name: str
    label: str
    points: tuple[int, ...]

    @property
    def delta(self) -> int:
        """Last less first."""
        return self.points[-1] - self.points[0]


@dataclass(frozen=True)
class Balance:
    """A whole and its parts.

    Attributes:
        of: "physical memory" or "commit".
        total: The whole.
        parts: What is known of it.
        rest: What is left.
        holds: What that may be.
    """

    of: str
    total: Share
    parts: tuple[Share, ...]
    rest: Share
    holds: str


def balances(account: Sequence[AccountRow] | Sequence[Figure]) -> tuple[Balance, ...]:
    """The balances that a system's account allows: those whose whole is known in all dumps."""
    known: dict[str, tuple[int, ...]] = {}
    for row in account:
        points = (row.value,) if isinstance(row, Figure) else row.points
        told = tuple(point for point in points if point is not None)
        if (
            len(told) == len(points)
            and (row.measure if isinstance(row, Figure) else row.unit) == BYTES
        ):
            known[row.name] = told
    return tuple(_balance(kind, known) for kind in _KINDS if kind.whole in known)


def _balance(kind: _Kind, known: Mapping[str, tuple[int, ...]]) -> Balance:
    total = known[kind.whole]
    parts = [
        Share(part.row, part.label, known[part.row])
        for part in kind.parts
        if part.row in known and part.within not in known
    ]
    unknown = [part.unknown for part in kind.parts if part.row not in known and part.unknown]
    rest = tuple(
        whole - sum(part.points[place] for part in parts) for place, whole in enumerate(total)
    )
    return Balance(
        kind.of,
        Share(kind.whole, kind.of, total),
        tuple(parts),
        Share("", "not explained", rest),
        ", ".join([*unknown, kind.holds]) if min(rest) >= 0 else _OVERLAP,
    )
