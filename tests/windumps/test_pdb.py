"""The PDB reader against what LLVM's tools say of PDBs by clang, by Microsoft, and of our builder."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from builders.pdb_builder import GUID, PdbBuilder
from pdb_samples import GUIDS, LAYOUTS, as_array, known_fields, microsoft_pdbs, sample_bytes

from windumps.symbols.base import FieldLayout, find_field
from windumps.symbols.pdb import Pdb

MICROSOFT = pytest.mark.skipif(
    not microsoft_pdbs(), reason="Microsoft's PDBs may not be copied into the repository"
)
# Section starts of both samples: .text 0x1000, .rdata 0x2000, .data 0x3000.
SAMPLE_RVAS = {
    "x64": {
        "?send@Session@net@@UEAAHPEBDH@Z": 0x1000 + 112,
        "??0Session@net@@QEAA@H@Z": 0x1000 + 16,
        "??_7Session@net@@6B@": 0x2000,
        "run": 0x1000 + 240,
        "sample_key": 0x3008,
        "hidden_total": 0x3010,
    },
    "x86": {
        "?send@Session@net@@UAEHPBDH@Z": 0x1000 + 96,
        "??0Session@net@@QAE@H@Z": 0x1000 + 16,
        "??_7Session@net@@6B@": 0x2000,
        "_run": 0x1000 + 240,
        "_sample_key": 0x3008,
        "hidden_total": 0x3010,
    },
}


def sample(architecture: str) -> Pdb:
    return Pdb(as_array(sample_bytes(architecture)), "sample.pdb")


def built(builder: PdbBuilder, **how: bool | int) -> Pdb:
    return Pdb(as_array(builder.build(**how)), "built.pdb")  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ["x64", "x86"])
def test_a_pdb_says_which_image_it_belongs_to(architecture: str) -> None:
    pdb = sample(architecture)
    assert pdb.guid == GUIDS[architecture]
    assert pdb.ages == {1}
    assert pdb.architecture == architecture
    assert pdb.identity.key == GUIDS[architecture] + "1"


@pytest.mark.parametrize("architecture", ["x64", "x86"])
def test_public_and_static_symbols_are_found_by_name(architecture: str) -> None:
    pdb = sample(architecture)
    for name, rva in SAMPLE_RVAS[architecture].items():
        assert pdb.rva(name) == rva, name
    assert pdb.rva("sample_ke") is None
    assert pdb.rva("ample_key") is None
    assert pdb.rva("") is None


def test_a_c_name_needs_no_decoration_of_x86() -> None:
    assert sample("x86").rva("sample_key") == 0x3008
    pdb = built(
        PdbBuilder(machine=0x14C)
        .public("_Wait@12", 1, 0x10)
        .public("@Fast@8", 1, 0x20)
        .public("_Wait@12x", 1, 0x30)
    )
    assert pdb.rva("Wait") == 0x1010
    assert pdb.rva("Fast") == 0x1020
    assert built(PdbBuilder().public("_Wait@12", 1, 0x10)).rva("Wait") is None


@pytest.mark.parametrize("architecture", ["x64", "x86"])
def test_an_address_is_named_by_the_symbol_below_it(architecture: str) -> None:
    pdb = sample(architecture)
    by_rva = {rva: name for name, rva in SAMPLE_RVAS[architecture].items()}
    send = 0x1070 if architecture == "x64" else 0x1060
    for rva, offset in ((send, 0), (send + 5, 5), (0x3008, 7), (0x3010, 3)):
        near = pdb.nearest(rva + (offset if rva in by_rva else 0))
        assert near is not None
        assert near.name == by_rva.get(rva, by_rva[send])
        assert near.offset == offset


def test_no_symbol_is_stretched_over_the_end_of_its_section() -> None:
    pdb = built(PdbBuilder().public("code", 1, 0x7F0).public("data", 2, 0x10))
    assert pdb.nearest(0x17FF) is not None
    assert pdb.nearest(0x1800) is None  # behind .text
    assert pdb.nearest(0x3000) is None  # in .data, before its first symbol
    assert pdb.nearest(0x3400) is None
    assert pdb.nearest(0) is None
    assert pdb.nearest(-1) is None
    assert pdb.nearest(1 << 40) is None


def test_of_several_symbols_at_one_address_the_public_first_by_name_is_taken() -> None:
    builder = PdbBuilder().static("a_static", 1, 0x10).public("zeta", 1, 0x10)
    near = built(builder.public("beta", 1, 0x10)).nearest(0x1014)
    assert near is not None
    assert near.name == "beta"


def test_symbols_of_code_that_was_moved_after_linking_have_the_address_in_the_image() -> None:
    pdb = built(
        PdbBuilder(
            sections=[(".text", 0x1000, 0x3000)],
            original_sections=[("old", 0x5000, 0x1000)],
            omap=[(0x5000, 0x1800), (0x5100, 0), (0x5200, 0x1000)],
        )
        .public("moved", 1, 0x20)
        .public("dropped", 1, 0x110)
        .public("first", 1, 0x208)
    )
    assert pdb.rva("moved") == 0x1820
    assert pdb.rva("dropped") is None
    assert pdb.rva("first") == 0x1008
    near = pdb.nearest(0x1825)
    assert near is not None
    assert (near.name, near.offset) == ("moved", 5)


@pytest.mark.parametrize("architecture", ["x64", "x86"])
def test_the_layout_of_a_class_is_what_the_compiler_made(architecture: str) -> None:
    layout = sample(architecture).structure("net::Session")
    assert layout is not None
    wide = architecture == "x64"
    assert layout.size == (120 if wide else 112)
    assert [(base, offset) for base, offset, _ in layout.bases] == [("net::Channel", 0)]
    assert [(f.name, f.offset, f.size, f.type_name) for f in layout.fields] == (
        [
            ("id", 16, 4, "int"),
            ("flags", 20, 4, "net::Flags"),
            ("peer", 24, 16, "net::Address"),
            ("counters", 40, 16, "net::Counters"),
            ("next", 56, 8, "net::Session*"),
            ("weights", 64, 48, "double[3][2]"),
            ("callback", 112, 8, "function*"),
        ]
        if wide
        else [
            ("id", 8, 4, "int"),
            ("flags", 12, 4, "net::Flags"),
            ("peer", 16, 16, "net::Address"),
            ("counters", 32, 16, "net::Counters"),
            ("next", 48, 4, "net::Session*"),
            ("weights", 56, 48, "double[3][2]"),
            ("callback", 104, 4, "function*"),
        ]
    )
    assert [f.name for f in layout.fields if f.is_pointer] == ["next", "callback"]


def test_bit_fields_have_a_place_and_a_width() -> None:
    layout = sample("x64").structure("net::Flags")
    assert layout is not None
    assert [(f.name, f.offset, f.size, f.bit_position, f.bit_count) for f in layout.fields] == [
        ("open", 0, 4, 0, 1),
        ("retries", 0, 4, 1, 5),
        ("port", 0, 4, 16, 16),
    ]


def test_a_union_has_all_its_fields_at_the_start() -> None:
    layout = sample("x64").structure("net::Address")
    assert layout is not None
    assert [(f.name, f.offset, f.type_name) for f in layout.fields] == [
        ("bytes", 0, "unsigned char[16]"),
        ("words", 0, "unsigned short[8]"),
    ]


def test_fields_are_found_in_fields_and_in_base_classes() -> None:
    pdb = sample("x64")
    failed = find_field(pdb, "net::Session", "counters.failed")
    assert failed == FieldLayout("counters.failed", 48, 4, "unsigned int")
    kind = find_field(pdb, "net::Session", "kind")
    assert kind is not None
    assert (kind.offset, kind.size, kind.type_name) == (8, 2, "short")
    virtual = find_field(pdb, "net::Session", "__vfptr")
    assert virtual is not None
    assert (virtual.offset, virtual.size, virtual.is_pointer) == (0, 8, True)
    assert find_field(pdb, "net::Session", "counters.id") is None
    assert find_field(pdb, "net::Session", "next.id") is None  # behind a pointer
    assert find_field(pdb, "net::Nobody", "id") is None


def test_a_type_is_found_by_its_whole_name_only() -> None:
    pdb = sample("x64")
    assert pdb.structure("Session") is None
    assert pdb.structure("count") is None
    assert pdb.structure("") is None
    by_key = pdb.structure(".?AVSession@net@@")
    assert by_key is not None
    assert by_key.name == "net::Session"


def test_a_definition_is_preferred_to_a_forward_reference() -> None:
    builder = PdbBuilder()
    forward = builder.structure("_NODE", 0, 0, forward=True)
    pointer = builder.type(0x1002, struct.pack("<II", forward, 0x1000C))
    fields = builder.field_list(
        builder.member("Next", pointer, 0), builder.member("In", forward, 8)
    )
    builder.structure("_NODE", 24, fields)
    layout = built(builder).structure("_NODE")
    assert layout is not None
    assert layout.size == 24
    assert [(f.name, f.size, f.type_name) for f in layout.fields] == [
        ("Next", 8, "_NODE*"),
        ("In", 24, "_NODE"),
    ]


@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("block_size", [512, 4096])
@pytest.mark.parametrize("scatter", [True, False])
def test_neither_block_size_nor_order_nor_a_missing_index_changes_the_answer(
    with_index: bool, block_size: int, scatter: bool
) -> None:
    builder = PdbBuilder(with_type_index=with_index)
    for number in range(40):
        fields = builder.field_list(
            builder.member("First", 0x22, 0), builder.member("Second", 0x603, 8 * number + 8)
        )
        builder.structure(f"_S{number}", 0x9000 + number, fields)
        builder.public(f"symbol{number}", 1, 4 * number)
    pdb = built(builder, block_size=block_size, scatter=scatter)
    for number in (0, 17, 39):
        layout = pdb.structure(f"_S{number}")
        assert layout is not None
        assert layout.size == 0x9000 + number
        assert [f.offset for f in layout.fields] == [0, 8 * number + 8]
        assert pdb.rva(f"symbol{number}") == 0x1000 + 4 * number


def test_a_field_list_may_go_on_in_another_record() -> None:
    builder = PdbBuilder()
    rest = builder.field_list(builder.member("Last", 0x20, 12))
    more = struct.pack("<HHI", 0x1404, 0, rest)
    builder.structure("_LONG", 16, builder.field_list(builder.member("First", 0x22, 0), more))
    layout = built(builder).structure("_LONG")
    assert layout is not None
    assert [(f.name, f.offset) for f in layout.fields] == [("First", 0), ("Last", 12)]


def test_the_age_in_either_place_may_be_the_images() -> None:
    pdb = built(PdbBuilder(age=1, info_age=3))
    assert pdb.ages == {1, 3}
    assert (pdb.identity.guid, pdb.identity.age) == (GUID, 1)


@MICROSOFT
def test_microsofts_pdbs_name_their_images_and_the_heaps_key() -> None:
    expected = {
        ("x64", 19041): ("96EF4ED537402DAAA51D4A4212EA4B2C1", "RtlpLFHKey", 0x16B740),
        ("x64", 22621): ("096678FDAD5C44ACDFF3AB194AEBF5011", "RtlpLFHKey", 0x187368),
        ("x86", 19041): ("96A9CF3147EA28D08D59968A947735461", "RtlpLFHKey", 0x126994),
    }
    for key, path in microsoft_pdbs().items():
        folder, name, rva = expected[key]
        pdb = Pdb.open(Path(path))
        assert pdb.identity.key == folder
        assert pdb.architecture == key[0]
        assert pdb.rva(name) == rva
        near = pdb.nearest(rva)
        assert near is not None
        assert near.name.lstrip("_") == name
        assert len(pdb.symbols) > 6000


@MICROSOFT
@pytest.mark.parametrize(
    ("key", "layouts"),
    [
        (("x64", 19041), "full_ntdll_x64_10.0.19041.1288.json"),
        (("x64", 22621), "full_ntdll_x64_10.0.22621.4245.json"),
        (("x86", 19041), "full_wntdll_x86_10.0.19041.2130.json"),
    ],
)
def test_every_field_of_ntdll_lies_where_another_reader_of_the_pdb_found_it(
    key: tuple[str, int], layouts: str
) -> None:
    pdb = Pdb.open(microsoft_pdbs()[key])
    compared = 0
    for known in known_fields(LAYOUTS / layouts):
        layout = pdb.structure(known.structure)
        assert layout is not None, known
        assert layout.size == known.structure_size, known
        # Names of nameless unions' fields may occur twice.
        fields = [f for f in layout.fields if f.name == known.name]
        assert (known.offset, known.bits) in [
            (f.offset, None if f.bit_count is None else (f.bit_position, f.bit_count))
            for f in fields
        ], known
        compared += 1
    assert compared > 1000
