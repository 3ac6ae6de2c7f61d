"""A damaged segment heap loses what the damage touches, and says what that was."""

from __future__ import annotations

import random

import numpy as np
import pytest
from patching import flipped, with_bytes, without
from segment_heaps import context_of, used_sizes, walk
from truth import TESTDATA, TruthDump

from windumps import Dump, open_dump
from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind, State
from windumps.diagnostics import Diagnostic
from windumps.errors import HeapError
from windumps.heaps.segment.heap import SegmentHeap, open_segment_heap

CASES = [
    TruthDump(
        TESTDATA / build / scenario / f"{stem}.dmp.gz",
        TESTDATA / build / scenario / f"truth{suffix}.json.gz",
    )
    for build, scenario, stem, suffix in (
        ("10.0.19041.3324-x64", "mixed", "dump", ""),
        ("10.0.26100.5074-x64", "mixed", "dump", ""),
        ("10.0.19041.3996-x86", "leak-pair-aslr", "after", "-after"),
        ("10.0.26100.5074-x64", "leak-pair-ust", "after", "-after"),
    )
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda d: d.name)


class Sound:
    """An undamaged heap of a dump, and where its parts are."""

    def __init__(self, case: TruthDump) -> None:
        truth = case.read_truth()
        (entry,) = [heap for heap in truth.heaps if heap["kind"] == "segment"]
        self.address: int = entry["address"]
        self.dump = open_dump(case.dump)
        self.expected = truth.used_blocks(self.address)
        self.granule = 8 if self.dump.architecture == "x86" else 16
        heap, self.blocks, _ = walk(context_of(self.dump), self.address)
        self.segments = [start for start, size in heap.account.ranges if size == 0x100000]
        # Marked padding, where the heap has it, as ntdll writes it: its own size.
        self.pad = self.granule if self.dump.build < 20348 else 0

    def victim(self, kind: Kind, number: int = 5) -> tuple[int, int, int]:
        """(user address, address without padding, block bytes) of a used block inside the heap."""
        used = self.blocks.used
        rows = np.flatnonzero(used.kind == kind)
        row = rows[len(rows) // 2 + number]
        user = int(used.address[row])
        return user, user - self.pad, int(used.block_bytes[row])

    def walk(self, dump: Dump) -> tuple[SegmentHeap, dict[int, int], list[Diagnostic]]:
        """Walks the heap in a changed dump; the account must add up whatever happened."""
        heap, blocks, said = walk(context_of(dump), self.address)
        assert heap.account.residual_bytes == 0
        return heap, used_sizes(blocks), said


def _only(said: list[Diagnostic], code: str) -> Diagnostic:
    assert [item.code for item in said] == [code]
    return said[0]


@cases
def test_a_flipped_chunk_header_costs_that_chunk_only(case: TruthDump) -> None:
    sound = Sound(case)
    user, start, size = sound.victim(Kind.SEGMENT_VS)
    header = start - sound.granule
    size_byte = 2 if sound.granule == 16 else 1
    heap, found, said = sound.walk(flipped(sound.dump, header + size_byte))
    assert found == {a: s for a, s in sound.expected.items() if a != user}
    assert heap.account.unwalked_bytes == size
    item = _only(said, "vs-chunk-damaged")
    assert (item.structure, item.address) == ("_HEAP_VS_CHUNK_HEADER", header)
    assert item.bytes_affected == size


@cases
def test_a_flipped_size_of_the_chunk_before_costs_nothing(case: TruthDump) -> None:
    sound = Sound(case)
    _, start, _ = sound.victim(Kind.SEGMENT_VS)
    previous_byte = 4 if sound.granule == 16 else 2
    _, found, _ = sound.walk(flipped(sound.dump, start - sound.granule + previous_byte))
    assert found == sound.expected


@cases
def test_an_absent_page_costs_only_chunks_whose_headers_it_holds(case: TruthDump) -> None:
    sound = Sound(case)
    _, start, _ = sound.victim(Kind.SEGMENT_VS)
    page = start & ~0xFFF
    _, found, said = sound.walk(without(sound.dump, page, 0x1000))
    assert found.items() <= sound.expected.items() | {
        (address, SIZE_UNKNOWN) for address in sound.expected
    }
    missing = sound.expected.keys() - found.keys()
    assert missing
    for address in missing:
        # In the page, or the last chunk before it, whose end nothing confirms any more.
        assert page - sound.expected[address] - 0x40 <= address < page + 0x1000
    assert {item.code for item in said} <= {
        "vs-chunk-damaged",
        "vs-subsegment-damaged",
        "requested-size-unknown",
    }
    assert any(item.address is not None and page - 0x1000 <= item.address for item in said)


@cases
def test_memory_that_is_not_in_the_dump_is_told_from_damage(case: TruthDump) -> None:
    sound = Sound(case)
    _, start, _ = sound.victim(Kind.SEGMENT_VS)
    heap, _, _ = sound.walk(without(sound.dump, start & ~0xFFF, 0x1000))
    assert 0 < heap.account.absent_bytes <= heap.account.unwalked_bytes
    heap, _, _ = sound.walk(flipped(sound.dump, start - sound.granule + 2))
    assert heap.account.absent_bytes == 0


def _subsegment(sound: Sound) -> tuple[int, int, set[int]]:
    """(address, bytes, user addresses) of the LFH subsegment around a used block.

    Found by the block itself: an LFH subsegment starts at the page whose descriptor says so.
    """
    _, start, _ = sound.victim(Kind.SEGMENT_LFH)
    segment = start & ~0xFFFFF
    size = 32 if sound.granule == 16 else 16
    unit = (start - segment) >> 12
    flags, length = (0x18, 0x1F) if sound.granule == 16 else (0xC, 0xF)
    while sound.dump.memory.read_uint(segment + unit * size + flags, 1) & 0xF != 0xB:
        unit -= 1
    units = sound.dump.memory.read_uint(segment + unit * size + length, 1)
    base, end = segment + unit * 0x1000, segment + (unit + units) * 0x1000
    return base, end - base, {a for a in sound.expected if base <= a - sound.pad < end}


@cases
def test_a_flipped_subsegment_header_costs_that_subsegment_only(case: TruthDump) -> None:
    sound = Sound(case)
    base, _, inside = _subsegment(sound)
    offsets = 0x28 if sound.granule == 16 else 0x18
    heap, found, said = sound.walk(flipped(sound.dump, base + offsets))
    assert found == {a: s for a, s in sound.expected.items() if a not in inside}
    item = _only(said, "lfh-subsegment-damaged")
    assert (item.structure, item.address) == ("_HEAP_LFH_SUBSEGMENT", base)
    assert item.bytes_affected == heap.account.unwalked_bytes > 0


@cases
def test_an_absent_subsegment_header_costs_that_subsegment_only(case: TruthDump) -> None:
    sound = Sound(case)
    base, _, inside = _subsegment(sound)
    heap, found, said = sound.walk(without(sound.dump, base, 0x1000))
    assert found == {a: s for a, s in sound.expected.items() if a not in inside}
    assert "is not in the dump" in _only(said, "lfh-subsegment-damaged").message
    assert heap.account.absent_bytes == 0x1000


@cases
@pytest.mark.parametrize("which", ["RangeFlags", "UnitSize", "UnitOffset of the second unit"])
def test_a_flipped_range_descriptor_is_outvoted_by_the_others(case: TruthDump, which: str) -> None:
    sound = Sound(case)
    _, start, _ = sound.victim(Kind.SEGMENT_VS)
    segment = start & ~0xFFFFF
    size = 32 if sound.granule == 16 else 16
    flags, length = (0x18, 0x1F) if sound.granule == 16 else (0xC, 0xF)
    offset = 0x1A if sound.dump.build >= 26100 else length
    unit = (start - segment) >> 12
    while sound.dump.memory.read_uint(segment + unit * size + flags, 1) & 0xF != 0xF:
        unit -= 1
    at, mask = {
        "RangeFlags": (unit * size + flags, 0x1),
        "UnitSize": (unit * size + length, 0x4),
        "UnitOffset of the second unit": ((unit + 1) * size + offset, 0x10),
    }[which]
    heap, found, said = sound.walk(flipped(sound.dump, segment + at, mask))
    if which == "RangeFlags":  # no longer allocated: the others cannot say what for
        inside = {a for a in sound.expected if a not in found}
        assert all(0 <= a - segment - unit * 0x1000 < 0x11000 for a in inside)
        assert heap.account.unwalked_bytes > 0
        code = "page-range-damaged"
    else:
        assert found == sound.expected
        code = "page-range-repaired"
    item = _only(said, code)
    assert item.structure == "_HEAP_PAGE_RANGE_DESCRIPTOR"
    assert item.address == segment + unit * size


@cases
def test_a_cut_segment_list_costs_no_segment(case: TruthDump) -> None:
    sound = Sound(case)
    pointer = sound.granule // 2
    # The head's links of the first context: what its first and last segment point back to.
    head = sound.dump.memory.read_uint(min(sound.segments) + pointer, pointer)
    nonsense = b"\x08" * pointer
    damaged = with_bytes(sound.dump, {head: nonsense, head + pointer: nonsense})
    _, found, said = sound.walk(damaged)
    assert found == sound.expected
    item = _only(said, "segment-list-broken")
    assert (item.structure, item.address) == ("_HEAP_SEG_CONTEXT.SegmentListHead", head)


@cases
def test_a_segment_list_in_a_circle_costs_no_segment(case: TruthDump) -> None:
    sound = Sound(case)
    pointer = sound.granule // 2
    first = min(sound.segments)
    loop = with_bytes(sound.dump, {first: first.to_bytes(pointer, "little")})
    _, found, said = sound.walk(loop)
    assert found == sound.expected
    assert said[0].code == "segment-list-broken"


@cases
def test_an_absent_segment_header_costs_that_segment_only(case: TruthDump) -> None:
    sound = Sound(case)
    last = max(sound.segments)
    assert len(sound.segments) > 1
    inside = {a for a in sound.expected if last <= a < last + 0x100000}
    heap, found, said = sound.walk(without(sound.dump, last, 0x1000))
    assert found.items() <= sound.expected.items()
    lost = sound.expected.keys() - found.keys()
    assert lost <= inside
    # x64 has two pages of descriptors, and only those of the units of one are lost.
    half = last + (0x80000 if sound.granule == 16 else 0x100000)
    assert all(address < half for address in lost)
    assert sum(item.code == "segment-absent" for item in said) == 1
    assert heap.account.used_count == len(found)
    # What the segment had committed the heap counts.
    _, sound_blocks, _ = walk(context_of(sound.dump), sound.address)
    size = int(sound.blocks.block_bytes.sum()) - int(
        sound_blocks.block_bytes[np.isin(sound_blocks.address, list(found))].sum()
    )
    assert 0 < heap.account.unwalked_bytes <= size + 0x100000


@cases
def test_absent_descriptors_do_not_cost_what_the_present_ones_describe(case: TruthDump) -> None:
    sound = Sound(case)
    if sound.granule == 8:
        pytest.skip("all descriptors of a segment are in one page")
    first = min(sound.segments)
    _, found, _ = sound.walk(without(sound.dump, first + 0x1000, 0x1000))
    lost = sound.expected.keys() - found.keys()
    # The second page describes units 128 to 255.
    assert all(first + 0x80000 <= address < first + 0x100000 for address in lost)
    assert found.items() <= sound.expected.items()


@cases
@pytest.mark.parametrize("field", [0, 1])
def test_a_flipped_context_is_read_by_what_else_it_says(case: TruthDump, field: int) -> None:
    sound = Sound(case)
    pointer = sound.granule // 2
    contexts = sound.address + (0x140 if sound.dump.build >= 20348 else 0x100)
    at = (contexts + pointer - 1, contexts + pointer)[field]  # SegmentMask, UnitShift
    _, found, said = sound.walk(flipped(sound.dump, at, 0x40))
    assert found == sound.expected
    item = _only(said, "context-damaged")
    assert item.address == contexts
    assert ("SegmentMask", "UnitShift")[field] in item.message


@cases
def test_without_its_first_page_a_heap_is_refused(case: TruthDump) -> None:
    sound = Sound(case)
    damaged = without(sound.dump, sound.address, 0x1000)
    with pytest.raises(HeapError, match="not in the dump"):
        open_segment_heap(context_of(damaged), sound.address, 0)


def test_of_a_broken_chain_of_free_blocks_nothing_doubtful_is_used() -> None:
    sound = Sound(CASES[1])
    base, size, count = _chained(sound)
    # A chain that claims one block more than there is: nothing tells which block that would be.
    damaged = with_bytes(sound.dump, {base + 0x12: (count + 1).to_bytes(2, "little")})
    heap, found, said = sound.walk(damaged)
    assert found.items() <= sound.expected.items()
    lost = sound.expected.keys() - found.keys()
    assert all(base <= address < base + size for address in lost)
    assert heap.account.unwalked_bytes > sum(sound.expected[address] for address in lost)
    item = _only(said, "lfh-free-chain-broken")
    assert (item.structure, item.address) == ("_HEAP_LFH_SUBSEGMENT_STATE", base)


@pytest.mark.parametrize("value", [b"\xff\xff", b"\x00\x00"])
def test_without_the_head_of_its_chain_no_block_of_a_subsegment_is_used(value: bytes) -> None:
    sound = Sound(CASES[1])
    base, size, _ = _chained(sound)
    heap, found, said = sound.walk(with_bytes(sound.dump, {base + 0x10: value}))
    inside = {a for a in sound.expected if base <= a < base + size}
    assert found == {a: s for a, s in sound.expected.items() if a not in inside}
    assert 0 < heap.account.unwalked_bytes <= size
    assert _only(said, "lfh-free-chain-broken").address == base


@pytest.mark.parametrize("start", [0x0, 0x8])
def test_zeros_over_the_beginning_of_a_subsegment_make_no_freed_block_used(start: int) -> None:
    """The chain of free blocks then looks empty, and its blocks are still busy in the bitmap."""
    sound = Sound(CASES[1])
    base, size, _ = _chained(sound)
    heap, found, said = sound.walk(with_bytes(sound.dump, {base + start: bytes(0x14 - start)}))
    inside = {a for a in sound.expected if base <= a < base + size}
    assert found.items() <= sound.expected.items()
    assert not inside & found.keys()
    assert heap.account.unwalked_bytes >= sum(sound.expected[a] for a in inside)
    assert base in {d.address for d in said if d.code == "lfh-subsegment-unlinked"}


def test_a_write_to_a_freed_block_makes_no_other_block_used() -> None:
    sound = Sound(CASES[1])
    base, size, _ = _chained(sound)
    head = sound.dump.memory.read_uint(base + 0x10, 2)
    freed = sorted(
        address
        for address, state in zip(
            sound.blocks.address.tolist(), sound.blocks.state.tolist(), strict=True
        )
        if base <= address < base + size and state == State.FREE
    )
    blocks = [a for a in sound.blocks.address.tolist() if base <= a < base + size]
    victim = sorted(blocks)[head - 1]
    assert victim in freed
    _, found, _ = sound.walk(with_bytes(sound.dump, {victim: b"\xde\xad\xbe\xef"}))
    assert found.items() <= sound.expected.items()


@cases
@pytest.mark.parametrize("block", [0, 4, 7])
def test_a_bitmap_that_contradicts_the_count_of_free_blocks_is_not_believed(
    case: TruthDump, block: int
) -> None:
    sound = Sound(case)
    base, size, inside = _subsegment(sound)
    is_new = sound.dump.build >= 26100
    bitmap = 0x40 if is_new else 0x30 if sound.granule == 16 else 0x20
    bit = block if is_new else 2 * block
    damaged = flipped(sound.dump, base + bitmap + bit // 8, 1 << bit % 8)
    heap, found, said = sound.walk(damaged)
    assert found == {a: s for a, s in sound.expected.items() if a not in inside}
    assert sum(sound.expected[a] for a in inside) < heap.account.unwalked_bytes <= size
    first = said[0]
    assert (first.code, first.address) == ("lfh-bitmap-contradicted", base)
    assert first.structure == "_HEAP_LFH_SUBSEGMENT.BlockBitmap"


def _chained(sound: Sound) -> tuple[int, int, int]:
    """An LFH subsegment of 24H2 with free blocks on its chain."""
    for segment in sound.segments:
        for unit in range(2, 256):
            descriptor = segment + unit * 32
            if sound.dump.memory.read_uint(descriptor + 0x18, 1) != 0xB:
                continue
            base = segment + unit * 0x1000
            count = sound.dump.memory.read_uint(base + 0x12, 2)
            if count > 2:
                size = sound.dump.memory.read_uint(descriptor + 0x1F, 1) * 0x1000
                return base, size, count
    raise AssertionError("no subsegment has free blocks on its chain")


@cases
def test_scattered_damage_never_stops_the_walk(case: TruthDump) -> None:
    sound = Sound(case)
    runs = sound.dump.memory.runs
    generator = random.Random(7)  # noqa: S311
    for round_ in range(25):
        patches: dict[int, bytes] = {}
        for _ in range(generator.choice((1, 8, 200))):
            base = generator.choice([sound.address, *sound.segments])
            address = base + generator.randrange(0x4000)
            if sound.dump.memory.presence(address).name == "PRESENT":
                patches[address] = bytes([generator.randrange(256)])
        dump = with_bytes(sound.dump, patches)
        if round_ % 3 == 0:
            start = int(runs.address[generator.randrange(len(runs.address))])
            dump = without(dump, start, 0x1000)
        try:
            heap = open_segment_heap(context_of(dump), sound.address, 0)
            pieces = list(heap.blocks())
        except HeapError:
            continue
        assert heap.account.residual_bytes == 0
        assert len(pieces) > 0


@cases
def test_blocks_come_in_pieces_of_bounded_size(case: TruthDump) -> None:
    sound = Sound(case)
    heap = open_segment_heap(context_of(sound.dump), sound.address, 0)
    sizes = [len(piece) for piece in heap.blocks()]
    assert sum(sizes) == len(sound.blocks)
    # A MiB of the smallest blocks there are.
    assert max(sizes) <= (1 << 20) // sound.granule
    assert isinstance(sound.blocks, Blocks)
