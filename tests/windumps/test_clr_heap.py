"""The heap of .NET objects: every object once, nothing invented, what is lost is said."""

from __future__ import annotations

import struct
from collections import Counter

import numpy as np
import pytest
from builders.clr_heap_builder import FIRST, HEAP, LOADER, ROOM, ClrHeapBuilder
from builders.opening import open_bytes

from windumps.heaps.clr.heap import ManagedHeap, find_managed_heap

PAGE = 0x1000
DOUBTFUL = 0x1000 // 48  # orders of a page: so many may be lost where the chain breaks


class Shop:
    """A heap of 3,000 orders, each with an array of bytes, and some free stretches."""

    def __init__(self, width: int = 8, orders: int = 3000) -> None:
        self.made = ClrHeapBuilder(width)
        self.order = self.made.type("Shop", "Order", 6 * width)
        self.bytes = self.made.array(self.made.type("System", "Byte", 3 * width), 1)
        self.at: list[int] = []
        for number in range(orders):
            self.at.append(self.made.put(self.order))
            self.made.put(self.bytes, number % 50)
            if number % 100 == 0:
                self.made.free(64)

    def open(self) -> ManagedHeap:
        found = find_managed_heap(open_bytes(self.made.build().build()))
        assert found.heap is not None, found.why
        return found.heap


def walked(heap: ManagedHeap) -> tuple[Counter[int], set[int]]:
    """Objects by MethodTable, and where they are."""
    counts: Counter[int] = Counter()
    places: set[int] = set()
    for piece in heap.objects():
        counts.update(heap.tables.address[piece.table].tolist())
        new = set(piece.address.tolist())
        assert not new & places
        places |= new
    return counts, places


@pytest.mark.parametrize("width", [8, 4])
def test_every_object_comes_once_and_free_stretches_do_not(width: int) -> None:
    shop = Shop(width)
    heap = shop.open()
    counts, _ = walked(heap)
    assert counts == shop.made.live
    assert heap.account.free_count == 30
    assert heap.account.unwalked_bytes == heap.account.residual_bytes == 0
    assert not heap.log.collect()


@pytest.mark.parametrize("width", [8, 4])
def test_objects_go_on_behind_memory_that_a_thread_has_taken_and_not_used(width: int) -> None:
    shop = Shop(width, 40)
    shop.made.gap(0x300)
    shop.made.put(shop.order)
    shop.made.gap(0x200)
    heap = shop.open()
    counts, _ = walked(heap)
    assert counts == shop.made.live
    assert heap.account.unwalked_bytes == 0
    assert heap.ends[0].address == HEAP + (shop.made.allocated or 0)


def test_objects_behind_the_end_are_stale_and_do_not_count() -> None:
    shop = Shop()
    shop.made.end()
    for _ in range(50):
        shop.made.put(shop.order)
    counts, _ = walked(shop.open())
    assert counts == shop.made.live
    assert counts[shop.order] == 3000


@pytest.mark.parametrize("width", [8, 4])
def test_objects_go_on_behind_memory_that_a_thread_has_taken_and_used_up(width: int) -> None:
    shop = Shop(width, 40)
    shop.made.gap(3 * width)  # what is left is room for the smallest object
    shop.made.put(shop.order)
    heap = shop.open()
    counts, _ = walked(heap)
    assert counts == shop.made.live
    assert heap.account.unwalked_bytes == 0


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("width", [8, 4])
def test_the_end_is_the_word_that_the_collectors_table_names_and_no_other(
    width: int, own: bool
) -> None:
    shop = Shop(width, 100)
    shop.made.own_collector = own
    shop.made.end()
    for _ in range(50):
        stale = shop.made.put(shop.order)
    # Other words of the runtime that name objects, too.
    shop.made.other_statics = [HEAP + FIRST, shop.at[50], stale]
    unsure = shop.open()
    walked(unsure)
    assert unsure.account.unwalked_bytes > 0
    shop.made.debugger_table = True
    heap = shop.open()
    counts, _ = walked(heap)
    assert counts == shop.made.live
    assert heap.account.unwalked_bytes == 0
    assert not heap.in_collection


def test_a_dump_in_the_middle_of_a_collection_is_told_by_the_collectors_own_counter() -> None:
    shop = Shop(8, 100)
    shop.made.debugger_table, shop.made.collecting = True, 1
    heap = shop.open()
    walked(heap)
    assert heap.in_collection
    assert [item.code for item in heap.log.collect()] == ["managed-heap-in-collection"]


def test_where_the_end_is_not_in_the_dump_objects_behind_the_last_collection_are_unwalked() -> None:
    shop = Shop(8, 100)
    shop.made.alloc_allocated = False
    heap = shop.open()
    counts, _ = walked(heap)
    assert not counts - shop.made.live
    assert counts != shop.made.live
    assert heap.account.unwalked_bytes > 0


def test_marks_of_a_collection_are_taken_off_and_said() -> None:
    shop = Shop(8, 20)
    shop.made.put(shop.order, mark=1)
    heap = shop.open()
    counts, _ = walked(heap)
    assert counts == shop.made.live
    assert [item.code for item in heap.log.collect()] == ["managed-heap-in-collection"]


@pytest.mark.parametrize("seed", range(12))
def test_damage_is_unwalked_and_invents_nothing(seed: int) -> None:
    shop = Shop()
    _, whole = walked(shop.open())
    rng = np.random.default_rng(seed)
    pages = rng.integers(0, (FIRST + 60 * PAGE) // PAGE, rng.integers(1, 6)).tolist()
    shop.made.damage = [(HEAP + page * PAGE, PAGE) for page in pages]
    shop.made.drop = bool(seed % 2)
    found = find_managed_heap(open_bytes(shop.made.build().build()))
    if found.heap is None:
        return
    _, places = walked(found.heap)
    assert not places - whole
    if places != whole:
        assert found.heap.account.unwalked_bytes > 0
        assert found.heap.log.collect()
    assert found.heap.account.residual_bytes == 0


def test_the_object_before_a_break_is_unwalked_since_nothing_confirms_its_size() -> None:
    shop = Shop(8, 10)
    last = shop.made.put(shop.bytes, 8)
    shop.made.put(shop.order)
    struct.pack_into("<I", shop.made.heap, last - HEAP + 8, 8 + 16)  # its end is inside the order
    for _ in range(100):
        shop.made.put(shop.order)
    heap = shop.open()
    counts, places = walked(heap)
    assert last not in places
    assert counts[shop.order] >= 10 + 100 - DOUBTFUL
    assert heap.account.unwalked_bytes > 0


def test_a_method_table_whose_class_does_not_point_back_is_none() -> None:
    shop = Shop(8, 100)
    fake = shop.made.type("Shop", "Fake", 48)
    at = fake - LOADER + 0x48 + 16
    shop.made.loader[at : at + 8] = bytes(8)
    shop.made.put(fake)
    for _ in range(100):
        shop.made.put(shop.order)
    counts, _ = walked(shop.open())
    assert fake not in counts
    assert 200 - DOUBTFUL <= counts[shop.order] < 200


def test_types_are_named_by_the_metadata_of_their_module() -> None:
    made = ClrHeapBuilder()
    outer = made.app.type("Shop", "Outer", made.app.base(made.object_row))
    inner = made.type("", "Inner", 24, outer=outer)
    order = made.type("Shop", "Order", 48)
    tables = [inner, order, made.array(order, 8), made.array(order, 8, dimensions=2)]
    tables.append(made.generic("Shop", "Box`2", 24, (order, tables[2])))
    for table in tables:
        made.put(table, 1)
    heap = find_managed_heap(open_bytes(made.build().build())).heap
    assert heap is not None
    walked(heap)
    named = dict(zip(heap.tables.address.tolist(), heap.names, strict=True))
    assert [named[table].name for table in tables] == [
        "Shop.Outer+Inner",
        "Shop.Order",
        "Shop.Order[]",
        "Shop.Order[,]",
        "Shop.Box<Shop.Order, Shop.Order[]>",
    ]
    assert {named[table].assembly for table in tables} == {"app"}


def test_a_type_that_extends_another_than_its_method_table_says_is_not_named() -> None:
    made = ClrHeapBuilder()
    base = made.type("Shop", "Base", 24)
    row = made.app.type("Shop", "Derived", made.app.base(made.object_row))
    derived = made.table(row, 24, parent=base)
    for table in (base, derived):
        made.put(table)
    heap = find_managed_heap(open_bytes(made.build().build())).heap
    assert heap is not None
    walked(heap)
    named = dict(zip(heap.tables.address.tolist(), heap.names, strict=True))
    assert named[base].name == "Shop.Base"
    assert named[derived].name == ""


def test_memory_of_the_heap_whose_segment_is_lost_is_unwalked() -> None:
    shop = Shop(8, 100)
    made = shop.made
    dump = made.build()
    # More of the same reservation, of which no entry tells.
    dump.region(HEAP + ROOM, 0x8000, allocation_base=HEAP).memory(HEAP + ROOM, bytes(0x8000))
    heap = find_managed_heap(open_bytes(dump.build())).heap
    assert heap is not None
    counts, _ = walked(heap)
    assert counts == made.live
    assert heap.account.unwalked_bytes == 0x8000
    assert [item.code for item in heap.log.collect()] == ["managed-segment-lost"]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("clr.dll",), "the .NET Framework is not read"),
        (("other.dll",), "no .NET runtime"),
    ],
)
def test_other_runtimes_are_said_and_not_walked(names: tuple[str, ...], says: str) -> None:
    shop = Shop(8, 10)
    found = find_managed_heap(open_bytes(shop.made.build(names).build()))
    assert found.heap is None
    assert says in found.why
    assert found.applies == (names == ("clr.dll",))


@pytest.mark.parametrize("width", [8, 4])
def test_objects_may_go_on_in_memory_that_is_not_in_the_dump(width: int) -> None:
    shop = Shop(width)
    data = shop.made.build().build()
    whole = open_bytes(data)
    asked = sum(int(piece.size.sum()) for piece in shop.open().objects())
    (place,) = whole.memory.locate(np.array([HEAP], np.uint64), 1)
    heap = find_managed_heap(open_bytes(data[: int(place) + 2 * PAGE])).heap
    if heap is None:  # nothing is said of it then
        return
    found = sum(int(piece.size.sum()) for piece in heap.objects())
    assert heap.account.unwalked_bytes >= asked - found


@pytest.mark.parametrize("width", [8, 4])
def test_where_the_last_page_is_noise_objects_up_to_the_end_that_is_told_are_not_walked(
    width: int,
) -> None:
    shop = Shop(width)
    end = shop.made.at
    first = end // PAGE * PAGE
    shop.made.heap[first : first + PAGE] = b"\xff" * PAGE
    heap = shop.open()
    walked(heap)
    account = heap.account
    known = account.used_block_bytes + account.free_block_bytes
    assert known + account.unwalked_bytes >= end - FIRST
