"""Containers that the memory proves, and what is no container."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from builders.whole_nt_heap_builder import made_memory
from containers_again import Again

from dumpleak.pointers.patterns.container import Found
from dumpleak.pointers.patterns.find import find_containers
from dumpleak.pointers.patterns.pointer_table import PointerCollector, PointerTable
from dumpleak.pointers.references import BlockIndex
from dumpleak.pointers.roots import Root, RootKind

HEAP, DATA = 0x20000000, 0x10000000
WIDTHS = pytest.mark.parametrize("width", [4, 8])


class Made:
    """Blocks and globals, byte by byte."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.heap, self.data = bytearray(), bytearray(0x400)
        self.blocks: list[tuple[int, int]] = []
        self._next = DATA

    def block(self, size: int) -> int:
        address = HEAP + len(self.heap)
        self.blocks.append((address, size))
        self.heap += bytes(size + 16 + -size % 16)
        return address

    def root(self, words: int) -> int:
        self._next += words * self.width + 0x40
        return self._next - words * self.width

    def put(self, address: int, *values: int, size: int = 0) -> None:
        memory, base = (self.data, DATA) if address < HEAP else (self.heap, HEAP)
        size = size or self.width
        for value in values:
            memory[address - base : address - base + size] = value.to_bytes(size, "little")
            address += size

    def table(self) -> PointerTable:
        count = len(self.blocks)
        index = BlockIndex(
            np.array([address for address, _ in self.blocks], np.uint64),
            np.array([size for _, size in self.blocks], np.int64),
            np.zeros(count, np.int32),
            np.full(count, self.width, np.uint8),
        )
        memory = made_memory({DATA: bytes(self.data), HEAP: bytes(self.heap)})
        collector = PointerCollector(index)
        for edges in index.edges_among_blocks(memory):
            collector.add_blocks(edges)
        root = Root(RootKind.GLOBALS, DATA, DATA + len(self.data))
        for _, edges in index.edges_from(memory, root.start, root.end):
            collector.add_root(root, edges)
        (table,) = collector.tables(memory)
        return table

    def found(self) -> list[Found]:
        table = self.table()
        found = find_containers(table)
        for container in found:
            Again(table).confirm(container)
        return found


def ring(made: Made, links: list[int]) -> None:
    for here, after in pairwise([*links, links[0]]):
        made.put(here, after)
        made.put(after + made.width, here)


def msvc_list(made: Made, count: int = 40, *, debug: bool = False) -> int:
    """Gives the address of its owner's pointer to the head."""
    nodes = [made.block(6 * made.width) for _ in range(count + 1)]
    ring(made, nodes)
    owner = made.root(9) + made.width
    made.put(owner, nodes[0], count)
    if debug:
        proxy = made.block(2 * made.width)
        made.put(owner - made.width, proxy)
        made.put(proxy, owner - made.width)
    return owner


def unordered_map(made: Made) -> int:
    owner = msvc_list(made, 64)
    buckets = made.block(2 * 8 * made.width)
    end = buckets + 2 * 8 * made.width
    made.put(owner + 2 * made.width, buckets, end, end, 7, 8)
    return owner


def entries(made: Made) -> int:
    head = made.root(2)
    ring(made, [head, *(made.block(64) + 2 * made.width for _ in range(30))])
    return head


def gnu_list(made: Made) -> int:
    head = made.root(3)
    ring(made, [head, *(made.block(6 * made.width) for _ in range(30))])
    made.put(head + 2 * made.width, 30)
    return head


def _tree(count: int) -> list[tuple[int, int, int]]:
    """Parent, left and right of each node of a full tree, -1 for none; the first is the root."""
    below = [2 * n + 1 for n in range(count)]
    return [
        ((n - 1) // 2, *(child if child < count else -1 for child in (first, first + 1)))
        for n, first in enumerate(below)
    ]


def msvc_map(made: Made, count: int = 50) -> int:
    nodes = [made.block(8 * made.width) for _ in range(count + 1)]
    head, *nodes = nodes
    shape = _tree(count)
    for n, (parent, left, right) in enumerate(shape):
        up = nodes[parent] if n else head
        sides = [head if side < 0 else nodes[side] for side in (left, right)]
        made.put(nodes[n], sides[0], up, sides[1])
        made.put(nodes[n] + 3 * made.width, 1, 0, size=1)
    most = [0, 0]
    for side in (0, 1):
        while shape[most[side]][1 + side] >= 0:
            most[side] = shape[most[side]][1 + side]
    made.put(head, nodes[most[0]], nodes[0], nodes[most[1]])
    made.put(head + 3 * made.width, 1, 1, size=1)
    owner = made.root(2)
    made.put(owner, head, count)
    return owner


def gnu_map(made: Made, count: int = 50) -> int:
    nodes = [made.block(8 * made.width) for _ in range(count)]
    top = made.root(5)
    for n, (parent, left, right) in enumerate(_tree(count)):
        sides = [0 if side < 0 else nodes[side] for side in (left, right)]
        made.put(nodes[n], n % 2, nodes[parent] if n else top, *sides)
    made.put(top, 0, nodes[0], nodes[31], nodes[count - 1], count)
    return top


def vector(made: Made, count: int = 50) -> int:
    array = made.block((count + 5) * made.width)
    members = [made.block(40) for _ in range(count)]
    made.put(array, *members)
    owner = made.root(3)
    made.put(owner, array, array + count * made.width, array + (count + 5) * made.width)
    return owner


def large_vector(made: Made) -> int:
    room = 0x2000
    array = made.block(room + made.width + 31)
    first = (array + made.width + 31) // 32 * 32
    made.put(first - made.width, array)
    count = room // made.width - 10
    made.put(first, *(made.block(16) for _ in range(count)))
    owner = made.root(3)
    made.put(owner, first, first + count * made.width, first + room)
    return owner


def two_ends(made: Made) -> int:
    array = made.block(50 * made.width)
    made.put(array, *(made.block(40) for _ in range(50)))
    owner = made.root(3)
    made.put(owner, array, array + 50 * made.width)
    return owner


def counted(made: Made) -> int:
    array = made.block(64 * made.width)
    made.put(array, *(made.block(40) for _ in range(20)))
    owner = made.root(3)
    made.put(owner, array, 20, 64)
    return owner


def chain(made: Made) -> int:
    nodes = [made.block(48) for _ in range(40)]
    for here, after in pairwise(nodes):
        made.put(here + 16, after)
    owner = made.root(1)
    made.put(owner, nodes[0])
    return owner


def hashed(made: Made) -> int:
    array = made.block(32 * made.width)
    for bucket in range(25):
        nodes = [made.block(48) for _ in range(bucket % 4 + 1)]
        made.put(array + bucket * made.width, nodes[0])
        for here, after in pairwise(nodes):
            made.put(here + 8, after)
    owner = made.root(1)
    made.put(owner, array)
    return owner


KINDS: dict[str, tuple[Callable[[Made], int], int, tuple[str, ...]]] = {
    "std::list (MSVC)": (msvc_list, 40, ("its own count agrees",)),
    "std::unordered_map or _set (MSVC)": (
        unordered_map,
        64,
        ("its own count agrees", "8 buckets, load 8.0"),
    ),
    "list of LIST_ENTRYs": (entries, 30, ()),
    "std::list (libstdc++)": (gnu_list, 30, ("its own count agrees",)),
    "std::map or std::set (MSVC)": (msvc_map, 50, ("its own count agrees",)),
    "std::map or std::set (libstdc++)": (gnu_map, 50, ("its own count agrees",)),
    "std::vector of pointers": (vector, 50, ()),
    "array of pointers": (two_ends, 50, ("its owner keeps its end",)),
    "list linked at +0x10": (chain, 40, ()),
    "hash table of lists linked at +0x8": (hashed, 61, ("32 buckets, load 1.9",)),
}


@WIDTHS
@pytest.mark.parametrize("name", KINDS)
def test_a_container_is_named_with_its_place_and_its_members(name: str, width: int) -> None:
    make, count, notes = KINDS[name]
    made = Made(width)
    place = make(made)
    (found,) = made.found()
    assert found.pattern.partition(", linked")[0] == name
    assert (found.place, found.count, found.notes) == (place, count, notes)


@WIDTHS
def test_a_large_vector_is_aligned_in_its_block(width: int) -> None:
    made = Made(width)
    place = large_vector(made)
    (found,) = made.found()
    assert (found.pattern, found.place) == ("std::vector of pointers", place)


@WIDTHS
def test_an_array_whose_owner_keeps_its_count_needs_not_be_full(width: int) -> None:
    made = Made(width)
    place = counted(made)
    (found,) = made.found()
    assert (found.place, found.count, found.notes) == (place, 20, ("its own count agrees",))


@WIDTHS
def test_a_debug_build_is_told_by_the_proxy_that_leads_back(width: int) -> None:
    made = Made(width)
    msvc_list(made, debug=True)
    (found,) = made.found()
    assert found.notes == ("its own count agrees", "debug build")


@WIDTHS
@pytest.mark.parametrize("name", ["std::list (MSVC)", "std::map or std::set (MSVC)"])
def test_a_wrong_count_proves_no_container_of_a_library(name: str, width: int) -> None:
    made = Made(width)
    place = KINDS[name][0](made)
    made.put(place + width, KINDS[name][1] + 1)
    assert name not in [found.pattern for found in made.found()]


@WIDTHS
@pytest.mark.parametrize(
    ("name", "block", "word"),
    [
        ("std::list (MSVC)", 20, 0),
        ("std::list (MSVC)", 20, 1),
        ("list of LIST_ENTRYs", 20, 2),
        ("std::list (libstdc++)", 20, 1),
        ("std::map or std::set (MSVC)", 20, 1),
        ("std::map or std::set (MSVC)", 10, 0),
        ("std::map or std::set (libstdc++)", 20, 1),
        ("std::map or std::set (libstdc++)", 10, 2),
        ("std::vector of pointers", 0, 3),
        ("array of pointers", 0, 3),
    ],
)
def test_one_wrong_link_and_nothing_is_said_of_it(
    name: str, block: int, word: int, width: int
) -> None:
    made = Made(width)
    KINDS[name][0](made)
    wrong = made.block(8)
    made.put(made.blocks[block][0] + word * width, wrong + 4)
    assert name not in [found.pattern.partition(", linked")[0] for found in made.found()]


def test_a_list_that_does_not_end_is_none() -> None:
    made = Made(8)
    chain(made)
    made.put(made.blocks[39][0] + 16, 0xDDDDDDDD)
    assert made.found() == []


def test_a_list_that_runs_into_itself_is_none() -> None:
    made = Made(8)
    chain(made)
    made.put(made.blocks[39][0] + 16, made.blocks[10][0])
    assert [found.count for found in made.found() if found.count >= 30] == []


def test_a_hundred_thousand_nodes_are_walked_in_columns() -> None:
    made = Made(8)
    msvc_list(made, 100_000)
    table = made.table()
    (found,) = find_containers(table)
    assert found.count == 100_000


def test_random_links_make_no_container() -> None:
    rng = np.random.default_rng(16)
    for _ in range(5):
        made = Made(8)
        blocks = [made.block(64) for _ in range(400)]
        for block in blocks:
            made.put(block, *(int(to) for to in rng.choice(blocks, 4)))
        assert made.found() == []
