"""Allocators other than Windows' own: which blocks a program has, and what is said of the rest."""

from __future__ import annotations

import json
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders.arena_builder import (
    HEAP,
    SLICE,
    SPAN,
    Made,
    Page,
    mimalloc2,
    mimalloc3,
    mimalloc20,
    rpmalloc2,
)
from builders.minidump_builder import MinidumpBuilder
from builders.opening import open_bytes
from truth import SHARED, TESTDATA

from windumps.blocks import Blocks
from windumps.diagnostics import DiagnosticLog
from windumps.dump import Dump
from windumps.dumps import open_dump
from windumps.heaps.mimalloc.heap import OLDER, SECURE, find_mimalloc
from windumps.heaps.rpmalloc.heap import find_rpmalloc
from windumps.heaps.slabs import SlabArena

TRUTHS = sorted((SHARED / "arenas").glob("*.truth.json.xz")) if SHARED.is_dir() else []
USER_DUMPS = sorted(
    file
    for folder in TESTDATA.iterdir()
    if folder.name[:1].isdigit()
    for file in folder.rglob("*.dmp.gz")
)
PAGE = 0x1000
COMMIT, PRIVATE, IMAGE, READ_WRITE = 0x1000, 0x20000, 0x1000000, 4
MANY = [Page(64, 5, 3, 2, 4), Page(256, 7, freed=3), Page(32, 40), Page(1024, 9, local=6)]
FINDERS = {"mimalloc": find_mimalloc, "rpmalloc": find_rpmalloc}


def _dump(
    made: Made, without: tuple[int, ...] = (), image: bytes = b"", first: int | None = None
) -> Dump:
    """A dump with that memory, all of one allocation `first` if given, without pages at some addresses."""
    dump = MinidumpBuilder()
    for base, memory in sorted(made.memory.items()):
        size = -(-len(memory) // PAGE) * PAGE
        begin = base if first is None else first
        dump.region(base, size, COMMIT, READ_WRITE, PRIVATE, allocation_base=begin)
        for at in range(0, size, PAGE):
            if base + at not in without:
                dump.memory(base + at, bytes(memory[at : at + PAGE].ljust(PAGE, b"\0")))
    if image:
        dump.region(0x400000, PAGE, COMMIT, READ_WRITE, IMAGE, allocation_base=0x400000)
        dump.memory(0x400000, image.ljust(PAGE, b"\0"))
    return open_bytes(dump.build())


def _found(dump: Dump, kind: str) -> SlabArena:
    arena = FINDERS[kind](dump.memory, 0, DiagnosticLog())
    assert isinstance(arena, SlabArena)
    return arena


def _used(arena: SlabArena) -> dict[int, int]:
    blocks = Blocks.concatenate(arena.blocks()).used
    assert arena.account.residual_bytes == 0
    assert len(np.unique(blocks.address)) == len(blocks)
    return dict(zip(blocks.address.tolist(), blocks.size.tolist(), strict=True))


@pytest.mark.skipif(not TRUTHS, reason="the shared dumps are not beside the repository")
@pytest.mark.parametrize("truth", TRUTHS, ids=lambda path: path.name.split(".truth")[0])
def test_used_blocks_are_those_of_the_program(truth: Path) -> None:
    dump = open_dump(truth.with_name(truth.name.replace(".truth.json.xz", ".dmp.xz")))
    blocks = json.loads(lzma.decompress(truth.read_bytes()))["blocks"]
    arena = _found(dump, truth.name.partition("-")[0])
    assert _used(arena) == {address: usable for address, _, usable in blocks}
    assert arena.account.unwalked_bytes == 0
    others = {kind: find for kind, find in FINDERS.items() if kind != arena.kind}
    assert [find(dump.memory, 0, DiagnosticLog()) for find in others.values()] == [None]


MADE: dict[str, Callable[[list[Page]], Made]] = {
    "mimalloc 2": mimalloc2,
    "mimalloc 3": mimalloc3,
    "mimalloc 3, a table": lambda pages: mimalloc3(pages, table=True, base=0x10 * (32 << 20)),
    "mimalloc 3.2": lambda pages: mimalloc3(pages, pointers=True),
    "mimalloc 3.0": lambda pages: mimalloc3(pages, pointers=True, owner=0x40),
    "rpmalloc": rpmalloc2,
}


def _pages(name: str) -> list[Page]:
    """Pages as an allocator may have them."""
    if name != "rpmalloc":
        return MANY
    return [Page(64, 5, 3, freed=4), Page(256, 7, handed=3), Page(32, 40), Page(1024, 9, free=6)]


@pytest.mark.parametrize("name", MADE)
def test_blocks_on_no_list_are_used(name: str) -> None:
    pages = _pages(name)
    made = MADE[name](pages)
    if name.endswith("table"):  # arenas are large
        made.memory[next(iter(made.memory))].extend(bytes(33 << 20))
    arena = _found(_dump(made), name.split()[0])
    assert _used(arena) == made.used
    assert arena.account.free_count == sum(sum(page.lists) for page in pages)
    assert arena.account.unwalked_bytes == 0


@pytest.mark.parametrize("name", ["mimalloc 2", "rpmalloc"])
def test_a_list_of_the_heap_goes_from_page_to_page(name: str) -> None:
    pages = [Page(64, 5, elsewhere=3), Page(128, 4), Page(64, 8, elsewhere=2), Page(32, 9)]
    made = MADE[name](pages)
    assert _used(_found(_dump(made), name.split()[0])) == made.used


@pytest.mark.parametrize("name", ["mimalloc 2", "rpmalloc"])
def test_where_a_list_of_the_heap_is_not_in_the_dump_full_pages_are_not_walked(name: str) -> None:
    pages = [Page(64, 5, elsewhere=3, free=0), Page(128, 4), Page(64, 6, free=2), Page(32, 9)]
    made = MADE[name](pages)
    arena = _found(_dump(made, without=(HEAP,)), name.split()[0])
    used = _used(arena)
    assert used.items() <= made.used.items()
    assert made.starts[0] not in used
    assert arena.account.unwalked_bytes >= 8 * 64


def test_huge_blocks_are_used_unless_the_allocator_keeps_them_for_reuse() -> None:
    made = rpmalloc2(_pages("rpmalloc"), huge=2)
    assert _used(_found(_dump(made), "rpmalloc")) == made.used
    spans = [address for address in made.memory if address % SPAN == 0][1:]
    table = struct.pack("<QQQ", spans[0], 12345, 0)
    del made.used[spans[0] + 0x80]
    assert _used(_found(_dump(made, image=table), "rpmalloc")) == made.used


def test_an_older_version_2_is_recognised_and_not_read() -> None:
    pages = [Page(64, 5, 3), Page(256, 7, 2), Page(32, 40, local=6), Page(1024, 9)]
    dump = _dump(mimalloc20(pages))
    assert find_mimalloc(dump.memory, 0, DiagnosticLog()) == OLDER


def test_two_pages_of_an_older_version_2_are_no_proof() -> None:
    dump = _dump(mimalloc20([Page(64, 5, 3), Page(256, 7, 2), Page(1024, 9)]))
    assert find_mimalloc(dump.memory, 0, DiagnosticLog()) is None


def test_a_secure_build_is_recognised_and_not_read() -> None:
    dump = _dump(mimalloc2(MANY, keys=16))
    assert find_mimalloc(dump.memory, 0, DiagnosticLog()) == SECURE


@pytest.mark.parametrize("name", MADE)
def test_two_pages_are_no_allocator(name: str) -> None:
    made = MADE[name](_pages(name)[:2])
    found = FINDERS[name.split()[0]](_dump(made).memory, 0, DiagnosticLog())
    assert found is None


def _spoilt(made: Made, at: int, word: int) -> Dump:
    for base, memory in made.memory.items():
        if base <= at < base + len(memory):
            struct.pack_into("<Q", memory, at - base, word)
    return _dump(made)


@pytest.mark.parametrize("name", ["mimalloc 2", "mimalloc 3", "rpmalloc"])
@pytest.mark.parametrize("fault", ["circle", "outside", "between", "early"])
def test_a_page_whose_list_is_damaged_is_not_walked(name: str, fault: str) -> None:
    made = MADE[name](_pages(name))
    start = made.starts[0]
    second = start + 6 * 64  # on the page's own list, of blocks 5 to 7
    word = {"circle": start + 5 * 64, "outside": 0x1234560, "between": start + 7, "early": 0}[fault]
    arena = _found(_spoilt(made, second, word), name.split()[0])
    used = _used(arena)
    first = {at: size for at, size in made.used.items() if at < start + SLICE - 0x100}
    first = {at: size for at, size in first.items() if at >= start}
    assert used == dict(made.used.items() - first.items())
    assert arena.account.unwalked_bytes == _pages(name)[0].count * 64
    assert [item.code for item in arena.log.collect()] == ["arena-page-not-walked"]


@pytest.mark.parametrize("name", ["mimalloc 2", "mimalloc 3", "rpmalloc"])
@pytest.mark.parametrize("seed", range(8))
def test_lost_and_zeroed_pages_never_make_a_used_block(name: str, seed: int) -> None:
    dice = np.random.default_rng(seed)
    pages = [
        Page(int(dice.choice((32, 96, 640))), int(dice.integers(1, 60)), int(dice.integers(10)))
        for _ in range(12)
    ]
    for page in pages:
        page.freed = int(dice.integers(8))
    made = MADE[name](pages)
    places = [base + at for base, m in made.memory.items() for at in range(0, len(m), PAGE)]
    lost = dice.permutation(places)[: len(places) // 8].tolist()
    for place in lost[::2]:
        for base, memory in made.memory.items():
            if base <= place < base + len(memory):
                memory[place - base : place - base + PAGE] = bytes(PAGE)
    dump = _dump(made, without=tuple(lost[1::2]))
    arena = FINDERS[name.split()[0]](dump.memory, 0, DiagnosticLog())
    if isinstance(arena, SlabArena):
        assert _used(arena).items() <= made.used.items()


def test_pages_that_others_name_and_that_are_not_there_count_as_not_walked() -> None:
    made = mimalloc3(MANY)
    base = next(iter(made.memory))
    struct.pack_into("<Q", made.memory[base], 0x48, 0x9990000)
    arena = _found(_dump(made), "mimalloc")
    assert _used(arena) == made.used
    assert arena.account.unwalked_bytes == SLICE


@pytest.mark.parametrize("file", USER_DUMPS, ids=lambda path: "/".join(path.parts[-3:]))
def test_no_heap_of_windows_looks_like_another_allocator(file: Path) -> None:
    memory = open_dump(file).memory
    assert [find(memory, 0, DiagnosticLog()) for find in FINDERS.values()] == [None, None]


@pytest.mark.parametrize("damage", ["description", "owner kept", "absent"])
def test_a_page_of_mimalloc_3_whose_description_is_lost_is_not_walked(damage: str) -> None:
    made = mimalloc3(MANY)
    lost = sorted(made.memory)[2]
    one = damage == "description"  # one allocation, so that the page's memory is the arena's
    if damage == "owner kept":
        made.memory[lost][0x28:0x30] = b"\xff" * 8
    elif one:
        made.memory[lost][:0x70] = b"\xff" * 0x70
    dump = MinidumpBuilder()
    for base, memory in sorted(made.memory.items()):
        size = -(-len(memory) // PAGE) * PAGE
        first = min(made.memory) if one else base
        dump.region(base, size, COMMIT, READ_WRITE, PRIVATE, allocation_base=first)
        if damage != "absent" or base != lost:
            dump.memory(base, bytes(memory).ljust(size, b"\0"))
    arena = _found(open_bytes(dump.build()), "mimalloc")
    used = _used(arena)
    gone = {address: size for address, size in made.used.items() if address not in used}
    assert gone
    assert used.items() <= made.used.items()
    assert arena.account.unwalked_bytes >= sum(gone.values())


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("fill", [None, 0, 0xFF])
def test_what_any_lost_page_held_is_said_not_to_be_walked(name: str, fill: int | None) -> None:
    pages = _pages(name) * (1 if name.endswith("table") else 2)
    places = [
        base + at
        for base, memory in MADE[name](pages).memory.items()
        for at in range(0, len(memory), PAGE)
        if any(memory[at : at + PAGE])
    ]
    untold = []
    # Zeros where the last page of all was look like memory that was never used.
    for place in places[: -1 if name.startswith("mimalloc 3") else None]:
        made = MADE[name](pages)
        if name.endswith("table"):  # arenas are large
            made.memory[min(made.memory)].extend(bytes(33 << 20))
        for base, memory in made.memory.items():
            if base <= place < base + len(memory):
                memory[place - base : place - base + PAGE] = bytes([fill or 0]) * PAGE
        dump = _dump(made, (place,) * (fill is None), first=min(made.memory))
        arena = FINDERS[name.split()[0]](dump.memory, 0, DiagnosticLog())
        if not isinstance(arena, SlabArena):  # then nothing is said
            continue
        used = _used(arena)
        assert used.items() <= made.used.items()
        lost = sum(made.used.values()) - sum(used.values())
        if lost > arena.account.unwalked_bytes:
            untold.append((hex(place), lost, arena.account.unwalked_bytes))
    assert not untold
