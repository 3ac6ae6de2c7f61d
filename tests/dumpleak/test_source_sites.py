"""Sites by the source line that a debug C runtime kept."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from builders.debug_crt_builder import DebugCrtBuilder
from truth import TruthDump, truth_dumps

from dumpleak.attribution.source import SourceAttributor, shortened, source_key
from dumpleak.attribution.table import SiteTable
from dumpleak.model.sites import Site, SiteKind
from dumpleak.process.session import HeapSource, Session
from windumps.blocks import Blocks
from windumps.diagnostics import DiagnosticLog
from windumps.heaps.debug_crt import DebugCrt, read_source_name
from windumps.memory import AddressSpace


def attribute(memory: AddressSpace, pieces: list[Blocks]) -> tuple[list[int], list[Site]]:
    table = SiteTable()
    session = cast(Session, SimpleNamespace())
    source = cast(HeapSource, SimpleNamespace(view=SimpleNamespace(memory=memory)))
    attributor = SourceAttributor(session, table)
    found = [attributor.assign(source, piece) for piece in pieces]
    assert [len(piece) for piece in pieces] == [len(sites) for sites in found]
    assert all(sites.dtype == np.int64 for sites in found)
    return np.concatenate(found).tolist(), table.sites


def made(base: int) -> tuple[AddressSpace, list[Blocks]]:
    """Two texts for one file, as two modules have; an unreadable one; and none at all."""
    heap = DebugCrtBuilder("x64", base)
    heap.text(bytes(base >> 12 & 0xFF))
    one, other = heap.text(b"C:\\Src\\gfx\\Texture.cpp"), heap.text(b"c:\\src\\GFX\\texture.cpp")
    broken = heap.text(b"\x01\x02\x03")
    for file, line in ((one, 68), (one, 69), (other, 68), (broken, 68), (0, 0), (one, 68)):
        heap.block(24, file=file, line=line)
    memory = heap.memory()
    blocks = DebugCrt(memory, 8, DiagnosticLog()).apply(heap.blocks())
    first = np.arange(len(blocks)) < 2
    return memory, [blocks.select(first), blocks.select(~first), Blocks.empty()]


def test_blocks_of_one_source_line_are_one_site_whatever_module_they_come_from() -> None:
    sites, table = attribute(*made(0x40000))
    assert sites == [0, 1, 0, -1, -1, 0]
    assert [(site.kind, site.key, site.name) for site in table] == [
        (SiteKind.SOURCE, source_key("c:\\src\\gfx\\texture.cpp", 68), "gfx\\Texture.cpp(68)"),
        (SiteKind.SOURCE, source_key("c:\\src\\gfx\\texture.cpp", 69), "gfx\\Texture.cpp(69)"),
    ]


def test_the_same_source_line_in_two_lives_of_a_process_has_one_key() -> None:
    assert attribute(*made(0x40000))[1] == attribute(*made(0x7FF0_1234_0000))[1]


def test_a_path_is_shortened_to_its_folder_and_file() -> None:
    assert shortened("..\\..\\third_party\\zlib\\inflate.c") == "zlib\\inflate.c"
    assert shortened("/home/me/src/zlib/inflate.c") == "zlib/inflate.c"
    assert shortened("C:\\a.cpp") == "C:\\a.cpp"
    assert shortened("a.cpp") == "a.cpp"


@pytest.mark.parametrize("dump", truth_dumps("debug-crt*"), ids=lambda d: d.name)
def test_every_block_with_a_file_gets_its_source_line_as_site(dump: TruthDump) -> None:
    crt = dump.read_truth().raw["crt"]
    session, table = Session.open(dump.dump), SiteTable()
    attributor = SourceAttributor(session, table)
    counted: Counter[str] = Counter()
    for source in session.readable_heaps:
        assert source.entry.heap is not None
        reader = DebugCrt(source.view.memory, source.view.pointer_size, session.log)
        for piece in source.entry.heap.blocks():
            sites = attributor.assign(source, reader.apply(piece))
            counted.update(table.sites[site].key for site in sites[sites >= 0].tolist())
    file, line = crt["block_columns"].index("file"), crt["block_columns"].index("line")
    expected = Counter(source_key(row[file], row[line]) for row in crt["blocks"] if row[file])
    assert expected == {key: n for key, n in counted.items() if key in expected}
    # The runtime's own blocks point to names in its image, which some of these dumps lack.
    pointers = [row[crt["internal_columns"].index("file_pointer")] for row in crt["internal"]]
    readable = sum(read_source_name(session.dump.memory, pointer) != "" for pointer in pointers)
    assert sum(n for key, n in counted.items() if key not in expected) == readable
