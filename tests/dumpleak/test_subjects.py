"""Advice goes by what a file tells of: a process, a system, another platform, a log, or one that was cut."""

from __future__ import annotations

import ast
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders.kernel_builder import System, elf_core, raw_image
from builders.minidump_builder import MinidumpBuilder
from report_samples import growth
from truth import TESTDATA

from dumpleak.files.checked_json import WrongMemberError
from dumpleak.files.metadata import to_json
from dumpleak.files.metadata_form import from_json
from dumpleak.model.coverage import Coverage, PoolsCovered
from dumpleak.model.populations import POOL
from dumpleak.model.subject import Subject
from dumpleak.model.units import count_of
from dumpleak.process.session import Session
from dumpleak.reports.answers.next_steps import COPY_AGAIN, better_dump_steps
from dumpleak.reports.answers.summary import summarize_comparison
from dumpleak.survey.heaps import source_info
from dumpleak.survey.recording import write_snapshot

ROOT = Path(__file__).resolve().parents[2]
PROCESS = TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"
KERNEL = TESTDATA / "kernel" / "22621-x64" / "tiny-pair"
SIDES = [KERNEL / f"{side}.dmp.xz" for side in ("before", "after")]


def _commands(subject: Subject, **more: Any) -> list[str]:
    source = replace(growth().current.source, subject=subject, **more)
    return [step.command for step in better_dump_steps(source)]


def test_a_process_that_is_gone_goes_by_its_name_and_never_by_its_id() -> None:
    assert growth().current.source.process_id == 42
    assert _commands(Subject.PROCESS) == ["procdump -ma app.exe app.dmp"]
    assert _commands(Subject.PROCESS, program="") == ["procdump -ma PID app.dmp"]
    assert _commands(Subject.PROCESS, program="a b & c.exe") == ["procdump -ma PID app.dmp"]


def test_each_subject_gets_the_advice_that_fits_it() -> None:
    assert _commands(Subject.OTHER_PLATFORM) == []
    assert _commands(Subject.LOG) == ["procdump -ma app.exe app.dmp"]
    system = _commands(Subject.SYSTEM)
    assert ("reg add" in system[0], "procdump" in " ".join(system)) == (True, False)
    process = _commands(Subject.PROCESS_OF_SYSTEM)
    assert ("reg add" in process[0], process[1]) == (True, "procdump -ma app.exe app.dmp")


def test_a_file_that_was_cut_is_to_be_copied_again_and_no_dump_taken(
    run: Any, tmp_path: Path
) -> None:
    source = replace(growth().current.source, cut_bytes=1)
    assert better_dump_steps(source) == (COPY_AGAIN,)
    cut = tmp_path / "app.dmp"
    cut.write_bytes(gzip.decompress(PROCESS.read_bytes())[:-0x3000])
    assert source_info(Session.open(cut)).cut_bytes == 0x3000
    out = run("info", cut)[1]
    assert COPY_AGAIN.text in out
    assert "procdump" not in out


@pytest.mark.parametrize("image", [raw_image, elf_core])
def test_an_image_of_memory_is_of_a_system_and_is_not_told_to_run_procdump(
    run: Any, tmp_path: Path, image: Any
) -> None:
    path = tmp_path / "memory.bin"
    path.write_bytes(image(System("x64")))
    for command in ("info", "pool", "stat", "heaps"):
        _, out, err = run(command, path)
        assert "procdump" not in out + err
        assert "unknown program" not in out


def test_a_dump_of_another_platform_is_not_told_to_run_procdump(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "linux.dmp"
    path.write_bytes(MinidumpBuilder(platform_id=0x8201).build())
    code, out, err = run("info", path)
    assert "Linux" in out + err
    assert "procdump" not in out + err, code


def test_a_process_and_a_system_are_not_to_be_compared_by_whatever_dump_is_taken(run: Any) -> None:
    out = run("diff", PROCESS, SIDES[0])[1]
    assert "Compare two dumps of one program, or two of one system." in out
    assert "reg add" not in out
    assert "procdump" not in out


def test_a_snapshot_keeps_the_subject_and_older_ones_tell_it_by_their_format(
    run: Any, tmp_path: Path
) -> None:
    written = write_snapshot(Session.open(PROCESS), tmp_path / "b.dlsnap", holders=False)
    document = json.loads(json.dumps(to_json(written)))
    del document["source"]["subject"]

    def read(**members: str) -> Subject:
        altered = {**document, "source": document["source"] | members}
        return from_json(altered, "b").snapshot.source.subject

    assert [read(subject=str(subject)) for subject in Subject] == list(Subject)
    assert read() is Subject.PROCESS
    assert read(kind="kernel dump") is read(kind="raw memory image") is Subject.SYSTEM
    with pytest.raises(WrongMemberError, match=r"source\.subject"):
        read(subject="kernel")
    taken = tmp_path / "a.dlsnap"
    run("snapshot", SIDES[0], "-o", taken)
    assert "unknown program" not in run("stat", taken)[1]


def test_no_code_looks_for_a_word_in_a_kind() -> None:
    found = [
        f"{path.name}:{node.lineno}"
        for path in (ROOT / "dumpleak").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare)
        and isinstance(node.left, ast.Constant)
        and isinstance(node.left.value, str)
        and any(isinstance(operator, ast.In | ast.NotIn) for operator in node.ops)
        and any(isinstance(c, ast.Attribute) and c.attr == "kind" for c in node.comparators)
    ]
    assert found == []


# -- one pair of dumps, one word, one next step, one coverage ---------------------------------------------


def test_pool_and_diff_of_a_pair_agree_on_words_steps_and_coverage(run: Any) -> None:
    screens = [run(command, *SIDES)[1].split("\n\n")[0] for command in ("pool", "diff")]
    heads = [screen.splitlines()[0] for screen in screens]
    assert heads[0] == heads[1]
    assert heads[0].startswith("65 tags grew.")
    steps = [screen.partition("What next")[2] for screen in screens]
    assert steps[0] == steps[1]
    assert "dumpleak trend BASE CURRENT THIRD" in steps[0]
    for screen in screens:
        told = " ".join(screen.split())
        assert "99.9% of pool memory walked of the worst dump, 2 of 2 pools" in told
    assert "changed tags" in run("diff", *SIDES)[1]
    assert "site" not in run("diff", *SIDES)[1]


def test_groups_by_driver_are_called_drivers(run: Any) -> None:
    assert " drivers grew." in run("diff", *SIDES, "--by", "driver")[1].splitlines()[0]
    comparison = growth()
    assert comparison.base.noun == "site"
    assert count_of(2, "driver") == "2 drivers"
    comparison.base.grouping = "driver"
    assert "driver" in summarize_comparison(comparison).headline


def test_what_is_not_known_of_a_pool_is_shown_as_unknown_and_not_as_zero(run: Any) -> None:
    for dump in (SIDES[0], TESTDATA / "kernel" / "7601-x64" / "tiny-pair" / "before.dmp.xz"):
        out = run("heaps", dump)[1]
        heaps = json.loads(run("heaps", dump, "--format", "json")[1])["heaps"]
        rows = [line.split() for line in out.splitlines() if " pool" in line and "–" in line]
        assert len(rows) == len(heaps)
        for row, heap in zip(rows, heaps, strict=True):
            assert heap["free_bytes"] is heap["overhead_bytes"] is None
            assert (row[-3], row[-2]) == ("–", "–")
            assert (heap["committed_bytes"] is None) == (row[-7:-6] == ["–"] or row[3] == "–")
            assert "0x0" not in row


def test_a_file_cut_before_its_heaps_is_to_be_copied_again_whatever_is_asked(
    run: Any, tmp_path: Path
) -> None:
    whole = gzip.decompress(PROCESS.read_bytes())
    cut = tmp_path / "app.dmp"
    cut.write_bytes(whole[: len(whole) // 4])
    for command in ("heaps", "stat", "leaks", "allocations"):
        code, out, err = run(command, cut)
        assert code == 3
        assert "copy it again from where it was written" in out + err
        assert "procdump" not in out + err


def test_too_little_of_the_pools_is_mended_by_a_dump_of_the_kernel() -> None:
    assert "procdump" in Coverage(1, 1, 9, 1, 1).shortfall
    assert "procdump" not in PoolsCovered(1, 1, 9, 1, 1).shortfall
    assert "reg add" in PoolsCovered(1, 1, 9, 1, 1).shortfall


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0", "this is a PDB"),
        (b"\xcf\xfa\xed\xfe\x07\0\0\x01", "this is a Mach-O file of macOS"),
    ],
)
def test_files_that_people_take_for_dumps_are_called_what_they_are(
    run: Any, tmp_path: Path, head: bytes, what: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(head + bytes(0x2000))
    code, _, err = run(path)
    assert (code, what in err, "procdump" in err) == (3, True, False)


def test_a_tag_in_several_pools_is_counted_once() -> None:
    comparison = growth()
    many = sum(delta.delta_bytes > 0 for delta in comparison.sites)
    assert many > 1
    for side in (comparison.base, comparison.current):
        side.population = POOL

    def tagged(*tags: str) -> str:
        rows = [
            replace(delta, site=replace(delta.site, tag=tags[number % len(tags)]))
            for number, delta in enumerate(comparison.sites)
        ]
        return summarize_comparison(replace(comparison, sites=tuple(rows))).headline

    assert tagged("Same").startswith("1 tag grew")
    assert tagged(*map(str, range(len(comparison.sites)))).startswith(f"{many} tags grew")
