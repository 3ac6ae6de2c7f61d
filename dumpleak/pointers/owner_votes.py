"""Counts who points to allocations of address space, and says whose each is."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.region_owner import Evidence, RegionOwner
from windumps.arrays import I64

NAMED_IMAGES = 2
MAX_STEPS = 64  # from memory that an image points to, over memory that leads on
_LEADS = (Evidence.IMAGE, Evidence.BLOCK, Evidence.UNREAD, Evidence.PROCESS, Evidence.STACK)
_MERGED_ROWS = 1 << 20  # from so many rows on they are put together
_BITS = 31  # of a label


class _Rows(NamedTuple):
    """Who points to what; one row for each pair."""

    target: I64
    label: I64
    pointers: I64

    def select(self, rows: NDArray[np.bool_]) -> _Rows:
        return _Rows(*(column[rows] for column in self))


class OwnerVotes:
    """Pointers to numbered allocations, each with a label for what holds it.

    The labels below `count` are the allocations themselves.

    Args:
        count: How many allocations there are.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._numbers: dict[tuple[Evidence, str], int] = {}
        self._codes = [np.empty(0, np.int64)]
        self._pointers = [np.empty(0, np.int64)]
        self._waiting = 0  # rows that were not merged

    def label(self, evidence: Evidence, name: str = "") -> int:
        """The label of what is no such allocation."""
        return self._count + self._numbers.setdefault((evidence, name), len(self._numbers))

    def add(self, target: I64, label: I64 | int, exact: NDArray[np.bool_]) -> None:
        """Takes in pointers.

        Args:
            target: The allocations they lead into.
            label: What holds them.
            exact: True for those to the very start.
        """
        code = (target << _BITS | label) << 1 | exact
        codes, pointers = np.unique(code, return_counts=True)
        self._codes.append(codes)
        self._pointers.append(pointers)
        self._waiting += len(codes)
        if self._waiting > _MERGED_ROWS:
            self._merge()

    def result(self, starts_only: NDArray[np.bool_]) -> tuple[list[RegionOwner], I64]:
        """The owners, and the number of the owner of each allocation.

        Args:
            starts_only: For each allocation, as `RegionOwner` has it.
        """
        labels = [*((Evidence.OTHER, ""),) * self._count, *self._numbers]
        evidence_of = np.array([kind for kind, _ in labels], np.int64)
        rows, exact = self._rows()
        evidence = np.full(self._count, Evidence.NOBODY, np.int64)
        np.minimum.at(evidence, rows.target, evidence_of[rows.label])
        best = evidence_of[rows.label] == evidence[rows.target]
        # Pointers to the start say more than pointers into it.
        at_start = np.zeros(self._count, np.bool_)
        at_start[rows.target[best & exact]] = True
        best &= exact | ~at_start[rows.target]
        owners: list[RegionOwner] = []
        number = np.full(self._count, -1, np.int64)
        direct = evidence != Evidence.OTHER
        named = _named_labels(rows.select(best), evidence, labels)
        # That matters only where nothing was found.
        table = np.column_stack([named, starts_only & (evidence == Evidence.NOBODY)])[direct]
        distinct, inverse = np.unique(table, axis=0, return_inverse=True)
        number[direct] = inverse.reshape(-1)
        held = rows.select(best & direct[rows.target])
        for at, (kind, *picked, more, low) in enumerate(distinct.tolist()):
            mine = held.select(number[held.target] == at)
            shown = [label for label in picked if label >= 0]
            shown.sort(key=lambda one: (-mine.pointers[mine.label == one].sum(), labels[one][1]))
            names = tuple(labels[label][1] for label in shown if labels[label][1])
            owners.append(
                RegionOwner(Evidence(kind), names, more=bool(more), starts_only=bool(low))
            )
        links = rows.select(best & ~direct[rows.target] & (rows.label < self._count))
        return _led(links, number, owners)

    def _merge(self) -> tuple[I64, I64]:
        """One row for each pair that was added, however often."""
        codes, back = np.unique(np.concatenate(self._codes), return_inverse=True)
        pointers = np.zeros(len(codes), np.int64)
        np.add.at(pointers, back, np.concatenate(self._pointers))
        self._codes, self._pointers, self._waiting = [codes], [pointers], 0
        return codes, pointers

    def _rows(self) -> tuple[_Rows, NDArray[np.bool_]]:
        codes, pointers = self._merge()
        label = codes >> 1 & (1 << _BITS) - 1
        return _Rows(codes >> _BITS + 1, label, pointers), (codes & 1).astype(bool)


def _named_labels(rows: _Rows, evidence: I64, labels: list[tuple[Evidence, str]]) -> I64:
    """For each allocation: its evidence, two labels that name it (-1 for none), and whether there are more.

    Of images the two with most pointers, of blocks the one, of threads the only one.
    """
    place = _by_name([name for _, name in labels])
    order = np.lexsort((place[rows.label], -rows.pointers, rows.target))
    target, label = rows.target[order], rows.label[order]
    many = np.bincount(target, minlength=len(evidence))
    rank = np.arange(len(target)) - (np.cumsum(many) - many)[target]
    found = np.full((len(evidence), NAMED_IMAGES), -1, np.int64)
    images = evidence[target] == Evidence.IMAGE
    alone = (evidence[target] != Evidence.STACK) | (many[target] == 1)
    kept = np.where(images, rank < NAMED_IMAGES, alone & (rank == 0))
    found[target[kept], rank[kept]] = label[kept]
    found.sort(axis=1)  # which of the two has more pointers makes no other owner
    more = (evidence == Evidence.IMAGE) & (many > NAMED_IMAGES)
    return np.column_stack([evidence, found, more])


def _led(links: _Rows, number: I64, owners: list[RegionOwner]) -> tuple[list[RegionOwner], I64]:
    """Follows memory that only other such memory points to back to what leads there, the best evidence first.

    Args:
        links: From allocations (`label`) to those that only such point to.
        number: The owner of each allocation, -1 for those to be found.
        owners: Those that are known.
    """
    place = _by_name([owner.key for owner in owners])
    evidence = np.array([*(owner.evidence for owner in owners), Evidence.NOBODY], np.int64)
    whose = np.full(len(number), -1, np.int64)
    for kind in _LEADS:
        known = np.where(evidence[number] == kind, number, whose)
        for _ in range(MAX_STEPS):
            new = links.select((known[links.label] >= 0) & (known[links.target] < 0))
            if not len(new.target):
                break
            # The one of most pointers, then by name: addresses are others in another dump.
            owner = known[new.label]
            order = np.lexsort((place[owner], -new.pointers, new.target))
            target, first = np.unique(new.target[order], return_index=True)
            known[target] = owner[order[first]]
        whose = np.where(number < 0, known, -1)
    led = np.flatnonzero(whose >= 0)
    found, inverse = np.unique(whose[led], return_inverse=True)
    number[led] = len(owners) + inverse
    number[number < 0] = len(owners) + len(found)
    more = [replace(owners[one], led=True) for one in found.tolist()]
    return [*owners, *more, RegionOwner(Evidence.OTHER)], number


def _by_name(names: list[str]) -> I64:
    """The place of each name in alphabetical order."""
    place = np.zeros(len(names), np.int64)
    place[sorted(range(len(names)), key=lambda row: names[row])] = np.arange(len(names))
    return place
