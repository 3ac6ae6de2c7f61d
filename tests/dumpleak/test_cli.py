"""The contract with scripts: commands, columns, exit codes; through the real entry point."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from truth import TESTDATA, TruthDump

from dumpleak.cli import main_group

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-aslr"
BEFORE, AFTER = str(PAIR / "before.dmp.gz"), str(PAIR / "after.dmp.gz")
TRUTH = TruthDump(PAIR / "after.dmp.gz", PAIR / "truth-after.json.gz")
X86 = str(TESTDATA / "10.0.19041.3996-x86" / "leak-pair-aslr" / "after.dmp.gz")


def test_the_installed_command_runs_the_main_job() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dumpleak", BEFORE, AFTER],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert "grew" in done.stdout
    assert "\x1b[" not in done.stdout, "colour belongs on a terminal"


def test_one_file_is_info_and_two_are_diff(run: Any) -> None:
    assert run(BEFORE)[1] == run("info", BEFORE)[1]
    assert run(BEFORE, AFTER)[1] == run("diff", BEFORE, AFTER)[1]


def test_diff_json_has_the_keys_of_the_contract(run: Any) -> None:
    code, out, _ = run("diff", BEFORE, AFTER, "--format", "json")
    document = json.loads(out)
    assert code == 0
    assert document["schema"] == "dumpleak/diff/1"
    assert document["verdict"] == "growth"
    assert {"file", "kind", "time", "machine"} <= document["base"].keys()
    for side in ("base", "current"):
        assert {"walked_bytes", "present_bytes", "committed_bytes"} <= document["coverage"][
            side
        ].keys()
    totals = document["totals"]
    assert totals["delta_bytes"] == totals["current_bytes"] - totals["base_bytes"]
    assert totals["delta_count"] == totals["current_count"] - totals["base_count"]
    for rank, site in enumerate(document["sites"], start=1):
        assert site["rank"] == rank
        assert site["delta_bytes"] == site["current_bytes"] - site["base_bytes"]
        assert site["delta_count"] == site["current_count"] - site["base_count"]
        assert site["confidence"] == "growth"
        assert {"kind", "name", "frames", "type", "tag", "driver", "evidence"} <= site.keys()
    deltas = [site["delta_bytes"] for site in document["sites"]]
    assert deltas == sorted(deltas, reverse=True)
    for item in document["diagnostics"]:
        assert {
            "code",
            "severity",
            "structure",
            "address",
            "message",
            "bytes_affected",
        } == item.keys()


def test_info_json_has_the_keys_of_the_contract(run: Any) -> None:
    document = json.loads(run("info", AFTER, "--format", "json")[1])
    assert (document["kind"], document["architecture"], document["build"]) == (
        "minidump",
        "x64",
        19041,
    )
    assert document["full_memory"] is True
    assert document["time"].endswith("+00:00")
    assert {m["name"] for m in document["modules"]} == {"ntdll.dll", "app.exe", "widgets.dll"}
    assert {"heaps", "coverage", "memory_by_use", "diagnostics"} <= document.keys()


def test_block_rows_come_in_the_contracts_columns_and_are_the_programs(run: Any) -> None:
    code, out, _ = run("allocations", AFTER, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    truth = TRUTH.read_truth()
    assert code == 0
    assert list(rows[0])[:10] == [
        *(
            "address",
            "size",
            "block_bytes",
            "state",
            "heap",
            "kind",
            "type",
            "tag",
            "site",
            "stack_id",
        )
    ]
    heap = truth.heaps[1]["address"]
    listed = {
        int(row["address"], 16): int(row["size"]) for row in rows if int(row["heap"], 16) == heap
    }
    assert listed == truth.used_blocks(heap)
    assert {row["state"] for row in rows} == {"used"}
    assert {"nt-backend", "nt-lfh"} <= {row["kind"] for row in rows}


def test_free_blocks_are_listed_on_request_and_carry_no_site(run: Any) -> None:
    rows = list(
        csv.DictReader(
            io.StringIO(run("allocations", AFTER, "--state", "all", "--format", "csv")[1])
        )
    )
    free = [row for row in rows if row["state"] == "free"]
    assert free
    assert {row["site"] for row in free} == {""}
    assert {row["size"] for row in free} == {""}
    assert len(rows) - len(free) == len(
        run("allocations", AFTER, "--format", "json")[1].splitlines()
    )


@pytest.mark.parametrize("by", ["site", "size", "heap", "kind", "module", "type", "tag"])
def test_groups_add_up_to_all_used_blocks_whatever_they_are_grouped_by(run: Any, by: str) -> None:
    document = json.loads(run("stat", AFTER, "--by", by, "--format", "json")[1])
    rows = list(csv.DictReader(io.StringIO(run("allocations", AFTER, "--format", "csv")[1])))
    assert document["schema"] == "dumpleak/stat/1"
    assert sum(g["used_count"] for g in document["groups"]) == len(rows)
    assert sum(g["used_bytes"] for g in document["groups"]) == sum(int(r["size"]) for r in rows)
    assert sum(g["block_bytes"] for g in document["groups"]) == sum(
        int(r["block_bytes"]) for r in rows
    )
    assert max(g["largest"] for g in document["groups"]) == max(int(r["size"]) for r in rows)


def test_heaps_say_what_each_heap_holds(run: Any) -> None:
    rows = list(csv.DictReader(io.StringIO(run("heaps", AFTER, "--format", "csv")[1])))
    truth = TRUTH.read_truth()
    assert [int(row["address"], 16) for row in rows] == [heap["address"] for heap in truth.heaps]
    for row, heap in zip(rows, truth.heaps, strict=True):
        if not row["reason"]:
            assert int(row["used_count"]) == len(truth.used_blocks(heap["address"]))
            assert int(row["residual_bytes"]) == 0


@pytest.mark.parametrize(
    ("conditions", "code"),
    [
        ("bytes>=1", 1),
        ("bytes>=1G", 0),
        ("count>=100", 1),
        ("count>=10M", 2),
        ("percent>=5", 1),
        ("percent>=5000", 0),
        ("bytes>=1G,count>=1", 1),
        ("growth", 2),
        ("bytes>=", 2),
        ("", 2),
    ],
)
def test_the_gate_turns_growth_into_an_exit_code(run: Any, conditions: str, code: int) -> None:
    assert run("diff", BEFORE, AFTER, "--fail-on", conditions)[0] == code


def test_dumps_in_the_wrong_order_leave_a_gate_without_an_answer(run: Any) -> None:
    """What grew has shrunk between them: that is no pass."""
    code, _, err = run("diff", AFTER, BEFORE, "--fail-on", "bytes>=1")
    assert code == 3
    assert "SUMMARY: NO ANSWER; " in err
    assert "taken before" in err


def test_one_dump_given_twice_is_told_what_is_missing_and_no_better_dump(run: Any) -> None:
    out = run("diff", BEFORE, BEFORE)[1]
    assert "Take a second dump later, under load, and compare:" in out
    assert "procdump" not in out
    assert "--force" not in out


def test_dumps_of_two_architectures_are_not_compared(run: Any) -> None:
    code, out, err = run("diff", BEFORE, X86, "--format", "json")
    assert code == 3
    assert json.loads(out)["verdict"] == "not-comparable"
    assert json.loads(out)["sites"] == []
    assert "not comparable" in err
    assert run("diff", BEFORE, X86, "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "Usage"),
        (["diff"], 2, "Missing argument"),
        (["diff", BEFORE], 2, "Missing argument"),
        (["no-such-file.dmp"], 2, "no-such-file.dmp: no such file"),
        ([BEFORE, "no-such-file.dmp"], 2, "no-such-file.dmp: no such file"),
        ([str(TESTDATA / "6.1.7601.24384-x86")], 2, "is a folder, not a dump"),
        (["infoo", BEFORE], 2, "Did you mean 'info'"),
        (["info", str(TESTDATA)], 2, "is a directory"),
        (["info", __file__], 3, "not a Windows dump"),
        (["stat", BEFORE, "--by", "nonsense"], 2, "nonsense"),
        (["diff", BEFORE, AFTER, "--top", "0"], 2, "--top"),
        ([BEFORE, AFTER, BEFORE], 3, "are the same dump"),
        (["heaps", BEFORE, "-o", "no/such/folder/x"], 2, "no/such/folder"),
        (["nope"], 2, "nope: no such file, and no such command"),
        ([BEFORE, "diff", AFTER], 2, f"the command comes first: dumpleak diff {BEFORE} {AFTER}"),
        (["leaks", BEFORE, AFTER], 2, "two dumps are compared by diff"),
        (["diff", BEFORE, AFTER, BEFORE], 2, "diff takes two files"),
        (["demo", BEFORE], 2, "unexpected extra argument"),
        (["stat", BEFORE, "--top", "abc"], 2, "'abc' is not a valid number of rows"),
        (["info", BEFORE, "--json"], 2, "Did you mean '--format json'?"),
        (["info", BEFORE, "-f", "json"], 2, "Did you mean '--format'?"),
        (["info", BEFORE, "--foramt", "json"], 2, "Did you mean '--format'?"),
        (["diff", BEFORE, AFTER, "--fail-on", "bytes"], 2, '--fail-on "bytes>=1M"'),
    ],
)
def test_wrong_input_gets_a_plain_sentence(
    run: Any, arguments: list[str], code: int, said: str
) -> None:
    found, _, err = run(*arguments)
    assert found == code
    assert said in err
    assert "Traceback" not in err


def test_debug_shows_a_traceback(run: Any) -> None:
    assert "Traceback" in run("info", __file__, "--debug")[2]


def test_an_output_file_is_written_whole(run: Any, tmp_path: Path) -> None:
    target = tmp_path / "diff.json"
    code, out, _ = run("diff", BEFORE, AFTER, "--format", "json", "-o", str(target))
    assert (code, out) == (0, "")
    assert json.loads(target.read_text())["schema"] == "dumpleak/diff/1"
    assert list(tmp_path.iterdir()) == [target]


def test_top_limits_what_people_see_and_says_what_was_left_out(run: Any) -> None:
    out = run("diff", BEFORE, AFTER, "--top", "3", "--no-holders")[1]
    lines = out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("bytes +/-"))
    # A row may go on in lines that are indented.
    rows = [line for line in lines[first + 1 :] if re.match(r" {0,7}[+-]\d|…", line)]
    assert [row.startswith("…") for row in rows] == [False] * 3 + [True]
    assert "more changed sites" in out


@pytest.mark.parametrize("name", sorted(main_group.commands))
def test_each_commands_help_ends_with_examples_that_exist(run: Any, name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    examples = [line.split() for line in out.splitlines() if line.strip().startswith("dumpleak ")]
    assert len(examples) >= 2
    shipped = [word for words in examples for word in words if word.startswith("testdata/")]
    assert shipped
    for path in shipped:
        assert (TESTDATA.parent / path).is_file(), path
