"""Symbols of data: of vftables that have no type information, and of globals that hold blocks."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from builders.heap_source import blocks_at
from builders.image_builder import DATA, RDATA, SIZE, ImageBuilder
from builders.minidump_builder import MinidumpBuilder
from builders.opening import open_bytes
from builders.pdb_builder import PdbBuilder
from made_symbols import put_in_store

from dumpleak.attribution.table import SiteTable
from dumpleak.attribution.type import TypeAttributor
from dumpleak.model.sites import Site, SiteKind
from dumpleak.pointers.holders import HolderFinder
from dumpleak.pointers.references import BlockIndexBuilder
from dumpleak.process.session import HeapSource, Session
from windumps.heaps.kinds import ProcessHeap
from windumps.images.modules import PdbIdentity
from windumps.symbols.paths import parse_symbol_path
from windumps.symbols.provider import Symbols

HEAP = 0x20000000


def _vftable_site(
    tmp_path: Path, names: list[str], width: int = 8, offset: int = 0, with_pdb: bool = True
) -> Site:
    """The site of an object whose class has no type information, with symbols at its vftable."""
    image = ImageBuilder(0x7FF600000000 if width == 8 else 0x600000, width)
    bare = image.words(RDATA + 0x9A8, image.code(), image.code(1))
    dump = MinidumpBuilder("x64" if width == 8 else "x86")
    dump.memory(HEAP, struct.pack("<QQ" if width == 8 else "<II", bare, 7))
    image.add_to(dump)
    wanted = PdbIdentity("x.pdb", "A" * 32, 1)
    builder = PdbBuilder(guid=wanted.guid)
    builder.sections = [(".text", 0x1000, 0x1000), (".rdata", 0x2000, SIZE - 0x2000)]
    for name in names:
        builder.public(name, 2, 0x9A8 - offset)
    if with_pdb:
        put_in_store(tmp_path, wanted, builder.build())
    session = Session(open_bytes(dump.build()), Symbols(parse_symbol_path(str(tmp_path))))
    view = session.views[0]
    source = HeapSource(view, ProcessHeap(0, 1, view.architecture, "nt", None))
    table = SiteTable()
    TypeAttributor(session, table).assign(source, blocks_at([HEAP], 2 * width))
    (site,) = table.sites
    return site


@pytest.mark.parametrize(
    ("symbols", "name"),
    [
        (["??_7Session@net@@6B@"], "net::Session"),
        (["??_7?$Cache@VNode@app@@@app@@6B@"], "app::Cache<app::Node>"),
        (["??_7Derived@@6BBase@@@", "?other@@3HA"], "Derived"),
    ],
)
@pytest.mark.parametrize("width", [4, 8])
def test_a_vftable_symbol_names_a_class_that_has_no_type_information(
    tmp_path: Path, symbols: list[str], name: str, width: int
) -> None:
    site = _vftable_site(tmp_path, symbols, width)
    assert (site.name, site.type) == (name, name)
    assert site.places[0].function == f"{name}::`vftable'"
    without = _vftable_site(tmp_path, [], width, with_pdb=False)
    assert site.key == without.key


@pytest.mark.parametrize("width", [4, 8])
def test_a_vtable_symbol_of_the_itanium_abi_stands_two_words_before(
    tmp_path: Path, width: int
) -> None:
    name = "__ZTVN3net7SessionE" if width == 4 else "_ZTVN3net7SessionE"
    assert _vftable_site(tmp_path, [name], width, 2 * width).type == "net::Session"


@pytest.mark.parametrize(
    "symbols",
    [
        [],
        ["?sample_key@@3HA"],
        # Folded by the linker: it may be an object of either.
        ["??_7Session@net@@6B@", "??_7Socket@net@@6B@"],
    ],
)
def test_a_vftable_without_a_symbol_of_its_own_keeps_module_and_offset(
    tmp_path: Path, symbols: list[str]
) -> None:
    site = _vftable_site(tmp_path, symbols)
    assert (site.name, site.type) == ("vftable app.exe+0x29a8", None)


def test_a_symbol_next_to_a_vftable_does_not_name_it(tmp_path: Path) -> None:
    assert _vftable_site(tmp_path, ["??_7Session@net@@6B@"], offset=8).type is None


@pytest.mark.parametrize(("offset", "place"), [(0, "app::cache+0x0"), (8, "app::cache+0x8")])
def test_a_data_symbol_names_the_global_that_holds_a_block(
    tmp_path: Path, offset: int, place: str
) -> None:
    image = ImageBuilder(0x10000000, 8)
    image.words(DATA + 0x40 + offset, HEAP)
    dump = image.add_to(MinidumpBuilder()).memory(HEAP, bytes(0x100)).build()
    wanted = PdbIdentity("x.pdb", "A" * 32, 1)
    builder = PdbBuilder(guid=wanted.guid)
    builder.sections = [(".text", 0x1000, 0x1000), (".data", DATA, 0x3000)]
    builder.public("?before@app@@3HA", 2, 0x10).public("?cache@app@@3PAXA", 2, 0x40)
    put_in_store(tmp_path, wanted, builder.build())
    found = []
    for symbols in (None, Symbols(parse_symbol_path(str(tmp_path)))):
        session = Session(open_bytes(dump), symbols)
        index = BlockIndexBuilder()
        index.add(blocks_at([HEAP], 0x100), np.zeros(1, np.int64), 8)
        site = Site(SiteKind.SHAPE, "key", "256 bytes")
        found.append(HolderFinder(session, index.build(), [site])(["key"])["key"].holder)
    assert found == [
        f"the global at app.exe+0x{DATA + 0x40 + offset:x}",
        f"the global at app.exe!{place}",
    ]
