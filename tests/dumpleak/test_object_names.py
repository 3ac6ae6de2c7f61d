"""Handles of a system by name: of what the memory holds the names of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.filled_system import NUMBERS, FilledSystem

BUILDS = pytest.mark.parametrize("build", list(NUMBERS))
ABSENT = 0xFFFFE0FFFFFF0000
UNKNOWN = "(name not in the dump)"


def _counts(run: Any, path: Path) -> dict[str, int]:
    code, out, err = run("stat", path, "--of", "handles", "--by", "name", "--format", "json")
    assert (code, err) == (0, "")
    return {group["name"]: group["used_count"] for group in json.loads(out)["groups"]}


def _opened(made: FilledSystem, *bodies: int) -> None:
    """Every process opens a process, which has no name; one of them opens these instead."""
    made.fill(handles=1)
    made.leads("acmesvc.exe", list(bodies))


@BUILDS
def test_objects_with_names_have_their_paths(build: str, run: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path, build)
    root = made.kernel_object("\\")
    folder = made.kernel_object("BaseNamedObjects", root)
    event = made.kernel_object("Global_Evt", folder, made.block("Even"), creator=True)
    mutant = made.kernel_object("Lock", folder, made.block("Muta"))
    _opened(made, event, event, mutant)
    found = _counts(run, made.save())
    assert found["\\BaseNamedObjects\\Global_Evt"] == 2
    assert found["\\BaseNamedObjects\\Lock"] == 1


@BUILDS
def test_files_have_the_name_of_their_device_and_their_own(
    build: str, run: Any, tmp_path: Path
) -> None:
    made = FilledSystem(tmp_path, build)
    root = made.kernel_object("\\")
    volume = made.kernel_object("HarddiskVolume3", made.kernel_object("Device", root))
    file = made.kernel_object(None, body=made.block("File"))
    made.put(file, b"\x05\x00\xd8\x00")
    made.pointer(file + 8, volume)
    made.text(file + 0x58, "\\logs\\app.log")
    _opened(made, file, file, file)
    assert _counts(run, made.save())["\\Device\\HarddiskVolume3\\logs\\app.log"] == 3


def _key(made: FilledSystem, parent: int, name: str, *, wide: bool = False, at: int = 0x48) -> int:
    """A control block; where it has its parent and its name differs by build."""
    block, told = made.room(0x100), made.room(0x80)
    value = 0
    for letter in name.upper().replace("\\", ""):
        value = (value * 37 + ord(letter)) % 2**32
    raw = name.encode("utf-16-le" if wide else "latin-1")
    made.put(block, bytes(0x100))
    made.put(told, bytes([2 if wide else 3, 0, 0, 0]))
    made.put(told + 8, value.to_bytes(4, "little"))
    made.put(told + 0x18, len(raw).to_bytes(2, "little") + raw)
    made.pointer(block + at, parent)
    made.pointer(block + at + 8, told)
    return block


@pytest.mark.parametrize("at", [0x38, 0x48, 0x68])
def test_keys_have_their_paths_wherever_the_build_keeps_names(
    at: int, run: Any, tmp_path: Path
) -> None:
    made = FilledSystem(tmp_path)
    machine = _key(made, _key(made, 0, "\\REGISTRY", at=at), "MACHINE", at=at)
    leaf = _key(made, machine, "Grün", wide=True, at=at)
    key = made.kernel_object(None, body=made.block("Key "))
    made.put(key, b"20yk")
    made.pointer(key + 8, leaf)
    _opened(made, key)
    assert _counts(run, made.save())["\\REGISTRY\\MACHINE\\Grün"] == 1


def test_a_key_whose_name_its_hash_denies_is_not_named(run: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path)
    block = _key(made, 0, "\\REGISTRY")
    told = made.get(block + 0x50)
    made.put(told + 8, b"\1\2\3\4")
    key = made.kernel_object(None, body=made.block("Key "))
    made.put(key, b"20yk")
    made.pointer(key + 8, block)
    _opened(made, key)
    assert _counts(run, made.save())[UNKNOWN] == 1


@BUILDS
def test_what_has_no_name_is_told_by_its_type(build: str, run: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path, build)
    for _, process in made.processes:
        made.kernel_object(None, body=process)
    mutant = made.kernel_object(None, body=made.block("Muta"))
    _opened(made, mutant)
    found = _counts(run, made.save())
    assert found == {"(Mutant without a name)": 1, "(Process without a name)": 11}


def test_names_that_are_not_there_are_not_made_up(run: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path)
    event = made.kernel_object("Lost", made.kernel_object("\\"), made.block("Even"))
    made.text(event - 0x30 - 0x20 + 8, "Lost", ABSENT)
    mutant = made.kernel_object("Leaf", ABSENT, made.block("Muta"))
    file = made.kernel_object(None, body=made.block("File"))
    made.put(file, b"\x09\x00\xd8\x00")  # no file
    _opened(made, event, mutant, file)
    found = _counts(run, made.save())
    assert (found[UNKNOWN], found["…\\Leaf"]) == (2, 1)


def test_directories_that_hold_themselves_end(run: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path)
    folder = made.kernel_object("Ring")
    made.pointer(folder - 0x50, folder)
    event = made.kernel_object("Leaf", folder, made.block("Even"))
    deep = made.kernel_object("\\")
    for number in range(40):
        deep = made.kernel_object(f"d{number}", deep)
    mutant = made.kernel_object("Leaf", deep, made.block("Muta"))
    _opened(made, event, mutant)
    found = _counts(run, made.save())
    assert found["…\\Ring\\Leaf"] == 1
    assert sum(count for name, count in found.items() if name.endswith("\\d39\\Leaf")) == 1


def test_handles_of_two_moments_are_compared_by_name(run: Any, tmp_path: Path) -> None:
    pair = []
    for which, count in (("before", 2), ("after", 140)):
        made = FilledSystem(tmp_path, which=which)
        event = made.kernel_object("Evt", made.kernel_object("\\"), made.block("Even"))
        _opened(made, *[event] * count)
        pair.append(made.save())
    code, out, _ = run("diff", *pair, "--of", "handles", "--by", "name", "--format", "json")
    told = json.loads(out)
    assert (code, told["verdict"]) == (0, "growth")
    assert [(s["name"], s["delta_count"]) for s in told["sites"]] == [("\\Evt", 138)]
