"""Who keeps ended processes alive: whose handles lead to them, and what is not known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.filled_system import NUMBERS, FilledSystem

HEADER = 0x30  # of an object, x64; its count of handles stands 8 behind the start
BUILDS = pytest.mark.parametrize("build", list(NUMBERS))


def _ended(made: FilledSystem, *, handles: int) -> int:
    """A process that ended, with so many open handles as its header says."""
    process = made.address("acmesvc.exe")
    made.end(process, listed=False)
    made.pointer(process - HEADER + 8, handles)
    return process


def _kept(run: Any, path: Path) -> dict[str, Any]:
    code, out, err = run("processes", path, "--format", "json")
    assert (code, err) == (0, "")
    (kept,) = json.loads(out)["kept_alive"]
    return dict(kept)


@BUILDS
def test_the_process_whose_handles_keep_it_alive_is_named(
    build: str, run: Any, tmp_path: Path
) -> None:
    made = FilledSystem(tmp_path, build).fill(handles=2)  # of System and smss.exe
    process = _ended(made, handles=7)
    made.leads("lsass.exe", [process] * 5 + [made.address("csrss.exe")])
    made.leads("services.exe", [process] * 2)
    kept = _kept(run, made.save())
    assert (kept["name"], kept["open_handles"]) == ("acmesvc.exe", 7)
    assert [(h["name"], h["handles"]) for h in kept["holders"]] == [
        ("lsass.exe", 5),
        ("services.exe", 2),
    ]
    assert kept["evidence"][0].startswith("lsass.exe (pid ")
    assert kept["evidence"][0].endswith(") has 5 handles of it")
    assert "unknown" not in " ".join(kept["evidence"])
    code, out, _ = run("processes", made.path)
    assert (code, "acmesvc.exe: lsass.exe (pid " in out) == (0, True)


def test_what_no_handle_leads_to_is_held_by_pointer(run: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path).fill(handles=2)
    _ended(made, handles=0)
    kept = _kept(run, made.save())
    assert kept["holders"] == []
    assert kept["evidence"] == [
        "no handle leads to it: a driver, or the kernel, refers to it by pointer"
    ]


def test_where_handle_tables_are_not_wholly_there_the_rest_is_unknown(
    run: Any, tmp_path: Path
) -> None:
    made = FilledSystem(tmp_path).fill(handles=2)
    process = _ended(made, handles=9)
    made.leads("services.exe", [process] * 2)
    table = made.get(made.address("lsass.exe") + made.n.table)
    made.pointer(table + made.n.code, 0xFFFFE0FFFFFF0000)
    kept = _kept(run, made.save())
    assert [(h["name"], h["handles"]) for h in kept["holders"]] == [("services.exe", 2)]
    assert kept["evidence"][1] == (
        "who else holds it is unknown: handle tables of 1 process are not wholly in the dump"
    )


def test_two_dumps_say_who_keeps_the_new_ones_alive(run: Any, tmp_path: Path) -> None:
    before = FilledSystem(tmp_path).fill(handles=2).save()
    made = FilledSystem(tmp_path, which="after").fill(handles=2)
    ended = made.named("svchost.exe")
    for process in ended:
        made.end(process, listed=False)
        made.pointer(process - HEADER + 8, 1)
    made.leads("services.exe", ended)
    after = made.save()
    files = [tmp_path / f"{number}.dlsnap" for number in range(2)]
    for dump, file in zip((before, after), files, strict=True):
        assert run("snapshot", dump, "-o", file)[0] == 0
    for pair in ((before, after), files):
        code, out, _ = run("processes", *pair, "--format", "json")
        first = json.loads(out)["processes"][0]
        assert (code, first["name"], first["state"]) == (0, "svchost.exe", "ended")
        assert first["evidence"][1].startswith("3 of them: services.exe (pid ")
        assert first["evidence"][1].endswith(") has 1 handle of it")
