"""The answer of `dumpleak verifier`: what Driver Verifier tracks, as `!verifier 3` and `80` tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dumpleak.model.units import format_address, format_bytes
from dumpleak.reports.answers.left_pool import left_json, left_steps
from dumpleak.reports.answers.next_steps import Step, track_driver
from dumpleak.reports.document import (
    Column,
    Document,
    Kind,
    Line,
    Notes,
    Part,
    Row,
    Source,
    Summary,
    Table,
    Tone,
    View,
    Width,
    data_columns,
)
from dumpleak.reports.json_report import diagnostics_json, source_json
from dumpleak.reports.values import Absent, Detail, Name
from dumpleak.survey.verifier import (
    NOT_LOGGED,
    TRACKING,
    Logged,
    Origin,
    VerifierAnswer,
    flag_names,
)
from windumps.pool_tags import tag_text
from windumps.pools.verifier.drivers import VerifiedDriver
from windumps.pools.verifier.pool_use import PoolUse

_SHOWN_FRAMES = 6
_OFF = "Driver Verifier was not on: it tracked no pool."
_DRIVER_COLUMNS = (
    Column("nonpaged", Kind.BYTES),
    Column("at most", Kind.BYTES, hint="nonpaged pool it held at most"),
    Column("blocks", Kind.COUNT, hint="of nonpaged pool"),
    Column("at most", Kind.COUNT, width=Width.WIDE, hint="blocks of nonpaged pool at most"),
    Column("paged", Kind.BYTES),
    Column("at most", Kind.BYTES, hint="paged pool it held at most"),
    Column("blocks", Kind.COUNT, hint="of paged pool"),
    Column("at most", Kind.COUNT, width=Width.WIDE, hint="blocks of paged pool at most"),
    Column("loads", Kind.COUNT),
    Column("unloads", Kind.COUNT),
    Column("driver", Kind.NAME),
)
_ORIGIN_COLUMNS = (
    Column("bytes", Kind.BYTES),
    Column("blocks", Kind.COUNT),
    Column("tag"),
    Column("allocated by", Kind.NAME),
)
_BLOCK_COLUMNS = (
    Column("address", Kind.ADDRESS, "address"),
    Column("bytes", Kind.COUNT, "bytes"),
    Column("tag", name="tag"),
    *data_columns("driver"),
    *data_columns("stack", stack=Kind.CLAUSES),
    Column("allocated by", Kind.NAME, "caller"),
)
_BLOCK_DATA = "address bytes tag driver caller stack"


def verifier_document(answer: VerifierAnswer, top: int | None) -> Document:
    """What each driver holds, from where it was allocated, the blocks themselves."""
    parts: list[Part] = []
    if answer.drivers:
        parts.append(_driver_table(answer.drivers))
    if answer.origins:
        parts.append(_origin_table(answer, top))
    return Document(
        "Driver Verifier",
        _summary(answer),
        (
            *parts,
            _block_table(answer, top),
            *_log_parts(answer),
            Source("File", answer.source),
            Notes(answer.diagnostics),
        ),
    )


def _summary(answer: VerifierAnswer) -> Summary:
    left = answer.left
    shown = {driver.name.lower() for driver in answer.drivers}
    if left is not None and answer.is_filtered and left.driver.lower() not in shown:
        left = None  # it is about another driver
    steps: tuple[Step, ...] = (track_driver([]),) if not answer.is_on else ()
    if answer.shortfall:
        tone, headline = Tone.CANNOT_TELL, f"Cannot tell: {answer.shortfall}"
    elif left is not None:
        tone, headline = Tone.BAD, f"{left.told}."
        steps = left_steps(left, answer.source) if not answer.is_filtered else ()
    elif not answer.is_on:
        return Summary(Tone.NOTICE, _OFF, (), steps)
    else:
        tone, headline = Tone.NOTICE, _held(answer)
    facts = [("Flags", f"0x{answer.settings.level:x}: {', '.join(_flags(answer))}")]
    if tone is Tone.BAD:
        facts.append(("What", _held(answer)))
    facts += [("How sure", _sure(answer)), ("Stacks", _stacks(answer))]
    return Summary(tone, headline, tuple(facts), steps)


def _flags(answer: VerifierAnswer) -> list[str]:
    names = flag_names(answer.settings.level)
    return names if answer.settings.level & TRACKING else [*names, "no pool tracking"]


def _held(answer: VerifierAnswer) -> str:
    """The headline of a system that runs on."""
    holding = [driver for driver in answer.drivers if driver.block_count]
    many = f"{len(answer.address):,} block{'s' * (len(answer.address) != 1)}"
    held = f"{many}, {format_bytes(int(answer.size.sum()))}"
    if answer.is_filtered:
        return f"Driver Verifier tracks {held}, of {answer.drivers[0].name}."
    if not holding:
        return "Driver Verifier was on and tracks no block."
    which = f"{len(holding):,} of its {len(answer.drivers):,} drivers"
    return f"Driver Verifier tracks {held}, of {which}; {holding[0].name} holds most."


def _sure(answer: VerifierAnswer) -> str:
    listed, counted = len(answer.address), answer.counted
    if counted is None:
        return f"{listed:,} blocks are listed; how many Verifier counts is not known"
    if listed > counted:
        return f"{listed:,} blocks are listed, though Verifier counts {counted:,}"
    if answer.missing:
        return (
            f"{listed:,} of {counted:,} blocks that Verifier counts are listed; the records of "
            f"{answer.missing:,} are not in the dump"
        )
    return (
        f"all {counted:,} blocks that Verifier counts are listed"
        if counted
        else "Verifier counts none"
    )


def _stacks(answer: VerifierAnswer) -> str:
    log = answer.log
    if log is None:
        return "Verifier's log of allocations is not in the dump; blocks are named by their caller alone"
    have = int((answer.stack >= 0).sum())
    said = f"{have:,} of {len(answer.stack):,} blocks have one"
    said += f" in Verifier's log of {log.record_count:,} records"
    if log.absent_count:
        said += f"; {log.absent_count:,} records are not in the dump"
    if not log.is_ordered:
        said += "; nothing tells which is the newest: a block with several that differ has none"
    return said


def _driver_table(drivers: Sequence[VerifiedDriver]) -> Table[VerifiedDriver]:
    def row(_: int, driver: VerifiedDriver) -> Row:
        return (
            *_cells(driver.nonpaged),
            *_cells(driver.paged),
            *(Absent.UNKNOWN if n is None else n for n in (driver.loads, driver.unloads)),
            Name(driver.name, more=_state(driver)),
        )

    return Table("drivers", "Drivers", _DRIVER_COLUMNS, drivers, row, View.PEOPLE, folded=True)


def _cells(use: PoolUse | None) -> Row:
    values = (
        (None,) * 4 if use is None else (use.bytes, use.peak_bytes, use.blocks, use.peak_blocks)
    )
    return [Absent.UNKNOWN if value is None else value for value in values]


def _state(driver: VerifiedDriver) -> str:
    """What became of a driver that is not loaded; "" of one that is."""
    if driver.is_loaded:
        return ""
    return "(unloaded)" if driver.image is not None else "(not loaded)"


def _origin_table(answer: VerifierAnswer, top: int | None) -> Table[Origin]:
    def row(_: int, origin: Origin) -> Row:
        name = Name(origin.caller, lines=_below(answer, origin), detail=lambda: _detail(origin))
        return origin.bytes, origin.count, tag_text(origin.tag), name

    return Table(
        "origins",
        "Where they were allocated",
        _ORIGIN_COLUMNS,
        answer.origins,
        row,
        View.PEOPLE,
        noun="place",
        top=top,
    )


def _below(answer: VerifierAnswer, origin: Origin) -> tuple[str, ...]:
    """The frames outside of the caller, the nearest of them."""
    if not origin.frames:
        return (NOT_LOGGED,) if answer.log is not None else ()
    frames = origin.frames[1:]
    more = len(frames) - _SHOWN_FRAMES
    return frames[:_SHOWN_FRAMES] + ((f"… and {more} more",) if more > 0 else ())


def _detail(origin: Origin) -> Detail:
    return Detail(origin.caller, tuple((frame, "") for frame in origin.frames))


def _log_parts(answer: VerifierAnswer) -> list[Part]:
    """Records of the log as they are, where they were asked for."""
    if not answer.logged:
        return []
    known = answer.log is not None and answer.log.is_ordered
    which = (
        "the newest first" if known else "in the order of the ring, for nothing tells the newest"
    )
    said = f"{len(answer.logged):,} records of the log, {which}. They do not say what was a free."
    columns = (
        Column("address", Kind.ADDRESS),
        Column("bytes", Kind.COUNT),
        Column("thread", Kind.ADDRESS),
        Column("stack", Kind.NAME),
    )

    def row(_: int, record: Logged) -> Row:
        name = Name(record.frames[0] if record.frames else "", lines=record.frames[1:])
        return record.address, record.bytes, record.thread, name

    many = len(answer.logged)
    title = "The log of allocations and frees"
    return [
        Line(said),
        Table("log", title, columns, answer.logged, row, View.PEOPLE, top=many, note=said),
    ]


def _block_table(answer: VerifierAnswer, top: int | None) -> Table[int]:
    def row(_: int, number: int) -> Row:
        stack = int(answer.stack[number])
        return (
            *(int(answer.address[number]), int(answer.size[number])),
            tag_text(int(answer.tag[number])),
            answer.drivers[int(answer.driver[number])].name,
            answer.stacks[stack] if stack >= 0 else (),
            answer.callers[int(answer.caller[number])],
        )

    return Table(
        "blocks",
        "Blocks",
        _BLOCK_COLUMNS,
        range(len(answer.address)),
        row,
        View.ALL if len(answer.address) else View.DATA,
        _BLOCK_DATA,
        noun="block",
        top=top,
    )


def verifier_json(answer: VerifierAnswer) -> dict[str, Any]:
    """Schema dumpleak/verifier/1; all blocks are written."""
    settings, log = answer.settings, answer.log
    used = sorted({number for number in answer.stack.tolist() if number >= 0})
    return {
        "schema": "dumpleak/verifier/1",
        **source_json(answer.source),
        "on": answer.is_on,
        "level": settings.level,
        "flags": flag_names(settings.level),
        "counters": dict(settings.counters),
        "left_by_unloaded_driver": left_json(answer.left),
        "drivers": [_driver_json(driver) for driver in answer.drivers],
        "coverage": {"listed_count": len(answer.address), "counted_count": answer.counted},
        "log": None
        if log is None
        else {
            "slots": log.slot_count,
            "records": log.record_count,
            "absent": log.absent_count,
            "newest_known": log.is_ordered,
            "found": log.source,
        },
        "stacks": [{"id": number, "frames": list(answer.stacks[number])} for number in used],
        "blocks": [
            {
                "address": format_address(address, answer.pointer_size),
                "bytes": size,
                "tag": tag_text(tag),
                "driver": answer.drivers[driver].name,
                "caller": answer.callers[caller],
                "stack_id": stack if stack >= 0 else None,
            }
            for address, size, tag, driver, caller, stack in zip(
                *(column.tolist() for column in (answer.address, answer.size, answer.tag)),
                *(column.tolist() for column in (answer.driver, answer.caller, answer.stack)),
                strict=True,
            )
        ],
        "logged": [
            {
                "address": format_address(record.address, answer.pointer_size),
                "bytes": record.bytes,
                "thread": format_address(record.thread, answer.pointer_size),
                "frames": list(record.frames),
            }
            for record in answer.logged
        ],
        "diagnostics": diagnostics_json(answer.diagnostics),
    }


def _driver_json(driver: VerifiedDriver) -> dict[str, Any]:
    return {
        "name": driver.name,
        "loaded": driver.is_loaded,
        "loads": driver.loads,
        "unloads": driver.unloads,
        "listed_count": driver.block_count,
        "listed_bytes": driver.block_bytes,
        "paged": _use_json(driver.paged),
        "nonpaged": _use_json(driver.nonpaged),
    }


def _use_json(use: PoolUse | None) -> dict[str, int | None] | None:
    if use is None:
        return None
    return {
        "count": use.blocks,
        "bytes": use.bytes,
        "peak_count": use.peak_blocks,
        "peak_bytes": use.peak_bytes,
    }
