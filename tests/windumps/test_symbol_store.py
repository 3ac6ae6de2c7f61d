"""PDBs in folders and stores: found only when what is inside them belongs to the image."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.cabinet_builder import lzx, mszip
from builders.pdb_builder import GUID, PdbBuilder
from pdb_samples import SHARED_SYMBOLS

from windumps.images.modules import Module, PdbIdentity
from windumps.symbols.paths import parse_symbol_path
from windumps.symbols.store import SymbolStore
from windumps.symbols.wanted import Status, SymbolFile, manifest, wanted

OTHER = "F" * 32
PDB = PdbBuilder().public("key", 2, 8).build()


def module(name: str = "app.dll", pdb: str = "app.pdb", guid: str = GUID, age: int = 1) -> Module:
    return Module(name, name, 0x10000, 0x1000, 1, pdb=PdbIdentity(pdb, guid, age))


def find(path: Path | str, image: Module | None = None) -> SymbolFile:
    (file,) = wanted([image or module()])
    with SymbolStore(parse_symbol_path(str(path))) as store:
        found = store.find(file)
        if found.path is not None:
            assert found.path.read_bytes() == PDB or image is not None
        return found


def put(path: Path, data: bytes = PDB) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "place",
    [
        "app.pdb",
        "symbols/dll/app.pdb",
        "dll/app.pdb",
        "symbols/app.pdb",
        f"app.pdb/{GUID}1/app.pdb",
        "APP.PDB",
        f"App.pdb/{GUID.lower()}1/App.PDB",
    ],
)
def test_a_pdb_is_found_in_the_places_debuggers_look_into(tmp_path: Path, place: str) -> None:
    path = put(tmp_path / place)
    found = find(tmp_path)
    assert (found.status, found.path, found.notes) == (Status.FOUND, path, ())
    assert found.modules == ("app.dll",)


def test_a_store_of_two_tiers_is_read(tmp_path: Path) -> None:
    put(tmp_path / "index2.txt", b"")
    path = put(tmp_path / f"ap/app.pdb/{GUID}1/app.pdb")
    assert find(f"srv*{tmp_path}").path == path


def test_without_its_mark_a_store_has_one_tier(tmp_path: Path) -> None:
    put(tmp_path / f"ap/app.pdb/{GUID}1/app.pdb")
    assert find(f"srv*{tmp_path}").status is Status.MISSING


def test_a_plain_folder_is_not_searched_when_a_store_was_named(tmp_path: Path) -> None:
    put(tmp_path / "app.pdb")
    assert find(f"srv*{tmp_path}").status is Status.MISSING


@pytest.mark.parametrize("packer", [mszip, lzx])
def test_a_compressed_pdb_is_unpacked_for_the_run(tmp_path: Path, packer: object) -> None:
    put(tmp_path / f"app.pdb/{GUID}1/app.pd_", packer(PDB))  # type: ignore[operator]
    (file,) = wanted([module()])
    with SymbolStore(parse_symbol_path(f"srv*{tmp_path}")) as store:
        found = store.find(file)
        assert found.path is not None
        assert found.path.name == "app.pdb"
        assert found.path.read_bytes() == PDB
    assert not found.path.exists()


def test_a_damaged_compressed_pdb_is_said_to_be_unreadable(tmp_path: Path) -> None:
    put(tmp_path / f"app.pdb/{GUID}1/app.pd_", mszip(PDB)[:-20])
    found = find(f"srv*{tmp_path}")
    assert (found.status, found.path) == (Status.UNREADABLE, None)
    assert "app.pd_" in found.notes[0]


def test_a_pointer_in_a_store_is_followed(tmp_path: Path) -> None:
    path = put(tmp_path / "elsewhere" / "app.pdb")
    put(tmp_path / f"store/app.pdb/{GUID}1/file.ptr", f"PATH:{path}".encode())
    assert find(f"srv*{tmp_path / 'store'}").path == path


@pytest.mark.parametrize("text", [b"MSG:ask the build team", b"PATH:/nowhere/app.pdb", b"\xff"])
def test_a_pointer_that_leads_nowhere_is_told(tmp_path: Path, text: bytes) -> None:
    put(tmp_path / f"app.pdb/{GUID}1/file.ptr", text)
    found = find(f"srv*{tmp_path}")
    assert found.status is Status.MISSING
    assert "file.ptr" in found.notes[0]


@pytest.mark.parametrize("place", ["app.pdb", f"app.pdb/{GUID}1/app.pdb"])
def test_a_file_of_the_right_name_and_folder_but_another_image_is_not_taken(
    tmp_path: Path, place: str
) -> None:
    put(tmp_path / place, PdbBuilder(guid=OTHER).build())
    found = find(tmp_path)
    assert (found.status, found.path) == (Status.WRONG, None)
    assert OTHER in found.notes[0]


def test_the_right_file_behind_a_wrong_one_is_found(tmp_path: Path) -> None:
    put(tmp_path / "a" / "app.pdb", PdbBuilder(guid=OTHER).build())
    path = put(tmp_path / "b" / "app.pdb")
    found = find(f"{tmp_path / 'a'};{tmp_path / 'b'}")
    assert (found.status, found.path) == (Status.FOUND, path)
    assert len(found.notes) == 1


def test_another_age_is_not_taken_and_said(tmp_path: Path) -> None:
    put(tmp_path / "a" / "app.pdb", PdbBuilder(age=7).build())
    found = find(tmp_path / "a", module())
    assert (found.status, found.path) == (Status.WRONG, None)
    assert "its age is 7, the image's 1" in found.notes[0]
    exact = put(tmp_path / "b" / "app.pdb")
    assert find(f"{tmp_path / 'a'};{tmp_path / 'b'}", module()).path == exact


def test_a_file_that_is_no_pdb_is_unreadable(tmp_path: Path) -> None:
    put(tmp_path / "app.pdb", b"<html>")
    found = find(tmp_path)
    assert (found.status, found.path) == (Status.UNREADABLE, None)


def test_a_missing_folder_is_no_error(tmp_path: Path) -> None:
    assert find(tmp_path / "nowhere").status is Status.MISSING


@pytest.mark.parametrize(
    "name", ["../app.pdb", "..", ".", "", "a/b.pdb", "a\\b.pdb", "C:app.pdb", "a\0b", "*"]
)
def test_a_name_that_leads_out_of_the_store_is_not_looked_for(tmp_path: Path, name: str) -> None:
    put(tmp_path / "app.pdb")
    file = SymbolFile(PdbIdentity(name, GUID, 1), ("app.dll",))
    found = SymbolStore(parse_symbol_path(str(tmp_path / "in"))).find(file)
    assert (found.status, found.path) == (Status.UNREADABLE, None)
    assert manifest([file]) == ""


def test_each_pdb_is_wanted_once_and_listed_for_another_machine() -> None:
    files = wanted(
        [
            module("a.dll"),
            module("b.dll"),
            module("b.dll"),
            module("old.dll", "old.pdb", "4A5BDFDB", 2),
            module("packed.dll", "x.pdb", "0" * 32),
            Module("none.dll", "none.dll", 0, 1, 1),
            module("many.dll", "many.pdb", OTHER, 26),
        ]
    )
    assert [file.modules for file in files] == [("a.dll", "b.dll"), ("old.dll",), ("many.dll",)]
    assert manifest(files) == f"app.pdb,{GUID}1,1\nold.pdb,4A5BDFDB2,1\nmany.pdb,{OTHER}1A,1\n"


def test_a_volatility_table_is_found_in_a_folder_of_the_path(tmp_path: Path) -> None:
    path = put(tmp_path / "windows" / "nt.pdb" / f"{GUID}-1.json.xz", b"")
    store = SymbolStore(parse_symbol_path(str(tmp_path)))
    assert store.find_table(PdbIdentity("nt.pdb", GUID, 1)) == path
    assert store.find_table(PdbIdentity("nt.pdb", GUID, 2)) is None
    assert store.find_table(PdbIdentity("../nt.pdb", GUID, 1)) is None


@pytest.mark.skipif(
    not SHARED_SYMBOLS.is_dir(), reason="Microsoft's PDBs may not be copied into the repository"
)
def test_microsofts_pdbs_are_found_in_their_store_by_the_images_age() -> None:
    # Their PDB information stream has age 3; the images and the store have 1.
    image = module("ntdll.dll", "ntdll.pdb", "96EF4ED537402DAAA51D4A4212EA4B2C")
    for path in (SHARED_SYMBOLS, f"srv*{SHARED_SYMBOLS}"):
        found = find(path, image)
        assert (found.status, found.notes) == (Status.FOUND, ())
