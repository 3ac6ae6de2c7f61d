"""Classes from vftables: both kinds of type information, whole and damaged."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from builders.image_builder import DATA, RDATA, TEXT, ImageBuilder
from builders.minidump_builder import MinidumpBuilder
from builders.opening import open_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from windumps.diagnostics import DiagnosticLog
from windumps.images import rtti
from windumps.images.modules import ModuleMap
from windumps.images.rtti import VftableResolver
from windumps.images.type_names import class_name

BASES = {4: 0x10000000, 8: 0x7FF612340000}
NODE = b".?AVNode@app@@\0"

both_widths = pytest.mark.parametrize("width", [4, 8])


@pytest.fixture
def image(width: int) -> ImageBuilder:
    return ImageBuilder(BASES[width], width)


def resolver(*images: ImageBuilder, absent: tuple[int, ...] = ()) -> VftableResolver:
    width = images[0].width
    builder = MinidumpBuilder(architecture="x64" if width == 8 else "x86")
    for index, image in enumerate(images):
        image.add_to(builder, f"module{index}.dll", absent=absent)
    dump = open_bytes(builder.build())
    return VftableResolver(dump.memory, ModuleMap(dump.modules), width, DiagnosticLog())


def found(resolver: VftableResolver, *pointers: int) -> list[str | None]:
    """The class of each pointer; "place" for a vftable without, None for no vftable."""
    numbers = resolver.numbers(np.array(pointers, np.uint64)).tolist()
    return [None if n < 0 else resolver.vftables[n].class_name or "place" for n in numbers]


@both_widths
def test_a_class_is_named_by_its_complete_object_locator(image: ImageBuilder) -> None:
    node = image.msvc_class(NODE)
    session = image.msvc_class(b".?AUSession@net@app@@\0", RDATA + 0x300, DATA + 0x200)
    found_ = resolver(image)
    assert found(found_, node, session, node) == [
        ".?AVNode@app@@",
        ".?AUSession@net@app@@",
        ".?AVNode@app@@",
    ]
    assert len(found_.vftables) == 2
    assert found_.vftables[0].rva == RDATA + 0x100
    assert found_.vftables[0].module.base_address == image.base


@both_widths
def test_the_vftable_of_a_second_base_is_not_the_start_of_an_object(image: ImageBuilder) -> None:
    first = image.msvc_class(NODE)
    second = image.msvc_class(NODE, RDATA + 0x300, offset=0x18)
    assert found(resolver(image), first, second) == [".?AVNode@app@@", None]


@both_widths
def test_a_class_of_the_itanium_abi_is_named(image: ImageBuilder) -> None:
    kind = image.itanium_runtime()
    plain = image.itanium_class(b"N3app4NodeE\0", kind)
    local = image.itanium_class(b"*N12_GLOBAL__N_15LocalE\0", kind, RDATA + 0x600)
    second = image.itanium_class(b"N3app4NodeE\0", kind, RDATA + 0x800, top=-16)
    assert found(resolver(image), plain, local, second) == [
        "N3app4NodeE",
        "N12_GLOBAL__N_15LocalE",
        None,
    ]


@both_widths
def test_type_information_may_lie_in_the_runtime_s_own_image(width: int) -> None:
    runtime = ImageBuilder(BASES[width] + 0x100000, width)
    app = ImageBuilder(BASES[width], width)
    node = app.itanium_class(b"4Node\0", runtime.itanium_runtime())
    assert found(resolver(app, runtime), node) == ["4Node"]


@both_widths
def test_two_modules_may_have_a_class_of_one_name(width: int) -> None:
    images = [ImageBuilder(BASES[width] + index * 0x100000, width) for index in range(2)]
    pointers = [image.msvc_class(NODE) for image in images]
    found_ = resolver(*images)
    assert found(found_, *pointers) == [".?AVNode@app@@"] * 2
    assert [v.module.name for v in found_.vftables] == ["module0.dll", "module1.dll"]


@both_widths
@pytest.mark.parametrize(
    "damage",
    [
        {"signature": 2},
        {"signature": 0xFFFFFFFF},
        {"descriptor": 0xF0000000},
        {"descriptor": 0x7FFC},  # its name would lie behind the image
    ],
    ids=str,
)
def test_a_damaged_locator_names_no_class(image: ImageBuilder, damage: dict[str, int]) -> None:
    node = image.msvc_class(NODE, **damage)
    assert found(resolver(image), node) == ["place"]


def test_a_locator_that_lies_elsewhere_than_it_says_names_no_class() -> None:
    image = ImageBuilder(BASES[8], 8)
    node = image.msvc_class(NODE, self_rva=RDATA)
    assert found(resolver(image), node) == ["place"]


@both_widths
def test_a_locator_or_a_descriptor_in_another_module_names_no_class(width: int) -> None:
    app = ImageBuilder(BASES[width], width)
    other = ImageBuilder(BASES[width] + 0x100000, width)
    other.msvc_class(NODE)
    node = app.msvc_class(NODE)
    far = app.msvc_class(NODE, RDATA + 0x300)
    # Each alone is wrong: a locator elsewhere that tells of this module's class, ...
    locator = bytes(app.bytes[RDATA + 0xC0 : RDATA + 0xE0])
    app.words(RDATA + 0x100 - width, other.put(RDATA + 0x800, locator))
    # ... and a locator here that tells of a class elsewhere.
    base = 0 if width == 8 else app.base
    app.put(RDATA + 0x2CC, struct.pack("<I", base + 0x100000 + DATA + 0x100))
    assert found(resolver(app, other), node, far) == ["place"] * 2


@both_widths
def test_a_vftable_lies_at_an_aligned_address(image: ImageBuilder) -> None:
    image.msvc_class(NODE)
    copy = image.bytes[RDATA + 0x100 - image.width : RDATA + 0x120]
    image.put(RDATA + 0x301, bytes(copy))
    assert found(resolver(image), image.base + RDATA + 0x301 + image.width) == [None]


@both_widths
@pytest.mark.parametrize(
    "name",
    [
        b".?AW4Colour@@\0",  # an enumeration
        b"Node\0",
        b".?AV\x01Node@@\0",
        b".?AVNo de@@\0",
        b".?AV" + b"A" * 10_000,  # without its NUL
        b".?AV" + b"A" * 10_000 + b"@@\0",
    ],
    ids=lambda name: repr(name[:16]),
)
def test_what_is_no_class_name_is_not_taken_for_one(image: ImageBuilder, name: bytes) -> None:
    node = image.msvc_class(name)
    assert found(resolver(image), node) == ["place"]


@both_widths
def test_a_name_that_memory_ends_in_is_not_taken_for_one(image: ImageBuilder) -> None:
    name = b".?AVNode@app@@"
    at_end = DATA + 0x3000 - len(name) - 2 * image.width
    node = image.msvc_class(name, descriptor=at_end)
    assert found(resolver(image), node) == ["place"]


@both_widths
def test_absent_pages_cost_only_what_was_on_them(image: ImageBuilder) -> None:
    node = image.msvc_class(NODE)
    assert found(resolver(image, absent=(DATA,)), node) == ["place"]
    assert found(resolver(image, absent=(RDATA,)), node) == [None]
    assert found(resolver(image, absent=(0,)), node) == [".?AVNode@app@@"]
    # Without the section table and without a name nothing tells a vftable from other pointers.
    assert found(resolver(image, absent=(0, DATA)), node) == [None]


@both_widths
def test_type_information_that_points_to_itself_names_nothing(image: ImageBuilder) -> None:
    place = RDATA + 0x200
    itself = image.base + place
    image.words(place, *[itself] * 8)
    assert found(resolver(image), itself + 2 * image.width) == [None]
    # Its kind is its own class, as the runtime's is, but it has not the runtime's name.
    kind = image.itanium_runtime(b"N10__cxxabiv0\0")
    assert found(resolver(image), kind) == ["place"]


@both_widths
def test_pointers_that_lead_to_no_vftable_have_no_class(image: ImageBuilder) -> None:
    text = image.put(RDATA + 0x900, b"some text of the program\0")
    strings = image.words(RDATA + 0xA00, text, text, text)
    hook = image.words(DATA + 0x900, image.code(), image.code(1))  # the program may change it
    node = image.msvc_class(NODE)
    others = [text, strings, hook, image.code(), image.base, node + 1, node - image.width, 0, 64]
    others += [image.base + 0x8000, (1 << 8 * image.width) - 8]
    assert found(resolver(image), *others) == [None] * len(others)


@both_widths
def test_a_vftable_without_type_information_is_known_by_its_place(image: ImageBuilder) -> None:
    bare = image.words(RDATA + 0x900, image.code(5), image.code(6))
    found_ = resolver(image)
    assert found(found_, bare, bare) == ["place"] * 2
    assert [(v.rva, v.class_name) for v in found_.vftables] == [(RDATA + 0x900, None)]


def test_a_column_is_answered_the_same_in_pieces_and_as_a_whole() -> None:
    image = ImageBuilder(BASES[8], 8)
    nodes = [
        image.msvc_class(b".?AVN%d@@\0" % i, RDATA + 0x100 * i, DATA + 0x40 * i)
        for i in range(1, 20)
    ]
    column = np.random.default_rng(1).choice(np.array([*nodes, 0, image.code()], np.uint64), 5000)
    whole, pieces = resolver(image), resolver(image)
    names = found(whole, *column.tolist())
    assert names == [
        name for part in np.split(column, 50) for name in found(pieces, *part.tolist())
    ]
    assert len(whole.vftables) == len(pieces.vftables) == len(nodes)
    assert whole.numbers(np.empty(0, np.uint64)).tolist() == []


def test_classes_beyond_the_limit_are_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtti, "MAX_VFTABLES", 1)
    image = ImageBuilder(BASES[8], 8)
    pointers = [image.msvc_class(NODE), image.msvc_class(NODE, RDATA + 0x300)]
    builder = image.add_to(MinidumpBuilder())
    dump, log = open_bytes(builder.build()), DiagnosticLog()
    found_ = VftableResolver(dump.memory, ModuleMap(dump.modules), 8, log)
    assert found(found_, *pointers) == [".?AVNode@app@@", None]
    assert [item.code for item in log.collect()] == ["too-many-classes"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_images_of_any_contents_are_read_without_an_error(data: st.DataObject) -> None:
    width = data.draw(st.sampled_from([4, 8]))
    image = ImageBuilder(BASES[width], width)
    near = st.integers(image.base + RDATA, image.base + DATA + 0x3000)
    words = data.draw(st.lists(st.one_of(near, st.integers(0, 2)), min_size=64, max_size=64))
    image.words(RDATA, *words)
    image.put(data.draw(st.integers(0, 0x200)), data.draw(st.binary(max_size=64)))
    pointers = [image.base + RDATA + 4 * index for index in range(128)]
    assert len(found(resolver(image), *pointers, *words)) == 192


@pytest.mark.parametrize(
    ("mangled", "readable"),
    [
        (".?AVNode@app@@", "app::Node"),
        (".?AUSession@net@app@@", "app::net::Session"),
        (".?AV?$Cache@VNode@app@@@app@@", "app::Cache<app::Node>"),
        (".?AV?$vector@HV?$allocator@H@std@@@std@@", "std::vector<int, std::allocator<int>>"),
        (".?AVFoo@?A0x1a2b3c4d@@", "`anonymous namespace'::Foo"),
        ("N3app4NodeE", "app::Node"),
        ("4Node", "Node"),
        ("N3app5CacheINS_4NodeEEE", "app::Cache<app::Node>"),
        ("St9exception", "std::exception"),
    ],
)
def test_class_names_are_shown_as_people_write_them(mangled: str, readable: str) -> None:
    assert class_name(mangled) == readable


def _doubling(depth: int) -> str:
    """A function type whose last parameter's name is 2 ** depth times as long as its first's."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return (
        "FvP1B1AIS0_S0_E"
        + "".join(f"S1_IS{digits[i]}_S{digits[i]}_E" for i in range(2, depth))
        + "E"
    )


@pytest.mark.parametrize(
    "mangled",
    ["", ".?AV", ".?AV@", "4Nodes", "P" * 10_000, ".?AV?$A@" + "PEA" * 3000, _doubling(34)],
    ids=lambda text: text[:12],
)
def test_names_that_cannot_be_read_stay_as_they_are(mangled: str) -> None:
    assert class_name(mangled) == mangled


def test_the_builder_writes_a_locator_as_the_compiler_does() -> None:
    image = ImageBuilder(BASES[8], 8)
    image.msvc_class(NODE)
    locator = struct.unpack_from("<6I", image.bytes, RDATA + 0xC0)
    assert locator == (1, 0, 0, DATA + 0x100, RDATA + 0xE0, RDATA + 0xC0)
    assert image.code() == image.base + TEXT
