"""Which allocators are recognised in all dumps there are: each where it is, none where it is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from truth import SHARED, TESTDATA

from dumpleak.model.account import allocator_row, allocator_told
from dumpleak.process.private_memory import find_private
from dumpleak.process.session import Session
from windumps.dumps.kinds import is_system
from windumps.errors import WindumpsError

_DOTNET = {".NET objects", ".NET types", ".NET runtime", ".NET code"}
_STACK = "stack without a thread"  # Wine lists no thread for one that just ended
# Beginnings of names of files, and what may be named in them; what has to be.
KNOWN: tuple[tuple[str, set[str], set[str]], ...] = (
    ("arenas/mimalloc", {"mimalloc", _STACK}, {"mimalloc"}),
    ("arenas/rpmalloc", {"rpmalloc", _STACK}, {"rpmalloc"}),
    ("arenas/go", {"Go heap", "Go runtime", _STACK}, {"Go heap", "Go runtime"}),
    ("managed/dotnet", {*_DOTNET, _STACK}, {".NET objects", ".NET runtime"}),
    ("", set(), set()),
)
FILES = sorted(
    path
    for folder in ("arenas", "managed", "real/user")
    for path in (SHARED / folder).rglob("*")
    if re.search(r"\.m?dmp(\.[xg]z)?$", path.name)
)
OWN = sorted(TESTDATA.glob("[0-9]*/*/*.dmp.gz"))


def _names(file: Path) -> set[str]:
    session = Session.open(file)
    if is_system(session.dump):
        return set()
    for _ in session.blocks():
        pass
    _ = session.managed.groups
    return set(find_private(session).owners.names)


@pytest.mark.parametrize("file", [*FILES, *OWN], ids=lambda f: "/".join(f.parts[-3:]))
def test_every_allocator_is_named_where_it_is_and_nowhere_else(file: Path) -> None:
    told = file.as_posix()
    may, must = next((may, must) for begin, may, must in KNOWN if f"/{begin}" in told)
    try:
        names = _names(file)
    except WindumpsError:
        pytest.skip("not the dump of a process that can be opened")
    assert names <= may
    assert names >= must


@pytest.mark.parametrize(
    ("allocator", "told"), [(".NET objects", ".NET objects"), ("Go heap", "go heap")]
)
def test_the_row_of_an_allocator_is_called_as_people_call_it(allocator: str, told: str) -> None:
    assert allocator_told(allocator_row(allocator)) == told
