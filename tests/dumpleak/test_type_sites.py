"""Blocks named by the class of the object they are."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from builders.heap_source import blocks_at, opened
from builders.image_builder import DATA, RDATA, ImageBuilder
from builders.minidump_builder import MinidumpBuilder
from truth import Truth, TruthDump, pairs, truth_dumps

from dumpleak.attribution.classes import SiteClasses
from dumpleak.attribution.table import SiteTable
from dumpleak.attribution.type import TypeAttributor
from dumpleak.cli import main
from dumpleak.model.sites import Site, SiteKind
from dumpleak.process.session import Session
from windumps.blocks import Blocks, Kind
from windumps.images.type_names import class_name

HEAP = 0x20000000
NODE = b".?AVNode@app@@\0"
SCENARIOS = (
    *("tiny", "mixed", "nt-*", "segment-*", "leak-pair-*", "series-*"),
    *("debug-crt*", "page-heap-*"),
)
DUMPS = truth_dumps(*SCENARIOS)


def classes_of(truth: Truth) -> dict[int, str | None]:
    """Class of each block by the address that the program got; None where it has none."""
    columns = truth.raw["alloc_columns"]
    address, name = columns.index("address"), columns.index("class")
    rows = {row[address]: row[name] for row in truth.raw["allocations"]}
    crt = truth.raw.get("crt")
    if crt is not None:
        columns = crt["block_columns"]
        block, user = columns.index("heap_block"), columns.index("crt_user_address")
        rows |= {row[user]: rows[row[block]] for row in crt["blocks"]}
        rows |= dict.fromkeys((row[block] for row in crt["blocks"]), None)  # headers, no objects
    # "(ldr entry)" and the like are the loader's own blocks, which have no class.
    return {a: c if c is not None and c.startswith(".?A") else None for a, c in rows.items()}


def named(table: SiteTable, sites: np.ndarray) -> list[Site | None]:
    return [table.sites[site] if site >= 0 else None for site in sites.tolist()]


@pytest.mark.parametrize("dump", DUMPS, ids=lambda d: d.name)
def test_every_block_gets_its_class_and_no_block_another(dump: TruthDump) -> None:
    truth = dump.read_truth()
    session = Session.open(dump.dump)
    table = SiteTable()
    attributor = TypeAttributor(session, table)
    expected = classes_of(truth)
    # Straight from the truth, so that blocks of every kind of heap count; and then all that the
    # walk finds, which has the loader's own blocks as well.
    addresses = np.array(list(expected), np.uint64)
    sizes = np.array([truth.sizes.get(a, 64) for a in expected], np.int64)
    used = np.ones(len(addresses), np.bool_)
    blocks = Blocks.build(addresses, sizes, sizes + 16, used, Kind.NT_BACKEND, 0)
    found = named(table, attributor.assign(session.heaps[0], blocks))
    keys = [site and site.key.split("|")[2] for site in found]
    assert dict(zip(expected, keys, strict=True)) == expected
    crt = truth.raw.get("crt", {"internal": []})
    runtime = {row[2] for row in crt["internal"]}  # user_address
    for source, piece in session.blocks():
        for address, site in zip(
            piece.address.tolist(), named(table, attributor.assign(source, piece)), strict=True
        ):
            if address in runtime and site is not None:  # an exception it keeps ready, say
                assert site.key.split("|")[1] == truth.raw["crt"]["module"]
            else:
                assert (site and site.key.split("|")[2]) == expected.get(address)
    assert {site.kind for site in table.sites} <= {SiteKind.TYPE}


@pytest.mark.parametrize(
    "dump", truth_dumps("tiny", "nt-ust", "debug-crt-ust")[:14], ids=lambda d: d.name
)
def test_block_rows_tell_the_class_also_where_a_stack_or_line_names_the_site(
    dump: TruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["allocations", str(dump.dump), "--format", "json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    truth = dump.read_truth()
    expected = classes_of(truth)
    internal = {row[2] for row in truth.raw.get("crt", {"internal": []})["internal"]}
    for row in rows:
        address = int(row["address"], 16)
        mangled = expected.get(address)
        if address not in internal:
            assert row["type"] == (class_name(mangled) if mangled else None)
    assert any(row["type"] for row in rows)


def test_a_stack_says_what_class_it_allocates_where_nearly_all_its_blocks_agree() -> None:
    image = ImageBuilder(0x7FF600000000, 8)
    node, leaf = (
        image.msvc_class(NODE),
        image.msvc_class(b".?AVLeaf@app@@\0", RDATA + 0x800, DATA + 0x400),
    )
    dump = image.add_to(MinidumpBuilder())
    words = [node] * 10 + [leaf]
    dump.memory(HEAP, struct.pack(f"<{len(words)}Q", *words))
    session, source = opened(dump)
    table = SiteTable()
    for kind in (SiteKind.STACK, SiteKind.STACK, SiteKind.SOURCE, SiteKind.TAG):
        table.index_of(Site(kind, f"{kind}|{len(table.sites)}", "x"))
    classes = SiteClasses(session, table)
    blocks = blocks_at([HEAP + 8 * index for index in range(len(words))], 8)
    # Nine of ten blocks of the first site are nodes; five of six of the second; the last is no stack.
    for numbers in ([0] * 9 + [1, 0], [1] * 5 + [3] * 5 + [1], [2] * 11):
        classes.add(source, blocks, np.array(numbers, np.int64))
    assert [site.type for site in table.sites] == ["app::Node", None, "app::Node", None]
    classes.add(source, blocks.select(np.arange(11) == 10), np.array([0], np.int64))
    assert table.sites[0].type is None


ASLR_PAIRS = pairs("leak-pair-aslr")


@pytest.mark.parametrize(("base", "current"), ASLR_PAIRS, ids=lambda d: d.name)
def test_classes_have_the_same_keys_in_two_lives_of_a_program(
    base: TruthDump, current: TruthDump
) -> None:
    keys, bases = [], []
    for dump in (base, current):
        session = Session.open(dump.dump)
        table = SiteTable()
        attributor = TypeAttributor(session, table)
        for source, blocks in session.blocks():
            attributor.assign(source, blocks)
        keys.append({site.key for site in table.sites})
        bases.append({module.base_address for module in session.dump.modules})
    assert bases[0] != bases[1]
    assert keys[0] == keys[1]
    assert len(keys[0]) == 9
    assert not any("0x" in key for key in keys[0])


def test_there_are_truth_dumps_of_both_pointer_sizes() -> None:
    assert {dump.build.rsplit("-")[-1] for dump in DUMPS} == {"x86", "x64"}
    assert len(ASLR_PAIRS) >= 3


def assigned(
    image: ImageBuilder, heap: bytes, blocks: Blocks, name: str = "App.exe", pdb: str = "A" * 32
) -> list[Site | None]:
    dump = MinidumpBuilder(architecture="x64" if image.width == 8 else "x86")
    image.add_to(dump, name, pdb)
    dump.memory(HEAP, heap)
    session, source = opened(dump)
    table = SiteTable()
    return named(table, TypeAttributor(session, table).assign(source, blocks))


def test_a_site_tells_the_class_and_is_keyed_without_addresses() -> None:
    image = ImageBuilder(0x7FF600000000, 8)
    node = image.msvc_class(NODE)
    (site,) = assigned(image, struct.pack("<QQ", node, 7), blocks_at([HEAP], 16))
    assert site == Site(SiteKind.TYPE, "type|app.exe|.?AVNode@app@@", "app::Node", type="app::Node")


def test_the_key_stays_when_the_module_is_built_anew_and_moves() -> None:
    found = []
    for base, place, pdb in ((0x7FF600000000, 0x100, "A" * 32), (0x7FF700000000, 0x900, "B" * 32)):
        image = ImageBuilder(base, 8)
        node = image.msvc_class(NODE, RDATA + place)
        found += assigned(image, struct.pack("<Q", node), blocks_at([HEAP], 8), pdb=pdb)
    assert found[0] == found[1]


def test_classes_of_one_name_in_two_modules_are_two_sites() -> None:
    dump = MinidumpBuilder()
    pointers = []
    for index, name in enumerate(("app.exe", "plugin.dll")):
        image = ImageBuilder(0x7FF600000000 + index * 0x100000, 8)
        pointers.append(image.msvc_class(NODE))
        image.add_to(dump, name)
    dump.memory(HEAP, struct.pack("<QQ", *pointers))
    session, source = opened(dump)
    table = SiteTable()
    TypeAttributor(session, table).assign(source, blocks_at([HEAP, HEAP + 8], 8))
    assert [site.type for site in table.sites] == ["app::Node"] * 2
    assert len({site.key for site in table.sites}) == 2


def test_a_vftable_without_type_information_is_a_site_of_one_build() -> None:
    found = []
    for base, pdb in ((0x7FF600000000, "A"), (0x7FF700000000, "A"), (0x7FF600000000, "B")):
        image = ImageBuilder(base, 8)
        bare = image.words(RDATA + 0x9A8, image.code(), image.code(1))
        found += assigned(image, struct.pack("<Q", bare), blocks_at([HEAP], 8), pdb=pdb * 32)
    sites = [site for site in found if site is not None]
    assert [site.name for site in sites] == ["vftable App.exe+0x29a8"] * 3
    assert [(site.kind, site.type) for site in sites] == [(SiteKind.TYPE, None)] * 3
    assert sites[0].key == sites[1].key != sites[2].key


def test_what_a_block_of_a_class_must_be() -> None:
    image = ImageBuilder(0x7FF600000000, 8)
    node = image.msvc_class(NODE)
    heap = struct.pack("<QQ", node, node)
    too_small = assigned(image, heap, blocks_at([HEAP, HEAP, HEAP], [0, 4, 7]))
    freed = assigned(image, heap, blocks_at([HEAP], 16, used=False))
    absent = assigned(image, heap, blocks_at([HEAP + 0x100000], 16))
    inside = assigned(image, heap, blocks_at([HEAP + 1], 8))
    assert [*too_small, *freed, *absent, *inside] == [None] * 6
    assert assigned(image, b"", blocks_at([], 8)) == []


@pytest.mark.parametrize("text", ["Dx of the document", "tEST"], ids=repr)
def test_text_is_no_object_though_it_leads_to_a_vftable(text: str) -> None:
    # An x86 program at its old default address: two characters of UTF-16 are a pointer into it.
    raw = text.encode("utf-16-le")
    (place,) = struct.unpack_from("<I", raw)
    image = ImageBuilder((place & 0xFFFF0000) - 0x10000 + 0xC000, 4)
    node = image.msvc_class(NODE, place - image.base, DATA + 0x200)
    assert node == place
    heap = raw + struct.pack("<II", node, 0x12345)
    blocks = blocks_at([HEAP, HEAP + len(raw), HEAP], [len(raw), 8, 4])
    found = assigned(image, heap, blocks)
    assert [site and site.type for site in found] == [None, "app::Node", "app::Node"]
