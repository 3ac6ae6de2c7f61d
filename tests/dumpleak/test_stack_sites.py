"""Sites by recorded stack: the leaking stacks first, with exact growth, and the same in both dumps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from builders.minidump_builder import MinidumpBuilder
from builders.opening import open_bytes
from truth import Truth, TruthDump, pairs, truth_dumps

import dumpleak.attribution
from dumpleak.attribution.shape import ShapeAttributor
from dumpleak.attribution.stack import (
    ALLOCATOR_FRAMES,
    NO_IMAGE,
    FrameNamer,
    StackAttributor,
    Symbolize,
    no_symbols,
    stack_site,
)
from dumpleak.attribution.table import SiteTable
from dumpleak.compare.answers import Comparison, Verdict
from dumpleak.compare.diff import compare
from dumpleak.model.sites import Site, SiteKind
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot
from windumps.blocks import Blocks
from windumps.images.modules import Module
from windumps.process.stack_traces import CodeMap
from windumps.symbols.functions import PUBLICS, Location

PAIRS = pairs("leak-pair-ust")


@pytest.fixture(autouse=True)
def _stacks_before_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumpleak.attribution, "ATTRIBUTORS", (StackAttributor, ShapeAttributor))


def _compare(base: TruthDump, current: TruthDump) -> tuple[Comparison, set[int]]:
    sessions = [Session.open(dump.dump) for dump in (base, current)]
    comparison = compare(*(take_snapshot(session) for session in sessions))
    addresses = {s.entry.address for s in sessions[1].heaps if s.entry.heap}
    heaps = current.read_truth().heaps
    return comparison, {i for i, heap in enumerate(heaps) if heap["address"] in addresses}


def _frames(truth: Truth) -> list[tuple[str, ...]]:
    """The frames of each stack as a site shows them."""
    return [
        tuple(f"{module}+0x{offset:x}" for module, offset in stack) for stack in truth.raw["stacks"]
    ]


def _growth(base: Truth, current: Truth, heaps: set[int]) -> dict[int, tuple[int, int]]:
    """Stack → (bytes, blocks) by which it grew in some heaps."""
    counts: Counter[int] = Counter()
    totals: Counter[int] = Counter()
    for truth, sign in ((current, 1), (base, -1)):
        column = truth.raw["alloc_columns"].index("stack_id")
        for row in truth.raw["allocations"]:
            if truth.heap_of[row[0]] in heaps:
                counts[row[column]] += sign
                totals[row[column]] += sign * truth.sizes[row[0]]
    return {stack: (totals[stack], counts[stack]) for stack in counts}


@pytest.mark.parametrize(("base", "current"), PAIRS, ids=lambda d: d.name)
def test_every_stack_has_its_exact_growth_and_the_leaking_ones_come_first(
    base: TruthDump, current: TruthDump
) -> None:
    comparison, heaps = _compare(base, current)
    before, after = base.read_truth(), current.read_truth()
    expected = _growth(before, after, heaps)
    frames = _frames(after)
    assert comparison.verdict is Verdict.GROWTH
    shown = {
        delta.site.frames: (delta.delta_bytes, delta.delta_count)
        for delta in comparison.sites
        if delta.site.kind is SiteKind.STACK
    }
    assert (
        shown.items() >= {frames[s]: grown for s, grown in expected.items() if any(grown)}.items()
    )
    column = after.raw["alloc_columns"].index("stack_id")
    stack_of = {row[0]: row[column] for row in after.raw["allocations"]}
    leaking = {stack_of[a] for a in after.raw["leaked_since_before"] if after.heap_of[a] in heaps}
    first = [delta.site.frames for delta in comparison.sites[: len(leaking)]]
    assert leaking
    assert set(first) == {frames[stack] for stack in leaking}


@pytest.mark.parametrize(("base", "current"), PAIRS, ids=lambda d: d.name)
def test_a_stack_has_one_key_in_both_dumps_and_no_address_in_it(
    base: TruthDump, current: TruthDump
) -> None:
    comparison, _ = _compare(base, current)
    frames = set(_frames(current.read_truth()))
    keys = []
    for snapshot in (comparison.base, comparison.current):
        stacks = {
            site.frames: key
            for key, (site, _) in snapshot.groups.items()
            if site.kind is SiteKind.STACK
        }
        assert len(stacks.keys() & frames) > 40
        keys.append({shown: key for shown, key in stacks.items() if shown in frames})
    common = keys[0].keys() & keys[1].keys()
    assert common
    assert {shown: keys[0][shown] for shown in common} == {
        shown: keys[1][shown] for shown in common
    }


@pytest.mark.parametrize("dump", truth_dumps("nt-ust", "series-ust")[:8], ids=lambda d: d.name)
def test_every_block_of_the_program_is_named_by_its_first_frame_outside_the_allocator(
    dump: TruthDump,
) -> None:
    truth = dump.read_truth()
    column = truth.raw["alloc_columns"].index("stack_id")
    frames = _frames(truth)
    expected = {row[0]: frames[row[column]] for row in truth.raw["allocations"]}
    session, table = Session.open(dump.dump), SiteTable()
    attributor = StackAttributor(session, table)
    seen = 0
    for source, blocks in session.blocks():
        used = blocks.used
        for address, number in zip(
            used.address.tolist(), attributor.assign(source, used).tolist(), strict=True
        ):
            if address in expected:
                site = table.sites[number]
                own = next(f for f in expected[address] if not f.startswith("ntdll"))
                assert (site.name, site.frames) == (own, expected[address])
                seen += 1
    assert seen


def test_there_are_pairs_with_stacks() -> None:
    assert {"6.1.7601.24384-x86", "10.0.26100.5074-x64"} <= {base.build for base, _ in PAIRS}


# Frames of our own making.

APP = Module("app.exe", "C:\\app.exe", 0x400000, 0x10000, 1)
CRT = Module("ucrtbase.dll", "C:\\ucrtbase.dll", 0x600000, 0x10000, 2)
NTDLL = Module("ntdll.dll", "C:\\ntdll.dll", 0x700000, 0x10000, 3)
STACK = [0x700010, 0x600020, 0x401000, 0x402000]


def _site(
    stack: list[int],
    symbolize: Symbolize = no_symbols,
    allocators: tuple[str, ...] = ALLOCATOR_FRAMES,
) -> Site:
    code = CodeMap([APP, CRT, NTDLL], [])
    return stack_site(FrameNamer(code, symbolize, allocators).frames(stack))


def _named(function: str, offset: int) -> Location:
    return Location(function, offset, "", 0, PUBLICS)


def test_allocator_frames_are_left_out_of_the_name_only() -> None:
    site = _site(STACK)
    assert site.name == "app.exe+0x1000"
    assert site.frames == (
        *("ntdll.dll+0x10", "ucrtbase.dll+0x20"),
        *("app.exe+0x1000", "app.exe+0x2000"),
    )
    assert site.key != _site([0x700014, *STACK[1:]]).key


def test_the_list_of_allocator_frames_can_be_longer() -> None:
    def symbols(module: Module, rva: int) -> Location | None:
        names = {0x1000: ("MyPool::Allocate", 0x12), 0x2000: ("Session::open", 0x41)}
        return _named(*names[rva]) if module is APP else None

    assert _site(STACK, symbols).name == "app.exe!MyPool::Allocate+0x12"
    longer = (*ALLOCATOR_FRAMES, "app!MyPool::*")
    assert _site(STACK, symbols, longer).name == "app.exe!Session::open+0x41"


@pytest.mark.parametrize(
    "function",
    ["operator new", "operator new[]", "malloc", "_malloc_dbg", "HeapAlloc"],
)
def test_an_allocator_linked_into_the_program_is_known_by_its_symbol(function: str) -> None:
    def symbols(module: Module, rva: int) -> Location | None:
        return _named(function, 0x1B) if (module, rva) == (APP, 0x1000) else None

    assert _site(STACK, symbols).name == "app.exe+0x2000"


def test_a_stack_of_allocator_frames_only_is_named_by_its_innermost() -> None:
    assert _site(STACK[:2]).name == "ntdll.dll+0x10"


def test_code_outside_images_shows_no_address_and_names_nothing() -> None:
    site = _site([0x700010, 0x99990000, 0x401000])
    assert site.frames[1] == NO_IMAGE
    assert site.name == "app.exe+0x1000"
    assert site.key == _site([0x700010, 0x12340000, 0x401000]).key


def test_another_build_of_a_module_is_another_site() -> None:
    rebuilt = Module("app.exe", "C:\\app.exe", 0x400000, 0x10000, 77)
    code = CodeMap([rebuilt, CRT, NTDLL], [])
    assert stack_site(FrameNamer(code).frames(STACK)).key != _site(STACK).key


def test_blocks_without_a_trace_are_left_to_others() -> None:
    dump = open_bytes(MinidumpBuilder().module("C:\\app.exe", 0x400000, 0x1000).build())
    session = Session(dump)
    attributor = StackAttributor(session, SiteTable())
    base, _ = PAIRS[0]
    source = Session.open(base.dump).heaps[0]
    empty = Blocks.empty()
    assert attributor.assign(source, empty).tolist() == []
    row = {name: np.zeros(2, getattr(empty, name).dtype) for name in empty.__dict__}
    assert attributor.assign(source, Blocks(**row)).tolist() == [-1, -1]
