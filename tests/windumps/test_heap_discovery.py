"""Heaps are found and layouts chosen without symbols, with as little from the dump as possible."""

from __future__ import annotations

import dataclasses
import struct

import pytest
from builders.minidump_builder import MinidumpBuilder
from builders.nt_heap_builder import NtHeapBuilder
from builders.opening import open_bytes
from patching import with_bytes, without
from truth import REAL, TESTDATA, TruthDump

from dumpleak.process import session as session_module
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot
from windumps import Dump, open_dump
from windumps.blocks import Blocks
from windumps.diagnostics import DiagnosticLog
from windumps.process import views as process

MIXED = [
    TruthDump(
        TESTDATA / build / scenario / f"{stem}.dmp.gz",
        TESTDATA / build / scenario / f"truth{suffix}.json.gz",
    )
    for build, scenario, stem, suffix in (
        ("6.1.7601.24384-x86", "leak-pair-ust", "after", "-after"),
        ("6.1.7601.24545-x64", "tiny", "dump", ""),
        ("6.3.9600.18438-x64", "tiny", "dump", ""),
        ("10.0.14393.1715-x64", "tiny", "dump", ""),
        ("10.0.17134.556-x86", "tiny", "dump", ""),
        ("10.0.19041.3324-x64", "mixed", "dump", ""),
        ("10.0.19041.3996-x86", "leak-pair-aslr", "after", "-after"),
        ("10.0.22621.4541-x64", "tiny", "dump", ""),
        ("10.0.26100.5074-x64", "mixed", "dump", ""),
    )
]
mixed = pytest.mark.parametrize("case", MIXED, ids=lambda d: d.name)


def _nt_blocks(dump: Dump) -> dict[int, dict[int, int]]:
    """Heap address → used blocks, of all NT heaps."""
    found = {}
    for source in Session(dataclasses.replace(dump, log=DiagnosticLog())).heaps:
        if source.entry.kind == "nt" and source.entry.heap:
            used = Blocks.concatenate(source.entry.heap.blocks()).used
            found[source.entry.address] = dict(
                zip(used.address.tolist(), used.size.tolist(), strict=True)
            )
    return found


def _expected(case: TruthDump) -> dict[int, dict[int, int]]:
    truth = case.read_truth()
    return {h["address"]: truth.used_blocks(h["address"]) for h in truth.heaps if h["kind"] == "nt"}


@mixed
@pytest.mark.parametrize("build", [0, 5999, 9601, 12000, 16000, 99999])
def test_a_build_without_a_row_of_its_own_is_probed(case: TruthDump, build: int) -> None:
    dump = open_dump(case.dump)
    assert _nt_blocks(dataclasses.replace(dump, os_version=(10, 0, build))) == _expected(case)


@mixed
def test_without_the_peb_the_heaps_are_found_in_ntdlls_data(case: TruthDump) -> None:
    dump = open_dump(case.dump)
    session = Session(without(dump, case.read_truth().raw["peb"], 0x1000))
    assert all(view.peb == 0 for view in session.views)
    assert _nt_blocks(without(dump, case.read_truth().raw["peb"], 0x1000)) == _expected(case)
    assert "heap-list-from-ntdll" in {item.code for item in session.diagnostics}


def test_the_64_bit_structures_serve_arm64() -> None:
    case = MIXED[5]
    dump = dataclasses.replace(open_dump(case.dump), architecture="arm64")
    assert _nt_blocks(dump) == _expected(case)


def test_the_lists_order_is_the_order_of_ordinals_on_24h2() -> None:
    case = MIXED[-1]
    session = Session(open_dump(case.dump))
    assert len(session.heaps) > 1
    assert [s.entry.address for s in session.heaps] == [
        h["address"] for h in case.read_truth().heaps
    ]


def test_a_heap_that_is_absent_does_not_hide_the_others_on_24h2() -> None:
    case = MIXED[-1]
    heaps = case.read_truth().heaps
    dump = without(open_dump(case.dump), heaps[1]["address"], 0x1000)
    entries = [source.entry for source in Session(dump).heaps]
    assert [entry.address for entry in entries] == [heap["address"] for heap in heaps]
    assert entries[1].kind == "absent"


@mixed
def test_a_damaged_nt_heap_is_not_taken_for_wines(case: TruthDump) -> None:
    dump = open_dump(case.dump)
    address = next(h["address"] for h in case.read_truth().heaps if h["kind"] == "nt")
    pointer = 8 if dump.architecture == "x64" else 4
    # All but the segment's signature is gone.
    damaged = with_bytes(dump, {address + 2 * pointer + 4: bytes(0x1000 - 2 * pointer - 4)})
    entry = next(s.entry for s in Session(damaged).heaps if s.entry.address == address)
    assert entry.heap is None
    assert entry.kind == "unknown"
    wine = with_bytes(damaged, {address + 0xB8: b"HEAP"})
    assert next(s.entry.kind for s in Session(wine).heaps if s.entry.address == address) == "wine"


@mixed
def test_a_heap_without_its_signature_is_not_walked(case: TruthDump) -> None:
    dump = open_dump(case.dump)
    address = case.read_truth().heaps[-1 if case.scenario == "tiny" else 1]["address"]
    at = address + (0x10 if dump.architecture == "x64" else 0x8)
    damaged = with_bytes(dump, {at: b"\0\0\0\0"})
    entry = next(s.entry for s in Session(damaged).heaps if s.entry.address == address)
    assert entry.heap is None
    assert entry.reason


@pytest.mark.skipif(
    not REAL.is_dir(), reason="the real dumps may not be copied into the repository"
)
def test_a_real_wow64_process_has_both_halves_walked_to_the_last_byte() -> None:
    session = Session.open(REAL / "user" / "lldb-fizzbuzz_wow64.dmp.xz")
    for _ in session.blocks():
        pass
    assert [(view.architecture, view.is_secondary) for view in session.views] == [
        ("x64", False),
        ("x86", True),
    ]
    # Three 64-bit and two 32-bit heaps; the NT-like block of the shared section at 7EFE0000h is none.
    assert [source.label for source in session.heaps] == [
        *("heap 0", "heap 1", "heap 2", "x86 heap 0", "x86 heap 1")
    ]
    assert 0x7EFE0000 not in {source.entry.address for source in session.heaps}
    for source in session.heaps:
        heap = source.entry.heap
        assert heap is not None
        assert (heap.account.residual_bytes, heap.account.unwalked_bytes) == (0, 0)
        assert heap.account.committed_bytes > 0
    assert [s.entry.heap.front_end for s in session.heaps if s.entry.heap] == [
        "",
        "",
        "",
        "lfh",
        "",
    ]


@pytest.mark.skipif(
    not REAL.is_dir(), reason="the real dumps may not be copied into the repository"
)
def test_wines_heap_is_recognised_and_not_misread() -> None:
    session = Session.open(REAL / "user" / "wine8-leak-x64.dmp.xz")
    assert [source.entry.kind for source in session.heaps] == ["wine"]
    assert session.readable_heaps == []
    assert "Wine" in session.why_no_heaps()


def test_a_cut_list_of_heaps_is_said_on_24h2() -> None:
    case = MIXED[-1]
    heaps = [heap["address"] for heap in case.read_truth().heaps]
    dump = open_dump(case.dump)
    # Each NT heap's header points at 188h to its record {LIST_ENTRY, heap, …}: break the next link.
    record = dump.memory.read_uint(heaps[1] + 0x188, 8)
    session = Session(with_bytes(dump, {record: b"\x11" * 8}))
    found = [source.entry.address for source in session.heaps]
    assert found[0] == heaps[0]
    assert set(found) <= set(heaps)
    assert len(found) > 1
    assert "heap-list-cut" in {item.code for item in session.diagnostics}


def test_without_the_module_list_all_heaps_are_found_on_24h2() -> None:
    case = MIXED[-1]
    dump = dataclasses.replace(open_dump(case.dump), modules=[])
    heaps = [heap["address"] for heap in case.read_truth().heaps]
    session = Session(dump)
    assert [source.entry.address for source in session.heaps] == heaps
    assert "heap-list-cut" not in {item.code for item in session.diagnostics}
    absent = Session(without(dump, heaps[-1], 0x1000))
    assert [source.entry.address for source in absent.heaps] == heaps[:-1]
    assert "heap-list-cut" in {item.code for item in absent.diagnostics}


def _process(heaps: int, counted: int | None = None, more: bytes = b"") -> MinidumpBuilder:
    """A made process with so many one-page heaps; its PEB may count others, its list go on with others."""
    image, teb, peb, array, first = 0x400000, 0x10000, 0x12000, 0x20_0000, 0x1000_0000
    count = heaps if counted is None else counted
    addresses = [first + number * 0x10000 for number in range(heaps)]
    teb_page, peb_page = bytearray(0x2000), bytearray(0x1000)
    struct.pack_into("<Q", teb_page, 0x30, teb)
    struct.pack_into("<Q", teb_page, 0x60, peb)
    struct.pack_into("<Q", peb_page, 0x10, image)
    struct.pack_into("<Q", peb_page, 0x30, addresses[0])
    struct.pack_into("<IIQ", peb_page, 0xE8, count, count, array)
    dump = MinidumpBuilder(architecture="x64", build=19041)
    dump.module("C:\\app.exe", image, 0x1000).thread(teb=teb)
    dump.memory(teb, bytes(teb_page)).memory(peb, bytes(peb_page))
    dump.memory(array, struct.pack(f"<{heaps}Q", *addresses) + more)
    for address in addresses:
        heap = NtHeapBuilder("8", True, address, pages=1)
        heap.used_block(24)
        for place, content in heap.build().items():
            dump.memory(place, content)
    return dump


def test_a_process_may_have_more_heaps_than_one_would_think() -> None:
    session = Session(open_bytes(_process(5_000).build()))
    assert session.views[0].peb
    assert len(session.readable_heaps) == 5_000
    assert session.heaps[-1].entry.ordinal == 4_999


def test_more_heaps_than_the_limit_are_cut_by_its_name_and_count_as_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "MAX_HEAPS", 3)
    monkeypatch.setattr(session_module, "MAX_HEAPS", 3)
    session = Session(open_bytes(_process(5).build()))
    snapshot = take_snapshot(session)
    assert (snapshot.coverage.heaps_read, snapshot.coverage.heaps_listed) == (3, 5)
    assert snapshot.coverage.walked_share < 1
    said = [item.message for item in session.diagnostics if item.code == "heap-list-cut"]
    assert "MAX_HEAPS" in said[0]


def test_a_damaged_count_of_heaps_leaves_the_list_that_is_there() -> None:
    garbage = struct.pack("<4Q", 0x1234567, 0, 7, 9)
    for more in (garbage, b""):
        session = Session(open_bytes(_process(3, 0x41414141, more).build()))
        assert [source.entry.kind for source in session.heaps] == ["nt"] * 3
        assert "heap-list-cut" in {item.code for item in session.diagnostics}


@mixed
def test_the_peb_is_found_by_its_structure_when_no_teb_leads_to_it(case: TruthDump) -> None:
    dump = open_dump(case.dump)
    peb = case.read_truth().raw["peb"]
    for thread in dump.threads:
        dump = without(dump, thread.teb, 0x1000)
    session = Session(dump)
    assert session.views[0].peb == peb
    assert "peb-by-structure" in {item.code for item in session.diagnostics}
    assert _nt_blocks(dump) == _expected(case)


def test_an_absent_head_does_not_make_the_list_less_whole_on_24h2() -> None:
    case = MIXED[-1]
    dump = open_dump(case.dump)
    ntdll = next(m for m in dump.modules if m.name.lower() == "ntdll.dll")
    session = Session(without(dump, ntdll.base_address, ntdll.size_bytes))
    heaps = [heap["address"] for heap in case.read_truth().heaps]
    assert [source.entry.address for source in session.heaps] == heaps
    assert "heap-list-cut" not in {item.code for item in session.diagnostics}


def test_a_heap_that_a_broken_list_leaves_out_is_found_by_its_signature_on_24h2() -> None:
    case = MIXED[-1]
    dump = open_dump(case.dump)
    heaps = [heap["address"] for heap in case.read_truth().heaps]
    record = dump.memory.read_uint(heaps[1] + 0x188, 8)
    last = dump.memory.read_uint(record, 8)
    session = Session(without(dump, last, 16))
    assert [source.entry.address for source in session.heaps] == heaps


@mixed
def test_a_list_that_counts_too_few_heaps_hides_none(case: TruthDump) -> None:
    heaps = [heap["address"] for heap in case.read_truth().heaps]
    dump = open_dump(case.dump)
    view = Session(dump).views[0]
    if view.heap_count == 1:
        pytest.skip("the PEB of this build counts the process heap only")
    offset = 0x88 if view.architecture == "x86" else 0xE8
    session = Session(with_bytes(dump, {view.peb + offset: b"\1\0\0\0"}))
    found = {source.entry.address for source in session.heaps}
    kinds = {heap["address"]: heap["kind"] for heap in case.read_truth().heaps}
    assert found >= {a for a in heaps if kinds[a] == "nt"}
    assert "heaps-by-signature" in {item.code for item in session.diagnostics}
