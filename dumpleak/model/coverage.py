"""How much of a dump's heaps an answer rests on. No other place forms that percentage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from dumpleak.model.errors import BETTER_DUMP
from dumpleak.model.totals import Group
from dumpleak.model.units import count_of, format_bytes, format_share
from windumps.diagnostics import HEAP_LIST_CUT, Diagnostic
from windumps.errors import BETTER_KERNEL_DUMP

# Below this share of walked heap memory an answer is shown, but counts as none (exit code 3).
MIN_WALKED_SHARE = 0.5
NAMED_PROCESSES = 5  # of which not all is listed
MOST_SHOWN = 0.999  # of what is not complete, however little is missing


@dataclass(frozen=True)
class Coverage:
    """How much of the heaps' memory an answer covers.

    Attributes:
        walked_bytes: Committed heap bytes whose use is known.
        present_bytes: Committed heap bytes that are in the dump.
        committed_bytes: Committed bytes of all heaps; of those that were not read what the dump's list of
            regions tells.
        heaps_listed: Heaps the process has, also those whose addresses are not in the dump.
        heaps_read: Heaps that were walked.
        unread_bytes: Of `committed_bytes`, what belongs to heaps that were not read, as far as known.
        list_cut: The process may have more heaps than are known.
    """

    memory: ClassVar[str] = "heap memory"  # what is walked, for people
    parts: ClassVar[str] = "heaps"
    better: ClassVar[str] = BETTER_DUMP  # how to take a dump that holds more
    # What such a source never tells, so that no share of it means anything.
    never: ClassVar[str] = ""

    walked_bytes: int
    present_bytes: int
    committed_bytes: int
    heaps_listed: int
    heaps_read: int
    unread_bytes: int = 0
    list_cut: bool = False

    @property
    def walked_share(self) -> float:
        """Walked of committed, 0 to 1; 0 when nothing was read."""
        return self.walked_bytes / self.committed_bytes if self.committed_bytes else 0.0

    @property
    def hidden_bytes(self) -> int:
        """What heaps that were read may hold besides what an answer shows."""
        return max(self.committed_bytes - self.unread_bytes - self.walked_bytes, 0)

    @property
    def known_share(self) -> float:
        """What an answer rests on, walked or known without, of what is committed; 0 to 1."""
        return self.walked_share

    @property
    def is_complete(self) -> bool:
        """All heaps were read, and all of their memory was walked."""
        whole = self.walked_bytes == self.committed_bytes
        every = self.heaps_read == self.heaps_listed and not self.list_cut
        return whole and every and not self.never

    @property
    def shown_share(self) -> float | None:
        """The share for people: 1 only when it is complete; None where it is unknown."""
        if self.never:
            return None
        return self.walked_share if self.is_complete else min(self.walked_share, MOST_SHOWN)

    @property
    def share_text(self) -> str:
        """The share for people, "97.4%"."""
        if self.never:
            return "unknown"
        return format_share(self.walked_bytes, self.committed_bytes, complete=self.is_complete)

    @property
    def amounts(self) -> str:
        """The numbers behind the share, for people."""
        return (
            f"{format_bytes(self.walked_bytes)} of {format_bytes(self.committed_bytes)} committed"
        )

    @property
    def heaps_text(self) -> str:
        """How many heaps were read, for people."""
        least = "at least " * self.list_cut
        return f"{self.heaps_read} of {least}{self.heaps_listed} {self.parts}"

    def told(self, whose: str = "") -> str:
        """What an answer rests on, for its first screen.

        Args:
            whose: Put behind the share, " of the worst dump".
        """
        if self.never:
            return self.never
        return f"{self.share_text} of {self.memory} walked{whose}, {self.heaps_text}"

    @property
    def shortfall(self) -> str:
        """Why the answer says too little of the heaps to stand; "" when it covers enough."""
        if self.known_share >= MIN_WALKED_SHARE:
            return ""
        return (
            f"only {self.share_text} of the {self.memory} could be walked, the rest is not in the dump "
            f"or damaged; {self.better}"
        )


@dataclass(frozen=True)
class PoolsCovered(Coverage):
    """Coverage of the kernel's pools: walked is what was found as blocks and is accounted for.

    Attributes:
        counted_bytes: Of what was not walked, what the kernel's trackers count: no total lacks it.
        unbounded: There may be more than `committed_bytes`, and nothing tells how much: of some tags, or of
            all large blocks, neither counters nor blocks are known.
    """

    memory: ClassVar[str] = "pool memory"
    parts: ClassVar[str] = "pools"
    better: ClassVar[str] = BETTER_KERNEL_DUMP

    counted_bytes: int = 0
    unbounded: bool = False

    @property
    def hidden_bytes(self) -> int:
        """What the pools may hold besides what the totals show, as far as it is bounded."""
        return max(super().hidden_bytes - self.counted_bytes, 0)

    @property
    def known_share(self) -> float:
        """Walked or counted, of what is committed."""
        known = self.walked_bytes + self.counted_bytes
        return known / self.committed_bytes if self.committed_bytes else 0.0

    @property
    def is_complete(self) -> bool:
        """Every block of the pools is accounted for."""
        return super().is_complete and not self.unbounded

    @property
    def _is_unknown(self) -> bool:
        """All that is known of was walked, and how much more there is nothing tells."""
        return self.unbounded and self.walked_bytes == self.committed_bytes

    @property
    def shown_share(self) -> float | None:
        """The share for people; None where it is unknown."""
        return None if self._is_unknown else super().shown_share

    @property
    def share_text(self) -> str:
        """The share for people, "97.4%"."""
        return "an unknown share" if self._is_unknown else super().share_text


@dataclass(frozen=True)
class ArenasCovered(Coverage):
    """Coverage of what other allocators than Windows' own hold; memory the dump lacks may be theirs, too."""

    memory: ClassVar[str] = "memory of other allocators"
    parts: ClassVar[str] = "allocators"


class ManagedCovered(Coverage):
    """Coverage of the heap of a .NET process."""

    memory: ClassVar[str] = "the .NET heap"
    parts: ClassVar[str] = "segments"


@dataclass(frozen=True)
class ListCovered(Coverage):
    """Coverage of members that the dump lists: all of them, or all but those of some processes.

    Nothing is walked, and no share of memory means anything: all numbers are 0.

    Attributes:
        members: What they are called, "threads".
        lacking: Processes of which not all members are known, by program; the groups that they have where
            members are told by process.
    """

    members: str = "members"
    lacking: tuple[Group, ...] = ()

    @classmethod
    def of(cls, members: str, lacking: Iterable[Group] = ()) -> ListCovered:
        """Of members that are called so."""
        return cls(0, 0, 0, 0, 0, members=members, lacking=tuple(lacking))

    @property
    def is_complete(self) -> bool:
        """All of them are listed."""
        return super().is_complete and not self.lacking

    @property
    def unknown(self) -> str:
        """What is not listed, "handles of 2 processes"; "" for nothing."""
        many = sum(totals.count for _, totals in self.lacking)
        return f"{self.members} of {count_of(many, 'process')}" if many else ""

    @property
    def unknown_names(self) -> str:
        """Whose these are, "lsass.exe, svchost.exe (3)"."""
        named = [
            site.name + f" ({totals.count})" * (totals.count > 1)
            for site, totals in self.lacking[:NAMED_PROCESSES]
        ]
        more = len(self.lacking) - NAMED_PROCESSES
        return ", ".join(named) + f" and {more} more" * (more > 0)

    @property
    def shown_share(self) -> float | None:
        """None ever."""
        return None

    @property
    def share_text(self) -> str:
        """All of them, or not."""
        return "part" if self.lacking else "all"

    @property
    def shortfall(self) -> str:
        """None ever."""
        return ""

    def told(self, whose: str = "") -> str:
        """What an answer rests on, for its first screen."""
        if self.lacking:
            return f"{self.unknown} are not all in the dump: {self.unknown_names}"
        return f"all {self.members} are listed"


def is_list_cut(diagnostics: Iterable[Diagnostic]) -> bool:
    """Whether a process may have more heaps than are known."""
    return any(item.code == HEAP_LIST_CUT for item in diagnostics)
