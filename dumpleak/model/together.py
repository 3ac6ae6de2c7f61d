"""Tags of the kernel's pools that grow together, as an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from windumps.pool_tags import tag_text

_Row = TypeVar("_Row")
NAMED_TAGS = 6
_COUNTED = " by the kernel's counters alone (the blocks found do not bear it out)"


@dataclass(frozen=True)
class Together:
    """Tags whose numbers of blocks grew alike.

    Attributes:
        number: Its own, from 1.
        tags: The root first where it is known; else by growth.
        growth: By how many blocks each grew.
        root: The tag that the others hang on; None where nothing tells.
        by_counters: The growth is the kernel's counters' alone: the blocks that were found do not bear it
            out.
        evidence: What speaks for the root, or why none is named.
    """

    number: int
    tags: tuple[int, ...]
    growth: tuple[int, ...]
    root: int | None
    by_counters: bool
    evidence: tuple[str, ...]

    @property
    def each(self) -> str:
        """By how many blocks one grew: "20,000", "20,000 to 20,860"."""
        low, high = min(self.growth), max(self.growth)
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"

    @property
    def told(self) -> str:
        """Which tags, by how much, and which is the root."""
        names = [tag_text(tag).rstrip() for tag in self.tags]
        more = len(names) - NAMED_TAGS
        shown = f"{', '.join(names[:NAMED_TAGS])} and {more} more" if more > 0 else _listed(names)
        return (
            f"{shown}, {self.each} more blocks each{_COUNTED * self.by_counters}; {self.told_root}"
        )

    @property
    def told_root(self) -> str:
        """Which is the root, and why."""
        why = "; ".join(self.evidence)
        if self.root is None:
            return f"which of them the others hang on is not known ({why})"
        return f"root: {tag_text(self.root).rstrip()} ({why})"

    def told_of(self, tag: int) -> str:
        """What is said under one of its tags."""
        others = _listed([tag_text(other).rstrip() for other in self.tags if other != tag])
        by = " by their counters" * self.by_counters
        if self.root == tag:
            return (
                f"root of {len(self.tags)} tags that grew together{by}, with {others}: "
                + "; ".join(self.evidence)
            )
        if self.root is None:
            return f"grew together{by} with {others}"
        return f"grew together{by} with {tag_text(self.root).rstrip()}, the root of {len(self.tags)} tags"


def _listed(names: Sequence[str]) -> str:
    """The names "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def group_of(groups: Iterable[Together], tag: int | None) -> Together | None:
    """The group of a tag; None when it is in none."""
    return next((group for group in groups if tag in group.tags), None)


def told_together(groups: Iterable[Together], tag: int | None) -> tuple[str, ...]:
    """What is said under a tag that grew together with others; nothing of any other."""
    group = group_of(groups, tag)
    return (group.told_of(tag),) if group is not None and tag is not None else ()


def roots_first(
    rows: Sequence[_Row], tag_of: Callable[[_Row], int | None], groups: Iterable[Together]
) -> list[_Row]:
    """Rows in their order, but those of a root in front of the first that hangs on it."""
    ordered = list(rows)
    for group in groups:
        if group.root is None or group.by_counters:
            continue
        tags = [tag_of(row) for row in ordered]
        first = next((n for n, tag in enumerate(tags) if tag in group.tags), None)
        if first is None:
            continue
        mine = [row for row, tag in zip(ordered, tags, strict=True) if tag == group.root]
        rest = [
            row for row, tag in zip(ordered[first:], tags[first:], strict=True) if tag != group.root
        ]
        ordered = [*ordered[:first], *mine, *rest]
    return ordered


def innocent(groups: Iterable[Together]) -> set[int]:
    """Tags that hang on another one: their drivers are not who leaks."""
    return {tag for group in groups if group.root is not None for tag in group.tags[1:]}
