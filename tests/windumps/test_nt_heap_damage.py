"""A damaged NT heap loses what the damage touches, and says what that was."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from patching import flipped, with_bytes, without
from truth import TESTDATA, Truth, TruthDump

from dumpleak.process.session import Session
from windumps import Dump, open_dump
from windumps.blocks import Blocks, Kind
from windumps.diagnostics import Diagnostic, DiagnosticLog

CASES = [
    TruthDump(
        TESTDATA / build / scenario / f"{stem}.dmp.gz",
        TESTDATA / build / scenario / f"truth{suffix}.json.gz",
    )
    for build, scenario, stem, suffix in (
        ("10.0.19041.3324-x64", "mixed", "dump", ""),
        ("10.0.26100.5074-x64", "mixed", "dump", ""),
        ("10.0.19041.3996-x86", "leak-pair-aslr", "after", "-after"),
        ("6.1.7601.24384-x86", "leak-pair-ust", "after", "-after"),
    )
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda d: d.name)


def _walk(dump: Dump, ordinal: int = 1) -> tuple[Blocks, list[Diagnostic], int]:
    """Used blocks of one heap, the diagnostics, and the bytes the account misses."""
    session = Session(dataclasses.replace(dump, log=DiagnosticLog()))
    heap = session.heaps[ordinal].entry.heap
    assert heap is not None
    blocks = Blocks.concatenate(heap.blocks()).used
    assert heap.account.residual_bytes == 0
    return blocks, session.diagnostics, heap.account.unwalked_bytes


def _truth(case: TruthDump) -> tuple[Dump, Truth, dict[int, int], int]:
    truth = case.read_truth()
    address = truth.heaps[1]["address"]
    return open_dump(case.dump), truth, truth.used_blocks(address), address


def _granularity(dump: Dump) -> int:
    return 8 if dump.architecture == "x86" else 16


def _victim(dump: Dump, kind: Kind, number: int = 5) -> tuple[int, int, int]:
    """(user address, header address, block bytes) of a used block in the middle of the heap."""
    blocks, _, _ = _walk(dump)
    rows = np.flatnonzero((blocks.kind == kind) & (blocks.trace == 0))
    if not len(rows):  # every block carries a trace: its header lies further in front
        rows = np.flatnonzero(blocks.kind == kind)
    row = rows[len(rows) // 2 + number]
    user = int(blocks.address[row])
    distance = 3 if blocks.trace[row] else 1
    return user, user - distance * _granularity(dump), int(blocks.block_bytes[row])


def _codes(diagnostics: list[Diagnostic]) -> set[str]:
    return {item.code for item in diagnostics if item.severity != "info"}


@cases
@pytest.mark.parametrize("byte", [-8, -6, -4], ids=["Size", "Flags", "PreviousSize"])
def test_a_flipped_back_end_header_costs_that_block_only(case: TruthDump, byte: int) -> None:
    dump, _, expected, _ = _truth(case)
    user, header, size = _victim(dump, Kind.NT_BACKEND)
    damaged = flipped(dump, header + _granularity(dump) + byte)
    blocks, diagnostics, lost = _walk(damaged)
    assert dict(zip(blocks.address.tolist(), blocks.size.tolist(), strict=True)) == {
        address: asked for address, asked in expected.items() if address != user
    }
    assert lost == size
    (said,) = [item for item in diagnostics if item.code == "heap-header-damaged"]
    assert (said.structure, said.address, said.bytes_affected) == ("_HEAP_ENTRY", header, size)


@cases
def test_a_header_of_another_size_is_denied_by_the_block_behind(case: TruthDump) -> None:
    dump, _, expected, _ = _truth(case)
    user, header, size = _victim(dump, Kind.NT_BACKEND)
    granularity = _granularity(dump)
    blocks, _, _ = _walk(dump)
    distance = np.where(blocks.trace == 0, 1, 3) * granularity
    smaller = (blocks.kind == Kind.NT_BACKEND) & (blocks.block_bytes < size)
    other = int((blocks.address - distance.astype(np.uint64))[smaller][0])
    # Size, flags and their checksum of a smaller block: a header that is valid in itself.
    low = dump.memory.read(other + granularity - 8, 4)
    damaged, diagnostics, lost = _walk(with_bytes(dump, {header + granularity - 8: low}))
    assert dict(zip(damaged.address.tolist(), damaged.size.tolist(), strict=True)) == {
        address: asked for address, asked in expected.items() if address != user
    }
    assert lost == size
    assert "heap-header-damaged" in _codes(diagnostics)


@cases
def test_a_flipped_lfh_header_costs_that_block_only(case: TruthDump) -> None:
    dump, _, expected, _ = _truth(case)
    user, header, size = _victim(dump, Kind.NT_LFH)
    blocks, diagnostics, lost = _walk(flipped(dump, header + _granularity(dump) - 8))
    assert set(blocks.address.tolist()) == expected.keys() - {user}
    assert lost == size
    (said,) = [item for item in diagnostics if item.code == "lfh-header-damaged"]
    assert (said.structure, said.address, said.bytes_affected) == ("_HEAP_ENTRY", header, size)


@cases
def test_an_absent_page_costs_only_blocks_that_lie_in_it(case: TruthDump) -> None:
    dump, _, expected, _ = _truth(case)
    user, header, _ = _victim(dump, Kind.NT_BACKEND)
    page = header & ~0xFFF
    blocks, diagnostics, lost = _walk(without(dump, page, 0x1000))
    found = set(blocks.address.tolist())
    assert found <= expected.keys()
    missing = expected.keys() - found
    assert user in missing
    # Headers in the page are gone; so is a block before it that reaches in, and blocks behind it
    # up to the
    # first header that two links confirm. LFH blocks of an area whose header is in the page go
    # with it.
    assert lost > 0
    assert any(item.code == "heap-memory-absent" for item in diagnostics)
    whole = {a for a in expected if not page - 0x20000 < a < page + 0x20000}
    assert whole <= found


@cases
def test_a_cut_segment_list_is_followed_from_its_other_end(case: TruthDump) -> None:
    dump, _, expected, heap = _truth(case)
    pointer = _granularity(dump) // 2
    link = heap + (0x18 if pointer == 8 else 0x10)
    # The heap's own entry is the first on the list: break the link to whatever follows it.
    blocks, diagnostics, _ = _walk(with_bytes(dump, {link: b"\x01" * pointer}))
    assert set(blocks.address.tolist()) == expected.keys()
    assert "segment-list-cut" in _codes(diagnostics)


@cases
def test_a_segment_list_that_runs_in_a_circle_ends(case: TruthDump) -> None:
    dump, _, expected, heap = _truth(case)
    pointer = _granularity(dump) // 2
    link = heap + (0x18 if pointer == 8 else 0x10)
    itself = link.to_bytes(pointer, "little")
    blocks, diagnostics, _ = _walk(with_bytes(dump, {link: itself + itself}))
    assert set(blocks.address.tolist()) <= expected.keys()
    assert "segment-list-cut" in _codes(diagnostics)


@cases
def test_a_heap_without_its_first_page_is_listed_as_absent(case: TruthDump) -> None:
    dump, _, _, heap = _truth(case)
    session = Session(dataclasses.replace(without(dump, heap, 0x1000), log=DiagnosticLog()))
    entry = next((s.entry for s in session.heaps if s.entry.address == heap), None)
    if dump.build >= 26100:
        # The heap is on ntdll's list only, and that list is believed only when every entry is a
        # heap.
        assert entry is None or entry.heap is None
    else:
        assert entry is not None
        assert (entry.kind, entry.heap) == ("absent", None)


@cases
def test_random_damage_never_invents_a_block(case: TruthDump) -> None:
    dump, truth, expected, heap = _truth(case)
    random = np.random.default_rng(7)
    spans = [
        (source.entry.heap.account.ranges)
        for source in Session(dump).heaps
        if source.entry.heap and source.entry.address == heap and list(source.entry.heap.blocks())
    ]
    places = [(start, size) for span in spans for start, size in span]
    for _ in range(40):
        start, size = places[random.integers(len(places))]
        pieces = dump.memory.extents(start + 0x1000, start + size)
        if not len(pieces.address):
            continue
        row = random.integers(len(pieces.address))
        at = int(pieces.address[row]) + int(random.integers(int(pieces.size[row])))
        blocks, _, _ = _walk(flipped(dump, at, 1 << int(random.integers(8))))
        found = dict(zip(blocks.address.tolist(), blocks.size.tolist(), strict=True))
        invented = found.keys() - expected.keys()
        # A flipped state bit can turn one freed LFH block into a used one; nothing else may appear.
        assert len(invented) <= 1
        assert all(address in truth.freed or address not in truth.sizes for address in invented)
