"""Recorded allocation stacks: every block's against the truth, and records of our own making."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from builders.minidump_builder import MinidumpBuilder
from builders.opening import open_bytes
from builders.stack_trace_builder import DatabaseBuilder, database_entry, log_entry, trace_block
from truth import Truth, TruthDump, truth_dumps

from dumpleak.process.session import Session
from windumps.blocks import Blocks
from windumps.diagnostics import DiagnosticLog
from windumps.dump import Dump
from windumps.process.stack_traces import CodeMap, StackTraces
from windumps.process.views import ProcessView

SCENARIOS = ("nt-ust", "leak-pair-ust", "series-ust", "debug-crt-ust", "segment-ust")
UST_DUMPS = truth_dumps(*SCENARIOS)
PAGE_HEAP_DUMPS = truth_dumps("page-heap-*")
XP_PAGE_HEAP_FRAMES = 16


def _reader(session: Session, view: ProcessView) -> StackTraces:
    code = CodeMap(session.dump.modules, session.dump.unloaded_modules)
    return StackTraces(view.memory, view.architecture, view.build, view.ntdll(), code, view.log)


def _true_stacks(truth: Truth) -> dict[int, tuple[int, ...]]:
    """Address of each allocation → its frames, innermost first."""
    bases = {module["name"]: module["base"] for module in truth.raw["modules"]}
    stacks = [
        tuple(bases[module] + offset for module, offset in stack) for stack in truth.raw["stacks"]
    ]
    column = truth.raw["alloc_columns"].index("stack_id")
    return {row[0]: stacks[row[column]] for row in truth.raw["allocations"]}


def _read_stacks(session: Session, source_index: int) -> dict[int, tuple[int, ...]]:
    """Address of each used block of a heap → the frames we read."""
    source = session.heaps[source_index]
    heap = source.entry.heap
    assert heap is not None
    used = Blocks.concatenate(heap.blocks()).used
    traces = np.unique(used.trace)
    frames = dict(zip(traces.tolist(), _reader(session, source.view).frames(traces), strict=True))
    pairs = zip(used.address.tolist(), used.trace.tolist(), strict=True)
    return {address: frames[trace] for address, trace in pairs}


@pytest.mark.parametrize("dump", UST_DUMPS, ids=lambda d: d.name)
def test_the_stack_of_every_block_is_the_recorded_one_frame_by_frame(dump: TruthDump) -> None:
    truth = dump.read_truth()
    assert truth.raw["stacks_in_dump"]
    expected = _true_stacks(truth)
    session = Session.open(dump.dump)
    readable = {s.entry.address: i for i, s in enumerate(session.heaps) if s.entry.heap}
    for place, heap in enumerate(truth.heaps):
        if heap["address"] not in readable:
            assert heap["kind"] != "nt"
            continue
        found = _read_stacks(session, readable[heap["address"]])
        mine = {a: expected[a] for a, owner in truth.heap_of.items() if owner == place}
        assert {a: found[a] for a in mine} == mine
    assert not [d for d in session.diagnostics if d.code.startswith("stack-trace")]


@pytest.mark.parametrize("dump", PAGE_HEAP_DUMPS, ids=lambda d: d.name)
def test_the_stacks_page_heap_blocks_point_to_are_read_frame_by_frame(dump: TruthDump) -> None:
    truth = dump.read_truth()
    expected = _true_stacks(truth)
    session = Session.open(dump.dump)
    columns = truth.raw["page_heap"]["block_columns"]
    at = columns.index("stack_trace_pointer")
    pointers = {row[0]: row[at] for row in truth.raw["page_heap"]["blocks"]}
    traces = np.unique(np.array(list(pointers.values()), np.uint64))
    read = _reader(session, session.views[0]).frames(traces)
    frames = dict(zip(traces.tolist(), read, strict=True))
    kept = XP_PAGE_HEAP_FRAMES if dump.build.startswith("5.1.") else None
    assert pointers
    assert {a: frames[p] for a, p in pointers.items()} == {a: expected[a][:kept] for a in pointers}
    for index, source in enumerate(session.heaps):
        if source.entry.heap is not None and source.entry.kind == "page-heap":
            found = _read_stacks(session, index)
            known = found.keys() & expected.keys()
            assert {a: found[a] for a in known} == {a: expected[a][:kept] for a in known}


def test_there_are_truth_dumps_with_stacks_of_both_pointer_sizes_and_several_builds() -> None:
    builds = {dump.build for dump in UST_DUMPS}
    assert {"6.1.7601.24384-x86", "10.0.19041.3324-x64", "10.0.26100.5074-x64"} <= builds


# Records of our own making.

APP, APP_SIZE = 0x400000, 0x10000
NTDLL, NTDLL_SIZE = 0x7000000, 0x3000
OLD, OLD_SIZE = 0x6F00000, 0x8000
RECORDS = 0x20000
DATABASE = 0x100000
FRAMES = [NTDLL + 0x123, APP + 0x1B47, APP + 0x99, APP + 0x1058]
WIDTHS = {"x86": 4, "x64": 8}
BOTH = pytest.mark.parametrize("architecture", ["x86", "x64"])


def _dump(
    architecture: str, records: bytes, database: bytes = b"", ntdll_data: bytes = b""
) -> Dump:
    builder = (
        MinidumpBuilder(architecture=architecture)
        .module("C:\\app.exe", APP, APP_SIZE)
        .module("C:\\Windows\\System32\\ntdll.dll", NTDLL, NTDLL_SIZE)
        .unloaded_module("C:\\old.dll", OLD, OLD_SIZE)
        .memory(RECORDS, records)
    )
    if database:
        builder.memory(DATABASE, database)
    if ntdll_data:
        builder.memory(NTDLL + 0x2000, ntdll_data)
    return open_bytes(builder.build())


def _read(
    dump: Dump, *traces: int, build: int = 19041
) -> tuple[list[tuple[int, ...]], DiagnosticLog]:
    log = DiagnosticLog()
    ntdll = next(module for module in dump.modules if module.name == "ntdll.dll")
    code = CodeMap(dump.modules, dump.unloaded_modules)
    reader = StackTraces(dump.memory, dump.architecture, build, ntdll, code, log)
    return reader.frames(np.array(traces, np.uint64)), log


def _codes(log: DiagnosticLog) -> list[str]:
    return [item.code for item in log.collect()]


def _global(architecture: str, value: int) -> bytes:
    """Ntdll's data with one pointer in it, between words that are none."""
    words = [5, 0x1234567, value, 0xFFFFFFFF]
    return struct.pack(f"<{len(words)}{'I' if architecture == 'x86' else 'Q'}", *words)


@BOTH
def test_a_record_of_the_heap_log_gives_its_frames(architecture: str) -> None:
    dump = _dump(architecture, log_entry(WIDTHS[architecture], FRAMES) + b"\xff" * 64)
    assert _read(dump, RECORDS)[0] == [tuple(FRAMES)]


@BOTH
def test_frames_in_unloaded_images_and_in_code_made_at_run_time_are_kept(architecture: str) -> None:
    frames = [APP + 1, OLD + 0x20, 0x3330000]
    dump = _dump(architecture, log_entry(WIDTHS[architecture], frames))
    assert _read(dump, RECORDS)[0] == [tuple(frames)]


@BOTH
@pytest.mark.parametrize("count", [1, 32])
def test_a_stack_may_have_one_to_32_frames(architecture: str, count: int) -> None:
    frames = [APP + number for number in range(count)]
    dump = _dump(architecture, log_entry(WIDTHS[architecture], frames))
    assert _read(dump, RECORDS)[0] == [tuple(frames)]


@BOTH
def test_a_wrong_hash_gives_no_stack_and_says_so(architecture: str) -> None:
    dump = _dump(architecture, log_entry(WIDTHS[architecture], FRAMES, wrong_hash=True))
    stacks, log = _read(dump, RECORDS)
    assert stacks == [()]
    assert _codes(log) == ["stack-trace-damaged"]
    assert log.collect()[0].address == RECORDS


@BOTH
@pytest.mark.parametrize("count", [0, 33, 0xFFFFFFFF])
def test_an_impossible_number_of_frames_gives_no_stack(architecture: str, count: int) -> None:
    record = log_entry(WIDTHS[architecture], [APP + 1] * 40, count=count)
    stacks, log = _read(_dump(architecture, record), RECORDS)
    assert stacks == [()]
    assert _codes(log) == ["stack-trace-damaged"]


@BOTH
def test_a_hash_that_fits_does_not_make_data_a_stack(architecture: str) -> None:
    dump = _dump(architecture, log_entry(WIDTHS[architecture], [1, 2, 3]))
    assert _read(dump, RECORDS)[0] == [()]


@BOTH
def test_a_record_that_is_cut_off_or_absent_gives_no_stack(architecture: str) -> None:
    record = log_entry(WIDTHS[architecture], FRAMES)
    stacks, log = _read(_dump(architecture, record[:-1]), RECORDS, 0x5550000)
    assert stacks == [(), ()]
    assert _codes(log) == ["stack-trace-damaged", "stack-trace-absent"]


@BOTH
def test_no_trace_is_no_stack_and_no_complaint(architecture: str) -> None:
    stacks, log = _read(_dump(architecture, b"\0" * 64), 0)
    assert stacks == [()]
    assert _codes(log) == []


@BOTH
def test_traces_are_read_in_any_number_and_keep_their_order(architecture: str) -> None:
    width, count = WIDTHS[architecture], 5000
    records = [log_entry(width, [APP + number, NTDLL + 7]) for number in range(count)]
    dump = _dump(architecture, b"".join(records))
    order = [RECORDS + number * len(records[0]) for number in range(count)][::-1]
    stacks, _ = _read(dump, *order)
    assert stacks == [(APP + number, NTDLL + 7) for number in range(count)][::-1]


@BOTH
def test_a_trace_block_gives_its_frames_when_it_points_to_them(architecture: str) -> None:
    width = WIDTHS[architecture]
    good = trace_block(width, RECORDS, FRAMES)
    moved = trace_block(width, RECORDS, FRAMES)
    wrong = trace_block(width, RECORDS + len(good) * 2, FRAMES, magic=0xABCDABCD)
    stacks, _ = _read(
        _dump(architecture, good + moved + wrong),
        *(RECORDS, RECORDS + len(good), RECORDS + 2 * len(good)),
    )
    assert stacks == [tuple(FRAMES), (), ()]


@BOTH
def test_a_database_record_gives_its_frames_when_all_are_code(architecture: str) -> None:
    width = WIDTHS[architecture]
    good = database_entry(width, FRAMES)
    mixed = database_entry(width, [*FRAMES, 0x3330000])
    stacks, _ = _read(_dump(architecture, good + mixed), RECORDS, RECORDS + len(good))
    assert stacks == [tuple(FRAMES), ()]


@BOTH
@pytest.mark.parametrize("vista", [False, True])
def test_the_database_is_found_and_vouches_for_records_with_frames_outside_images(
    architecture: str, vista: bool
) -> None:
    database = DatabaseBuilder(WIDTHS[architecture], DATABASE, vista, buckets=3)
    made = [[*FRAMES, 0x3330000 + number] for number in range(9)]
    addresses = [database.add(frames) for frames in made]
    stray = database.add([APP + 5, APP + 6], chained=False)  # looks like code, yet is no record
    dump = _dump(architecture, b"\0", database.build(), _global(architecture, DATABASE))
    for build in (0, 2600, 19041):  # the build only says which layout is tried first
        stacks, _ = _read(dump, *addresses, stray, build=build)
        assert stacks == [*(tuple(frames) for frames in made), ()]


@BOTH
def test_a_record_behind_a_broken_chain_is_believed_when_all_its_frames_are_code(
    architecture: str,
) -> None:
    width = WIDTHS[architecture]
    database = DatabaseBuilder(width, DATABASE, True, buckets=1)
    code, mixed = database.add(FRAMES), database.add([APP + 1, 0x3330000])
    last = database.add([APP + 2])
    data = bytearray(database.build())
    data[last - DATABASE : last - DATABASE + width] = (0x5550000).to_bytes(width, "little")
    dump = _dump(architecture, b"\0", bytes(data), _global(architecture, DATABASE))
    assert _read(dump, code, mixed, last)[0] == [tuple(FRAMES), (), (APP + 2,)]


@BOTH
def test_a_changed_frame_is_noticed_by_the_bucket_the_record_hangs_in(architecture: str) -> None:
    width = WIDTHS[architecture]
    database = DatabaseBuilder(width, DATABASE, True)
    record = database.add(FRAMES)
    data = bytearray(database.build())
    data[record - DATABASE + {4: 0xC, 8: 0x10}[width]] ^= 1
    dump = _dump(architecture, b"\0", bytes(data), _global(architecture, DATABASE))
    assert _read(dump, record)[0] == [()]


@BOTH
def test_a_record_outside_the_database_is_none_of_its_records(architecture: str) -> None:
    database = DatabaseBuilder(WIDTHS[architecture], DATABASE, True)
    database.add(FRAMES)
    record = database_entry(WIDTHS[architecture], FRAMES)
    dump = _dump(architecture, record, database.build(), _global(architecture, DATABASE))
    assert _read(dump, RECORDS)[0] == [()]


@BOTH
@pytest.mark.parametrize("vista", [False, True])
def test_a_number_leads_to_the_record_that_bears_it(architecture: str, vista: bool) -> None:
    database = DatabaseBuilder(WIDTHS[architecture], DATABASE, vista)
    database.add(FRAMES)
    database.add([APP + 0x77], index=9)  # a damaged record: it bears another's number
    database.add(FRAMES[1:])
    dump = _dump(architecture, b"\0", database.build(), _global(architecture, DATABASE))
    stacks, log = _read(dump, 1, 2, 3, 4, build=2600)
    assert stacks == [tuple(FRAMES), (), tuple(FRAMES[1:]), ()]
    assert _codes(log) == ["stack-trace-unknown"] * 2


@BOTH
def test_numbers_without_a_database_give_no_stack(architecture: str) -> None:
    database = DatabaseBuilder(WIDTHS[architecture], DATABASE, False)
    database.add(FRAMES)
    for data, pointer in (
        (database.build(added=2), DATABASE),  # its counter contradicts its index array
        (database.build(), 0),  # no global leads to it
        (database.build()[:0x60], DATABASE),  # not in the dump
    ):
        dump = _dump(architecture, b"\0", data, _global(architecture, pointer))
        stacks, log = _read(dump, 1, build=2600)
        assert stacks == [()]
        assert _codes(log) == ["stack-trace-unknown"]
        assert "was not found" in log.collect()[0].message


@BOTH
def test_a_hash_chain_that_runs_in_a_circle_ends(architecture: str) -> None:
    width = WIDTHS[architecture]
    database = DatabaseBuilder(width, DATABASE, True, buckets=1)
    first, second = (database.add([APP + number, 0x3330000]) for number in (1, 2))
    stray = database.add([APP + 3, 0x3330000], chained=False)
    data = bytearray(database.build())
    # The first record ends the chain; let it lead back to the second.
    start = first - DATABASE
    data[start : start + width] = second.to_bytes(width, "little")
    dump = _dump(architecture, b"\0", bytes(data), _global(architecture, DATABASE))
    assert _read(dump, stray, first)[0] == [(), (APP + 1, 0x3330000)]
