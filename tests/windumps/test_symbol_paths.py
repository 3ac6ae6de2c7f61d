"""The syntax of _NT_SYMBOL_PATH."""

from __future__ import annotations

from pathlib import Path

import pytest

from windumps.symbols.errors import SymbolPathError
from windumps.symbols.paths import SearchElement, default_cache, parse_symbol_path

URL = "https://symbols.example/store"


def store(*folders: str, url: str = "") -> SearchElement:
    return SearchElement(tuple(Path(f) for f in folders), url=url)


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("", []),
        (" ; ;", []),
        ("pdbs", [SearchElement(folder=Path("pdbs"))]),
        ('"my pdbs";other', [SearchElement(folder=Path(f)) for f in ("my pdbs", "other")]),
        ("pdbs;pdbs", [SearchElement(folder=Path("pdbs"))]),
        ("srv*store", [store("store")]),
        (f"srv*cache*{URL}", [store("cache", url=URL)]),
        (f"SRV*cache*{URL}/", [store("cache", url=URL)]),
        (f"srv*one*two*{URL}", [store("one", "two", url=URL)]),
        ("srv*cache*\\\\server\\share", [store("cache", "\\\\server\\share")]),
        (f"symsrv*symsrv.dll*cache*{URL}", [store("cache", url=URL)]),
        (
            f"cache*near;pdbs;srv*{URL}",
            [
                store("near"),
                SearchElement((Path("near"),), folder=Path("pdbs")),
                store("near", url=URL),
            ],
        ),
        ("srv*", []),
        ("SRV", [SearchElement(folder=Path("SRV"))]),
    ],
)
def test_a_symbol_path_is_taken_apart(text: str, elements: list[SearchElement]) -> None:
    assert parse_symbol_path(text) == elements


@pytest.mark.parametrize("text", [URL, f"srv*{URL}", f"srv**{URL}", f"symsrv*symsrv.dll*{URL}"])
def test_a_server_without_a_cache_gets_the_default_one(text: str) -> None:
    assert parse_symbol_path(text) == [SearchElement((default_cache(),), url=URL)]


@pytest.mark.parametrize("text", ["srv*", "srv**", "cache*c;srv*", "pdbs;srv*store"])
def test_no_server_is_asked_that_the_path_does_not_name(text: str) -> None:
    assert not [element for element in parse_symbol_path(text) if element.url]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("svr*cache*store", "unknown"),
        (f"srv*{URL}*cache", "last"),
        ("ftp://symbols.example/", "http"),
        ("srv*cache*file:///pdbs", "http"),
        (";".join("a" * 300), "more than"),
    ],
)
def test_an_element_without_a_meaning_is_refused(text: str, reason: str) -> None:
    with pytest.raises(SymbolPathError, match=reason):
        parse_symbol_path(text)


def test_the_default_cache_follows_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    assert default_cache() == Path("caches/windumps/symbols")
    monkeypatch.setenv("LOCALAPPDATA", "local")
    assert default_cache() == Path("local/windumps/symbols")
