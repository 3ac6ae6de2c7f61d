"""Two dumps of one process under page heap: the leaking stack first, with its exact growth."""

from __future__ import annotations

import struct
from collections import Counter

import pytest
from builders.minidump_builder import MinidumpBuilder
from builders.opening import open_bytes
from builders.page_heap_builder import PageHeapBuilder, linked
from builders.stack_trace_builder import database_entry, trace_block
from truth import Truth, TruthDump, pairs

from dumpleak.compare.answers import Verdict
from dumpleak.compare.diff import compare
from dumpleak.model.sites import SiteKind
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot

PAIRS = pairs("page-heap-leak-pair")


def _growth(base: Truth, current: Truth) -> dict[int, tuple[int, int]]:
    """Stack → (bytes, blocks) by which it grew."""
    counts: Counter[int] = Counter()
    totals: Counter[int] = Counter()
    for truth, sign in ((current, 1), (base, -1)):
        column = truth.raw["alloc_columns"].index("stack_id")
        for row in truth.raw["allocations"]:
            counts[row[column]] += sign
            totals[row[column]] += sign * truth.sizes[row[0]]
    return {stack: (totals[stack], counts[stack]) for stack in counts}


@pytest.mark.parametrize(("base", "current"), PAIRS, ids=lambda d: d.name)
def test_the_leaking_stacks_come_first_and_every_stack_has_its_exact_growth(
    base: TruthDump, current: TruthDump
) -> None:
    comparison = compare(*(take_snapshot(Session.open(dump.dump)) for dump in (base, current)))
    assert comparison.verdict is Verdict.GROWTH
    before, after = base.read_truth(), current.read_truth()
    most = 16 if base.build.startswith("5.") else 32  # XP keeps no more frames
    frames = [
        tuple(f"{module}+0x{offset:x}" for module, offset in stack[:most])
        for stack in after.raw["stacks"]
    ]
    expected: Counter[tuple[tuple[str, ...], str]] = Counter()
    for stack, (size, count) in _growth(before, after).items():
        expected[frames[stack], "bytes"] += size
        expected[frames[stack], "blocks"] += count
    shown = {
        delta.site.frames: (delta.delta_bytes, delta.delta_count)
        for delta in comparison.sites
        if delta.site.kind is SiteKind.STACK
    }
    wanted = {
        stack: (expected[stack, "bytes"], expected[stack, "blocks"])
        for stack in {stack for stack, _ in expected}
    }
    assert {s: grown for s, grown in shown.items() if any(grown)} == {
        s: grown for s, grown in wanted.items() if any(grown)
    }
    column = after.raw["alloc_columns"].index("stack_id")
    stack_of = {row[0]: row[column] for row in after.raw["allocations"]}
    leaking = {frames[stack_of[address]] for address in after.raw["leaked_since_before"]}
    assert leaking
    # Some honest growth is larger than the smallest leak.
    order = [delta.site.frames for delta in comparison.sites]
    assert order[0] in leaking
    most_grown = sorted(wanted, key=lambda stack: -wanted[stack][0])
    assert order[: len(leaking)] == most_grown[: len(leaking)]
    assert leaking <= set(order)


# Made dumps: the forms, and the pointer size, of which there is none.

APP, NTDLL, RECORDS, TEB, PEB = 0x13000000, 0x14000000, 0x9000000, 0x8000000, 0x8001000
STACKS = ([0x110, 0x1230], [0x110, 0x2340], [0x110, 0x3450])


def _made(form: str, x64: bool, counts: tuple[int, ...], slide: int) -> Session:
    """A process with two page heaps: full blocks of the stacks in one, light ones in the other."""
    width = 8 if x64 else 4
    heaps = [PageHeapBuilder(form, x64, 0x4000000 + slide + n * 0x2000000) for n in range(2)]
    records, traces = b"", []
    for stack in STACKS:
        frames = [NTDLL + stack[0], *(APP + slide + offset for offset in stack[1:])]
        traces.append(RECORDS + len(records))
        write = trace_block(width, traces[-1], frames) if form == "xp" else None
        record = write or database_entry(width, frames)
        records += record + bytes(-len(record) % 16)
    for number, count in enumerate(counts):
        for index in range(count):
            heaps[0].full_block(100 + number, trace=traces[number])
            heaps[1].light_block(40 + number + index % 2, trace=traces[number])
    teb, peb = bytearray(0x1000), bytearray(0x1000)
    word = "<Q" if x64 else "<I"
    struct.pack_into(word, teb, 0x30 if x64 else 0x18, TEB)
    struct.pack_into(word, teb, 0x60 if x64 else 0x30, PEB)
    struct.pack_into(word, peb, 0x10 if x64 else 0x8, APP + slide)
    struct.pack_into(word, peb, 0x30 if x64 else 0x18, heaps[0].address)
    struct.pack_into("<I", peb, 0xBC if x64 else 0x68, 0x02000000)
    struct.pack_into("<II", peb, 0xE8 if x64 else 0x88, 2, 16)
    struct.pack_into(word, peb, 0xF0 if x64 else 0x90, PEB + 0x800)
    for number, heap in enumerate(heaps):
        struct.pack_into(word, peb, 0x800 + number * width, heap.normal_address)
    version, build = {"xp": ((5, 1), 2600), "verifier": ((6, 2), 9200)}[form]
    dump = MinidumpBuilder("x64" if x64 else "x86", build, version)
    dump.module("C:\\app.exe", APP + slide, 0x10000).module("C:\\ntdll.dll", NTDLL, 0x10000)
    dump.thread(teb=TEB)
    pieces = linked(heaps, 0x3001040) | {RECORDS: records, TEB: bytes(teb), PEB: bytes(peb)}
    for address in sorted(pieces):
        dump.memory(address, pieces[address])
        dump.region(address, len(pieces[address]))
    return Session(open_bytes(dump.build()))


@pytest.mark.parametrize("x64", [False, True], ids=["x86", "x64"])
@pytest.mark.parametrize("form", ["xp", "verifier"])
def test_made_page_heaps_are_compared_by_stack_wherever_they_lie(form: str, x64: bool) -> None:
    base = _made(form, x64, (2, 9, 4), 0)
    current = _made(form, x64, (22, 9, 5), 0x200000)
    assert [source.entry.kind for source in current.heaps] == ["page-heap"] * 2
    comparison = compare(take_snapshot(base), take_snapshot(current))
    assert comparison.verdict is Verdict.GROWTH
    grown = [
        (delta.site.frames, delta.delta_bytes, delta.delta_count)
        for delta in comparison.sites
        if delta.delta_bytes
    ]
    assert grown == [
        (("ntdll.dll+0x110", "app.exe+0x1230"), 20 * 100 + 20 * 40 + 10, 40),
        (("ntdll.dll+0x110", "app.exe+0x3450"), 102 + 42, 2),
    ]
    for session in (base, current):
        assert [item for item in session.diagnostics if item.severity == "warning"] == []
