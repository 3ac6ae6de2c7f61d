"""Members of a process that are no blocks, as groups of a snapshot: what compares blocks compares them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from dumpleak.files.metadata import StoredPopulation
from dumpleak.model.account_rows import account_of
from dumpleak.model.coverage import ListCovered
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.group_sums import GroupSums
from dumpleak.model.populations import POPULATIONS
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Group, sum_of
from windumps.arrays import I64
from windumps.diagnostics import Diagnostic, Severity

PARTLY_KNOWN = ("members-partly-known", Severity.WARNING, "_EPROCESS")
UNSIZED = ("members-only-counted", Severity.WARNING)


class Members(NamedTuple):
    """All members of one population in one dump.

    Attributes:
        sites: The groups.
        group: int64, one row a member: its index into `sites`.
        size: int64, bytes of each; None where they have none, or they are not known.
        notes: What was not looked at for it, and why.
        lacking: Of a system, processes of which not all members are known, as groups by process.
    """

    sites: list[Site]
    group: I64
    size: I64 | None
    notes: tuple[Diagnostic, ...] = ()
    lacking: tuple[Group, ...] = ()


def numbered(sites: Iterable[Site]) -> tuple[list[Site], I64]:
    """The distinct sites, and the number of each that was given."""
    found: dict[str, int] = {}
    distinct: list[Site] = []
    numbers = []
    for site in sites:
        if site.key not in found:
            found[site.key] = len(distinct)
            distinct.append(site)
        numbers.append(found[site.key])
    return distinct, np.array(numbers, np.int64)


def one_process(by: str) -> None:
    """Refuses to tell members of one process apart by process.

    Raises:
        CannotAnswerError: that is asked for.
    """
    if by == "process":
        raise CannotAnswerError("the dump is of one process; by process a system is told")


def added_up(members: Members) -> list[Group]:
    """The groups that have members, with their totals."""
    sums = GroupSums()
    size = members.size if members.size is not None else np.zeros(len(members.group), np.int64)
    if len(size):
        sums.add(members.group, size, size)
    present = np.unique(members.group).tolist()
    return [(members.sites[number], sums.totals(number)) for number in present]


def partly_known(covered: ListCovered) -> list[Diagnostic]:
    """Says of which processes not all members are known."""
    if not covered.lacking:
        return []
    told = f"{covered.told()}; there may be more than are listed"
    return [Diagnostic(*PARTLY_KNOWN, None, told)]


def only_counted(population: str, structure: str, *, sized: bool) -> list[Diagnostic]:
    """Says that members have bytes, which the dump does not tell."""
    if sized or not POPULATIONS[population].what_bytes:
        return []
    told = f"the dump does not tell how large {population} are"
    return [Diagnostic(*UNSIZED, structure, None, told)]


def stored(by: str, members: Members) -> StoredPopulation:
    """Members that the dump lists, by one grouping."""
    notes = {by: members.notes} if members.notes else {}
    return StoredPopulation({by: added_up(members)}, members.size is not None, notes=notes)


def members_snapshot(
    process: Snapshot, population: str, by: str, kept: StoredPopulation
) -> Snapshot:
    """A snapshot of members, with the account of the whole process.

    Args:
        process: Of the process, its heaps walked.
        population: A key of `POPULATIONS`.
        by: A grouping that is kept.
        kept: All members.
    """
    listed = ListCovered.of(population, kept.lacking)
    diagnostics = [*process.diagnostics, *kept.notes.get(by, ()), *partly_known(listed)]
    groups, sized = kept.groups[by], kept.sized
    structure = "_EPROCESS" if process.is_pool else "MemoryInfoListStream"
    diagnostics += only_counted(population, structure, sized=sized)
    return replace(
        process,
        grouping=by,
        diagnostics=diagnostics,
        groups={site.key: (site, totals) for site, totals in groups},
        totals=sum_of([totals for _, totals in groups]),
        private={},
        heaps=[] if process.is_pool or kept.coverage is not None else process.heaps,
        pool=None,
        refuted={},
        refuted_unknown="",
        private_unknown="",
        by_regions=True,
        in_file=None,
        held_by={},
        unreferenced=None,
        outside=account_of(process),  # as it was: the totals are other ones now
        coverage=kept.coverage or listed,
        limits=(),
        population=population,
        sized=sized,
        blocks=None,
        holders=None,
        held_objects=None,
    )
