"""Blocks that nothing names: what still keeps them apart, and what their name tells."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest
from builders.heap_source import blocks_at, opened
from builders.image_builder import DATA, RDATA, ImageBuilder
from builders.minidump_builder import MinidumpBuilder
from truth import TruthDump, pairs, truth_dumps

from dumpleak.attribution.shape import ShapeAttributor, first_pointer_modules
from dumpleak.attribution.table import SiteTable
from dumpleak.model.sites import Site, SiteKind
from dumpleak.process.session import Session
from windumps.blocks import Blocks

HEAP = 0x20000000
BASES = {4: 0x10000000, 8: 0x7FF600000000}

both_widths = pytest.mark.parametrize("width", [4, 8])


def assigned(image: ImageBuilder, contents: list[bytes]) -> list[Site]:
    """The sites of used blocks with these contents, each in a place of its own."""
    dump = image.add_to(MinidumpBuilder(architecture="x64" if image.width == 8 else "x86"))
    places = [HEAP + 0x100 * index for index in range(len(contents))]
    dump.memory(HEAP, b"".join(part.ljust(0x100, b"\xcc") for part in contents))
    session, source = opened(dump)
    table = SiteTable()
    blocks = blocks_at(places, [len(part) for part in contents])
    sites = ShapeAttributor(session, table).assign(source, blocks)
    return [table.sites[site] for site in sites.tolist()]


def words(width: int, *values: int) -> bytes:
    return struct.pack(f"<{len(values)}{'Q' if width == 8 else 'I'}", *values)


@both_widths
def test_blocks_of_one_size_are_kept_apart_by_the_image_they_point_into(width: int) -> None:
    image = ImageBuilder(BASES[width], width)
    plain, hook, odd = assigned(
        image,
        [words(width, 1, 2, 3, 4), words(width, 0, 0, image.code(), 0), words(width, 1, 2, 3)],
    )
    size = 4 * width
    assert plain.name == f"{size} bytes in heap 1 (nt)"
    assert hook.name == f"{size} bytes in heap 1 (nt) +0x{2 * width:x} -> app.exe"
    assert odd.name == f"{3 * width} bytes in heap 1 (nt)"
    assert plain.key == f"shape|heap 1|nt|{size}|"
    assert hook.key == f"shape|heap 1|nt|{size}|app.exe"
    assert {site.kind for site in (plain, hook, odd)} == {SiteKind.SHAPE}


@both_widths
def test_contents_change_the_name_and_never_the_key(width: int) -> None:
    image = ImageBuilder(BASES[width], width)
    node = words(width, image.msvc_class(b".?AVNode@app@@\0"), 0)
    guid = UUID("0a1b2c3d-4e5f-4a6b-8c7d-9e0f10213243").bytes_le
    ends = {
        b"the quick brown fox jumps over..": ", ASCII text",
        "the quick brown ".encode("utf-16-le"): ", UTF-16 text",
        guid + bytes(16): ", begins with a GUID",
        words(width, 0, HEAP).ljust(32, b"\0"): ", points to app::Node",
        bytes(32): "",
    }
    keys = set()
    for contents, end in ends.items():
        sites = assigned(image, [node, contents, contents])
        assert [site.name for site in sites[1:]] == [f"32 bytes in heap 1 (nt){end}"] * 2
        keys |= {site.key for site in sites[1:]}
    assert len(keys) == 1


def test_a_name_tells_only_what_nearly_all_blocks_agree_on() -> None:
    image = ImageBuilder(BASES[8], 8)
    text, other = b"0123456789abcdef", bytes(16)
    assert assigned(image, [text] * 9 + [other])[0].name.endswith(", ASCII text")
    assert assigned(image, [text] * 8 + [other] * 2)[0].name == "16 bytes in heap 1 (nt)"
    # The image is part of the key; which word leads there is said where most blocks agree.
    first, second = words(8, image.code(), 0), words(8, 0, image.code())
    assert assigned(image, [first])[0].name == "16 bytes in heap 1 (nt) -> app.exe"
    assert assigned(image, [second])[0].name == "16 bytes in heap 1 (nt) +0x8 -> app.exe"
    assert assigned(image, [first, second])[0].name == "16 bytes in heap 1 (nt) -> app.exe"


def test_names_follow_what_later_pieces_of_a_walk_show() -> None:
    image = ImageBuilder(BASES[8], 8)
    dump = image.add_to(MinidumpBuilder()).memory(HEAP, b"A" * 16 + bytes(0x400))
    session, source = opened(dump)
    table = SiteTable()
    attributor = ShapeAttributor(session, table)
    (site,) = attributor.assign(source, blocks_at([HEAP], 16)).tolist()
    assert table.sites[site].name == "16 bytes in heap 1 (nt), ASCII text"
    later = blocks_at([HEAP + 16 * index for index in range(1, 20)], 16)
    assert set(attributor.assign(source, later).tolist()) == {site}
    assert table.sites[site].name == "16 bytes in heap 1 (nt)"


def test_text_is_not_taken_for_pointers() -> None:
    image = ImageBuilder(0x61620000, 4)  # where "xyba" would lead to
    pointer = struct.pack("<I", 0x61624142)
    assert pointer == b"BAba"
    assert assigned(image, [b"BAbaBAba"])[0].key.endswith("|8|")
    assert assigned(image, [pointer + b"\1\0\0\0"])[0].key.endswith("|8|app.exe")
    assert [site.key for site in assigned(image, [b"BAba", b"BAbaXY"])] == [
        "shape|heap 1|nt|4|",
        "shape|heap 1|nt|6|",
    ]


def test_a_module_handle_is_neither_code_nor_data() -> None:
    image = ImageBuilder(BASES[8], 8)
    assert assigned(image, [words(8, image.base)])[0].key.endswith("|8|")


def test_words_behind_a_block_or_absent_from_the_dump_say_nothing() -> None:
    image = ImageBuilder(BASES[8], 8)
    dump = image.add_to(MinidumpBuilder())
    dump.memory(HEAP, words(8, 1, image.code()))
    session, source = opened(dump)
    blocks = blocks_at([HEAP, HEAP, HEAP, HEAP + 8, HEAP + 0x1000, HEAP], [8, 15, 16, 64, 64, 64])
    modules = first_pointer_modules(session, source, blocks)
    assert modules.tolist() == [-1, -1, 0, 0, -1, 0]
    assert len(first_pointer_modules(session, source, Blocks.empty())) == 0


def test_sizes_are_exact_and_may_be_unknown() -> None:
    image = ImageBuilder(BASES[8], 8)
    session, source = opened(image.add_to(MinidumpBuilder()))
    table = SiteTable()
    sizes = [-1, 0, 1, 2**31, 2**40 + 5]
    blocks = blocks_at([HEAP] * 5, sizes)
    sites = ShapeAttributor(session, table).assign(source, blocks)
    names = [table.sites[site].name.split(" in ")[0] for site in sites.tolist()]
    assert names[:4] == ["unknown size", "0 bytes", "1 bytes", "2147483648 bytes"]
    assert len(set(sites.tolist())) == 5


@pytest.mark.parametrize("dump", truth_dumps("mixed", "series-*"), ids=lambda d: d.name)
def test_blocks_of_one_call_stack_class_and_size_fall_into_one_shape(dump: TruthDump) -> None:
    truth = dump.read_truth()
    session = Session.open(dump.dump)
    table = SiteTable()
    attributor = ShapeAttributor(session, table)
    columns = truth.raw["alloc_columns"]
    stack, name = columns.index("stack_id"), columns.index("class")
    kinds = {row[0]: (row[2], row[1], row[stack], row[name]) for row in truth.raw["allocations"]}
    found: dict[tuple[int, int, int, str | None], set[str]] = {}
    for source, piece in session.blocks():
        used = piece.used
        sites = attributor.assign(source, used)
        for address, site in zip(used.address.tolist(), sites.tolist(), strict=True):
            kind = kinds.get(address)
            if kind is not None and not str(kind[3]).startswith("("):
                found.setdefault(kind, set()).add(table.sites[site].key)
    assert found
    assert {len(keys) for keys in found.values()} == {1}


@pytest.mark.parametrize(("base", "current"), pairs("leak-pair-aslr"), ids=lambda d: d.name)
def test_shapes_of_a_later_run_have_the_keys_of_the_first(
    base: TruthDump, current: TruthDump
) -> None:
    found = []
    for dump in (base, current):
        truth = dump.read_truth()
        columns = truth.raw["alloc_columns"]
        stack, name = columns.index("stack_id"), columns.index("class")
        kinds = {
            row[0]: (row[2], row[1], str(truth.raw["stacks"][row[stack]]), row[name])
            for row in truth.raw["allocations"]
        }
        session = Session.open(dump.dump)
        table = SiteTable()
        attributor = ShapeAttributor(session, table)
        keys: dict[tuple[int, int, str, str | None], set[str]] = {}
        for source, blocks in session.blocks():
            used = blocks.used
            sites = attributor.assign(source, used)
            for address, site in zip(used.address.tolist(), sites.tolist(), strict=True):
                if address in kinds:
                    keys.setdefault(kinds[address], set()).add(table.sites[site].key)
        found.append(keys)
    # What one call stack allocated, in one size, of one class, in one heap.
    both = found[0].keys() & found[1].keys()
    assert len(both) > 1000
    assert {kind: found[0][kind] for kind in both} == {kind: found[1][kind] for kind in both}
    assert not any("0x" in key for keys in found[1].values() for key in keys)


def test_the_data_of_an_image_counts_as_much_as_its_code() -> None:
    image = ImageBuilder(BASES[8], 8)
    for place in (RDATA, DATA):
        assert assigned(image, [words(8, image.base + place + 4)])[0].key.endswith("|app.exe")
