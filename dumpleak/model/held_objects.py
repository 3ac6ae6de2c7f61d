"""Kernel objects of one pool tag, and who holds them, as an answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from dumpleak.model.units import count_of

NAMED = 3


class HandleHolder(NamedTuple):
    """A process with handles of objects of one type: how many objects these lead to."""

    process_id: int
    name: str
    objects: int


class PointerHolder(NamedTuple):
    """Pool blocks of one tag that point to objects: whose the tag is, and how many objects they point to."""

    tag: str
    driver: str | None
    objects: int


class Ended(NamedTuple):
    """Threads of one process, or processes of one program, that ended and are kept alive.

    Attributes:
        process_id: Of the process; None of processes of one program.
        name: Of the program.
        objects: How many.
        last: When the last of them ended.
    """

    process_id: int | None
    name: str
    objects: int
    last: datetime

    @property
    def told(self) -> str:
        """For people."""
        whose = self.name if self.process_id is None else f"{self.name} (pid {self.process_id})"
        return f"{self.objects:,} of {whose}, the last at {self.last:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class HeldObjects:
    """The objects of one pool tag.

    Attributes:
        type: Of the objects, by the tag.
        count: How many are in the pool blocks that were found.
        opened: Of these, how many some handle leads to.
        holders: Whose handles these are, most objects first.
        why_unknown: Why there may be more handles; "" when all are known.
        headers: Objects whose own count of handles was read.
        unopened: Of these, how many count no handle.
        held_by_pointer: Objects that only pointers keep alive; of threads and processes, those that have
            ended. None where nobody can tell.
        pointers: Who points to those that no handle leads to, most objects first.
        sampled: Not all of the pool was searched for who points to them.
        ended: Threads that ended, by process, and processes, by program; most first. None for other
            objects, and where nobody can tell.
    """

    type: str
    count: int
    opened: int
    holders: tuple[HandleHolder, ...]
    why_unknown: str
    headers: int
    unopened: int
    held_by_pointer: int | None
    pointers: tuple[PointerHolder, ...] = ()
    sampled: bool = False
    ended: tuple[Ended, ...] | None = None

    @property
    def holders_told(self) -> Iterator[str]:
        """Whose handles lead to most of them."""
        for holder in self.holders[:NAMED]:
            yield (
                f"{holder.name} (pid {holder.process_id}) has handles of {holder.objects:,} of them"
            )

    @property
    def clauses(self) -> tuple[str, ...]:
        """For people."""
        return tuple(self._clauses())

    def _clauses(self) -> Iterator[str]:
        were = "was" if self.count == 1 else "were"
        found = f"{count_of(self.count, f'{self.type} object')} {were} found in the pool"
        if self.opened:
            known = " that are known" * bool(self.why_unknown)
            yield f"{found}; handles{known} lead to {self.opened:,} of them"
        else:
            known = " that is known" * bool(self.why_unknown)
            yield f"{found}; no handle{known} leads to any of them"
        if self.ended:
            many = sum(row.objects for row in self.ended)
            more = f"; and of {len(self.ended) - NAMED:,} more" if len(self.ended) > NAMED else ""
            told = "; ".join(row.told for row in self.ended[:NAMED])
            are = "is" if many == 1 else "are"
            yield f"{many:,} of them {_have(many)} ended and {are} kept alive: {told}{more}"
        elif self.ended is not None:
            yield "none of them has ended"
        alone = self.held_by_pointer
        if self.headers and (alone != self.unopened or not alone):
            yield self._by_headers
        if alone:
            to = "it" if alone == 1 else "them"
            ended = " that ended" * bool(self.ended)
            whom = f"{alone:,}{ended} {_have(alone)} no handle"
            yield f"{whom}: a driver, or the kernel, refers to {to} by pointer"
        if self.why_unknown and (alone or 0) + self.opened < self.count:
            others = "the others" if alone or self.opened else "them"
            yield f"who holds {others} is unknown: {self.why_unknown}"
        if told := self.pointers_told:
            yield told

    @property
    def pointers_told(self) -> str:
        """Whose pool blocks point to objects that no handle leads to; "" for nobody's."""
        if self.pointers and self.held_by_pointer != 0:
            named = ", ".join(
                f"{row.tag.rstrip()} of {row.driver or 'an unknown driver'} ({row.objects:,} objects)"
                for row in self.pointers[:NAMED]
            )
            sample = " (a part of the pool was searched)" * self.sampled
            them = "those that ended" if self.ended else "them"
            return f"pointers to {them} stand in pool blocks of {named}{sample}"
        return ""

    @property
    def _by_headers(self) -> str:
        """What the objects count themselves."""
        of = "them" if self.headers == self.count else f"{self.headers:,} whose headers were read"
        if not self.unopened:
            return f"by their own counts each of {of} has a handle"
        return f"by their own counts {self.unopened:,} of {of} {_have(self.unopened)} no handle"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
