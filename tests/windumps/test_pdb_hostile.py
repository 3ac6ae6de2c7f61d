"""Whatever bytes a PDB is made of: values or a typed error, in bounded time and memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from builders.pdb_builder import MAGIC, PdbBuilder, build_msf
from numpy.typing import NDArray
from pdb_samples import as_array, sample_bytes

from windumps.symbols.base import find_field
from windumps.symbols.errors import (
    CorruptSymbolsError,
    NotSymbolsError,
    SymbolError,
    UnsupportedSymbolsError,
)
from windumps.symbols.pdb import Pdb


def _tiny() -> bytes:
    builder = PdbBuilder().public("key", 2, 8).public("?f@C@@QEAAXXZ", 1, 0x10).static("s", 2, 0)
    fields = builder.field_list(builder.member("First", 0x22, 0), builder.member("In", 0x1003, 8))
    builder.structure("_A", 32, fields)
    inner = builder.field_list(builder.member("Deep", 0x603, 4))
    builder.structure("_B", 16, inner)
    return builder.build()


def _ask(data: NDArray[np.uint8]) -> bool:
    """Asks everything; True when no part was refused."""
    whole = True
    questions = (
        lambda pdb: (pdb.ages, pdb.architecture, pdb.identity),
        lambda pdb: (pdb.rva("key"), pdb.rva("sample_key"), pdb.rva("f")),
        lambda pdb: [pdb.nearest(rva) for rva in (0, 0x1014, 0x3009, 1 << 31)],
        lambda pdb: find_field(pdb, "_A", "In.Deep"),
        lambda pdb: find_field(pdb, "net::Session", "counters.failed"),
        lambda pdb: find_field(pdb, "net::Session", "kind"),
    )
    try:
        pdb = Pdb(data, "hostile.pdb")
    except SymbolError:
        return False
    for question in questions:
        try:
            question(pdb)
        except SymbolError:
            whole = False
    return whole


def test_every_prefix_of_a_pdb_gives_an_answer_or_a_typed_error() -> None:
    data = as_array(_tiny())
    answers = [_ask(data[:length]) for length in range(len(data) + 1)]
    assert not any(answers[:1500])
    assert answers[-1]


def test_every_flipped_byte_of_a_small_pdb_gives_an_answer_or_a_typed_error() -> None:
    original = as_array(_tiny())
    used = np.flatnonzero(original)
    for place in used.tolist():
        for mask in (0x01, 0x80, 0xFF):
            data = original.copy()
            data[place] ^= mask
            _ask(data)
    assert _ask(original)


@pytest.mark.parametrize("architecture", ["x64", "x86"])
def test_thousands_of_flips_in_a_compilers_pdb_give_an_answer_or_a_typed_error(
    architecture: str,
) -> None:
    original = as_array(sample_bytes(architecture))
    random = np.random.default_rng(7)
    used = np.flatnonzero(original)
    for _ in range(3000):
        data = original.copy()
        places = random.choice(used, 6)
        data[places] = random.integers(0, 256, len(places), np.uint8)
        _ask(data)


@pytest.mark.parametrize(
    ("head", "advice"),
    [
        (b"Microsoft C/C++ program database 2.00\r\n\x1aJG\0\0", "Visual C"),
        (b"Microsoft MSFZ Container\r\n\x1aALD\0\0", "MSFZ"),
        (b"BSJB\x01\0\x01\0", ".NET"),
        (b"MSCF\0\0\0\0", "cabinet"),
    ],
)
def test_other_kinds_of_symbol_files_are_named(head: bytes, advice: str) -> None:
    with pytest.raises(UnsupportedSymbolsError, match=advice):
        Pdb(as_array(head.ljust(512, b"\0")), "other.pdb")


@pytest.mark.parametrize("data", [b"", b"MZ", b"<html>404</html>", b"\0" * 4096])
def test_what_is_no_pdb_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(NotSymbolsError):
        Pdb(as_array(data), "page.pdb")


@pytest.mark.parametrize("block_size", [0, 1, 100, 1000, 1 << 17, 0xFFFFFFFF])
def test_a_block_size_that_cannot_be_is_refused(block_size: int) -> None:
    data = bytearray(_tiny())
    data[len(MAGIC) : len(MAGIC) + 4] = block_size.to_bytes(4, "little")
    with pytest.raises(CorruptSymbolsError, match="block size"):
        Pdb(as_array(bytes(data)), "bad.pdb")


def test_a_stream_larger_than_the_file_costs_no_memory() -> None:
    data = bytearray(build_msf([b"", b"x" * 100, b"y" * 100]))
    place = data.rindex((100).to_bytes(4, "little"))
    data[place : place + 4] = (0xFFFFF000).to_bytes(4, "little")
    tracemalloc.start()
    try:
        _ask(as_array(bytes(data)))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_damaged_type_stream_does_not_cost_the_symbols() -> None:
    builder = PdbBuilder().public("key", 2, 8)
    builder.structure("_A", 8, builder.field_list(builder.member("F", 0x22, 0)))
    data = bytearray(builder.build())
    place = data.index((20040203).to_bytes(4, "little"))
    data[place] ^= 0xFF
    pdb = Pdb(as_array(bytes(data)), "bad.pdb")
    assert pdb.rva("key") == 0x3008
    with pytest.raises(CorruptSymbolsError, match="type stream"):
        pdb.structure("_A")


def test_types_that_refer_to_themselves_end() -> None:
    builder = PdbBuilder()
    # A field list that goes on in itself, a modifier of itself, a structure whose field it is.
    loop = builder.field_list(builder.member("Again", 0x1001, 0), b"\x04\x14\0\0\x00\x10\0\0")
    builder.type(0x1001, (0x1001).to_bytes(4, "little") + bytes(4))
    builder.structure("_LOOP", 8, loop)
    layout = Pdb(as_array(builder.build()), "loop.pdb").structure("_LOOP")
    assert layout is not None
    assert [(f.name, f.size, f.type_name) for f in layout.fields] == [("Again", 0, "?")]


def test_a_structure_that_contains_itself_has_no_endless_path() -> None:
    builder = PdbBuilder()
    fields = builder.field_list(builder.member("In", 0x1001, 8))
    builder.structure("_SELF", 16, fields)
    pdb = Pdb(as_array(builder.build()), "self.pdb")
    assert find_field(pdb, "_SELF", ".".join(["In"] * 1000)) is None
    deep = find_field(pdb, "_SELF", "In.In.In")
    assert deep is not None
    assert deep.offset == 24
