"""Heaps are found and layouts chosen without symbols, with as little from the dump as possible."""

from __future__ import annotations

import dataclasses

import pytest
from patching import with_bytes, without
from truth import REAL, TESTDATA, TruthDump

from dumpleak.session import Session
from windumps import Dump, open_dump
from windumps.blocks import Blocks
from windumps.diagnostics import DiagnosticLog

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
