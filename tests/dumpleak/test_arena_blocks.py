"""Blocks of other allocators beside those of heaps: who holds them, whom they hold, which class they are."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from builders.arena_builder import Made, Page, mimalloc2, rpmalloc2
from builders.arena_process import headers, process_with, put
from builders.image_builder import ImageBuilder
from builders.process_builder import IMAGE_DATA, ProcessBuilder

PAGES = [Page(64, 5, 3), Page(256, 7), Page(32, 40), Page(1024, 9)]
HELD, LOST = 2, 3  # pages: an image leads to all blocks of the first, to none of the other
MAKERS = [(mimalloc2, "mimalloc"), (rpmalloc2, "rpmalloc")]


def _made(make: Any) -> tuple[Made, ProcessBuilder]:
    made = make(PAGES)
    process = process_with(made)
    process.dump.memory(process.bases["app.exe"], headers())
    sizes = {start: page.size for start, page in zip(made.starts, PAGES, strict=True)}
    lost = made.starts[LOST]
    words = [at for at in made.used if not lost <= at < lost + 9 * sizes[lost]]
    data = struct.pack(f"<{len(words)}Q", *words)
    process.dump.overwrite(process.bases["app.exe"] + IMAGE_DATA, data)
    return made, process


def _rows(run: Any, *args: object) -> list[dict[str, Any]]:
    status, out, said = run("allocations", *args, "--format", "json")
    assert status == 0, said
    return [json.loads(line) for line in out.splitlines()]


def _explained(run: Any, file: Path, *addresses: int) -> list[dict[str, Any]]:
    out = run("explain", file, *map(hex, addresses), "--format", "json")[1]
    return [json.loads(line) for line in out.splitlines()]


def _points(process: ProcessBuilder, made: Made, place: int, *targets: int) -> None:
    """Writes pointers into a block of the allocator."""
    process.dump.overwrite(place, struct.pack(f"<{len(targets)}Q", *targets))
    assert place in made.used


def _native(run: Any, file: Path, process: ProcessBuilder) -> list[int]:
    file.write_bytes(process.build())
    return [int(row["address"], 16) for row in _rows(run, file)]


@pytest.mark.parametrize(("make", "name"), MAKERS)
def test_a_native_block_that_only_a_lost_arena_block_holds_is_lost_too(
    run: Any, tmp_path: Path, make: Any, name: str
) -> None:
    file = tmp_path / "a.dmp"
    first, second, *others = _native(run, file, _made(make)[1])
    made, process = _made(make)
    _points(process, made, made.starts[LOST], first)
    _points(process, made, made.starts[HELD], second)
    file.write_bytes(process.build())
    asked = _rows(run, file, "--unreferenced")
    assert {int(row["address"], 16) for row in asked} == {first, *others}
    status, out, said = run("leaks", file, "--format", "json")
    assert status == 0, said
    answer = json.loads(out)
    listed = {int(at, 16) for group in answer["groups"] for at in group["addresses"]}
    lost = {made.starts[LOST] + 1024 * number for number in range(9)}
    assert listed == {first, *others} | lost
    heads = sum(group["head_count"] for group in answer["groups"])
    assert heads == len(others) + 9
    (told,) = _explained(run, file, second)
    steps = [step["what"] for step in told["path"]]
    assert steps[0].startswith("global app.exe")
    assert steps[1] == "block of 32 bytes"
    assert len(steps) == 3
    assert told["holders"][0]["what"] == "block of 32 bytes"


@pytest.mark.parametrize(("make", "name"), MAKERS)
def test_an_arena_block_is_explained_with_its_holder_and_what_it_keeps_alive(
    run: Any, tmp_path: Path, make: Any, name: str
) -> None:
    file = tmp_path / "a.dmp"
    made, process = _made(make)
    (held, lost) = made.starts[HELD], made.starts[LOST]
    _points(process, made, lost + 1024, lost + 2048)
    file.write_bytes(process.build())
    asked = held + 5, lost + 1024, lost + 2048, made.starts[0] + 5 * 64
    one, head, tail, free = _explained(run, file, *asked)
    assert (one["what"], one["block"]["kind"]) == ("block", name)
    assert one["block"]["size"] == 32
    assert one["path"]
    assert head["path"] == []
    assert (head["retained_bytes"], head["retained_count"]) == (2048, 2)
    assert tail["holders"][0]["offset"] == 0
    assert free["what"] == "free-block"
    out = run("explain", file, hex(lost))[1]
    assert f"block, 1,024 bytes in {name}\n" in out
    assert "nothing points to it" in out or "unreferenced" in out


@pytest.mark.parametrize(("make", "name"), MAKERS)
def test_allocations_lists_arena_blocks_when_they_are_asked_for_and_else_says_how_many(
    run: Any, tmp_path: Path, make: Any, name: str
) -> None:
    file = tmp_path / "a.dmp"
    made, process = _made(make)
    file.write_bytes(process.build())
    rows = _rows(run, file, "--of", "arenas")
    assert {int(row["address"], 16): row["size"] for row in rows} == made.used
    assert {(row["kind"], row["state"], row["heap_label"]) for row in rows} == {
        (name, "used", name)
    }
    some = _rows(run, file, "--of", "arenas", "--size", "1024", "--unreferenced")
    assert {int(row["address"], 16) for row in some} == {
        made.starts[LOST] + 1024 * number for number in range(9)
    }
    assert len(_rows(run, file, "--of", "arenas", "--state", "free")) >= 3
    status, _, said = run("allocations", file)
    assert status == 0
    assert f"{len(made.used)} used blocks of {name} are not among them" in said
    assert "--of arenas" in said
    assert "arenas" not in run("allocations", file, "--of", "arenas")[2]
    status, out, said = run("allocations", file, "--of", "arenas", "--new-since", file)
    assert (status, out) == (3, "")
    assert "--new-since" in said


def test_allocations_of_arenas_are_refused_where_there_are_none(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.dmp"
    file.write_bytes(process_with().build())
    assert run("allocations", file, "--of", "arenas")[0] == 3
    assert run("allocations", file, "--of", "pool")[0] == 3
    assert "arenas" not in run("allocations", file)[2]


def _with_class(count: int) -> tuple[Made, ProcessBuilder]:
    """Objects of a class in so many blocks of 1,024 bytes."""
    made, process = _made(mimalloc2)
    image = ImageBuilder(0x7FF6_0000_0000, 8)
    node = image.msvc_class(b".?AVNode@app@@\0")
    image.add_to(process.dump, "nodes.dll")
    for number in range(count):
        _points(process, made, made.starts[LOST] + 1024 * number, node)
    return made, process


def test_an_object_in_an_arena_has_its_class(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.dmp"
    file.write_bytes(_with_class(6)[1].build())
    groups = json.loads(run("stat", file, "--of", "arenas", "--by", "type", "--format", "json")[1])[
        "groups"
    ]
    told = {group["type"]: group["used_count"] for group in groups}
    assert told["app::Node"] == 6
    rows = _rows(run, file, "--of", "arenas", "--type", "app::Node")
    assert {(row["type"], row["site"]) for row in rows} == {("app::Node", "app::Node")}
    assert len(rows) == 6
    lost = json.loads(run("leaks", file, "--by", "type", "--format", "json")[1])["groups"]
    assert {g["type"]: g["unreferenced_count"] for g in lost}["app::Node"] == 6
    out = run("explain", file, "--type", "app::Node")[1]
    assert "6 blocks" in out


def test_an_object_in_an_arena_is_named_as_the_holder_of_native_blocks(
    run: Any, tmp_path: Path
) -> None:
    def grown(file: Path, blocks: int, held: list[int]) -> Path:
        made, process = _with_class(6)
        process.heap(1, blocks)
        if held:
            at = made.starts[LOST] + 1024
            process.dump.overwrite(at + 8, struct.pack(f"<{len(held)}Q", *held))
        file.write_bytes(process.build())
        return file

    base = grown(tmp_path / "a.dmp", 1, [])
    natives = {int(row["address"], 16) for row in _rows(run, grown(tmp_path / "b.dmp", 30, []))}
    new = sorted(natives - {int(row["address"], 16) for row in _rows(run, base)})
    out = run("diff", base, grown(tmp_path / "b.dmp", 30, new))[1]
    assert "29 of 30 held by app::Node" in out
    assert "30 of 30 unreferenced" in out  # that object is lost itself


def test_leaks_counts_what_other_allocators_hold_as_walked(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.dmp"
    file.write_bytes(_made(mimalloc2)[1].build())
    found = json.loads(run("leaks", file, "--format", "json")[1])["coverage"]
    plain = json.loads(run("stat", file, "--format", "json")[1])["coverage"]
    arenas = json.loads(run("stat", file, "--of", "arenas", "--format", "json")[1])["coverage"]
    for key in ("walked_bytes", "heaps_read"):
        assert found[key] == plain[key] + arenas[key]


def test_info_says_what_a_process_mostly_is_and_how_to_look_into_it(
    run: Any, tmp_path: Path
) -> None:
    file = tmp_path / "a.dmp"
    file.write_bytes(process_with(mimalloc2([Page(1024, 40) for _ in range(30)])).build())
    out = run("info", file)[1]
    assert "mostly mimalloc (1.9 MiB of" in out
    assert "--of arenas" in out
    assert "gflags /i" not in out
    assert json.loads(run("info", file, "--format", "json")[1])["mostly"]["name"] == "mimalloc"
    file.write_bytes(process_with().private(2, 0x30000).build())
    out = run("info", file)[1]
    assert "Program " not in out
    assert "gflags /i" in out
    assert json.loads(run("info", file, "--format", "json")[1])["mostly"] is None


def test_a_go_program_is_led_to_its_own_tools(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.dmp"
    process = process_with(data=b"\xff Go buildinf:".ljust(64, b"\0"))
    put(process, 0xC0_0000_0000, bytes(4 << 20))
    process.dump.memory(process.bases["app.exe"], headers())
    file.write_bytes(process.build())
    out = run("info", file)[1]
    assert "mostly Go (Go heap 4.0 MiB of" in out
    assert "go tool pprof" in out
    assert "gflags /i" not in out
