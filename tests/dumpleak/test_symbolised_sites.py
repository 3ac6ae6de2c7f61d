"""Sites with symbols: named where an exact PDB is, the same sites with and without, across builds by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from builders.pdb_builder import PdbBuilder
from made_symbols import (
    OTHER_BUILD,
    as_other_build,
    function_at,
    identity,
    made_pdb,
    put_in_store,
    sample_pdb,
)
from pdb_samples import SHARED_SYMBOLS
from truth import Truth, TruthDump, pairs, truth_dumps

import windumps.symbols.provider
from dumpleak.compare.answers import Comparison
from dumpleak.compare.diff import compare
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot
from windumps import Dump, open_dump
from windumps.diagnostics import Diagnostic
from windumps.images.modules import Module, PdbIdentity
from windumps.symbols.functions import load_library
from windumps.symbols.paths import parse_symbol_path
from windumps.symbols.provider import Symbols

Frame = tuple[str, int]
Growth = dict[tuple[str, ...], tuple[int, int]]

PAIRS = [pair for pair in pairs("leak-pair-ust") if "shared" not in str(pair[0].dump)]
WITH_PDB = [
    dump
    for dump in truth_dumps("nt-ust", "leak-pair-ust")
    if dump.build in ("10.0.19041.1288-x64", "10.0.19041.2130-x86", "10.0.22621.4245-x64")
]
MOVE, SHIFT = 0x1000, 2


@pytest.fixture(params=["library", "publics only"])
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the library that reads lines, and as if it were not installed."""
    if request.param == "publics only":
        monkeypatch.setattr(windumps.symbols.provider, "load_library", lambda: None)
    elif load_library() is None:
        pytest.skip("symbolic is not installed; it has no wheel for every system")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def _symbols(store: Path) -> Symbols:
    return Symbols.along(parse_symbol_path(str(store)))


def _snapshot(dump: Dump | TruthDump, symbols: Symbols | None = None) -> Snapshot:
    opened = open_dump(dump.dump) if isinstance(dump, TruthDump) else dump
    return take_snapshot(Session(opened, symbols))


def _stacks(truth: Truth) -> list[list[Frame]]:
    return [
        [(str(module), int(offset)) for module, offset in stack] for stack in truth.raw["stacks"]
    ]


def _plain(frame: Frame) -> str:
    return f"{frame[0]}+0x{frame[1]:x}"


def _named(frame: Frame) -> str:
    function, offset = function_at(frame[1])
    return f"app.exe!{function}+0x{offset:x}" if frame[0] == "app.exe" else _plain(frame)


def _function(frame: str) -> str:
    """A symbolised frame without its offset in the function."""
    return frame.rpartition("+0x")[0] if "!" in frame else frame


def _stack_sites(snapshot: Snapshot) -> dict[tuple[str, ...], Site]:
    sites = [site for site, _ in snapshot.groups.values() if site.kind is SiteKind.STACK]
    return {site.frames: site for site in sites}


def _grown(base: TruthDump, current: TruthDump, heaps: Iterable[int]) -> Counter[tuple[int, int]]:
    """(stack, 0) -> bytes and (stack, 1) -> blocks by which it grew in the heaps that are read."""
    found: Counter[tuple[int, int]] = Counter()
    for dump, sign in ((current, 1), (base, -1)):
        truth = dump.read_truth()
        column = truth.raw["alloc_columns"].index("stack_id")
        for row in truth.raw["allocations"]:
            if truth.heap_of[row[0]] in heaps:
                found[row[column], 0] += sign * truth.sizes[row[0]]
                found[row[column], 1] += sign
    return found


def _expected(base: TruthDump, current: TruthDump, comparison: Comparison, name: object) -> Growth:
    """Growth by stacks as they are told apart by `name`, which names a frame."""
    read = {row.address for row in comparison.current.heaps if row.read}
    heaps = current.read_truth().heaps
    grown = _grown(base, current, [i for i, heap in enumerate(heaps) if heap["address"] in read])
    totals: Counter[tuple[tuple[str, ...], int]] = Counter()
    for (stack, what), amount in grown.items():
        frames = _stacks(current.read_truth())[stack]
        totals[tuple(name(frame) for frame in frames), what] += amount  # type: ignore[operator]
    found = {frames: (totals[frames, 0], totals[frames, 1]) for frames, _ in list(totals)}
    return {frames: growth for frames, growth in found.items() if any(growth)}


def _shown(comparison: Comparison, name: object) -> Growth:
    found: Growth = {}
    for delta in comparison.sites:
        if delta.site.kind is SiteKind.STACK:
            frames = tuple(name(frame) for frame in delta.site.frames)  # type: ignore[operator]
            assert frames not in found
            found[frames] = delta.delta_bytes, delta.delta_count
    return found


def _said(diagnostics: Iterable[Diagnostic], code: str) -> list[Diagnostic]:
    return [item for item in diagnostics if item.code == code]


# -- frames ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize(("_", "dump"), PAIRS, ids=lambda d: d.name)
def test_frames_are_named_where_an_exact_pdb_is_and_stay_module_and_offset_elsewhere(
    _: TruthDump, dump: TruthDump, store: Path
) -> None:
    wanted = identity(open_dump(dump.dump))
    put_in_store(store, wanted, made_pdb(wanted))
    shown = _stack_sites(_snapshot(dump, _symbols(store)))
    expected = {tuple(map(_named, stack)) for stack in _stacks(dump.read_truth())}
    assert len(shown.keys() & expected) > 40
    # The loader has blocks of its own, whose stacks are not in the truth.
    assert all(
        ("!" in frame) == frame.startswith("app.exe") for frames in shown for frame in frames
    )
    assert {site.name.partition("!")[0].partition("+")[0] for site in shown.values()} == {
        "app.exe",
        "widgets.dll",
    }


@pytest.mark.parametrize("age", [0, 7])
def test_a_pdb_of_another_link_names_nothing_and_it_is_said(store: Path, age: int) -> None:
    _, dump = PAIRS[0]
    wanted = identity(open_dump(dump.dump))
    other = PdbIdentity(wanted.name, wanted.guid, age) if age else OTHER_BUILD
    put_in_store(store, wanted, made_pdb(other))
    snapshot = _snapshot(dump, _symbols(store))
    assert not any("!" in frame for frames in _stack_sites(snapshot) for frame in frames)
    (said,) = _said(snapshot.diagnostics, "symbols-not-used")
    assert said.structure == "app.exe"
    assert "its age is 7" in said.message if age else "another image" in said.message
    (missing,) = _said(snapshot.diagnostics, "symbols-missing")
    assert "app.exe" in missing.message


@pytest.mark.skipif(load_library() is None, reason="lines need symbolic")
@pytest.mark.parametrize(("_", "dump"), PAIRS, ids=lambda d: d.name)
def test_frames_have_source_lines_where_the_pdb_has_them(
    _: TruthDump, dump: TruthDump, store: Path
) -> None:
    opened = open_dump(dump.dump)
    wanted = identity(opened)
    put_in_store(store, wanted, sample_pdb(wanted, opened.architecture))
    sites = _stack_sites(_snapshot(dump, _symbols(store)))
    lines = {
        line
        for site in sites.values()
        for frame, line in zip(site.frames, site.lines, strict=True)
        if frame.startswith("app.exe!") and line
    }
    assert lines
    assert all(line.startswith("C:\\src\\sample.cpp(") and line.endswith(")") for line in lines)
    assert not any(
        line
        for site in sites.values()
        for frame, line in zip(site.frames, site.lines, strict=True)
        if not frame.startswith("app.exe!")
    )


@pytest.mark.parametrize("dump", WITH_PDB, ids=lambda d: d.name)
def test_microsofts_pdbs_name_the_frames_of_ntdll(dump: TruthDump) -> None:
    sites = _stack_sites(_snapshot(dump, _symbols(SHARED_SYMBOLS)))
    stacks = _stacks(dump.read_truth())
    plain = {tuple(map(_plain, stack[1:])): stack[0] for stack in stacks}
    named = {frames: site for frames, site in sites.items() if frames[1:] in plain}
    assert len(named) > 30
    # The program gets all its blocks from one function of ntdll.
    assert {_function(frames[0]) for frames in named} == {"ntdll.dll!RtlAllocateHeap"}
    assert all(plain[frames[1:]][0] == "ntdll.dll" for frames in named)


# -- one build, symbols on one side or on both ----------------------------------------------------


@pytest.mark.parametrize("sides", ["both", "base", "current"])
def test_the_same_sites_match_with_symbols_on_both_sides_or_on_one(store: Path, sides: str) -> None:
    base, current = PAIRS[0]
    wanted = identity(open_dump(base.dump))
    put_in_store(store, wanted, made_pdb(wanted))
    symbols = _symbols(store)
    plain = compare(_snapshot(base), _snapshot(current))
    named = compare(
        _snapshot(base, symbols if sides != "current" else None),
        _snapshot(current, symbols if sides != "base" else None),
    )
    assert len(plain.sites) > 40
    assert [(d.site.key, d.base, d.current) for d in named.sites] == [
        (d.site.key, d.base, d.current) for d in plain.sites
    ]
    stacks = [d.site for d in named.sites if d.site.kind is SiteKind.STACK]
    assert all(any("!" in frame for frame in site.frames) for site in stacks)
    assert not [d for d in named.diagnostics if d.code.startswith("rebuilt")]


# -- two builds -----------------------------------------------------------------------------------


def _two_builds(base: TruthDump, current: TruthDump, symbols: Symbols | None) -> Comparison:
    after = as_other_build(open_dump(current.dump), MOVE)
    return compare(_snapshot(base, symbols), _snapshot(after, symbols))


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize(("base", "current"), PAIRS, ids=lambda d: d.name)
def test_two_builds_of_a_module_are_matched_by_the_names_of_functions(
    base: TruthDump, current: TruthDump, store: Path
) -> None:
    wanted = identity(open_dump(base.dump))
    put_in_store(store, wanted, made_pdb(wanted))
    put_in_store(store, OTHER_BUILD, made_pdb(OTHER_BUILD, SHIFT, MOVE))
    comparison = _two_builds(base, current, _symbols(store))
    expected = _expected(base, current, comparison, lambda frame: _function(_named(frame)))
    shown = _shown(comparison, _function)
    program = {frames: growth for frames, growth in shown.items() if growth != (0, 0)}
    assert len(expected) > 40
    assert program.items() >= expected.items()
    for delta in comparison.sites:
        if any(frame.startswith("app.exe!") for frame in delta.site.frames):
            assert any("matched by function names: app.exe" in text for text in delta.evidence)
    (said,) = _said(comparison.diagnostics, "rebuilt-by-name")
    assert said.structure == "app.exe"
    assert not _said(comparison.diagnostics, "rebuilt-apart")


@pytest.mark.parametrize("pdbs", ["none", "base", "current"])
def test_without_pdbs_of_both_builds_their_sites_are_kept_apart_and_it_is_said(
    store: Path, pdbs: str
) -> None:
    base, current = PAIRS[0]
    wanted = identity(open_dump(base.dump))
    if pdbs == "base":
        put_in_store(store, wanted, made_pdb(wanted))
    if pdbs == "current":
        put_in_store(store, OTHER_BUILD, made_pdb(OTHER_BUILD, SHIFT, MOVE))
    comparison = _two_builds(base, current, _symbols(store))
    stacks = [d for d in comparison.sites if d.site.kind is SiteKind.STACK]
    in_app = [d for d in stacks if any(f.startswith("app.exe") for f in d.site.frames)]
    assert len(in_app) > 80
    assert all(not d.base.count or not d.current.count for d in in_app)
    assert sum(d.delta_bytes for d in comparison.sites) == comparison.delta_bytes
    (said,) = _said(comparison.diagnostics, "rebuilt-apart")
    assert said.structure == "app.exe"
    assert f"({len(in_app)} in all)" in said.message
    assert not _said(comparison.diagnostics, "rebuilt-by-name")


def test_several_sites_of_one_name_are_taken_together_and_it_is_said(store: Path) -> None:
    base, current = PAIRS[0]
    wanted = identity(open_dump(base.dump))
    # One function holds the whole program.
    for pdb, move in ((wanted, 0), (OTHER_BUILD, MOVE)):
        builder = PdbBuilder(guid=pdb.guid, age=pdb.age)
        builder.sections = [(".text", 0x1000 + move, 0x9000)]
        put_in_store(store, pdb, builder.public("?all@@YAXXZ", 1, 0).build())
    comparison = _two_builds(base, current, _symbols(store))

    def name(frame: tuple[str, int]) -> str:
        return "app.exe!all" if frame[0] == "app.exe" else _plain(frame)

    expected = _expected(base, current, comparison, name)
    assert _shown(comparison, _function).items() >= expected.items()
    together = [d for d in comparison.sites if any("taken together" in e for e in d.evidence)]
    assert len(_stacks(current.read_truth())) > len(expected)
    assert together


@pytest.mark.parametrize(("base", "current"), PAIRS, ids=lambda d: d.name)
def test_after_an_update_of_windows_the_programs_own_frames_still_match(
    base: TruthDump, current: TruthDump
) -> None:
    after = open_dump(current.dump)
    updated = PdbIdentity("ntdll.pdb", "F" * 32, 1)
    modules = [replace(m, pdb=updated) if m.name == "ntdll.dll" else m for m in after.modules]
    comparison = compare(_snapshot(base), _snapshot(replace(after, modules=modules)))

    def name(frame: tuple[str, int]) -> str:
        return "ntdll.dll" if frame[0] == "ntdll.dll" else _plain(frame)

    def shown(frame: str) -> str:
        return frame.partition("+")[0] if frame.startswith("ntdll") else frame

    expected = _expected(base, current, comparison, name)
    assert _shown(comparison, shown).items() >= expected.items()
    (said,) = _said(comparison.diagnostics, "rebuilt-by-module")
    assert said.structure == "ntdll.dll"


def test_modules_without_pdb_are_no_trouble(store: Path) -> None:
    _, dump = PAIRS[0]
    opened = open_dump(dump.dump)
    modules = [Module(m.name, m.path, m.base_address, m.size_bytes, 5) for m in opened.modules]
    snapshot = _snapshot(replace(opened, modules=modules), _symbols(store))
    assert len(_stack_sites(snapshot)) > 40
    assert not _said(snapshot.diagnostics, "symbols-not-used")
