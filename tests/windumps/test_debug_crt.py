"""Debug C runtimes: against dumps of real ones, and against blocks made byte by byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import pytest
from builders.debug_crt_builder import FORMS, DebugCrtBuilder, HeapBlock
from hypothesis import given
from hypothesis import strategies as st
from truth import TESTDATA, TruthDump, truth_dumps

from dumpleak.process.session import HeapSource, Session
from windumps.blocks import SIZE_UNKNOWN, Blocks, State
from windumps.diagnostics import DiagnosticLog
from windumps.heaps.debug_crt import DebugCrt, read_source_name

CRT_DUMPS = truth_dumps("debug-crt*")
OTHER_DUMPS = [
    d
    for d in truth_dumps("tiny", "mixed", "nt-*", "page-heap-*")
    if d.dump.is_relative_to(TESTDATA) or d.scenario in ("nt-lfh", "nt-vad", "page-heap-light")
]

# What a row says: address, size, used, source file (address), line.
Row = tuple[int, int, bool, int, int]


def rows(blocks: Blocks) -> list[Row]:
    columns = (blocks.address, blocks.size, blocks.state, blocks.source_file, blocks.source_line)
    found = zip(*(column.tolist() for column in columns), strict=True)
    return [(a, size, state == State.USED, file, line) for a, size, state, file, line in found]


def walks(session: Session) -> Iterator[tuple[HeapSource, Blocks]]:
    for source in session.readable_heaps:
        assert source.entry.heap is not None
        for blocks in source.entry.heap.blocks():
            yield source, blocks


@pytest.mark.parametrize("dump", CRT_DUMPS, ids=lambda d: d.name)
def test_used_rows_are_what_the_program_and_its_runtime_got(dump: TruthDump) -> None:
    truth = dump.read_truth()
    crt = truth.raw["crt"]
    session = Session.open(dump.dump)
    assert len(session.readable_heaps) >= len(truth.heaps)
    heap_rows: dict[int, tuple[int, str | None, int]] = {}
    found: dict[int, tuple[int, str | None, int]] = {}
    pointers: dict[int, int] = {}
    count = 0
    for source, blocks in walks(session):
        reader = DebugCrt(source.view.memory, source.view.pointer_size, session.log)
        replaced = reader.apply(blocks)
        assert replaced.block_bytes.tolist() == blocks.block_bytes.tolist()
        heap_rows |= {address: (size, None, 0) for address, size, used, *_ in rows(blocks) if used}
        for address, size, used, file, line in rows(replaced):
            if used:
                name = read_source_name(source.view.memory, file) if file else None
                found[address], pointers[address] = (size, name, line), file
                count += 1
    assert count == len(found), "a block came twice"

    expected = dict(heap_rows)
    for kept in crt["kept_after_free"]:
        del expected[kept[0]]
    made = [dict(zip(crt["block_columns"], row, strict=True)) for row in crt["blocks"]]
    for block in made:
        del expected[block["heap_block"]]
        # The runtime keeps the sum of size and alignment only: the size of an aligned block is not known.
        aligned = block["how"] == "_aligned_malloc_dbg"
        size = SIZE_UNKNOWN if aligned else block["crt_user_size"]
        expected[block["crt_user_address"]] = (size, block["file"], block["line"])
    for internal in crt["internal"]:
        block = dict(zip(crt["internal_columns"], internal, strict=True))
        del expected[block["heap_block"]]
        pointer = block["file_pointer"]
        name = read_source_name(session.dump.memory, pointer) if pointer else None
        expected[block["user_address"]] = (block["data_size"], name, block["line"])
        assert pointers[block["user_address"]] == pointer
    assert found == expected
    assert "debug-crt-fence" not in [item.code for item in session.diagnostics]
    freed = {row[crt["freed_columns"].index("crt_user_address")] for row in crt["freed"]}
    assert not freed & found.keys()


@pytest.mark.parametrize("dump", OTHER_DUMPS, ids=lambda d: d.name)
def test_a_process_without_a_debug_runtime_comes_out_as_it_is(dump: TruthDump) -> None:
    session = Session.open(dump.dump)
    for source, blocks in walks(session):
        reader = DebugCrt(source.view.memory, source.view.pointer_size, session.log)
        assert reader.apply(blocks) is blocks


def test_there_are_dumps_without_a_debug_runtime() -> None:
    assert len(OTHER_DUMPS) >= 8


# Blocks made byte by byte


def apply(heap: DebugCrtBuilder, log: DiagnosticLog | None = None) -> list[Row]:
    reader = DebugCrt(heap.memory(), heap.pointer_size, log or DiagnosticLog())
    blocks = heap.blocks()
    replaced = reader.apply(blocks)
    if len(replaced) == len(blocks):
        for name in ("block_bytes", "kind", "heap"):
            assert getattr(replaced, name).tolist() == getattr(blocks, name).tolist()
    for field in fields(Blocks):
        assert getattr(replaced, field.name).dtype == getattr(blocks, field.name).dtype
    return rows(replaced)


def aligned(address: int, alignment: int) -> int:
    return address + -address % alignment


def as_given(block: HeapBlock) -> Row:
    """The row of a block that the program got from the debug runtime."""
    return block.data, block.data_size, True, block.file, block.line


def as_in_heap(block: HeapBlock) -> Row:
    """The row of a block that no debug runtime made."""
    return block.address, block.size if block.used else SIZE_UNKNOWN, block.used, 0, 0


@pytest.mark.parametrize("form", FORMS)
def test_each_header_form_gives_the_programs_address_size_file_and_line(form: str) -> None:
    heap = DebugCrtBuilder(form)
    name = heap.text(b"C:\\src\\texture.cpp")
    # Sizes that are block types too would be mistaken first if the two x86 forms were mixed up.
    made = [
        heap.block(size, use, name, 60 + size)
        for use in (1, 2, 3, 4, 0x10004, 0x70002)
        for size in (0, 1, 2, 3, 4, 5, 16, 31, 4000)
    ]
    assert apply(heap) == [as_given(block) for block in made]


@pytest.mark.parametrize("form", FORMS)
def test_blocks_of_others_stay_as_they_are_between_those_of_a_debug_runtime(form: str) -> None:
    heap = DebugCrtBuilder(form)
    first = heap.block(8)
    other = heap.plain(b"release" * 9)
    second = heap.block(9)
    free = heap.plain(bytes(64), used=False)
    assert apply(heap) == [
        *(as_given(first), as_in_heap(other), as_given(second), as_in_heap(free))
    ]


@pytest.mark.parametrize("form", FORMS)
def test_a_block_the_runtime_keeps_after_free_is_free(form: str) -> None:
    heap = DebugCrtBuilder(form)
    name = heap.text(b"a.cpp")
    live = heap.block(40, file=name, line=3)
    kept = heap.block(40, use=0, file=name, line=4)
    assert apply(heap) == [as_given(live), (kept.data, SIZE_UNKNOWN, False, 0, 0)]
    replaced = DebugCrt(heap.memory(), heap.pointer_size, DiagnosticLog()).apply(heap.blocks())
    assert replaced.trace.tolist() == [0x77, 0]


@pytest.mark.parametrize("form", FORMS)
def test_a_block_made_while_tracking_was_off_needs_no_links(form: str) -> None:
    heap = DebugCrtBuilder(form)
    made = [heap.block(size, use=3, tracked=False) for size in (0, 3, 100)]
    assert apply(heap) == [as_given(block) for block in made]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("alignment", [8, 16, 32, 64, 256, 4096, 65536])
def test_an_aligned_block_begins_where_the_programs_pointer_leads(
    form: str, alignment: int
) -> None:
    heap = DebugCrtBuilder(form)
    plain = heap.block(1)
    made = [heap.aligned(size, alignment) for size in (0, 1, 24, 1000)]
    assert apply(heap) == [
        as_given(plain),
        *((pointer, SIZE_UNKNOWN, True, 0, 0) for _, pointer in made),
    ]


@pytest.mark.parametrize("form", FORMS)
def test_a_block_that_only_resembles_an_aligned_one_keeps_its_size(form: str) -> None:
    heap = DebugCrtBuilder(form)
    width = heap.pointer_size
    other = heap.block(64)
    no_gap = heap.block(64)  # an empty list points to itself, too
    heap.patch(no_gap.data, no_gap.data.to_bytes(width, "little"))
    # With an alignment of 64 the runtime asks for 63 bytes more than the header and the program need.
    size = 2 * width + 62
    made = [heap.block(size) for n in range(8) if heap.plain(bytes(16 * n))]
    too_late = next(b for b in made if 2 <= (b.data + 2 * width) % 64 <= 32)
    pointer = aligned(too_late.data + 2 * width, 64)
    head = too_late.data.to_bytes(width, "little")
    heap.patch(pointer - 2 * width, head + b"\xed" * width)
    found = apply(heap)
    for block in (other, no_gap, too_late):
        assert as_given(block) in found


@pytest.mark.parametrize("form", FORMS)
def test_an_aligned_block_is_found_although_something_was_written_before_its_header(
    form: str,
) -> None:
    heap = DebugCrtBuilder(form)
    width = heap.pointer_size
    shifted = [heap.aligned(64 + n, 256) for n in range(8)]
    written, pointer = next(s for s in shifted if s[1] > s[0].data + 2 * width)
    heap.patch(written.data, b"\0" * width)
    assert (pointer, SIZE_UNKNOWN, True, 0, 0) in apply(heap)


@pytest.mark.parametrize("form", FORMS)
def test_an_aligned_block_whose_pointer_is_overwritten_is_left_out(form: str) -> None:
    heap = DebugCrtBuilder(form)
    width = heap.pointer_size
    plain = heap.block(64)
    damaged, pointer = heap.aligned(64, 256)
    heap.patch(pointer - 2 * width, b"\xff" * width)
    log = DiagnosticLog()
    assert apply(heap, log) == [as_given(plain)]
    (said,) = log.collect()
    assert said.code == "debug-crt-header-damaged"
    assert said.bytes_affected == damaged.room


def test_sizes_rounded_up_to_paragraphs_are_those_of_the_oldest_runtimes() -> None:
    heap = DebugCrtBuilder("x86-old")
    made = [heap.block(size, rounded_to=16) for size in range(40)]
    assert apply(heap) == [as_given(block) for block in made]
    for form in ("x86-new", "x64"):
        heap = DebugCrtBuilder(form)
        made = [heap.block(size, rounded_to=16) for size in (5, 6, 7)]
        assert apply(heap) == []  # what the program got is not known


# What speaks for a debug runtime's block, and what is left out


@pytest.mark.parametrize("form", FORMS)
def test_fences_alone_prove_nothing(form: str) -> None:
    heap = DebugCrtBuilder(form)
    made = heap.block(24)
    no_text = heap.plain(b"\xfd" * 200)
    copied = heap.plain(b"\x11" * (heap.header_size - 4) + b"\xfd" * 4 + bytes(24) + b"\xfd" * 4)
    assert apply(heap) == [as_given(made), as_in_heap(no_text), as_in_heap(copied)]


@pytest.mark.parametrize("form", FORMS)
def test_a_lone_block_needs_no_chain(form: str) -> None:
    heap = DebugCrtBuilder(form)
    lone = heap.block(24)
    assert apply(heap) == [as_given(lone)]


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_mark_of_an_untracked_block_does_not_hide_it(form: str) -> None:
    heap = DebugCrtBuilder(form)
    width = heap.pointer_size
    request = 0x28 if form == "x64" else 0x18
    made = [heap.block(24, use=3, tracked=False)]
    for at in (0, width, 2 * width, 3 * width, request):  # links, file, line, request number
        made.append(heap.block(24, use=3, tracked=False))
        heap.patch(made[-1].address + at, b"\x01")
    assert [row[:3] for row in apply(heap)] == [as_given(block)[:3] for block in made]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("use", [0x10000, 0x10001, 0x10003, 5, 6, 0xFFFFFFFF])
def test_a_block_type_there_is_not_leaves_the_state_unknown(form: str, use: int) -> None:
    heap = DebugCrtBuilder(form)
    made = [heap.block(24), heap.block(24, use), heap.block(24)]
    log = DiagnosticLog()
    assert apply(heap, log) == [as_given(made[0]), as_given(made[2])]
    (said,) = log.collect()
    assert (said.code, said.address) == ("debug-crt-header-damaged", made[1].address)
    assert said.bytes_affected == made[1].room


@pytest.mark.parametrize("form", FORMS)
def test_an_erased_type_and_size_do_not_make_a_block_free(form: str) -> None:
    heap = DebugCrtBuilder(form)
    made = [heap.block(24), heap.block(24), heap.block(24)]
    at = 0x18 if form == "x64" else 0xC
    heap.patch(made[1].address + at, bytes(16))
    assert apply(heap) == [as_given(made[0]), as_given(made[2])]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("by", [-1, 1, 16, 1 << 20])
def test_a_block_of_another_size_than_the_heap_was_asked_for_is_left_out(
    form: str, by: int
) -> None:
    heap = DebugCrtBuilder(form)
    first, last = heap.block(24), heap.block(24)
    last.size += by
    assert apply(heap) == [as_given(first)]


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_data_size_is_what_the_heap_was_asked_for_without_header_and_fence(
    form: str,
) -> None:
    heap = DebugCrtBuilder(form)
    made = [heap.block(24), heap.block(24), heap.block(24)]
    at = {"x86-old": 0x10, "x86-new": 0x14, "x64": 0x20}[form]
    heap.patch(made[1].address + at, b"\xff" * heap.pointer_size)
    assert apply(heap) == [as_given(block) for block in made]


@pytest.mark.parametrize("form", FORMS)
def test_a_block_of_unknown_size_or_a_free_one_is_left_alone(form: str) -> None:
    heap = DebugCrtBuilder(form)
    made = [heap.block(24), heap.block(24), heap.block(24, used=False)]
    made[1].size = SIZE_UNKNOWN
    assert apply(heap) == [as_given(made[0]), as_in_heap(made[1]), as_in_heap(made[2])]
    sized = replace(heap.blocks(), size=np.array([b.size for b in made], np.int64))
    found = DebugCrt(heap.memory(), heap.pointer_size, DiagnosticLog()).apply(sized)
    assert found.address.tolist()[2] == made[2].address


# Damage costs the blocks it touches


@pytest.mark.parametrize("form", FORMS)
def test_an_overwritten_fence_is_said_and_costs_nothing(form: str) -> None:
    heap = DebugCrtBuilder(form)
    made = [heap.block(24) for _ in range(4)]
    heap.patch(made[1].data + 24, b"\0")
    heap.patch(made[2].data - 1, b"\0")
    log = DiagnosticLog()
    assert apply(heap, log) == [as_given(block) for block in made]
    (said,) = log.collect()
    assert (said.code, said.address) == ("debug-crt-fence", made[1].data + 24)
    assert "2 blocks" in said.message


@pytest.mark.parametrize("form", FORMS)
def test_a_block_with_broken_links_is_known_by_all_else(form: str) -> None:
    heap = DebugCrtBuilder(form)
    made = [heap.block(24) for _ in range(5)]
    heap.patch(made[2].address, b"\x99" * 2 * heap.pointer_size)
    assert apply(heap) == [as_given(block) for block in made]


@pytest.mark.parametrize("form", FORMS)
def test_blocks_whose_header_is_absent_or_overwritten_are_left_out(form: str) -> None:
    heap = DebugCrtBuilder(form)
    made = [heap.block(24), heap.block(24), heap.block(24)]
    heap.skip_to_page()
    made += [heap.block(6000)]  # its header is on the page that is absent
    heap.skip_to_page()
    made += [heap.block(24), heap.block(24)]
    heap.drop_page_of(made[3].address)
    heap.patch(made[1].address + heap.header_size - 16, b"\x99" * 16)
    log = DiagnosticLog()
    expected = [as_given(made[index]) for index in (0, 2, 4, 5)]
    assert apply(heap, log) == expected
    (said,) = log.collect()
    assert (said.code, said.address) == ("debug-crt-header-damaged", made[1].address)


@pytest.mark.parametrize("form", FORMS)
def test_a_block_whose_end_is_absent_is_known_by_its_header(form: str) -> None:
    heap = DebugCrtBuilder(form)
    made = [heap.block(24), heap.block(9000), heap.block(24)]
    heap.drop_page_of(made[1].data + 9000)
    heap.skip_to_page()
    log = DiagnosticLog()
    found = apply(heap, log)
    assert found[:2] == [as_given(made[0]), as_given(made[1])]


@given(
    st.sampled_from(FORMS),
    st.integers(0, 7),
    st.integers(0, 100),
    st.integers(1, 255),
)
def test_a_flipped_byte_changes_no_block_but_its_own_and_its_neighbours_in_the_chain(
    form: str, index: int, at: int, flip: int
) -> None:
    heap = DebugCrtBuilder(form)
    made = [heap.block(8 * n) for n in range(8)]
    at %= made[index].size
    offset = made[index].address + at - heap.base
    heap.patch(made[index].address + at, bytes([heap.memory().data[offset] ^ flip]))
    found = apply(heap)
    for other, block in enumerate(made):
        if other != index:
            assert as_given(block) in found
    # One flipped byte hides no block, but where it makes its type unknown.
    assert len(found) in (7, 8)
    assert made[index].address not in {row[0] for row in found}


@pytest.mark.parametrize("form", FORMS)
def test_pieces_of_a_walk_give_what_the_whole_walk_gives(form: str) -> None:
    heap = DebugCrtBuilder(form)
    for size in range(20):
        heap.block(size)
        heap.block(size, use=3, tracked=False)
        heap.plain(bytes(60))
    blocks, memory = heap.blocks(), heap.memory()
    reader = DebugCrt(memory, heap.pointer_size, DiagnosticLog())
    order = np.arange(len(blocks))
    pieces = [
        reader.apply(blocks.select((order >= start) & (order < start + 7)))
        for start in range(0, len(blocks), 7)
    ]
    assert rows(Blocks.concatenate(pieces)) == rows(reader.apply(blocks))
    assert len(reader.apply(Blocks.empty())) == 0


# Names


def test_a_source_name_is_read_to_its_end() -> None:
    heap = DebugCrtBuilder("x64")
    names = {
        b"C:\\src\\a.cpp": "C:\\src\\a.cpp",
        b"D:\\B\xfccher\\a.cpp": "D:\\Bücher\\a.cpp",  # the ANSI code page
        "D:\\Bücher\\b.cpp".encode(): "D:\\Bücher\\b.cpp",
        b"": "",
        b"bell\x07": "",
        b"line\nbreak": "",
    }
    places = [heap.text(raw) for raw in names]
    memory = heap.memory()
    assert [read_source_name(memory, place) for place in places] == list(names.values())


def test_a_source_name_that_is_absent_or_has_no_end_is_none() -> None:
    heap = DebugCrtBuilder("x64")
    heap.skip_to_page()
    endless = heap.text(b"a" * 0x2010, end=b"")
    memory = heap.memory()
    assert read_source_name(memory, endless) == ""
    assert read_source_name(memory, endless + 0x2008) == ""  # the dump ends inside it
    assert read_source_name(memory, 8) == ""
    assert read_source_name(memory, (1 << 64) - 1) == ""
