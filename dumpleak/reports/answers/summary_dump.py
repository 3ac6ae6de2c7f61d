"""The first screen about one dump of a process: what it is good for, and what nothing points to."""

from __future__ import annotations

from collections.abc import Sequence

from dumpleak.compare.answers import SiteDelta
from dumpleak.model.info import Info
from dumpleak.model.managed import ManagedKind
from dumpleak.model.populations import BLOCKS, POPULATIONS
from dumpleak.model.units import count_of, format_bytes, format_share
from dumpleak.pointers.managed_roots import HELD_BY_MANAGED
from dumpleak.pointers.roots import TOLD_LOST_SHARE, share_told
from dumpleak.reports.answers.causes import cause_told
from dumpleak.reports.answers.next_steps import (
    USER_STACK_TRACES,
    Step,
    better_dump_steps,
    record_stacks,
)
from dumpleak.reports.answers.said_of_dumps import MAX_NAME, NAMED, covered_told, stack_steps
from dumpleak.reports.document import Summary, Tone
from dumpleak.reports.names import cut_middle
from dumpleak.survey.leaks import Leaks
from windumps.heaps.page_heap import heap as page_heap

WINE = "wine"
BY_TYPE = Step("See which .NET objects there are:", "dumpleak stat DUMP --of managed")


def summarize_info(info: Info) -> Summary:
    """Of one dump."""
    facts = managed_facts(info) or mostly_facts(info)
    facts += [("Heap memory", covered_told([info.coverage]))] if info.heaps else []
    if not info.usable:
        return Summary(
            Tone.CANNOT_TELL,
            f"Good enough to look for leaks? {info.advice}",
            tuple(facts),
            (*_inside(info), *(() if _is_foreign(info) else better_dump_steps(info.source))),
        )
    partly = info.advice.startswith("partly")
    steps: tuple[Step, ...] = (BY_TYPE,) if info.managed is not None else ()
    steps += _inside(info)
    if partly and not (info.is_mostly_other and info.full_memory):
        steps += better_dump_steps(info.source)
    used = sum(heap.used_count or 0 for heap in info.heaps)
    named = "type and shape"
    if info.sourced_blocks:
        named = f"file and line where they are known, else by {named}"
        many = f"{info.sourced_blocks:,} of {used:,} used blocks"
        facts.append(("Source lines", f"file and line of {many}, kept by the debug C runtime"))
    traced = info.nt_global_flag is None or info.nt_global_flag & USER_STACK_TRACES
    if info.is_mostly_other:
        other = info.mostly.program.name if info.mostly is not None else ".NET"
        facts.append(
            ("Call stacks", f"those that gflags records are of native heaps, not of {other}")
        )
    elif not traced and not any(heap.kind == page_heap.NAME for heap in info.heaps):
        facts.append(("Call stacks", f"not recorded in this process; sites are named by {named}"))
        steps += (record_stacks(info.source),)
    return Summary(
        Tone.NOTICE if partly else Tone.GOOD,
        f"Good enough to look for leaks? {info.advice}",
        tuple(facts),
        steps,
    )


def managed_facts(info: Info) -> list[tuple[str, str]]:
    """What of a process is .NET, or why that is not known."""
    managed, private = info.managed, info.private_bytes
    if managed is None:
        return [(".NET", info.why_no_managed)] if info.why_no_managed else []
    is_most = private is not None and managed.committed_bytes > private // 2
    mostly = "mostly .NET" if is_most else "a .NET program"
    of_all = f" of {format_bytes(private)} private" if private is not None else ""
    objects = f"{format_bytes(managed.bytes)} in {managed.count:,} objects"
    walked = f"{format_share(managed.walked_bytes, managed.committed_bytes)} of it walked"
    heap = f"GC heap {format_bytes(managed.committed_bytes)}{of_all}"
    facts = [("Program", f"{mostly} ({heap}): {objects}, {walked}")]
    facts += [("Objects", "; ".join(map(_kind_told, managed.kinds)))] if managed.kinds else []
    if managed.finalizable:
        waiting = f"{managed.to_finalize or 0:,} wait for it to run"
        facts.append(("Finalizers", f"{managed.finalizable:,} objects have one; {waiting}"))
    return facts


def _kind_told(kind: ManagedKind) -> str:
    """What is in segments of one kind, and how much is free between."""
    free = ""
    if kind.free_bytes:
        share = format_share(kind.free_bytes, kind.bytes + kind.free_bytes, 0)
        free = f", {format_bytes(kind.free_bytes)} ({share}) free between them"
    return f"{kind.kind} {format_bytes(kind.bytes)} in {kind.count:,}{free}"


def mostly_facts(info: Info) -> list[tuple[str, str]]:
    """Whose the memory of a process is, where a program of another language or allocator has most of it."""
    mostly, private = info.mostly, info.private_bytes
    if mostly is None or not info.is_mostly_other:
        return []
    is_most = private is not None and mostly.bytes > private // 2
    of_all = f" of {format_bytes(private)} private" if private is not None else ""
    name, memory = mostly.program.name, f"{mostly.program.memory} " * bool(mostly.program.memory)
    some = f"a {name} program" if memory else f"uses {name}"
    what = f"mostly {name}" if is_most else some
    return [("Program", f"{what} ({memory}{format_bytes(mostly.bytes)}{of_all})")]


def _inside(info: Info) -> tuple[Step, ...]:
    """How to look into what has most of the memory."""
    mostly = info.mostly
    return (Step(*mostly.program.look),) if mostly is not None and info.is_mostly_other else ()


def _is_foreign(info: Info) -> bool:
    """No other dump of the process says more: its heaps are none of Windows, and all is in the file."""
    return info.full_memory and bool(info.heaps) and all(h.kind == WINE for h in info.heaps)


def summarize_leaks(leaks: Leaks, rows: Sequence[SiteDelta]) -> Summary:
    """Of what nothing points to in one dump; `rows` are its groups, those with one cause as one."""
    scanned = ", ".join(
        f"{kind} {_of(amount.present_bytes, amount.committed_bytes)}"
        for kind, amount in leaks.roots.items()
    )
    what = (
        f"{format_bytes(leaks.unreferenced_bytes)} in {leaks.unreferenced_count:,} of "
        f"{format_bytes(leaks.used.bytes)} in {leaks.used.count:,} used blocks are unreferenced"
    )
    registers = ", registers" if leaks.has_registers else ""
    lost = _lost(leaks)
    facts = [("What", what)]
    if leaks.groups:
        facts.append(
            (
                "Who",
                ", ".join(
                    f"{cut_middle(row.site.name, MAX_NAME)} ({format_bytes(row.delta_bytes)})"
                    for row in rows[:NAMED]
                ),
            )
        )
    facts += [("Held", note.message) for note in leaks.diagnostics if note.code == HELD_BY_MANAGED]
    sure = f"unreferenced, not proof of a leak; {covered_told([leaks.coverage])}"
    facts += [("How sure", sure), ("Scanned", f"{scanned}{registers}, and what they lead to")]
    if not leaks.groups:
        used = f"{format_bytes(leaks.used.bytes)} in {leaks.used.count:,} used blocks"
        return Summary(Tone.GOOD, f"None of {used} is unreferenced.", tuple(facts), ())
    later = Step(
        "See whether they become more: compare with a later dump.", "dumpleak diff THIS LATER"
    )
    noun = POPULATIONS[BLOCKS].groupings[leaks.grouping]
    cause, by = cause_told(rows, noun)
    many = f"{cause}: {by}" if cause else f"blocks of {count_of(len(rows), noun)}"
    return Summary(
        Tone.CANNOT_TELL if lost else Tone.NOTICE,
        f"{lost}Nothing points to {many}.",
        tuple(facts),
        (later, *stack_steps(leaks.source, leaks.groups)),
    )


def _lost(leaks: Leaks) -> str:
    """What has to be said first of memory that was not scanned; "" when hardly any is missing."""
    if leaks.lost_share is None:
        return "This dump of part of the memory does not say what it lacks; what only that holds is listed. "
    if leaks.lost_share < TOLD_LOST_SHARE:
        return ""
    return (
        f"{share_told(leaks.lost_share)} of the memory that may hold pointers is not in the dump or was not "
        "read; what only that holds is listed too. "
    )


def _of(part: int, whole: int) -> str:
    """Bytes, and of how many where some are missing."""
    return format_bytes(part) + (f" of {format_bytes(whole)}" if part < whole else "")
