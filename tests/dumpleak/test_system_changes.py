"""A driver or a Windows that is another build in the later dump is named."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from builders.filled_system import FilledSystem, rebuild
from pool_samples import run, run_json
from truth import TESTDATA

HEADER_MODULES = 0x20  # PsLoadedModuleList in the dump header
HEADER_BUILD = 0xC
DLL_BASE = 0x30  # _KLDR_DATA_TABLE_ENTRY


def unload(system: FilledSystem, name: str) -> None:
    """Takes it off the list of loaded modules."""
    base = system.module(name)
    (head,) = struct.unpack_from("<Q", system.raw, HEADER_MODULES)
    node = system.get(head)
    while node != head:
        after, before = system.get(node), system.get(node + 8)
        if system.get(node + DLL_BASE) == base:
            system.pointer(before, after)
            system.pointer(after + 8, before)
            return
        node = after
    raise AssertionError(f"{name} is not in the list")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[FilledSystem, FilledSystem]:
    return (
        FilledSystem(tmp_path, which="before").fill(),
        FilledSystem(tmp_path, which="after").fill(),
    )


def test_a_driver_of_another_build_is_named_by_pool_and_diff(
    pair: tuple[FilledSystem, FilledSystem], capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = pair
    rebuild(after, "acmenet.sys")
    files = before.save(), after.save()
    for command in ("pool", "diff"):
        told = run_json(capsys, command, *files)["changes"]
        assert told["windows"] is None
        (changed,) = told["drivers_changed"]
        assert (changed["name"], changed["why"]) == ("acmenet.sys", "build GUID changed")
        assert changed["base_build"] != changed["current_build"]
        assert (told["drivers_loaded"], told["drivers_unloaded"]) == ([], [])
        text = " ".join(run(capsys, command, *files)[1].split())
        assert "another build of acmenet.sys (build GUID changed)" in text


def test_drivers_that_only_one_dump_has_are_named(
    pair: tuple[FilledSystem, FilledSystem], capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = pair
    unload(before, "acmegpu.sys")
    unload(after, "acmeflt.sys")
    files = before.save(), after.save()
    told = run_json(capsys, "diff", *files)["changes"]
    assert told["drivers_loaded"] == ["acmegpu.sys"]
    assert told["drivers_unloaded"] == ["acmeflt.sys"]
    text = " ".join(run(capsys, "pool", *files)[1].split())
    assert "only in the later dump: acmegpu.sys; no longer loaded: acmeflt.sys" in text


def test_of_a_list_of_drivers_that_is_not_whole_none_is_said_to_be_gone(
    pair: tuple[FilledSystem, FilledSystem], capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = pair
    unload(after, "acmeflt.sys")
    (head,) = struct.unpack_from("<Q", after.raw, HEADER_MODULES)
    # The last entry leads nowhere: what follows is not known.
    after.pointer(after.get(head + 8), 0x1000)
    files = before.save(), after.save()
    told = run_json(capsys, "diff", *files)["changes"]
    assert (told["drivers_loaded"], told["drivers_unloaded"]) == (None, None)
    assert "not whole" in told["unknown"]


def test_nothing_is_said_where_nothing_changed(
    pair: tuple[FilledSystem, FilledSystem], capsys: pytest.CaptureFixture[str]
) -> None:
    files = [system.save() for system in pair]
    told = run_json(capsys, "diff", *files)["changes"]
    assert not (told["drivers_changed"])
    assert not (told["drivers_loaded"])
    assert not (told["drivers_unloaded"])
    for command in ("pool", "diff"):
        assert "  Changed " not in run(capsys, command, *files)[1]


def test_another_windows_build_is_said_and_compared_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [TESTDATA / "kernel" / b / "tiny-pair/after.dmp.xz" for b in ("14393-x64", "22621-x64")]
    told = run_json(capsys, "diff", *files)
    assert told["verdict"] != "not-comparable"
    windows = told["changes"]["windows"]
    assert ("14393" in windows["base"], "22621" in windows["current"]) == (True, True)
    names = {row["name"] for row in told["changes"]["drivers_changed"]}
    assert "ntoskrnl.exe" in names
    text = " ".join(run(capsys, "pool", *files)[1].split())
    assert "Windows is another build: Windows 10.0.14393 x64 → Windows 10.0.22621 x64" in text


def test_a_snapshot_tells_of_its_drivers_as_the_dump_does(
    pair: tuple[FilledSystem, FilledSystem], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = pair
    rebuild(after, "acmenet.sys")
    files = before.save(), after.save()
    kept = [tmp_path / f"{number}.dlsnap" for number in range(2)]
    for source, target in zip(files, kept, strict=True):
        assert run(capsys, "snapshot", source, "-o", target)[0] == 0
    assert run_json(capsys, "diff", *kept)["changes"] == run_json(capsys, "diff", *files)["changes"]


def test_two_processes_have_no_drivers(capsys: pytest.CaptureFixture[str]) -> None:
    folder = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"
    told = run_json(capsys, "diff", folder / "before.dmp.gz", folder / "after.dmp.gz")
    assert told["changes"] is None
