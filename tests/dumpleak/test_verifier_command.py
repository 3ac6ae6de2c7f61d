"""`dumpleak verifier`, bug check C4 for pool left behind, and pool by the stacks of Verifier's log."""

from __future__ import annotations

import csv
import io
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from builders.kernel_builder import System, full, triage
from builders.minidump_builder import patched
from builders.verifier_builder import PAGE, VerifiedSystem
from fuzz.command_lines import run
from made_symbols import function_at, identity, made_pdb, put_in_store
from truth import TESTDATA, load_json

from windumps import open_dump

PAIR = TESTDATA / "kernel-verifier" / "14393-x64" / "pair"
BEFORE, AFTER = PAIR / "before.dmp.xz", PAIR / "after.dmp.xz"
OFF = TESTDATA / "kernel" / "22621-x64" / "tiny-pair" / "after.dmp.xz"


def answer(*words: object) -> Any:
    code, output, said = run(*map(str, words), "--format", "json")
    assert code == 0, said
    return json.loads(output)


def refused(*words: object, code: int) -> str:
    found, output, said = run(*map(str, words))
    assert (found, output) == (code, "")
    return said


@pytest.mark.parametrize("dump", [BEFORE, AFTER], ids=["before", "after"])
def test_all_figures_equal_what_was_written(dump: Path) -> None:
    truth = load_json(dump.with_name(dump.name.replace(".dmp.", ".truth.json.")))
    told = answer("verifier", dump)
    assert told["on"]
    assert told["level"] == truth["level"]
    assert told["flags"][:3] == ["special pool", "force IRQL checking", "pool tracking"]
    frames = {stack["id"]: stack["frames"] for stack in told["stacks"]}
    for wanted, driver in zip(truth["drivers"], told["drivers"], strict=True):
        name = wanted["name"]
        assert (driver["name"], driver["loads"], driver["unloads"]) == (
            *(name, wanted["loads"], wanted["unloads"]),
        )
        for pool in ("paged", "nonpaged"):
            held = driver[pool]["count"], driver[pool]["bytes"]
            assert held == tuple(wanted[pool]), (name, pool)
        mine = {block["address"]: block for block in told["blocks"] if block["driver"] == name}
        assert mine.keys() == {block["address"] for block in wanted["blocks"]}
        for block in wanted["blocks"]:
            row = mine[block["address"]]
            assert (row["bytes"], row["tag"]) == (block["bytes"], block["tag"])
            assert row["caller"] == block["caller"]
            stack = frames.get(row["stack_id"])
            assert (stack is None) == (block["stack"] is None)
            if stack is not None:
                assert stack[0] == row["caller"]
                assert len(stack) == len(block["stack"])
    assert told["coverage"]["listed_count"] == told["coverage"]["counted_count"]


@pytest.mark.parametrize("name", ["acmeflt.sys", "acmeflt", "ACMEFLT.SYS", "AcmeFlt"])
def test_one_driver_is_shown_by_its_name_in_any_form(name: str) -> None:
    told = answer("verifier", AFTER, name)
    assert [driver["name"] for driver in told["drivers"]] == ["acmeflt.sys"]
    assert {block["driver"] for block in told["blocks"]} == {"acmeflt.sys"}
    assert told["coverage"] == {"listed_count": 175, "counted_count": 175}


def test_a_driver_that_is_not_watched_is_wrong_usage_and_those_that_are_stand_in_the_message() -> (
    None
):
    said = refused("verifier", AFTER, "nobody.sys", code=2)
    assert "does not watch nobody.sys" in said
    for name in ("acmenet.sys", "acmeflt.sys", "acmecam.sys", "acmeold.sys"):
        assert name in said


def test_verifier_that_was_off_is_an_answer() -> None:
    code, output, _ = run("verifier", str(OFF))
    assert code == 0
    assert output.startswith("Driver Verifier was not on: it tracked no pool.")
    told = answer("verifier", OFF)
    assert (told["on"], told["drivers"], told["blocks"], told["log"]) == (False, [], [], None)


def test_a_process_has_no_verifier_of_drivers() -> None:
    dump = TESTDATA / "10.0.19041.3324-x64" / "mixed" / "dump.dmp.gz"
    assert "only kernel dumps know of Driver Verifier" in refused("verifier", dump, code=3)


def made(tmp_path: Path) -> VerifiedSystem:
    system = VerifiedSystem(tmp_path)
    system.watch("acmenet.sys", "AcNb")
    return system


def test_when_no_record_is_in_the_dump_the_answer_is_none(tmp_path: Path) -> None:
    system = made(tmp_path).write()
    for page in system.pages:
        system.put(page, bytes(PAGE))
    code, output, said = run("verifier", str(system.save()))
    assert code == 3
    assert "Driver Verifier tracks 225 blocks, but its records of them are not in the dump" in said
    assert output.startswith("Cannot tell: ")


def test_blocks_whose_records_are_missing_are_counted_and_said(tmp_path: Path) -> None:
    system = made(tmp_path).write()
    system.put(system.pages[1], bytes(PAGE))
    code, output, _ = run("verifier", str(system.save()))
    assert code == 0
    assert "127 of 225 blocks that Verifier counts are listed" in output
    assert "the records of 98 are not in the dump" in " ".join(output.split())


def test_the_table_for_programs_has_all_blocks_with_their_stacks() -> None:
    code, output, _ = run("verifier", str(AFTER), "--format", "csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(output)))
    told = answer("verifier", AFTER)["blocks"]
    assert [row["address"] for row in rows] == [block["address"] for block in told]
    assert rows[0]["stack"].startswith("acmeflt.sys+0x1230; acmeflt.sys+0x1510; ntoskrnl.exe+0x")
    assert sum(not row["stack"] for row in rows) == sum(b["stack_id"] is None for b in told) == 40


@pytest.mark.parametrize("format_", ["text", "markdown", "html"])
def test_every_report_names_drivers_places_and_blocks(format_: str) -> None:
    code, output, _ = run("verifier", str(AFTER), "--format", format_, "--top", "500")
    assert code == 0
    first = answer("verifier", AFTER)["blocks"][0]["address"]
    for text in ("acmenet.sys+0x1230", "acmecam.sys", first):
        assert text in output


# --- pool that a driver left behind ------------------------------------------------------------------------

TOLD = "Bug check C4 (62): acmenet.sys was unloaded without freeing 226 blocks"


@pytest.mark.parametrize("command", ["info", "pool", "verifier"])
def test_a_driver_unloaded_with_pool_is_named_with_its_blocks_and_what_to_do_next(
    command: str,
) -> None:
    code, output, _ = run(command, str(AFTER))
    assert code == 0
    assert TOLD in output
    assert "dumpleak verifier DUMP acmenet.sys" in output
    left = answer(command, AFTER)["left_by_unloaded_driver"]
    tags = [
        {"tag": "AcNb", "count": 225, "bytes": 225 * 336},
        {"tag": "AcNc", "count": 1, "bytes": 65536},
    ]
    assert left == {
        "reason": 0x62,
        "driver": "acmenet.sys",
        "count": 226,
        "tags": tags,
        "paged_bytes": None,
        "nonpaged_bytes": None,
    }


def test_the_growth_of_pools_says_why_the_later_system_stopped() -> None:
    code, output, _ = run("pool", str(BEFORE), str(AFTER))
    assert code == 0
    assert TOLD in output
    assert "dumpleak verifier CURRENT acmenet.sys" in output


@pytest.mark.parametrize("reason", [0x60, 0x61])
def test_a_bug_check_that_names_nobody_is_of_the_one_driver_with_these_counters(
    reason: int, tmp_path: Path
) -> None:
    system = made(tmp_path)
    system.watch("acmeflt.sys", "AcFc", stacks=1)
    system.write().stop(0xC4, reason, 0, 225 * 336, 225)
    left = answer("info", system.save())["left_by_unloaded_driver"]
    assert (left["driver"], left["count"]) == ("acmenet.sys", 225)
    assert (left["paged_bytes"], left["nonpaged_bytes"]) == (0, 225 * 336)
    system.stop(0xC4, reason, 8, 225 * 336, 225)
    assert answer("info", system.save())["left_by_unloaded_driver"]["driver"] is None


def test_another_reason_of_the_bug_check_is_no_pool_left_behind(tmp_path: Path) -> None:
    system = made(tmp_path).write()
    system.stop(0xC4, 0x51, 0, 225 * 336, 225)
    assert answer("pool", system.save())["left_by_unloaded_driver"] is None


@pytest.mark.parametrize("name", ["", "a\nb.sys", "no file name", "x" * 200 + ".sys"])
def test_a_name_that_cannot_be_one_is_not_said(name: str, tmp_path: Path) -> None:
    system = made(tmp_path).write()
    system.stop(0xC4, 0x62, system.string(name), 0, 9)
    code, output, _ = run("info", str(system.save()))
    assert code == 0
    assert "Bug check C4 (62): a driver that nothing names was unloaded without freeing 9" in output


# --- by stack ----------------------------------------------------------------------------------------------


def test_pool_by_stack_adds_up_and_blocks_without_a_logged_stack_say_so() -> None:
    told = answer("stat", AFTER, "--by", "stack")
    by_name = {group["name"]: group for group in told["groups"]}
    assert by_name["acmenet.sys+0x1230"]["used_count"] == 168
    assert by_name["acmenet.sys+0x1290"]["used_count"] == 18
    assert by_name["acmeflt.sys+0x1230"]["used_count"] == 175
    assert by_name["acmeflt.sys+0x1230"]["frames"][1] == "acmeflt.sys+0x1510"
    rest = answer("stat", AFTER, "--by", "kind")
    totals = Counter({"used_count": 0, "used_bytes": 0})
    for group in rest["groups"]:
        totals.update({key: group[key] for key in totals})
    for group in told["groups"]:
        totals.subtract({key: group[key] for key in totals})
    assert set(totals.values()) == {0}
    unknown = by_name["(not in Verifier's log)"]
    assert unknown["used_count"] == sum(g["used_count"] for g in rest["groups"]) - 361


def test_the_growth_of_pools_by_stack_names_the_place_that_leaks() -> None:
    told = answer("diff", BEFORE, AFTER, "--by", "stack")
    by_name = {site["name"]: site for site in told["sites"]}
    leak = by_name["acmenet.sys+0x1230"]
    assert (leak["kind"], leak["delta_count"]) == ("stack", 168 - 10)
    assert leak["frames"][:2] == ["acmenet.sys+0x1230", "acmenet.sys+0x1510"]


def test_pool_has_no_stacks_where_verifier_was_off_or_its_log_is_absent(tmp_path: Path) -> None:
    said = refused("stat", OFF, "--by", "stack", code=3)
    assert "only Driver Verifier logs the stacks of pool, and Driver Verifier was off" in said
    said = refused("stat", made(tmp_path).write().save(), "--by", "stack", code=3)
    assert "Driver Verifier was on, but its log is not in the dump" in said


def test_settings_that_are_not_in_the_dump_are_no_verifier_that_was_off(tmp_path: Path) -> None:
    system = made(tmp_path).write()
    kdbg = int(system.truth["kdbg"], 16)
    system.pointer(kdbg + 0x248, 0xFFFF_F000_DEAD_0000)
    path = system.save()
    said = refused("verifier", path, code=3)
    assert "whether Driver Verifier was on is not in the dump" in said
    assert "Driver Verifier was off" not in refused("stat", path, "--by", "stack", code=3)


def test_symbols_name_callers_and_frames(tmp_path: Path) -> None:
    wanted = identity(open_dump(AFTER), "acmenet.sys")
    put_in_store(tmp_path, wanted, made_pdb(wanted))
    told = answer("verifier", AFTER, "acmenet", "--symbols", tmp_path)
    function, offset = function_at(0x1230)
    callers = Counter(block["caller"] for block in told["blocks"])
    assert callers[f"acmenet.sys!{function}+0x{offset:x}"] == 204
    outer, behind = function_at(0x1510)
    frames = {tuple(stack["frames"][:2]) for stack in told["stacks"]}
    named = f"acmenet.sys!{function}+0x{offset:x}", f"acmenet.sys!{outer}+0x{behind:x}"
    assert named in frames


def test_a_tag_of_a_driver_that_is_gone_is_proven_to_be_its_own(tmp_path: Path) -> None:
    system = VerifiedSystem(tmp_path)
    dump = open_dump(system.path)
    gone = next(m for m in dump.unloaded_modules if m.name == "acmeold.sys")
    system.modules["acmeold.sys"] = gone.base_address
    system.watch("acmeold.sys", "AcFc", stacks=1, unloads=1)
    system.write().stop(0xC4, 0x62, system.string("acmeold.sys"), 0, 175)
    told = answer("pool", system.save(), "--tag", "AcFc")
    (row,) = told["tags"]
    first = row["drivers"][0]
    assert (first["name"], first["confidence"]) == ("acmeold.sys", "proven")
    assert "it was unloaded before the dump" in " ".join(first["evidence"])
    left = told["left_by_unloaded_driver"]
    assert (left["driver"], left["tags"][0]["count"]) == ("acmeold.sys", 175)


def test_a_snapshot_of_pools_keeps_no_stacks(tmp_path: Path) -> None:
    file = tmp_path / "after.dlsnap"
    assert run("snapshot", str(AFTER), "-o", str(file))[0] == 0
    assert "those of the pools keep no stacks" in refused("stat", file, "--by", "stack", code=3)
    assert "has no memory in it" in refused("verifier", file, code=3)


def test_the_bug_check_of_another_driver_heads_no_answer_about_one(tmp_path: Path) -> None:
    output = run("verifier", str(AFTER), "acmeflt")[1]
    assert output.startswith("Driver Verifier tracks 175 blocks, 28.4 KiB, of acmeflt.sys.")
    assert run("verifier", str(AFTER), "acmenet")[1].startswith(f"{TOLD}.")


def test_a_driver_is_not_called_unwatched_where_nothing_names_the_watched_ones(
    tmp_path: Path,
) -> None:
    system = made(tmp_path).write()
    for page in system.pages:
        system.put(page, bytes(PAGE))
    said = refused("verifier", system.save(), "acmenet.sys", code=3)
    assert "nothing in the dump names the drivers that Driver Verifier watches" in said


def test_the_log_is_listed_as_it_is_with_the_newest_record_first(tmp_path: Path) -> None:
    system = made(tmp_path)
    for block in system.watched[0].blocks:
        system.log_allocation(block)
    free = system.modules["acmenet.sys"] + 0x1444
    system.log_free(system.watched[0].blocks[3].address, 336, free)
    system.write()
    path = system.save()
    told = answer("verifier", path, "--log", "2")
    assert told["log"]["newest_known"]
    newest, before = told["logged"]
    assert newest["frames"][0] == "acmenet.sys+0x1444"
    assert newest["address"] == f"0x{system.watched[0].blocks[3].address:016x}"
    assert before["frames"][:2] == ["ntoskrnl.exe+0x1500", "acmenet.sys+0x1230"]
    assert answer("verifier", path)["logged"] == []
    assert len(answer("verifier", path, "--log", "999")["logged"]) == 226
    output = run("verifier", str(path), "--log", "2", "--top", "1")[1]
    assert "2 records of the log, the newest first." in output
    assert "nothing tells the newest" in run("verifier", str(AFTER), "--log", "2")[1]


def test_counters_that_nothing_explains_and_no_records_are_no_driver_without_pool(
    tmp_path: Path,
) -> None:
    system = made(tmp_path).write()
    for page in system.pages:
        system.put(page, bytes(PAGE))
    kdbg = int(system.truth["kdbg"], 16)
    settings = int.from_bytes(system.bytes_at(kdbg + 0x248, 8), "little")
    system.put(settings + 0x40, b"\xff" * 8)  # more blocks than there ever were at most
    code, output, said = run("verifier", str(system.save()))
    assert code == 3
    assert "neither counters nor records of what is asked for are in the dump" in said
    assert "tracks no block" not in output


@pytest.mark.parametrize("kind", ["x64", "x86", "pae"])
def test_a_dump_without_verifier_s_records_leads_to_a_better_one_not_to_an_empty_answer(
    kind: str, tmp_path: Path
) -> None:
    system = System(kind)
    name = system.entries[2] + system.n.base_name
    for make, whose in ((triage, "a driver that nothing names"), (full, "acmenet.sys")):
        raw = make(system)
        if kind == "x64":
            raw = patched(patched(raw, 0x38, b"\xc4\0"), 0x40, struct.pack("<4Q", 0x62, name, 0, 7))
        else:
            raw = patched(patched(raw, 0x28, b"\xc4\0"), 0x2C, struct.pack("<4I", 0x62, name, 0, 7))
        path = tmp_path / "made.dmp"
        path.write_bytes(raw)
        code, output, _ = run("info", str(path))
        assert code == 0
        assert f"Bug check C4 (62): {whose} was unloaded without freeing 7 blocks" in output
        assert "Verifier's records of these blocks are not in the dump" in output
        assert "dumpleak verifier DUMP" not in output
        assert "livekd -m" in output
        assert run("verifier", str(path))[0] == 3
