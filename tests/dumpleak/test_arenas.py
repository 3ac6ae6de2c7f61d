"""`--of arenas`, and whose private memory outside heaps is: allocators other than Windows' own."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.arena_builder import HEAP, Made, Page, mimalloc2, rpmalloc2
from builders.arena_process import headers, process_with, put
from builders.opening import open_bytes
from builders.process_builder import (
    COMMIT,
    GUARD,
    IMAGE_DATA,
    PAGE,
    PRIVATE,
    READ_WRITE,
    RESERVE,
    ProcessBuilder,
    Row,
)

from dumpleak.compare.same_private import with_same_private
from dumpleak.process.private_memory import find_private, private_key
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot

PAGES = [Page(64, 5, 3, 2), Page(256, 7, freed=3), Page(32, 40), Page(1024, 9)]
MORE = [Page(64, 5, 3, 2), Page(256, 7, freed=3), Page(32, 400), Page(1024, 9)]
OF = "--of", "arenas"


def _write(file: Path, *args: Any, **named: Any) -> Path:
    file.write_bytes(process_with(*args, **named).build())
    return file


@pytest.mark.parametrize(("make", "kind"), [(mimalloc2, "mimalloc"), (rpmalloc2, "rpmalloc")])
def test_blocks_of_other_allocators_are_told_by_allocator_and_size(
    run: Any, tmp_path: Path, make: Callable[[list[Page]], Made], kind: str
) -> None:
    made = make([replace(page, local=0) for page in PAGES])
    file = _write(tmp_path / "a.dmp", made)
    status, out, _ = run("stat", file, *OF, "--format", "json")
    (group,) = json.loads(out)["groups"]
    assert status == 0
    assert (group["name"], group["used_count"]) == (kind, len(made.used))
    assert group["used_bytes"] == sum(made.used.values())
    out = run("stat", file, *OF, "--by", "size", "--format", "json")[1]
    told = {group["name"]: group["used_count"] for group in json.loads(out)["groups"]}
    sizes = list(made.used.values())
    assert told == {str(size): sizes.count(size) for size in set(sizes)}


def test_what_grew_is_named_and_fails_a_gate(run: Any, tmp_path: Path) -> None:
    base = _write(tmp_path / "a.dmp", mimalloc2(PAGES))
    current = _write(tmp_path / "b.dmp", mimalloc2(MORE), time=3600)
    gate = "--fail-on", "count>=360,arenas.count>=360"
    status, out, _ = run("diff", base, current, *OF, "--by", "size", "--format", "json", *gate)
    answer = json.loads(out)
    assert status == 1
    assert answer["sites"][0]["name"] == "32"
    assert answer["sites"][0]["delta_count"] == 360
    rows = {row["name"]: row["delta"] for row in answer["account"]}
    assert rows["arenas.count"] == 360
    assert rows["arenas.bytes"] == 360 * 32
    assert rows["private_mimalloc.bytes"] == 0


def test_a_snapshot_file_tells_the_same(run: Any, tmp_path: Path) -> None:
    file = _write(tmp_path / "a.dmp", mimalloc2(PAGES))
    kept = tmp_path / "a.dlsnap"
    assert run("snapshot", file, "-o", kept)[0] == 0
    for by in ("kind", "size", "type"):
        words = *OF, "--by", by, "--format", "json"
        of_dump, of_file = (json.loads(run("stat", path, *words)[1]) for path in (file, kept))
        assert of_file["groups"] == of_dump["groups"]
        assert of_file["coverage"] == of_dump["coverage"]


def test_a_process_without_any_is_refused_and_so_is_a_secure_build(
    run: Any, tmp_path: Path
) -> None:
    status, out, said = run("stat", _write(tmp_path / "a.dmp"), *OF)
    assert (status, out) == (3, "")
    assert "no memory of mimalloc or rpmalloc" in said
    status, out, said = run("stat", _write(tmp_path / "b.dmp", mimalloc2(PAGES, keys=16)), *OF)
    assert (status, out) == (3, "")
    assert "secure or debug build" in said


def test_what_could_not_be_walked_is_said_and_bars_the_gate(run: Any, tmp_path: Path) -> None:
    damaged = mimalloc2(MORE)
    base = next(iter(damaged.memory))
    struct.pack_into("<Q", damaged.memory[base], damaged.starts[0] + 5 * 64 - base, 0x123456)
    before = _write(tmp_path / "a.dmp", mimalloc2(PAGES))
    after = _write(tmp_path / "b.dmp", damaged, time=3600)
    coverage = json.loads(run("stat", after, *OF, "--format", "json")[1])["coverage"]
    assert coverage["committed_bytes"] - coverage["walked_bytes"] >= 10 * 64
    status, _, said = run("diff", before, after, *OF, "--fail-on", "bytes>=11500")
    assert status == 3, said
    assert "100.0%" not in run("stat", after, *OF)[1].split("share")[1].split("walked")[1]


def _named(process: ProcessBuilder) -> dict[str, list[int]]:
    """Where allocations of each allocator begin; "" for those of none that is recognised."""
    session = Session(open_bytes(process.build()))
    for _ in session.blocks():
        pass
    found = find_private(session)
    names = [found.owners.names[n] if n >= 0 else "" for n in found.owners.number.tolist()]
    told: dict[str, list[int]] = {}
    for name, start in zip(names, found.start.tolist(), strict=True):
        told.setdefault(name, []).append(start)
    return told


def test_private_memory_is_divided_by_allocator(run: Any, tmp_path: Path) -> None:
    process = process_with(mimalloc2(PAGES)).private(2, 0x30000)
    (tmp_path / "a.dmp").write_bytes(process.build())
    (tmp_path / "b.dmp").write_bytes(process_with(mimalloc2([*MORE, Page(512, 9)]), time=9).build())
    out = run("diff", tmp_path / "a.dmp", tmp_path / "b.dmp", "--format", "json")[1]
    rows = {row["name"]: row["delta_bytes"] for row in json.loads(out)["private"]}
    assert rows["private memory outside heaps, 192 KiB reserved each"] == -2 * 0x30000
    assert rows["mimalloc, 384 KiB reserved each"] == 0x60000
    out = run("stat", tmp_path / "a.dmp", "--of", "regions", "--by", "owner")[1]
    assert "mimalloc: its pages agree with each other" in out


def test_the_go_heap_is_named_in_programs_built_by_go_alone() -> None:
    go = b"\xff Go buildinf:".ljust(64, b"\0")
    for data, named in ((go, True), (b"\0", False)):
        process = process_with(data=data)
        put(process, 0xC0_0000_0000, bytes(4 << 20))
        # The headers of a made image tell no sections; a real one's do.
        process.dump.memory(process.bases["app.exe"], headers())
        told = _named(process)
        assert (told.get("Go heap") == [0xC0_0000_0000]) == named
        assert (0xC0_0000_0000 in told.get("", [])) != named


def test_what_an_allocators_own_image_names_is_its() -> None:
    process = ProcessBuilder().image("jemalloc.dll", data=struct.pack("<Q", 0x5000_0000)).heap()
    process.thread(process.bases["jemalloc.dll"] + 0x1100)
    process.dump.memory(process.bases["jemalloc.dll"], headers())
    for base in (0x5000_0000, 0x5010_0000):
        put(process, base, bytes(PAGE))
    assert _named(process)["jemalloc"] == [0x5000_0000]


def test_pages_of_v8_name_their_bounds_and_one_heap() -> None:
    process = process_with()
    pages = [0x6000_0000 + n * 0x40000 for n in range(4)]
    for page in pages:
        memory = bytearray(0x40000)
        struct.pack_into("<5Q", memory, 0, 0x40000, 8, HEAP, page + 0x100, page + 0x40000)
        put(process, page, bytes(memory))
    assert _named(process)["V8 heap"] == pages
    two = process_with()
    for page in pages[:2]:
        memory = bytearray(0x40000)
        struct.pack_into("<5Q", memory, 0, 0x40000, 8, HEAP, page + 0x100, page + 0x40000)
        put(two, page, bytes(memory))
    assert "V8 heap" not in _named(two)


def test_super_pages_show_their_metadata_alone_and_name_one_root() -> None:
    process = process_with()
    base = 0x6000_0000
    for page in (base + n * 0x200000 for n in range(3)):
        for at, state in ((0, RESERVE), (1, COMMIT), (2, RESERVE), (4, COMMIT)):
            pages = {0: 1, 1: 1, 2: 2, 4: 508}[at]
            place = page + at * PAGE
            process.rows.append(Row(place, pages * PAGE, state, READ_WRITE, PRIVATE, base))
        process.dump.memory(page + PAGE, struct.pack("<Q", HEAP).ljust(PAGE, b"\0"))
    assert _named(process)["PartitionAlloc"] == [base]


def test_pools_of_fastmm_are_on_a_list_whose_head_is_in_an_image() -> None:
    process = process_with()
    head = process.bases["app.exe"] + IMAGE_DATA
    pools = [0x6000_0000, 0x6100_0000]
    for pool, links in zip(pools, ((head, pools[1]), (pools[0], head)), strict=True):
        put(process, pool, struct.pack("<QQ", *links).ljust(20 << 16, b"\0"))
    process.dump.overwrite(head, struct.pack("<QQ", pools[1], pools[0]))
    assert _named(process)["FastMM4"] == pools


def test_a_stack_of_no_thread_is_one() -> None:
    process = process_with()
    base = 0x6000_0000
    process.rows.append(Row(base, 0xE000, RESERVE, 0, PRIVATE, base))
    process.rows.append(Row(base + 0xE000, PAGE, COMMIT, READ_WRITE | GUARD, PRIVATE, base))
    process.rows.append(Row(base + 0xF000, PAGE, COMMIT, READ_WRITE, PRIVATE, base))
    assert _named(process)["stack without a thread"] == [base]


def test_a_block_that_only_lost_blocks_hold_is_unreferenced(run: Any, tmp_path: Path) -> None:
    made = mimalloc2(PAGES)
    base = next(iter(made.memory))
    held, lost = made.starts[2], made.starts[3]  # blocks of 32 and of 1,024 bytes
    words = [held + 32 * n for n in range(40)] + [made.starts[1] + 256 * n for n in range(7)]
    words += [made.starts[0] + 64 * n for n in range(5)]
    data = struct.pack(f"<{len(words)}Q", *words)
    for number in range(1, 9):  # each leads to the one before
        at = lost + 1024 * number - base
        struct.pack_into("<Q", made.memory[base], at, lost + 1024 * (number - 1))
    process = process_with(made)
    process.dump.memory(process.bases["app.exe"], headers())
    process.dump.overwrite(process.bases["app.exe"] + IMAGE_DATA, data)
    (tmp_path / "a.dmp").write_bytes(process.build())
    status, out, said = run("leaks", tmp_path / "a.dmp", "--format", "json")
    assert status == 0, said
    answer = json.loads(out)
    (group,) = [group for group in answer["groups"] if "mimalloc" in group["name"]]
    assert (group["name"], group["unreferenced_count"]) == ("1024 bytes in mimalloc", 9)


def test_files_that_know_no_allocators_are_compared_by_size() -> None:
    session = Session(open_bytes(process_with(mimalloc2(PAGES)).build()))
    taken = take_snapshot(session)
    older = replace(taken, allocators_known=False)
    named = {key for key in taken.private if "mimalloc" in key}
    assert named
    same, _ = with_same_private([older, taken])
    assert same[0].private.keys() == same[1].private.keys()
    size = int(next(iter(named)).rpartition("|")[2])
    assert private_key(size) in same[1].private
    assert not {key for key in same[1].private if "mimalloc" in key}
    total = np.sum([totals.bytes for _, totals in taken.private.values()])
    assert total == sum(totals.bytes for _, totals in same[1].private.values())


def test_growth_of_an_allocator_leads_to_its_blocks_and_not_to_virtual_alloc(
    run: Any, tmp_path: Path
) -> None:
    base = _write(tmp_path / "a.dmp", mimalloc2(PAGES))
    current = _write(tmp_path / "b.dmp", mimalloc2([*MORE, *PAGES * 10]), time=3600)
    out = run("diff", base, current)[1]
    assert "dumpleak diff BASE CURRENT --of arenas" in out
    assert "VirtualAlloc" not in out


def test_info_names_the_allocators(run: Any, tmp_path: Path) -> None:
    out = run("info", _write(tmp_path / "a.dmp", mimalloc2(PAGES)))[1]
    assert "Allocators      mimalloc 320 KiB" in out
    out = run("info", _write(tmp_path / "b.dmp"))[1]
    assert "Allocators" not in out


@pytest.mark.parametrize(("arena", "pool"), [(256 << 10, 4096), (1 << 20, 16384)])
def test_arenas_of_python_have_pools_whose_headers_fit(arena: int, pool: int) -> None:
    base = 0x6000_0000
    memory = bytearray(arena)
    for number, size in enumerate((16, 64, 512, 32)):
        row = 3, base + number * pool + 0x100, HEAP, HEAP, 0, size // 16 - 1, 0x200, pool - size
        struct.pack_into("<IxxxxQQQIIII", memory, number * pool, *row)
    for image, named in (("python312.dll", True), ("other.dll", False)):
        process = process_with().image(image)
        put(process, base, bytes(memory))
        assert (_named(process).get("Python objects") == [base]) == named


def test_what_the_data_of_a_go_program_name_is_its_runtimes() -> None:
    base = 0x6000_0000
    for beginning, named in ((b"\xff Go buildinf:", True), (b"something else.", False)):
        process = process_with(data=beginning.ljust(32, b"\0") + struct.pack("<Q", base))
        process.dump.memory(process.bases["app.exe"], headers())
        put(process, base, bytes(PAGE))
        put(process, base + 0x100000, bytes(PAGE))
        assert (_named(process).get("Go runtime") == [base]) == named
