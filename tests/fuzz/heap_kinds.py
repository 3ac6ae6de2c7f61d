"""Seeds: heaps that the tests' builders make, without a process around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from builders.debug_crt_builder import FORMS, DebugCrtBuilder
from builders.nt_heap_builder import NtHeapBuilder
from builders.page_heap_builder import PageHeapBuilder
from builders.segment_heap_builder import HEAP, SegmentHeapBuilder
from builders.xp_heap_builder import XpHeapBuilder, memory_of

from fuzz.dice import Dice
from fuzz.invariants import check_account, check_blocks
from fuzz.seeds import Seed, header_places, places_read, runs_of
from windumps.blocks import Blocks
from windumps.diagnostics import DiagnosticLog
from windumps.heaps.base import Heap, HeapContext
from windumps.heaps.debug_crt import DebugCrt
from windumps.heaps.kinds import HEAP_KINDS
from windumps.memory import RunMemory

NT_ADDRESS, XP_ADDRESS, PAGE_HEAP_ADDRESS = 0x10000000, 0x150000, 0x400000
BUILDS = {"xp": 3790, "vista": 6002, "8": 9600, "verifier": 9200, "segment": 19041}


def remade(memory: RunMemory, data: bytes) -> RunMemory:
    """The memory over other bytes; runs that go beyond their end are not there."""
    address, size, offset = memory.runs
    fits = offset + size <= len(data)
    return RunMemory(np.frombuffer(data, np.uint8), address[fits], size[fits], offset[fits])


def opened(memory: RunMemory, address: int, x64: bool, build: int) -> tuple[Heap, HeapContext]:
    """The heap at an address, of the first kind that detects it; None when none does."""
    context = HeapContext(memory, "x64" if x64 else "x86", build, None, 0, DiagnosticLog())
    for kind in HEAP_KINDS:
        if kind.open is not None and kind.detect(memory, address, context.pointer_size):
            return kind.open(context, address, 1), context
    raise LookupError(f"no heap at 0x{address:x}")


def heap_seed(memory: RunMemory, address: int, x64: bool, build: int) -> Seed:
    """A seed that is walked as a heap at its handle."""

    def use(data: bytes, _: Dice) -> None:
        try:
            heap, context = opened(remade(memory, data), address, x64, build)
        except LookupError:
            return
        pieces = list(heap.blocks())
        context.log.collect()
        check_blocks(pieces)
        check_account(heap.account, pieces)

    heap, context = opened(memory, address, x64, build)
    found: list[Blocks] = []
    places = places_read(lambda: found.extend(heap.blocks()))
    blocks = Blocks.concatenate(found)
    headers = header_places(memory, blocks.address, context.granularity)
    return Seed(
        memory.data.tobytes(), use, context.pointer_size, runs_of(memory), [*places, headers]
    )


def segment_heap(encoded: bool) -> Seed:
    heap = SegmentHeapBuilder(encoded_tree=encoded)
    heap.vs([100, 24, None, 3000, 8, 40, None, 2000])
    heap.vs([60, 70, None], delay=True)
    heap.lfh(64, [50, None, 64] * 8)
    heap.lfh(32, [20, 32, None])
    for request in (300_000, 140_000):
        heap.pages(request)
    for request in (2_500_000, 3_000_000):
        heap.large(request)
    return heap_seed(heap.build(), HEAP, True, BUILDS["segment"])


def nt_heap(form: str, x64: bool) -> Seed:
    heap = NtHeapBuilder(form, x64, NT_ADDRESS, 4)
    for number in range(40):
        heap.used_block(10 + 13 * number)
        if number % 5 == 0:
            heap.free_block(30 + number)
    return heap_seed(memory_of(heap.build()), NT_ADDRESS, x64, BUILDS[form])


def xp_heap(front_end: str, x64: bool) -> Seed:
    heap = XpHeapBuilder(x64, extra=front_end == "extra", lookaside=front_end != "lfh")
    for number in range(40):
        heap.used_block(10 + 13 * number)
        if number % 5 == 0:
            heap.free_block(30 + number)
        if number % 7 == 0 and front_end != "lfh":
            heap.cached_block(20 + number)
    heap.large_block(600_000)
    heap.hole(3)
    heap.new_segment()
    heap.used_block(200)
    heap.used_block(5000)
    if front_end == "lfh":
        heap.lfh_area(8, [20, None, 30, 40] * 4)
    return heap_seed(heap.build(), XP_ADDRESS, x64, BUILDS["xp"])


def page_heap(form: str, x64: bool) -> Seed:
    heap = PageHeapBuilder(form, x64)
    for number in range(12):
        heap.full_block(100 + 61 * number, trace=0x5000000 + 64 * number)
        heap.light_block(9 + 17 * number, trace=0x6000000 + 64 * number)
        if number % 4 == 0:
            heap.freed_block(100 + number)
            heap.freed_light_block(30 + number)
    return heap_seed(heap.build(), PAGE_HEAP_ADDRESS, x64, BUILDS[form])


def debug_crt(form: str) -> Seed:
    """Blocks of a heap whose contents are those of a debug C runtime."""
    made = DebugCrtBuilder(form)
    file = made.text(b"c:\\src\\a.cpp")
    for number in range(20):
        made.block(10 + 7 * number, use=1, file=file, line=number)
        if number % 4 == 0:
            made.plain(b"x" * 40)
            made.aligned(100, 64)
        if number % 6 == 0:
            made.block(30, use=0)
    memory, blocks = made.memory(), made.blocks()

    def use(data: bytes, _: Dice) -> None:
        runtime = DebugCrt(remade(memory, data), made.pointer_size, DiagnosticLog())
        check_blocks([runtime.apply(blocks)])

    headers = header_places(memory, blocks.address + np.uint64(made.header_size), made.header_size)
    return Seed(memory.data.tobytes(), use, made.pointer_size, runs_of(memory), [headers])


def _both(name: str, make: Callable[[bool], Seed]) -> dict[str, Callable[[], Seed]]:
    return {f"{name}-{'x64' if x64 else 'x86'}": partial(make, x64) for x64 in (False, True)}


def _rows() -> dict[str, Callable[[], Seed]]:
    rows: dict[str, Callable[[], Seed]] = {
        "heap-segment": partial(segment_heap, False),
        "heap-segment-encoded": partial(segment_heap, True),
    }
    for form in ("vista", "8"):
        rows |= _both(f"heap-nt-{form}", partial(nt_heap, form))
    for front_end in ("lookaside", "extra", "lfh"):
        rows |= _both(f"heap-xp-{front_end}", partial(xp_heap, front_end))
    for form in ("xp", "vista", "verifier"):
        rows |= _both(f"heap-page-{form}", partial(page_heap, form))
    return rows | {f"heap-debug-crt-{form}": partial(debug_crt, form) for form in FORMS}


HEAP_SEEDS: Mapping[str, Callable[[], Seed]] = _rows()
