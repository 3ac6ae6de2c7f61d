"""What to do next, with the exact command: by what a dump tells of, see `Subject`.

The process of a dump may be gone, so it goes by the name of its program, never by its id. Names come from
the dump and a reader copies the command: only plain ones stand in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dumpleak.model.account import AccountRow
from dumpleak.model.populations import (
    ARENAS,
    BLOCKS,
    MANAGED,
    OF_VIRTUAL_ALLOC,
    POPULATIONS,
    REGIONS,
    THREADS,
)
from dumpleak.model.programs import PROGRAMS
from dumpleak.model.sites import allocator_in
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.subject import Subject
from windumps.errors import KERNEL_DUMP_COMMAND

USER_STACK_TRACES = 0x1000  # FLG_USER_STACK_TRACE_DB of NtGlobalFlag (gflags +ust)
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Step:
    """What to do next.

    Attributes:
        text: What it gives.
        command: The exact command; "" when there is none.
    """

    text: str
    command: str = ""


THIRD_DUMP = Step(
    "Take a third dump under the same load: what grows on is a suspect.",
    "dumpleak trend BASE CURRENT THIRD",
)
IN_ORDER = Step("Give the dumps in order of time:", "dumpleak diff CURRENT BASE")
LATER_DUMP = Step(
    "Take a second dump later, under load, and compare:", "dumpleak diff BASE CURRENT"
)
OWNED = frozenset(("other-private", "mapped"))  # uses of regions that somebody owns
WHOSE_REGIONS = Step(
    "Look at who points to such regions:", "dumpleak diff BASE CURRENT --of regions --by owner"
)
OUTSIDE_HEAPS = Step(*OF_VIRTUAL_ALLOC)
_CALLED = {ARENAS: "blocks of other allocators", MANAGED: ".NET objects"}


def _look_at(of: str) -> Step:
    """How to see the members of a population one by one."""
    return Step(f"Look at the {_CALLED.get(of, of)}:", f"dumpleak diff BASE CURRENT --of {of}")


# Who calls VirtualAlloc is known where an allocator is: what asks the allocator is what matters.
_BY_ALLOCATOR = {row.allocator.lower(): Step(*row.look) for row in PROGRAMS} | {
    ".net objects": _look_at(MANAGED)
}
# Rows of the account that are not called as the population that names what is in them.
_NAMED_BY = {"stacks": THREADS, "mapped": REGIONS}
_NAMED_ROWS = 2

COPY_AGAIN = Step("The file is cut: copy it again from where it was written.")


def better_dump_steps(source: SourceInfo, text: str = "Take a full dump:") -> tuple[Step, ...]:
    """How to take a dump that holds what this one lacks; nothing for systems other than Windows.

    Args:
        source: The dump.
        text: What the command for a process gives.
    """
    subject = source.subject
    if subject is Subject.OTHER_PLATFORM:
        return ()
    if source.cut_bytes:  # it may lie whole where it was written
        return (COPY_AGAIN,)
    full = f"procdump -ma {program_of(source, 'PID')} {program_of(source).rsplit('.', 1)[0]}.dmp"
    if subject is Subject.SYSTEM:
        return (
            Step("Let the next crash write all memory:", KERNEL_DUMP_COMMAND),
            Step(
                "or write the kernel's memory now, while the system runs:",
                "livekd -m -o memory.dmp",
            ),
        )
    if subject is Subject.PROCESS_OF_SYSTEM:
        return (
            Step(
                "Let the next crash write all memory, that of processes too:", KERNEL_DUMP_COMMAND
            ),
            Step("or take a full dump of the process alone:", full),
        )
    if subject is Subject.LOG:
        text = "A log has only blocks with a recorded stack; take full dumps in its place:"
    return (Step(text, full),)


def comparable_dumps_steps(sources: Sequence[SourceInfo], worst: SourceInfo) -> tuple[Step, ...]:
    """How to take dumps that can be compared.

    Args:
        sources: Those that cannot.
        worst: The one that holds least.
    """
    is_system = [source.subject is Subject.SYSTEM for source in sources]
    if any(is_system) and not all(is_system):
        return (Step("Compare two dumps of one program, or two of one system."),)
    whole = better_dump_steps(
        replace(worst, cut_bytes=0), "Take dumps of one program, each with all memory:"
    )
    return (*((COPY_AGAIN,) if worst.cut_bytes else ()), *whole)


def record_stacks(source: SourceInfo) -> Step:
    """How to get call stacks."""
    if (source.nt_global_flag or 0) & USER_STACK_TRACES:
        return Step(
            "Call stacks are recorded in this process: --by stack shows those that are in the dump."
        )
    return Step(
        "To see the call stacks that allocate, record them, restart the program, take new dumps:",
        f"gflags /i {program_of(source)} +ust",
    )


def third_dump_of(of: str, by: str) -> Step:
    """The same of a population that is asked for by name; without it a trend is of blocks."""
    asked = f" --by {by}" * (by != POPULATIONS[of].default)
    return replace(THIRD_DUMP, command=f"{THIRD_DUMP.command} --of {of}{asked}")


def trace_steps(of: str, by: str, names: Iterable[str]) -> tuple[Step, ...]:
    """How to see who makes members of a population, by the names of the groups that grew."""
    traces = POPULATIONS[of].traces
    kinds = (name.partition(",")[0] for name in names)  # of regions by owner: "private memory"
    narrower = POPULATIONS[of].narrower.get(by)
    found = dict.fromkeys([narrower, *(traces.get(kind, traces.get("")) for kind in kinds)])
    return tuple(Step(*trace) for trace in found if trace is not None)


def outside_steps(keys: Iterable[str]) -> tuple[Step, ...]:
    """How to see who takes private memory outside heaps, by the keys of its groups that grew."""
    found = (_BY_ALLOCATOR.get(allocator_in(key), OUTSIDE_HEAPS) for key in keys)
    return tuple(dict.fromkeys(found))


def named_elsewhere(rows: Sequence[AccountRow], of: str) -> tuple[Step, ...]:
    """How to see what is in rows of the account that grew and that a population lists one by one.

    Args:
        rows: What grew, the worst first.
        of: The population that was looked at.
    """
    # Memory of heaps grows with their blocks, which are the answer already.
    told = [
        row.name for row in rows if row.name not in ("heaps.committed_bytes", "heaps.free_bytes")
    ]
    first = [name.partition(".")[0] for name in told[:_NAMED_ROWS]]
    found = dict.fromkeys(_NAMED_BY.get(name, name) for name in first)
    shown = [name for name in found if name in POPULATIONS and name not in (of, BLOCKS)]
    return tuple(_look_at(name) for name in shown)


def program_of(source: SourceInfo, placeholder: str = "app.exe") -> str:
    """The program's name where it can stand in a command line, else a placeholder."""
    return source.program if PLAIN_NAME.fullmatch(source.program) else placeholder


def track_driver(grown: Sequence[Sequence[str]]) -> Step:
    """How to see which driver allocates.

    Args:
        grown: Who owns the tags that grew, the one that grew most first, all that are equally likely;
            empty where nobody knows. Of that one it may be any driver, and the kernel itself cannot be
            tracked.
    """
    plain = (
        [d for d in drivers if PLAIN_NAME.fullmatch(d) and d.lower().endswith(".sys")]
        for drivers in grown
    )
    named = next((drivers for drivers in plain if drivers), ["DRIVER.sys"])
    whom = f"/driver {' '.join(named)}" if grown and grown[0] else "/all"
    return Step(
        "To see which driver allocates, let Driver Verifier track its pool, then restart:",
        f"verifier /flags 0x8 {whom}",
    )
