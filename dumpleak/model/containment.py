"""Which containers hold the blocks of a site: an answer about single blocks, and one about a site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOSTLY = 0.5  # share of a site's blocks from which containers are what holds it


@dataclass(frozen=True)
class Container:
    """A container that the memory proves.

    Attributes:
        pattern: What it is, "std::list (MSVC)".
        place: Who keeps it, and where: "global app.exe+0x1234 -> app::Cache +0x8".
        members: How many blocks are in it.
        member_bytes: Size of each; None where they differ.
        address: Of what its owner keeps of it, or of a member.
        notes: What else its memory tells, "load 4.0".
    """

    pattern: str
    place: str
    members: int
    member_bytes: int | None
    address: int
    notes: tuple[str, ...] = ()

    @property
    def root(self) -> str:
        """Where the way to it begins."""
        return self.place.partition(" -> ")[0]

    @property
    def short(self) -> str:
        """What it is, and the root that keeps it."""
        return f"{self.pattern} at {self.root}"

    @property
    def told(self) -> str:
        """For people."""
        each = f" of {self.member_bytes:,} bytes" if self.member_bytes is not None else ""
        more = "".join(f", {note}" for note in self.notes)
        return f"{self.pattern} at {self.place}, {self.members:,} members{each}{more}"


@dataclass(frozen=True, eq=False)
class Contained:
    """Which container holds each block of a dump.

    Attributes:
        of_block: int32, by used block in order of address: the number of the container; -1 where none does,
            or nothing leads to the block.
        members: int32, by number: the blocks that are in it.
        tell: What it is, by number.
    """

    of_block: NDArray[np.int32]
    members: Callable[[int], NDArray[np.int32]]
    tell: Callable[[int], Container]


@dataclass(frozen=True)
class SiteContainers:
    """The containers that hold blocks of one site.

    Attributes:
        held: Blocks of the site that are in some container.
        of: Of how many: those that are new, or all.
        new: It is those that are new since the base.
        containers: How many containers that is.
        largest: The one that holds most of them.
        largest_held: How many it holds.
        largest_new: Of its members, how many are new since the base; None where that is not known.
    """

    held: int
    of: int
    new: bool
    containers: int
    largest: Container
    largest_held: int
    largest_new: int | None = None

    @property
    def mostly(self) -> bool:
        """Containers are what holds the site."""
        return self.held >= MOSTLY * self.of

    @property
    def short(self) -> str:
        """As `told`, for a line of a table."""
        what = "new blocks" if self.new else "blocks"
        grown = "growing " if self.largest_new else ""
        many = f"{self.containers:,} {grown}containers, most in" if self.containers > 1 else grown
        text = f"{self.held:,} of {self.of:,} {what} in {many} {self.largest.short}"
        return " ".join(text.split())

    @property
    def told(self) -> str:
        """One clause for people."""
        what = "new blocks" if self.new else "blocks"
        held = f"{self.held:,} of {self.of:,} {what} in"
        if self.containers > 1:
            held += f" {self.containers:,} containers, {self.largest_held:,} in"
        grown = f", {self.largest_new:,} of them new" if self.largest_new else ""
        return f"{held} {self.largest.told}{grown}"
