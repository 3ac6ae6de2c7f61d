"""Functions, lines and names for addresses, with the library that reads lines and without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.pdb_builder import PdbBuilder
from pdb_samples import sample_bytes

from windumps.diagnostics import DiagnosticLog
from windumps.images.modules import Module
from windumps.symbols import lines
from windumps.symbols.functions import (
    LIBRARY,
    PUBLICS,
    InlinedCall,
    Location,
    Symbolizer,
    load_library,
)
from windumps.symbols.names import undecorated, vftable_class, without_arguments

MODULE = Module("sample.dll", "C:\\sample.dll", 0x180000000, 0x5000, 1)
WITH_LIBRARY = pytest.mark.skipif(
    load_library() is None, reason="symbolic is not installed; it has no wheel for every system"
)
FILE = "C:\\src\\sample.cpp"


@pytest.fixture(params=["x64", "x86"])
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "sample.pdb"
    path.write_bytes(sample_bytes(request.param))
    return path


def _is_wide(path: Path) -> bool:
    return path.read_bytes() == sample_bytes("x64")


@WITH_LIBRARY
def test_a_function_and_its_line_come_from_the_library(sample: Path) -> None:
    symbolizer = Symbolizer(lambda _: sample, load_library(), DiagnosticLog())
    assert symbolizer.locate(MODULE, 0x1080) == Location(
        "net::Session::send", 0x10 if _is_wide(sample) else 0x20, FILE, 59, LIBRARY
    )
    end = symbolizer.locate(MODULE, 0x1107)
    assert end is not None
    assert (str(end), end.file, end.line) == ("run+0x17", FILE, 84)


@WITH_LIBRARY
def test_a_return_address_is_named_by_the_call_before_it(sample: Path) -> None:
    symbolizer = Symbolizer(lambda _: sample, load_library(), DiagnosticLog())
    # `add_total` ends here; line 79 begins at its last byte.
    call = symbolizer.locate(MODULE, 0x10EF, is_return_address=True)
    assert call is not None
    assert (str(call), call.line) == ("add_total+0xf", 79)
    before = symbolizer.locate(MODULE, 0x10EE, is_return_address=True)
    assert before is not None
    assert (str(before), before.line) == ("add_total+0xe", 78)


@WITH_LIBRARY
def test_inlined_functions_stand_beside_the_function_they_are_in(tmp_path: Path) -> None:
    path = tmp_path / "sample.pdb"
    path.write_bytes(sample_bytes("x64"))
    found = Symbolizer(lambda _: path, load_library(), DiagnosticLog()).locate(MODULE, 0x1140)
    assert found == Location(
        "open_session",
        0x20,
        FILE,
        88,
        LIBRARY,
        (InlinedCall("net::Session::Session", FILE, 48),),
    )


@pytest.mark.parametrize("library", [None, pytest.param("installed", marks=WITH_LIBRARY)])
def test_data_is_named_by_its_symbol(sample: Path, library: str | None) -> None:
    symbolizer = Symbolizer(lambda _: sample, load_library() if library else None, DiagnosticLog())
    for rva, name in (
        (0x3008, "sample_key+0x0"),
        (0x3012, "hidden_total+0x2"),
        (0x2000, "net::Session::`vftable'+0x0"),
        (0x3000, "net::Session::count+0x0"),
    ):
        found = symbolizer.locate(MODULE, rva)
        assert found is not None
        assert (str(found), found.line, found.source) == (name, 0, PUBLICS)


def test_without_the_library_functions_are_named_by_public_symbols(sample: Path) -> None:
    symbolizer = Symbolizer(lambda _: sample, None, DiagnosticLog())
    send = 0x1070 if _is_wide(sample) else 0x1060
    assert symbolizer.locate(MODULE, send + 5) == Location("net::Session::send", 5, "", 0, PUBLICS)
    assert str(symbolizer.locate(MODULE, 0x10F4)) == "run+0x4"


@pytest.mark.parametrize("library", [None, pytest.param("installed", marks=WITH_LIBRARY)])
def test_no_name_is_given_outside_the_sections(sample: Path, library: str | None) -> None:
    symbolizer = Symbolizer(lambda _: sample, load_library() if library else None, DiagnosticLog())
    for rva in (0, 0x10, 0x1FFF, 0x4FFF, 0x9000, 1 << 40):
        assert symbolizer.locate(MODULE, rva) is None
    assert symbolizer.locate(MODULE, 0, is_return_address=True) is None


def test_without_a_pdb_there_is_no_name_and_no_complaint() -> None:
    log = DiagnosticLog()
    symbolizer = Symbolizer(lambda _: None, None, log)
    assert symbolizer.locate(MODULE, 0x1000) is None
    assert symbolizer.pdb(MODULE) is None
    assert log.collect() == []


def test_a_pdb_that_cannot_be_read_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "sample.pdb"
    path.write_bytes(b"not a pdb")
    log = DiagnosticLog()
    symbolizer = Symbolizer(lambda _: path, None, log)
    assert [symbolizer.locate(MODULE, rva) for rva in (0x1000, 0x1001)] == [None, None]
    (said,) = log.collect()
    assert (said.code, said.structure) == ("symbols-unreadable", "sample.dll")


@WITH_LIBRARY
@pytest.mark.parametrize("data", ["refused", "crashing"])
def test_when_the_library_fails_public_symbols_are_used_and_it_is_said(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The library wants modules, of which this PDB has none.
    path = tmp_path / "built.pdb"
    path.write_bytes(PdbBuilder().public("key", 2, 8).build())
    if data == "crashing":
        monkeypatch.setattr(
            lines, "_CHILD", "import os, signal; os.kill(os.getpid(), signal.SIGABRT)"
        )
    log = DiagnosticLog()
    found = Symbolizer(lambda _: path, load_library(), log).locate(MODULE, 0x3009)
    assert found == Location("key", 1, "", 0, PUBLICS)
    (said,) = log.collect()
    assert said.code == "symbols-without-lines"
    assert ("crashed" if data == "crashing" else "invalid pdb") in said.message


@WITH_LIBRARY
def test_the_library_has_limited_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_CHILD", "import time; time.sleep(60)")
    monkeypatch.setattr(lines, "TIMEOUT_SECONDS", 0.2)
    path = tmp_path / "built.pdb"
    path.write_bytes(PdbBuilder().public("key", 2, 8).build())
    with pytest.raises(lines.LinesError, match=r"not done after 0\.2 s"):
        lines.line_table(path, load_library())


@WITH_LIBRARY
def test_a_module_of_the_librarys_name_in_the_current_folder_is_not_loaded(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "symbolic.py").write_text("raise SystemExit('loaded')")
    monkeypatch.chdir(tmp_path)
    assert lines.line_table(sample, load_library()).lookup(0x1080)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("?send@Session@net@@UEAAHPEBDH@Z", "net::Session::send"),
        ("?count@Session@net@@2HA", "net::Session::count"),
        ("??0Session@net@@QEAA@H@Z", "net::Session::Session"),
        ("??1Session@net@@UEAA@XZ", "net::Session::~Session"),
        ("??2@YAPEAX_K@Z", "operator new"),
        ("??3@YAXPEAX@Z", "operator delete"),
        ("??_U@YAPEAX_K@Z", "operator new[]"),
        ("??_7Session@net@@6B@", "net::Session::`vftable'"),
        ("??_GSession@net@@UEAAPEAXI@Z", "net::Session::`scalar deleting destructor'"),
        ("??4Session@net@@QEAAAEAV01@AEBV01@@Z", "net::Session::operator="),
        ("?run@?A0x12345678@@YAXXZ", "`anonymous namespace'::run"),
        ("?Make@Make@@SAXXZ", "Make::Make"),
        ("?f@?$Vector@VNode@@@@QEAAXXZ", "Vector<Node>::f"),
        ("??$get@H@Box@@QEAAHXZ", "Box::get<int>"),
        ("??BFlag@@QEBA_NXZ", "Flag::operator bool"),
        # They stay.
        ("??_C@_03FIKCJHKP@abc?$AA@", "??_C@_03FIKCJHKP@abc?$AA@"),
        ("?f@?$Vector@", "?f@?$Vector@"),
        ("?", "?"),
        ("??", "??"),
        ("?@", "?@"),
        ("??0@", "??0@"),
        ("RtlAllocateHeap", "RtlAllocateHeap"),
        ("_underscore", "_underscore"),
    ],
)
def test_decorated_names_are_undone_and_others_stay(name: str, plain: str) -> None:
    assert undecorated(name, "x64") == plain


@pytest.mark.parametrize(
    ("name", "mangled"),
    [
        ("??_7Session@net@@6B@", ".?AVSession@net@@"),
        ("??_7?$Cache@VNode@app@@@net@@6B@", ".?AV?$Cache@VNode@app@@@net@@"),
        ("??_7Derived@@6BBase@@@", ".?AVDerived@@"),
        ("??_8Session@net@@7B@", None),
        ("?send@Session@net@@UEAAHPEBDH@Z", None),
        ("??_7", None),
    ],
)
def test_the_symbol_of_a_vftable_tells_the_class(name: str, mangled: str | None) -> None:
    assert vftable_class(name) == mangled


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("_RtlAllocateHeap@12", "RtlAllocateHeap"),
        ("_RtlpLFHKey", "RtlpLFHKey"),
        ("@ExFast@8", "ExFast"),
        ("?f@A@@QAEXXZ", "A::f"),
        ("plain", "plain"),
    ],
)
def test_c_names_lose_the_decoration_of_x86(name: str, plain: str) -> None:
    assert undecorated(name, "x86") == plain


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("net::Session::send(char const*, int)", "net::Session::send"),
        ("net::Session::size() const", "net::Session::size"),
        ("run", "run"),
        ("A::operator()(int)", "A::operator()"),
        ("(anonymous namespace)::f(void (*)(int))", "(anonymous namespace)::f"),
        ("std::function<void (int)>::call(void (*)(int))", "std::function<void (int)>::call"),
        ("std::function<void (int)>", "std::function<void (int)>"),
        (")", ")"),
        ("()", "()"),
    ],
)
def test_arguments_are_cut_off_a_name(name: str, short: str) -> None:
    assert without_arguments(name) == short
