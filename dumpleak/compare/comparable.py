"""Whether snapshots may be compared at all, and whether what a comparison shows may be a hole in one."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dumpleak.compare.holes import HIDDEN_BYTES, find_hole, is_listed_of_system, lost_memory
from dumpleak.compare.life import Life, same_life
from dumpleak.compare.order import is_older
from dumpleak.model.account_rows import account_of
from dumpleak.model.boots import is_same_boot
from dumpleak.model.coverage import ListCovered, is_list_cut
from dumpleak.model.pool import TRACKERS, WALK
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.populations import POPULATIONS
from dumpleak.model.sites import SiteKind
from dumpleak.model.snapshot import HeapRow, Snapshot
from dumpleak.model.stripping import hashed_name
from dumpleak.model.units import format_bytes
from windumps.diagnostics import MEMORY_CUT, Diagnostic

BY_STACK = ("site", "stack")  # groupings whose names come from recorded stacks
MOST = 0.5


def why_not_comparable(
    base: Snapshot, current: Snapshot, names: tuple[str, str] = ("the base", "the current dump")
) -> list[str]:
    """Differences between two snapshots that would make a comparison lie; empty when there are
    none.

    Args:
        base: The earlier one.
        current: The later one.
        names: What to call them.
    """
    reasons = []
    older, newer = names
    if base.population != current.population:
        return [f"{older} is of {_what(base)}, {newer} of {_what(current)}"]
    before, after = base.source, current.source
    machines = {before.architecture, after.architecture}
    # Logs of counters do not tell theirs.
    is_told = "" not in machines or (base.has_bytes and base.of_process and not base.is_listed)
    if len(machines) > 1 and is_told:
        owner = "process" if base.of_process else "kernel"
        reasons.append(
            f"{older} is of a {before.architecture or 'unknown'} {owner}, "
            f"{newer} of a {after.architecture or 'unknown'} one"
        )
    programs = before.program.lower(), after.program.lower()
    if base.stripped and base.kept_names != current.kept_names:
        programs = hashed_name("module", programs[0]), hashed_name("module", programs[1])
    if programs[0] != programs[1] and before.program and after.program:
        reasons.append(f"{older} is a dump of {before.program}, {newer} of {after.program}")
    if base.has_bytes:
        reasons += _heaps_read_once(base.heaps, current.heaps, names)
    if base.has_bytes and base.of_process:
        reasons += _heaps_listed_once(base, current, names)
        reasons += [] if is_listed_of_system(base) else _cut(base, current, names)
        reasons += _stacks_once(base, current, names)
    for which, snapshot in zip(names, (base, current), strict=True):
        if snapshot.shortfall:
            reasons.append(f"{which}: {snapshot.shortfall}")
        reasons += _mixed(which, snapshot)
    if not reasons and base.pool and current.pool:
        reasons += _counted_alike(base.pool.account, current.pool.account, names)
    one_life = same_life(base, current).life is Life.SAME or _is_one_run(base, current)
    if not reasons and (same_dump(base, current) or one_life):
        # Between two runs of a program the order need not matter to who compares them.
        reasons += why_no_pair(base, current, names)
    return reasons


def _mixed(which: str, snapshot: Snapshot) -> list[str]:
    """Members of some processes are not known, and groups hold those of many processes."""
    covered = snapshot.coverage
    if (
        not isinstance(covered, ListCovered)
        or not covered.lacking
        or snapshot.grouping == "process"
    ):
        return []
    return [
        f"{which}: {covered.told()}, so that no {snapshot.grouping} is known as a whole; "
        "--by process compares the other processes"
    ]


def _is_one_run(base: Snapshot, current: Snapshot) -> bool:
    """What is listed of one run of a system."""
    if base.boot is None or current.boot is None:
        return False
    return base.is_listed and is_same_boot(base.boot, current.boot)


def _what(snapshot: Snapshot) -> str:
    """What a snapshot tells of, for people."""
    return POPULATIONS[snapshot.population].all_of_them or snapshot.population


def _counted_alike(base: PoolAccount, current: PoolAccount, names: tuple[str, str]) -> list[str]:
    """Pools of which only one was counted by the kernel."""
    ways = {TRACKERS: "the kernel's trackers", WALK: "a walk over its blocks"}
    if base.ranking == current.ranking:
        return []
    return [
        f"the totals of {names[0]} come from {ways[base.ranking]} and those of {names[1]} from "
        f"{ways[current.ranking]}: a difference may be what the walk did not see"
    ]


def why_no_pair(
    base: Snapshot, current: Snapshot, names: tuple[str, str] = ("the base", "the current dump")
) -> list[str]:
    """Why two dumps are no earlier and later one: they are the same, or in the wrong order."""
    older, newer = names
    if same_dump(base, current):
        if _same_file(base.source.file, current.source.file):
            return [f"{older} and {newer} are one and the same file: nothing happened between them"]
        return [
            f"{older} and {newer} are of one moment and show the same: what happens between two moments "
            "cannot be told from that"
        ]
    if is_older(base.source, current.source):
        return [
            f"{newer} was taken before {older}, so that what grew has shrunk: give them in order of time"
        ]
    return []


def same_dump(one: Snapshot, other: Snapshot) -> bool:
    """True for one file given twice, for its copies, and for what was made of one dump."""
    if (one.groups, one.private, one.totals) != (other.groups, other.private, other.totals):
        return False
    if one.coverage != other.coverage or account_of(one) != account_of(other):
        return False
    before, after = one.source, other.source
    if before.process_id != after.process_id or before.time != after.time:
        return False
    # What tells no time may be of two moments between which nothing happened.
    return before.time is not None or _same_file(before.file, after.file)


def _same_file(one: str, other: str) -> bool:
    """One file by two names, or two of the same content; False where they cannot be looked at."""
    try:
        first, second = Path(one), Path(other)
        return first.samefile(second) or (
            first.stat().st_size == second.stat().st_size
            and filecmp.cmp(first, second, shallow=False)
        )
    except (OSError, ValueError):
        return False


class Growth(NamedTuple):
    """What is seen to change.

    Attributes:
        grown_bytes: What all sites of blocks that grew did so by.
        shrunk_bytes: What all that shrank did so by: what has another name in one dump is among it.
        private_bytes: Growth of private memory outside heaps.
    """

    grown_bytes: int
    shrunk_bytes: int
    private_bytes: int


def doubts(
    series: Sequence[Snapshot], names: Sequence[str], growth: Growth, *, others_grew: bool
) -> list[str]:
    """Why what is seen to grow, or not to grow, may be what a dump does not show; empty when it is sure.

    Args:
        series: The dumps, in order of time.
        names: What to call them.
        growth: What is seen of blocks.
        others_grew: A row of the account grew, which is no matter of blocks.
    """
    grown_bytes, shrunk_bytes, private_bytes = growth
    found = []
    for number, (name, snapshot) in enumerate(zip(names, series, strict=True)):
        hole = find_hole(snapshot)
        if grown_bytes or private_bytes:
            # What the last dump does not show comes on top of what grew; but blocks change their site where
            # their sizes are not known, and what is not found of a heap is taken for other memory.
            last = number == len(series) - 1
            of_sites = hole.unsized_bytes + (0 if last else hole.bytes)
            of_sites += min(hole.absent_bytes, shrunk_bytes)
            of_private = lost_memory(series[0], snapshot) if last else 0
            grown = (grown_bytes, of_sites), (private_bytes, max(of_private, of_sites))
            if hole.told and all(size <= doubt for size, doubt in grown):
                found.append(
                    f"of {name} {hole.told}, and what grew "
                    f"({format_bytes(grown_bytes + private_bytes)}) may be among it"
                )
        elif not others_grew and hole.most_bytes > HIDDEN_BYTES:
            found.append(f"nothing is seen to grow, but of {name} {hole.told}")
    return found


def _heaps_read_once(
    base: list[HeapRow], current: list[HeapRow], names: tuple[str, str]
) -> list[str]:
    """Heaps that both processes have and only one dump can tell about."""
    after = {row.label: row for row in current}
    reasons = []
    for row in base:
        other = after.get(row.label)
        if other is None or row.read == other.read:
            continue
        missing, which = (other, names[1]) if row.read else (row, names[0])
        reasons.append(f"{row.label} could not be read in {which}: {missing.reason}")
    return reasons


def _heaps_listed_once(base: Snapshot, current: Snapshot, names: tuple[str, str]) -> list[str]:
    """Heaps that were read in one dump, where the other lacks part of its list of heaps."""
    reasons = []
    for which, snapshot, other in ((names[0], base, current), (names[1], current, base)):
        cut = is_list_cut(snapshot.diagnostics)
        known = {row.label for row in snapshot.heaps}
        lost = [row.label for row in other.heaps if row.read and row.label not in known]
        if cut or snapshot.coverage.heaps_listed > len(snapshot.heaps):
            reasons += [
                f"{label} could not be read in {which}: the list of heaps is not whole in that dump"
                for label in lost
            ]
    return reasons


def _stacks_once(base: Snapshot, current: Snapshot, names: tuple[str, str]) -> list[str]:
    """Stacks that only one process recorded: none of its sites has its name in the other dump."""
    if base.grouping not in BY_STACK:
        return []
    shares = [_stack_share(snapshot) for snapshot in (base, current)]
    if max(shares) <= MOST or min(shares) > 0 or not (base.totals.count and current.totals.count):
        return []
    having, lacking = names if shares[0] > shares[1] else names[::-1]
    return [
        f"{having} has recorded stacks and {lacking} has none, so that no site of one is found in the other "
        "(--by type, size or heap compares them)"
    ]


def _stack_share(snapshot: Snapshot) -> float:
    """The share of blocks that have a recorded stack."""
    stacks = (n.count for site, n in snapshot.groups.values() if site.kind is SiteKind.STACK)
    return sum(stacks) / max(snapshot.totals.count, 1)


def _cut(base: Snapshot, current: Snapshot, names: tuple[str, str]) -> list[str]:
    """Files that end early: a heap whose structures are lost does not know how much it had."""
    reasons = []
    for which, snapshot in zip(names, (base, current), strict=True):
        lost = sum(i.bytes_affected for i in snapshot.diagnostics if i.code == MEMORY_CUT)
        if lost > HIDDEN_BYTES:
            reasons.append(
                f"the file of {which} is cut and lacks {format_bytes(lost)} of memory, which may have "
                "been of a heap: a difference may be a hole; copy it again"
            )
    return reasons


def labelled(which: str, diagnostics: list[Diagnostic]) -> list[Diagnostic]:
    """Diagnostics whose messages begin with the dump they concern."""
    return [
        Diagnostic(
            item.code,
            item.severity,
            item.structure,
            item.address,
            f"{which}: {item.message}",
            item.bytes_affected,
        )
        for item in diagnostics
    ]
