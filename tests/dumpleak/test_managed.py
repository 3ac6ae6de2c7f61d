"""Objects of .NET as a population: by type in every answer, and what a process is by them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from builders.clr_heap_builder import HEAP, ClrHeapBuilder
from builders.nt_heap_builder import NtHeapBuilder
from builders.process_builder import ProcessBuilder
from truth import SHARED, TESTDATA

from dumpleak.process.session import Session
from dumpleak.survey.info import take_info
from dumpleak.survey.populations.managed import managed_objects
from windumps import open_dump
from windumps.heaps.clr.heap import find_managed_heap
from windumps.heaps.clr.method_tables import MethodTables
from windumps.heaps.clr.segments import find_segments

GENUINE = sorted((SHARED / "managed").glob("*.dmp.xz"))
OTHERS = sorted(TESTDATA.glob("[0-9]*/*/*.dmp.gz"))


def _made(
    folder: Path, name: str, orders: int, damaged: bool = False, framework: bool = False
) -> str:
    made = ClrHeapBuilder()
    order = made.type("Shop", "Order", 48)
    array = made.array(made.type("System", "Byte", 24), 1)
    for _ in range(orders):
        made.put(order)
        made.put(array, 100)
    if damaged:
        made.damage = [(HEAP + 0x3000, 0x1000)]
    path = folder / name
    dump = made.build(("clr.dll",) if framework else ("coreclr.dll",))
    path.write_bytes(dump.misc_info(7, (1_700_000_000, 1, 1)).build())
    return str(path)


def _stat(run: Any, path: str) -> dict[str, Any]:
    status, out, error = run("stat", path, "--of", "managed", "--by", "type", "--format", "json")
    assert status == 0, error
    return dict(json.loads(out))


def test_objects_are_told_by_type(run: Any, tmp_path: Path) -> None:
    answer = _stat(run, _made(tmp_path, "a.dmp", 500))
    groups = {g["name"]: (g["used_count"], g["used_bytes"]) for g in answer["groups"]}
    assert groups == {"Shop.Order": (500, 500 * 48), "System.Byte[]": (500, 500 * 128)}
    covered = answer["coverage"]
    assert covered["walked_bytes"] == covered["committed_bytes"]


def test_a_difference_names_the_types_that_grew_and_the_gate_takes_them(
    run: Any, tmp_path: Path
) -> None:
    base, current = _made(tmp_path, "a.dmp", 500), _made(tmp_path, "b.dmp", 900)
    status, out, _ = run("diff", base, current, "--of", "managed", "--format", "json")
    assert status == 0
    deltas = {site["name"]: site["delta_count"] for site in json.loads(out)["sites"]}
    assert deltas == {"Shop.Order": 400, "System.Byte[]": 400}
    args = ("diff", base, current, "--of", "managed", "--fail-on")
    assert run(*args, "count>=800")[0] == 1
    assert run(*args, "count>=801")[0] == 0
    assert run(*args, "managed.count>=800")[0] == 1


def test_a_snapshot_file_keeps_types_and_how_much_was_walked(run: Any, tmp_path: Path) -> None:
    for damaged in (False, True):
        dump = _made(tmp_path, "a.dmp", 500, damaged)
        kept = str(tmp_path / "a.dlsnap")
        assert run("snapshot", dump, "--of", "managed", "-o", kept)[0] == 0
        one, other = _stat(run, dump), _stat(run, kept)
        for key in ("groups", "coverage"):
            assert one[key] == other[key]
        assert (one["coverage"]["walked_bytes"] < one["coverage"]["committed_bytes"]) == damaged


def test_unwalked_objects_may_hide_growth_and_no_gate_passes_over_them(
    run: Any, tmp_path: Path
) -> None:
    base, current = _made(tmp_path, "a.dmp", 500), _made(tmp_path, "b.dmp", 500, damaged=True)
    status, _, error = run("diff", base, current, "--of", "managed", "--fail-on", "bytes>=1000")
    assert status == 3, error


def test_info_says_what_a_process_mostly_is_and_that_gflags_does_not_help(
    run: Any, tmp_path: Path
) -> None:
    dump = _made(tmp_path, "a.dmp", 500)
    _, out, _ = run("info", dump)
    assert "mostly .NET (GC heap 1020 KiB of" in out
    assert "--of managed" in out
    assert "gflags /i" not in out
    _, raw, _ = run("info", dump, "--format", "json")
    managed = json.loads(raw)["managed"]
    assert (managed["runtime"], managed["count"]) == ("coreclr.dll", 1000)


def test_info_tells_large_objects_free_room_between_objects_and_finalizers(
    run: Any, tmp_path: Path
) -> None:
    made = ClrHeapBuilder()
    order = made.type("Shop", "Order", 48)
    for _ in range(60):
        made.put(order)
        made.free(0x100)
    made.debugger_table = True
    made.finalizers = (70, 5)
    path = tmp_path / "a.dmp"
    path.write_bytes(made.build().misc_info(7, (1_700_000_000, 1, 1)).build())
    managed = json.loads(run("info", str(path), "--format", "json")[1])["managed"]
    (kind,) = managed["kinds"]
    assert (kind["kind"], kind["segments"], kind["count"]) == ("small", 1, 60)
    assert (kind["free_bytes"], kind["largest_free_bytes"]) == (60 * 0x100, 0x100)
    assert (managed["finalizable"], managed["to_finalize"]) == (70, 5)
    told = run("info", str(path))[1]
    assert "small 2.8 KiB in 60, 15.0 KiB (84%) free between them" in told
    assert "70 objects have one; 5 wait for it to run" in told


def test_the_net_framework_is_said_with_what_to_do(run: Any, tmp_path: Path) -> None:
    dump = _made(tmp_path, "a.dmp", 5, framework=True)
    status, _, error = run("stat", dump, "--of", "managed")
    assert status == 3
    assert ".NET Framework is not read" in error
    assert "!dumpheap -stat" in error
    assert json.loads(run("info", dump, "--format", "json")[1])["why_no_managed"]


def _shop(folder: Path) -> str:
    """Ten orders with an array each, of which four are held, and one array that two types hold."""
    made = ClrHeapBuilder()
    order = made.type("Shop", "Order", 24, pointers=True)
    basket = made.type("Shop", "Basket", 24, pointers=True)
    array = made.array(made.type("System", "Byte", 24), 1)
    shared = made.put(array, 8)
    for number in range(10):
        mine = made.put(array, 40)
        place = made.put(order, body=mine.to_bytes(8, "little"))
        if number < 4:
            made.hold(place)
    for table in (order, basket):
        made.put(table, body=shared.to_bytes(8, "little"))
    path = folder / "shop.dmp"
    dump = made.build().misc_info(7, (1_700_000_000, 1, 1))
    path.write_bytes(dump.thread(registers={"rip": 1}).build())
    return str(path)


def test_garbage_stands_apart_from_what_something_leads_to(run: Any, tmp_path: Path) -> None:
    args = ("stat", _shop(tmp_path), "--of", "managed", "--format", "json")
    answer = json.loads(run(*args, "--by", "reachable")[1])
    counts = {g["name"]: g["used_count"] for g in answer["groups"]}
    assert counts == {
        "Shop.Order": 4,
        "System.Byte[]": 4,
        "(garbage, which waits for a collection)": 6 + 6 + 3,
    }


@pytest.mark.parametrize("width", [8, 4])
@pytest.mark.parametrize("odd", [False, True])
def test_weak_handles_hold_nothing_where_the_handle_table_is_one(
    run: Any, tmp_path: Path, width: int, odd: bool
) -> None:
    made = ClrHeapBuilder(width)
    order = made.type("Shop", "Order", 4 * width)
    at = [made.put(order) for _ in range(9)]
    made.handles(tuple(at[:4]), tuple(at[4:6]), odd=odd)
    path = tmp_path / "a.dmp"
    dump = made.build().misc_info(7, (1_700_000_000, 1, 1))
    path.write_bytes(dump.thread(registers={"rip": 1} if width == 8 else {"eip": 1}).build())
    args = ("stat", str(path), "--of", "managed", "--by", "reachable", "--format", "json")
    counts = {g["name"]: g["used_count"] for g in json.loads(run(*args)[1])["groups"]}
    assert counts["Shop.Order"] == (6 if odd else 2)


def test_what_is_left_on_a_stack_of_calls_that_returned_holds_nothing(
    run: Any, tmp_path: Path
) -> None:
    made = ClrHeapBuilder()
    order = made.type("Shop", "Order", 32)
    at = [made.put(order) for _ in range(3)]
    stack = bytearray(0x1000)
    struct.pack_into("<Q", stack, 0x700, at[0])
    struct.pack_into("<Q", stack, 0x900, at[1])
    path = tmp_path / "a.dmp"
    dump = made.build().misc_info(7, (1_700_000_000, 1, 1))
    dump.memory(0x20000000, bytes(stack)).region(0x20000000, 0x1000, kind=0x20000)
    dump.thread(stack=(0x20000800, 0x800), registers={"rsp": 0x20000800})
    path.write_bytes(dump.build())
    args = ("stat", str(path), "--of", "managed", "--by", "reachable", "--format", "json")
    counts = {g["name"]: g["used_count"] for g in json.loads(run(*args)[1])["groups"]}
    assert counts["Shop.Order"] == 1


def test_arrays_are_told_by_the_type_of_what_holds_them(run: Any, tmp_path: Path) -> None:
    args = ("stat", _shop(tmp_path), "--of", "managed", "--format", "json")
    answer = json.loads(run(*args, "--by", "holder")[1])
    counts = {g["name"]: g["used_count"] for g in answer["groups"]}
    assert counts == {
        "Shop.Order": 4,
        "System.Byte[] held by Shop.Order": 4,
        "Shop.Order (garbage)": 7,
        "Shop.Basket (garbage)": 1,
        "System.Byte[] held by Shop.Order (garbage)": 6,
        "System.Byte[] held by several types (garbage)": 1,
    }


def _leaking(folder: Path, name: str, orders: int, rubbish: int = 0) -> str:
    """Orders in one array, each with a text and two buffers; a cache of buffers; and garbage."""
    made = ClrHeapBuilder()
    order = made.type("Shop", "Order", 40, pointers=True)
    list_type = made.type("System.Collections", "Shelf", 24, pointers=True)
    waste = made.type("Shop", "Waste", 4000)
    byte = made.array(made.type("System", "Byte", 24), 1)
    text = made.array(made.type("System", "Char", 24), 2)
    rows = made.array(order, 8)
    held = []
    for _ in range(orders):
        mine = [made.put(text, 20), made.put(byte, 100), made.put(byte, 100)]
        held.append(made.put(order, body=b"".join(one.to_bytes(8, "little") for one in mine)))
    raw = b"".join(one.to_bytes(8, "little") for one in held)
    made.pointers_in(rows)
    all_of_them = made.put(rows, 2 * orders, body=raw)
    made.hold(made.put(list_type, body=all_of_them.to_bytes(8, "little")))
    for _ in range(rubbish):
        made.put(waste)
    path = folder / name
    dump = made.build().misc_info(7, (1_700_000_000, 1, 1))
    path.write_bytes(dump.thread(registers={"rip": 1}).build())
    return str(path)


def test_a_type_stands_in_front_of_the_strings_and_arrays_that_it_holds_and_of_garbage(
    run: Any, tmp_path: Path
) -> None:
    base = _leaking(tmp_path, "a.dmp", 100)
    current = _leaking(tmp_path, "b.dmp", 300, rubbish=50)
    kept = str(tmp_path / "a.dlsnap")
    assert run("snapshot", base, "--of", "managed", "-o", kept)[0] == 0
    for before in (base, kept):
        args = ("diff", before, current, "--of", "managed")
        sites = json.loads(run(*args, "--format", "json")[1])["sites"]
        assert sites[0]["name"] == "Shop.Order"
        deltas = {site["name"]: (site["delta_count"], site["delta_bytes"]) for site in sites}
        assert deltas["Shop.Order"] == (200, 200 * 40)
        assert deltas["System.Byte[]"] == (400, 400 * 128)
        assert deltas["Shop.Waste"] == (50, 50 * 4000)
        held = {part["name"]: part["delta_count"] for part in sites[0]["held"]}
        assert held == {
            "System.Byte[] held by Shop.Order": 400,
            "System.Char[] held by Shop.Order": 200,
        }
        assert sites[0]["weight_bytes"] == 200 * (40 + 2 * 128 + 64)
        told = run(*args)[1]
        assert "with what they hold +70.3 KiB, 96% of growth: System.Byte[] +50.0 KiB" in told
        assert "on the heap 50, reachable 0: the rest waits for a collection" in told


def test_types_tell_what_they_keep_alive_and_that_weak_handles_count(
    run: Any, tmp_path: Path
) -> None:
    base, current = (_leaking(tmp_path, f"{n}.dmp", n, rubbish=20) for n in (100, 300))
    args = ("--of", "managed", "--retained", "--format", "json")
    answer = json.loads(run("stat", current, *args)[1])
    each = 40 + 2 * 128 + 64
    kept = {g["name"]: (g["retained_bytes"], g["retained_count"]) for g in answer["groups"]}
    assert kept["Shop.Order"] == (300 * each, 4 * 300)
    shelf = 24 + 24 + 8 * 600
    assert kept["System.Collections.Shelf"] == (300 * each + shelf, 4 * 300 + 2)
    assert kept["Shop.Waste"] == (20 * 4000, 20)
    assert any("weak handles" in item["message"] for item in answer["diagnostics"])
    sites = json.loads(run("diff", base, current, *args)[1])["sites"]
    assert (sites[0]["name"], sites[0]["retained_count"]) == ("Shop.Order", 4 * 300)
    cut = _made(tmp_path, "cut.dmp", 500, damaged=True)
    status, _, error = run("stat", cut, *args)
    assert status == 3
    assert "what objects keep alive cannot be told" in error


def _mixed(folder: Path) -> tuple[str, int, int]:
    """A process with a heap of two blocks: an object of .NET holds one; their addresses."""
    process = ProcessBuilder().image("app.exe", data=b"\0").heap(1, 2).thread()
    heap = NtHeapBuilder("8", True, process.heaps[0], pages=1)
    held, lost = heap.used_block(32), heap.used_block(32)
    made = ClrHeapBuilder()
    handle = made.type("Shop", "DiskHandle", 32)
    made.hold(made.put(handle, body=held.to_bytes(8, "little")))
    made.build(dump=process.dump)
    path = folder / "mixed.dmp"
    path.write_bytes(process.build())
    return str(path), held, lost


def test_a_block_that_only_an_object_of_net_holds_is_not_leaked_and_says_so(
    run: Any, tmp_path: Path
) -> None:
    dump, held, lost = _mixed(tmp_path)
    found = json.loads(run("explain", dump, hex(held), "--format", "json")[1])
    assert [holder["what"] for holder in found["holders"]] == [".NET object Shop.DiskHandle +0x10"]
    assert found["path"][0]["what"] == ".NET object Shop.DiskHandle +0x10"
    assert json.loads(run("explain", dump, hex(lost), "--format", "json")[1])["path"] == []
    answer = json.loads(run("leaks", dump, "--format", "json")[1])
    assert answer["totals"]["unreferenced_count"] == 1
    (said,) = (d["message"] for d in answer["diagnostics"] if d["code"] == "held-by-managed")
    assert said.startswith("1 of 2 used blocks (32 B) is held by objects of .NET alone")
    assert "Shop.DiskHandle" in said
    assert said[:40] in run("leaks", dump)[1]
    told = run("stat", dump, "--holders")[1]
    assert "1 of 2 held by .NET objects Shop.DiskHandle at +0x10" in told


def test_an_object_is_explained_with_its_type_who_holds_it_and_what_it_keeps_alive(
    run: Any, tmp_path: Path
) -> None:
    made = ClrHeapBuilder()
    order = made.type("Shop", "Order", 32, pointers=True)
    array = made.array(made.type("System", "Byte", 24), 1)
    mine = made.put(array, 40)
    place = made.put(order, body=mine.to_bytes(8, "little"))
    made.hold(place)
    rubbish = made.put(order)
    made.free(0x100)
    made.put(order)
    path = tmp_path / "a.dmp"
    dump = made.build().misc_info(7, (1_700_000_000, 1, 1))
    path.write_bytes(dump.thread(registers={"rip": 1}).build())

    def told(address: int) -> dict[str, Any]:
        status, out, error = run("explain", str(path), hex(address), "--format", "json")
        assert status == 0, error
        return dict(json.loads(out))

    found = told(mine)
    assert found["what"] == "object"
    assert found["told"] == ".NET object System.Byte[], 64 B among small objects"
    (holder,) = found["holders"]
    assert (holder["what"], holder["offset"]) == ("Shop.Order", 16)
    assert [step["what"] for step in found["path"]][1:] == ["Shop.Order", "System.Byte[]"]
    assert told(place)["retained_count"] == 2
    assert told(place + 8)["told"].startswith("+0x8 in the .NET object Shop.Order")
    assert told(rubbish)["path"] == []
    assert any("Garbage" in note for note in told(rubbish)["notes"])
    assert told(rubbish + 32 + 0x40)["what"] == "region"


def test_a_trend_names_the_type_and_not_the_arrays_that_it_holds(run: Any, tmp_path: Path) -> None:
    dumps = [_leaking(tmp_path, f"{n}.dmp", n) for n in (100, 200, 300)]
    answer = json.loads(run("trend", *dumps, "--of", "managed", "--format", "json")[1])
    names = [site["name"] for site in answer["sites"]]
    assert names[0] == "Shop.Order"
    assert names.index("Shop.Order") < names.index("System.Byte[]")


def test_buffers_that_a_type_has_more_of_than_before_are_not_explained_by_that_type(
    run: Any, tmp_path: Path
) -> None:
    paths = []
    for name, each in (("a.dmp", 1), ("b.dmp", 40)):
        made = ClrHeapBuilder()
        cache = made.type("Shop", "Cache", 24, pointers=True)
        byte = made.array(made.type("System", "Byte", 24), 1)
        inner = made.array(byte, 8)
        made.pointers_in(inner)
        for _ in range(10 + each):
            buffers = [made.put(byte, 100) for _ in range(each)]
            raw = b"".join(one.to_bytes(8, "little") for one in buffers)
            own = made.put(inner, each, body=raw)
            made.hold(made.put(cache, body=own.to_bytes(8, "little")))
        path = tmp_path / name
        dump = made.build().misc_info(7, (1_700_000_000, 1, 1))
        path.write_bytes(dump.thread(registers={"rip": 1}).build())
        paths.append(str(path))
    sites = json.loads(run("diff", *paths, "--of", "managed", "--format", "json")[1])["sites"]
    assert sites[0]["name"] == "System.Byte[]"
    assert any("held by Shop.Cache" in clause for clause in sites[0]["evidence"])


def test_a_heap_without_an_object_that_can_be_walked_has_no_groups(
    run: Any, tmp_path: Path
) -> None:
    made = ClrHeapBuilder()
    made.free(0x40)
    path = tmp_path / "a.dmp"
    path.write_bytes(made.build().misc_info(7, (1_700_000_000, 1, 1)).thread().build())
    for by in ("type", "reachable", "holder"):
        answer = run("stat", str(path), "--of", "managed", "--by", by, "--format", "json")
        assert answer[0] == 0, answer
        assert json.loads(answer[1])["groups"] == []


def test_garbage_is_not_told_where_not_all_objects_were_walked(run: Any, tmp_path: Path) -> None:
    dump = _made(tmp_path, "a.dmp", 500, damaged=True)
    status, _, error = run("stat", dump, "--of", "managed", "--by", "reachable")
    assert status == 3
    assert "not all of the .NET heap was walked" in error


@pytest.mark.parametrize("path", OTHERS[::4], ids=lambda path: "/".join(path.parts[-3:-1]))
def test_there_is_no_net_heap_in_a_process_without_a_runtime(path: Path) -> None:
    dump = open_dump(path)
    assert find_managed_heap(dump).heap is None
    # Nor is there anything of the shape of one, whatever the images say.
    assert not find_segments(MethodTables(dump.memory, 4 if dump.architecture == "x86" else 8))


@pytest.mark.skipif(not GENUINE, reason="dumps of genuine runtimes lie beside the clone")
@pytest.mark.parametrize("path", GENUINE, ids=lambda path: path.name.split(".dmp")[0])
def test_objects_of_genuine_runtimes_are_the_ones_that_were_made(path: Path) -> None:
    truth = json.loads(path.with_name(path.name.replace(".dmp.xz", ".truth.json")).read_text())
    session = Session(open_dump(path))
    found: dict[str, list[int]] = {}
    for name, totals in session.managed.groups:
        row = found.setdefault(name.name, [0, 0])
        row[0], row[1] = row[0] + totals.count, row[1] + totals.bytes
    for name, count in truth["instances"].items():
        assert found[name.replace("`1", "")][0] == count, name
    for name, size in truth["bytes_each"].items():
        assert found[name][1] == size * found[name][0]
    memory = session.managed.memory
    assert memory is not None
    assert memory.walked_bytes == memory.committed_bytes
    assert sum(kind.committed_bytes for kind in memory.kinds) == memory.committed_bytes
    assert memory.finalizable is not None
    assert truth["instances"]["Fin"] <= memory.finalizable < 1000
    assert memory.to_finalize == 0
    assert "" not in found
    reached = managed_objects(session, "reachable").groups["reachable"]
    counts = {site.name: totals.count for site, totals in reached}
    for name, count in truth["reachable"].items():
        assert counts[name] == count, name
    info = take_info(session)
    assert info.usable
    assert info.managed == memory
