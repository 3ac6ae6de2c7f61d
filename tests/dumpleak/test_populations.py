"""`--of`: regions, heaps, threads and modules are compared as blocks are, and nothing is made up."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.minidump_builder import MinidumpBuilder, patched, stream_place
from builders.pdb_builder import PdbBuilder
from builders.process_builder import (
    COMMIT,
    EXECUTE_READ,
    FREE,
    GUARD,
    IMAGE,
    IMAGE_BYTES,
    MAPPED,
    PAGE,
    PRIVATE,
    ProcessBuilder,
)
from made_symbols import put_in_store
from truth import TESTDATA

from dumpleak.model.account_rows import account_of
from dumpleak.model.totals import sum_of
from dumpleak.process.session import Session
from dumpleak.survey import recording
from dumpleak.survey.info import process_snapshot
from dumpleak.survey.populations import all_populations
from dumpleak.survey.populations.system import SYSTEM_PRODUCERS
from windumps.images.modules import PdbIdentity

HOUR = 3600
MEMBERS = {
    "regions": ("use", "size", "protection"),
    "heaps": ("kind",),
    "threads": ("start",),
    "modules": ("name",),
}
EVERY = [(of, by) for of, keys in MEMBERS.items() for by in keys]
UNKNOWN_START = "(start address not in the dump)"


def _process(time: int = 0, more: int = 0, **how: Any) -> ProcessBuilder:
    """A process with some of everything, and `more` of everything that can become more."""
    process = ProcessBuilder(time, **how).image("app.exe").image("work.dll").heap(3 + more, 5)
    process.thread(process.bases["app.exe"] + 0x1234, 4)
    for _ in range(1 + more):
        process.thread(process.bases["work.dll"] + 0x1100, 2)
    process.private(2 + more, 0x3000, 0xD000).private(1, 0, 0x10000).free(0x100000)
    process.views(3 + more, 0x20000).private(1, 0x5000, protect=EXECUTE_READ)
    for number in range(more):
        process.image(f"more{number % 2}.dll")
    return process


def _written(folder: Path, name: str, process: ProcessBuilder) -> Path:
    file = folder / f"{name}.dmp"
    file.write_bytes(process.build())
    return file


@pytest.fixture
def ask(run: Any) -> Callable[..., Any]:
    """Runs a command that must answer, and gives its JSON."""

    def _ask(*words: object) -> Any:
        status, out, err = run(*words, "--format", "json")
        assert status == 0, err
        return json.loads(out)

    return _ask


def _groups(told: Any) -> dict[str, tuple[int, int | None]]:
    return {g["name"]: (g["used_count"], g["used_bytes"]) for g in told["groups"]}


def _by_allocation(process: ProcessBuilder) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for row in process.rows:
        if row.state != FREE:
            found.setdefault(row.allocation, []).append(row)
    return found


# -- what members there are


@pytest.mark.parametrize("by", MEMBERS["regions"])
def test_regions_add_up_to_the_list_that_the_dump_has(ask: Any, tmp_path: Path, by: str) -> None:
    process = _process()
    told = ask("stat", _written(tmp_path, "a", process), "--of", "regions", "--by", by)
    assert (told["of"], told["by"]) == ("regions", by)
    assert told["totals"]["used_bytes"] == process.committed()
    assert told["totals"]["used_count"] == len(_by_allocation(process))
    assert sum(g["used_bytes"] for g in told["groups"]) == process.committed()
    assert sum(g["used_count"] for g in told["groups"]) == len(_by_allocation(process))


def test_regions_by_use_are_what_was_laid_out(ask: Any, tmp_path: Path) -> None:
    process = _process()
    groups = _groups(ask("stat", _written(tmp_path, "a", process), "--of", "regions"))
    assert groups == {
        "images": (2, 2 * IMAGE_BYTES),
        "heaps": (3, 3 * PAGE),
        "stacks": (2, sum(process.stacks)),
        "mapped": (3, 3 * 0x20000),
        # Two of some committed pages, one of none, and one of code; a TEB each, the PEB, the list of heaps.
        "other-private": (4, 2 * 0x3000 + 0x5000),
        "teb-peb": (4, 2 * 2 * PAGE + 2 * PAGE),
    }
    assert process.committed(IMAGE) == groups["images"][1]
    assert process.committed(MAPPED) == groups["mapped"][1]
    private = sum(groups[use][1] or 0 for use in ("heaps", "stacks", "other-private", "teb-peb"))
    assert process.committed(PRIVATE) == private


def test_regions_by_size_count_committed_bytes_and_reservations_alone_have_none(
    ask: Any, tmp_path: Path
) -> None:
    process = _process()
    sizes = Counter(
        sum(row.size for row in rows if row.state == COMMIT)
        for rows in _by_allocation(process).values()
    )
    told = ask("stat", _written(tmp_path, "a", process), "--of", "regions", "--by", "size")
    assert _groups(told) == {str(size): (n, size * n) for size, n in sizes.items()}
    assert _groups(told)["0"] == (1, 0)


def test_the_protection_of_a_region_is_that_of_most_of_its_committed_bytes(
    ask: Any, tmp_path: Path
) -> None:
    process = ProcessBuilder().image("app.exe").heap().thread(pages=4).private(1, 0, 0x10000)
    process.private(1, 0x2000, protect=EXECUTE_READ).private(1, 0x1000, protect=0x40 | GUARD)
    told = ask("stat", _written(tmp_path, "a", process), "--of", "regions", "--by", "protection")
    groups = _groups(told)
    assert groups["PAGE_EXECUTE_READWRITE|PAGE_GUARD"] == (1, 0x1000)
    assert groups["PAGE_EXECUTE_READ"] == (2, 0x2000 + IMAGE_BYTES)  # the image has most of code
    assert groups["(reserved only)"] == (1, 0)
    assert groups["PAGE_READWRITE"][0] == 5  # a stack's guard page is not what it is
    assert "PAGE_READWRITE|PAGE_GUARD" not in groups


def test_free_address_space_is_no_region_of_any_grouping(ask: Any, tmp_path: Path) -> None:
    bare = _written(tmp_path, "a", ProcessBuilder().image("app.exe").heap().thread())
    free = ProcessBuilder().image("app.exe").heap().thread().free(0x100000).free(0x10000000)
    for by in MEMBERS["regions"]:
        line = "--of", "regions", "--by", by
        told = ask("stat", _written(tmp_path, "b", free), *line)
        assert told["groups"] == ask("stat", bare, *line)["groups"]


def test_heaps_and_modules_are_counted_with_what_they_have_committed(
    ask: Any, tmp_path: Path
) -> None:
    process = ProcessBuilder().image("app.exe").image("w.dll").image("w.dll", "B" * 32).heap(7)
    file = _written(tmp_path, "a", process.thread())
    assert _groups(ask("stat", file, "--of", "heaps")) == {"nt": (7, 7 * PAGE)}
    assert _groups(ask("stat", file, "--of", "modules")) == {
        "app.exe": (1, IMAGE_BYTES),
        "w.dll": (2, 2 * IMAGE_BYTES),
    }


def test_threads_are_counted_by_the_function_they_began_with(ask: Any, tmp_path: Path) -> None:
    process = _process(more=5)
    file = _written(tmp_path, "a", process)
    told = ask("stat", file, "--of", "threads")
    assert _groups(told) == {
        "app.exe+0x1234": (1, process.stacks[0]),
        "work.dll+0x1100": (6, sum(process.stacks[1:])),
    }
    rows = {row["name"]: row["value"] for row in ask("info", file)["account"]}
    assert rows["stacks.bytes"] == told["totals"]["used_bytes"] == sum(process.stacks)
    assert rows["threads.count"] == told["totals"]["used_count"] == 7


def test_a_wow64_thread_has_two_stacks(ask: Any, tmp_path: Path) -> None:
    process = _process(wow64=True)
    file = _written(tmp_path, "a", process)
    told = ask("stat", file, "--of", "threads")
    assert process.stacks == [(4 + 1 + 7 + 1) * PAGE, (2 + 1 + 5 + 1) * PAGE]
    assert [g["used_bytes"] for g in told["groups"]] == process.stacks
    rows = {row["name"]: row["value"] for row in ask("info", file)["account"]}
    assert rows["stacks.bytes"] == sum(process.stacks)
    assert _groups(ask("stat", file, "--of", "regions"))["stacks"] == (4, sum(process.stacks))


@pytest.mark.parametrize("form", [(12, 64), (16, 64), (12, 80), (32, 128)])
def test_start_addresses_are_read_with_the_sizes_that_their_list_says(
    ask: Any, tmp_path: Path, form: tuple[int, int]
) -> None:
    file = _written(tmp_path, "a", _process().thread_info(form))
    assert set(_groups(ask("stat", file, "--of", "threads"))) == {
        "app.exe+0x1234",
        "work.dll+0x1100",
    }


def test_threads_without_a_start_address_are_one_group_that_says_so(
    ask: Any, tmp_path: Path
) -> None:
    absent = _process().thread_info(None)
    told = ask("stat", _written(tmp_path, "a", absent), "--of", "threads")
    assert _groups(told) == {UNKNOWN_START: (2, sum(absent.stacks))}
    none_said = ProcessBuilder().image("app.exe").heap().thread().thread()
    told = ask("stat", _written(tmp_path, "b", none_said), "--of", "threads")
    assert _groups(told) == {UNKNOWN_START: (2, sum(none_said.stacks))}
    outside = ProcessBuilder().image("app.exe").heap().thread(start=0x1234)
    told = ask("stat", _written(tmp_path, "c", outside), "--of", "threads")
    assert set(_groups(told)) == {"(code in no image)"}
    impossible = _process().thread_info((12, 64), claimed=8)
    told = ask("stat", _written(tmp_path, "d", impossible), "--of", "threads")
    assert set(_groups(told)) == {UNKNOWN_START}
    assert "bad-entry-size" in {item["code"] for item in told["diagnostics"]}


def test_a_cut_list_of_start_addresses_names_the_threads_that_it_has(
    ask: Any, tmp_path: Path
) -> None:
    file = _written(tmp_path, "a", _process(more=4).thread_info((12, 64), cut=3))
    told = ask("stat", file, "--of", "threads")
    counts = {name: count for name, (count, _) in _groups(told).items()}
    assert counts == {"app.exe+0x1234": 1, "work.dll+0x1100": 2, UNKNOWN_START: 3}
    assert any(item["structure"].startswith("MINIDUMP_THREAD_INFO") for item in told["diagnostics"])


# -- what is refused


def _without_list(folder: Path) -> Path:
    process = _process()
    process.with_regions = False
    return _written(folder, "bare", process)


def _with_cut(folder: Path, kind: int, at: int, more: int) -> Path:
    """A dump whose list of a kind counts more rows than it has."""
    data = _process().build()
    place, _ = stream_place(data, kind)
    count = int.from_bytes(data[place + at : place + at + 4], "little") + more
    file = folder / "cut.dmp"
    file.write_bytes(patched(data, place + at, count.to_bytes(4, "little")))
    return file


@pytest.mark.parametrize("by", MEMBERS["regions"])
def test_regions_that_are_not_listed_or_not_all_are_refused(
    run: Any, tmp_path: Path, by: str
) -> None:
    line = "--of", "regions", "--by", by
    status, out, err = run("stat", _without_list(tmp_path), *line)
    assert (status, out) == (3, "")
    assert "does not list the process's memory regions" in err
    status, out, err = run("stat", _with_cut(tmp_path, 16, 8, 5), *line)
    assert (status, out) == (3, "")
    assert "list of memory regions is cut" in err


def test_threads_that_are_not_listed_or_not_all_are_refused(run: Any, tmp_path: Path) -> None:
    none = _written(tmp_path, "a", ProcessBuilder().image("app.exe").heap())
    for file, said in ((none, "does not list"), (_with_cut(tmp_path, 3, 0, 9), "is cut")):
        status, out, err = run("stat", file, "--of", "threads")
        assert (status, out) == (3, "")
        assert f"list of threads {said}" in err or "does not list the process's threads" in err


def test_modules_that_are_not_listed_or_not_all_are_refused(run: Any, tmp_path: Path) -> None:
    status, out, err = run(
        "stat", _written(tmp_path, "a", ProcessBuilder().heap().thread()), "--of", "modules"
    )
    assert (status, out) == (3, "")
    assert "does not list the process's modules" in err
    status, out, err = run("stat", _with_cut(tmp_path, 4, 0, 9), "--of", "modules")
    assert (status, out) == (3, "")
    assert "no whole list of the process's modules" in err


def _heapless(folder: Path) -> Path:
    """No TEB, no PEB: nothing leads to the heaps, and the stacks are not known."""
    dump = MinidumpBuilder().module("C:\\app.exe", 0x400000, 0x5000)
    file = folder / "heapless.dmp"
    file.write_bytes(dump.region(0x10000, 0x10000).region(0x20000, 0x1000, kind=MAPPED).build())
    return file


def _with_lost_heap(folder: Path) -> Path:
    """The second of three heaps has lost its signature, and the regions are not listed."""
    process = _process()
    process.with_regions = False
    data = process.build()
    at = [n for n in range(len(data)) if data[n : n + 4] == b"\xff\xee\xff\xee"]
    for place in at[2:4]:  # of its segment and of the heap itself
        data = patched(data, place, bytes(4))
    file = folder / "lost.dmp"
    file.write_bytes(data)
    return file


def test_heaps_that_are_not_all_known_are_refused_and_not_counted(run: Any, tmp_path: Path) -> None:
    status, out, err = run("stat", _heapless(tmp_path), "--of", "heaps")
    assert (status, out) == (3, "")
    assert "no heap was found" in err
    status, out, err = run("stat", _with_lost_heap(tmp_path), "--of", "heaps")
    assert (status, out) == (3, "")
    assert "1 of 3 heaps could not be read" in err


def test_what_regions_are_used_for_is_told_only_where_heaps_and_stacks_are_known(
    run: Any, ask: Any, tmp_path: Path
) -> None:
    file = _heapless(tmp_path)
    status, out, err = run("stat", file, "--of", "regions")
    assert (status, out) == (3, "")
    assert "what regions are used for is not known: no heap was found" in err
    assert _groups(ask("stat", file, "--of", "regions", "--by", "size")) == {
        "65536": (1, 0x10000),
        "4096": (1, 0x1000),
    }
    process = _process()
    process.lost_heaps = 2
    dump, taken = _written(tmp_path, "lost", process), tmp_path / "lost.dlsnap"
    assert run("snapshot", dump, "-o", taken, "--of", "regions")[0] == 0
    for source in (dump, taken):
        status, out, err = run("stat", source, "--of", "regions")
        assert (status, out) == (3, "")
        assert "what regions are used for is not known: only 3 of" in err
        sizes = ask("stat", source, "--of", "regions", "--by", "size")
        assert sizes["totals"]["used_bytes"] == process.committed()


SYSTEM = TESTDATA / "kernel" / "14393-x64" / "tiny-pair" / "before.dmp.xz"


@pytest.mark.parametrize("of", MEMBERS)
def test_logs_and_systems_do_not_tell_of_what_a_process_has(
    run: Any, tmp_path: Path, of: str
) -> None:
    log = tmp_path / "a.log"
    pair = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"
    assert run("snapshot", pair / "before.dmp.gz", "--format", "umdh", "-o", log)[0] == 0
    of_system = of in SYSTEM_PRODUCERS
    for file in (log, *((SYSTEM,) if not of_system else ())):
        for line in (("stat", file), ("diff", file, file), ("trend", file, file, file)):
            status, out, err = run(*line, "--of", of)
            assert (status, out) == (3, ""), line
            assert of in err
    status, out, err = run("snapshot", SYSTEM, "-o", tmp_path / "x.dlsnap", "--of", of)
    told = (0, "", True) if of_system else (3, "", False)
    assert (status, out, (tmp_path / "x.dlsnap").exists()) == told


def test_a_snapshot_of_one_process_is_refused_where_processes_are_asked_for(
    run: Any, tmp_path: Path
) -> None:
    file = tmp_path / "x.dlsnap"
    dump = TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"
    status, out, err = run("snapshot", dump, "-o", file, "--of", "processes")
    assert (status, out, file.exists()) == (3, "", False)
    assert "processes" in err


# -- bytes that are not known


@pytest.mark.parametrize("of", ["threads", "modules"])
def test_without_a_list_of_regions_members_are_counted_and_have_no_bytes(
    run: Any, ask: Any, tmp_path: Path, of: str
) -> None:
    file = _without_list(tmp_path)
    told = ask("stat", file, "--of", of)
    assert told["totals"] == {"used_bytes": None, "used_count": 2, "block_bytes": None}
    for group in told["groups"]:
        assert (group["used_bytes"], group["block_bytes"], group["largest"]) == (None, None, None)
    assert "members-only-counted" in {item["code"] for item in told["diagnostics"]}
    for row in csv.DictReader(io.StringIO(run("stat", file, "--of", of, "--format", "csv")[1])):
        assert (row["used_bytes"], row["block_bytes"], row["largest"]) == ("", "", "")
    text = run("stat", file, "--of", of)[1]
    assert f"Total: 2 {of}" in text
    assert " B" not in text
    assert "KiB" not in text
    for name in ("pprof", "speedscope", "collapsed"):
        status, out, err = run("stat", file, "--of", of, "--format", name)
        assert (status, out) == (2, "")
        assert "only counted" in err


def test_a_stack_that_is_not_found_is_not_taken_for_an_empty_one(ask: Any, tmp_path: Path) -> None:
    process = _process()
    process.dump.thread(9)
    told = ask("stat", _written(tmp_path, "a", process), "--of", "threads")
    assert told["totals"] == {"used_bytes": None, "used_count": 3, "block_bytes": None}


@pytest.mark.parametrize("of", ["threads", "modules"])
def test_what_counted_members_cannot_tell_is_a_wrong_question(
    run: Any, tmp_path: Path, of: str
) -> None:
    files = []
    for hour in range(3):
        process = _process(HOUR * hour, more=20 * hour)
        process.with_regions = False
        files.append(_written(tmp_path, str(hour), process))
    for line in (("diff", *files[:2]), ("trend", *files)):
        for words in (
            ("--fail-on", "bytes>=1"),
            ("--fail-on", "site.percent>=1"),
            ("--format", "html"),
            ("--format", "sarif"),
        ):
            assert run(*line, "--of", of, *words)[0] == 2, words
        assert run(*line, "--of", of, "--fail-on", "count>=1")[0] == 1
        assert run(*line, "--of", of, "--fail-on", "count>=1000")[0] == 0


@pytest.mark.parametrize("swapped", [False, True])
def test_one_dump_with_bytes_and_one_without_are_compared_by_count(
    ask: Any, run: Any, tmp_path: Path, swapped: bool
) -> None:
    sides = [_process(0), _process(HOUR, more=12)]
    sides[swapped].with_regions = False
    files = [_written(tmp_path, str(n), process) for n, process in enumerate(sides)]
    for of, name in (("threads", "work.dll+0x1100"), ("modules", "more0.dll")):
        told = ask("diff", *files, "--of", of)
        grown = {site["name"]: site for site in told["sites"]}[name]
        assert grown["delta_count"] == (12 if of == "threads" else 6)
        assert {site["delta_bytes"] for site in told["sites"]} == {None}
        assert told["totals"]["delta_bytes"] is None
        assert "members-only-counted" in {item["code"] for item in told["diagnostics"]}
        assert run("diff", *files, "--of", of, "--fail-on", "bytes>=1")[0] in (2, 3)


# -- what is one and the same in two dumps


@pytest.mark.parametrize(("of", "by"), EVERY)
def test_two_boots_with_other_addresses_have_the_same_groups(
    ask: Any, tmp_path: Path, of: str, by: str
) -> None:
    files = [
        _written(tmp_path, str(n), _process(HOUR * n, shift=n * 0x7_3450_0000)) for n in range(2)
    ]
    line = "--of", of, "--by", by
    first, second = (ask("stat", file, *line)["groups"] for file in files)
    assert first == second
    told = ask("diff", *files, *line)
    assert (told["verdict"], told["sites"]) == ("no-growth", [])


def test_threads_of_a_rebuilt_image_are_not_taken_for_those_at_the_same_place(
    ask: Any, tmp_path: Path
) -> None:
    files = []
    for hour, pdb in enumerate(("A" * 32, "B" * 32)):
        process = ProcessBuilder(HOUR * hour).image("app.exe", pdb, 0x5F000000 + hour).heap()
        for _ in range(3):
            process.thread(process.bases["app.exe"] + 0x1234)
        files.append(_written(tmp_path, str(hour), process))
    told = ask("diff", *files, "--of", "threads")
    assert [(s["name"], s["delta_count"]) for s in told["sites"]] == [
        ("app.exe+0x1234", 3),
        ("app.exe+0x1234", -3),
    ]
    assert len({site["key"] for site in told["sites"]}) == 2
    assert any(item["code"].startswith("rebuilt") for item in told["diagnostics"])


def test_symbols_name_the_functions_that_threads_began_with(ask: Any, tmp_path: Path) -> None:
    files, store = [], tmp_path / "store"
    for hour, (guid, rva) in enumerate((("A" * 32, 0x1234), ("B" * 32, 0x1534))):
        process = ProcessBuilder(HOUR * hour).image("app.exe", guid, 0x5F000000 + hour).heap()
        for _ in range(3 + 9 * hour):
            process.thread(process.bases["app.exe"] + rva)
        files.append(_written(tmp_path, str(hour), process))
        put_in_store(
            store,
            PdbIdentity("x.pdb", guid, 1),
            _pdb_with_function("?run@Worker@@QEAAXXZ", guid, rva),
        )
    line = "--of", "threads", "--symbols", str(store)
    assert set(_groups(ask("stat", files[0], *line))) == {"app.exe!Worker::run"}
    told = ask("diff", *files, *line)  # two builds, in which the function lies elsewhere
    assert [(s["name"], s["delta_count"]) for s in told["sites"]] == [("app.exe!Worker::run", 9)]


def _pdb_with_function(name: str, guid: str, rva: int) -> bytes:
    builder = PdbBuilder(guid=guid, age=1)
    builder.sections = [(".text", 0x1000, 0x4000)]
    return builder.public(name, 1, rva - 0x1000).build()


# -- snapshot files


@pytest.fixture
def taken(run: Any, tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes three dumps of a process that grows, and a snapshot file of each."""

    def _taken(*words: str) -> list[Path]:
        files = []
        for hour in range(3):
            dump = _written(tmp_path, f"dump{hour}", _process(HOUR * hour, more=20 * hour))
            file = tmp_path / f"{hour}{''.join(words)}.dlsnap"
            assert run("snapshot", dump, "-o", file, *words)[0] == 0
            files += [dump, file]
        return files

    return _taken


def _same(told: Any) -> Any:
    """What has to be equal; why a figure is not known names the file."""
    rows = [{**row, "reason": None} for row in told["account"]]
    return {name: told[name] for name in ("verdict", "totals", "sites", "of", "by")} | {
        "rows": rows
    }


@pytest.mark.parametrize(("of", "by"), EVERY)
def test_a_snapshot_file_answers_as_its_dump_does(
    ask: Any, taken: Callable[..., list[Path]], of: str, by: str
) -> None:
    files = taken()
    dumps, snaps = files[::2], files[1::2]
    line = "--of", of, "--by", by
    for dump, snap in zip(dumps, snaps, strict=True):
        first, second = (ask("stat", file, *line) for file in (dump, snap))
        assert (first["groups"], first["totals"]) == (second["groups"], second["totals"])
        assert first["groups"]
    expected = _same(ask("diff", *dumps[:2], *line))
    assert expected["verdict"] == "growth"
    assert _same(ask("diff", *snaps[:2], *line)) == expected
    assert _same(ask("diff", dumps[0], snaps[1], *line)) == expected
    expected = _same(ask("trend", *dumps, *line))
    assert _same(ask("trend", *snaps, *line)) == expected
    assert _same(ask("trend", snaps[0], dumps[1], snaps[2], *line)) == expected


@pytest.mark.parametrize(("of", "by"), EVERY)
def test_a_snapshot_file_without_names_still_compares_with_its_own_kind_and_with_dumps(
    ask: Any, taken: Callable[..., list[Path]], of: str, by: str
) -> None:
    files = taken("--strip-names")
    dumps, snaps = files[::2], files[1::2]
    line = "--of", of, "--by", by
    text = json.dumps([ask("stat", snaps[2], *line), ask("diff", *snaps[:2], *line)])
    for hidden in ("app.exe", "work.dll", "more0", "more1"):
        assert hidden not in text.lower()
    expected = ask("diff", *dumps[:2], *line)
    numbers = [(site["delta_count"], site["delta_bytes"]) for site in expected["sites"]]
    for pair in (snaps[:2], (dumps[0], snaps[1]), (snaps[0], dumps[1])):
        told = ask("diff", *pair, *line)
        assert told["totals"] == expected["totals"]
        assert sorted((s["delta_count"], s["delta_bytes"]) for s in told["sites"]) == sorted(
            numbers
        )


def test_function_names_are_not_in_a_snapshot_file_without_names(
    run: Any, ask: Any, tmp_path: Path
) -> None:
    process = ProcessBuilder().image("app.exe").heap()
    dump = _written(tmp_path, "a", process.thread(process.bases["app.exe"] + 0x1234))
    data = _pdb_with_function("?secret@Worker@@QEAAXXZ", "A" * 32, 0x1234)
    put_in_store(tmp_path / "store", PdbIdentity("x.pdb", "A" * 32, 1), data)
    shown = {}
    for words in ((), ("--strip-names",)):
        file = tmp_path / f"a{len(words)}.dlsnap"
        assert run("snapshot", dump, "-o", file, "--symbols", tmp_path / "store", *words)[0] == 0
        shown[words] = _groups(ask("stat", file, "--of", "threads"))
    assert set(shown[()]) == {"app.exe!Worker::secret"}
    (name,) = shown[("--strip-names",)]
    assert "secret" not in name.lower()
    assert "app" not in name.lower()


def test_an_older_snapshot_file_tells_of_handles_and_heaps_and_refuses_the_rest(
    run: Any, ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = _process()
    process.dump.handles([(4, "Event", "\\x"), (8, "Event", ""), (12, "File", "")])
    dump, file = _written(tmp_path, "a", process), tmp_path / "a.dlsnap"
    monkeypatch.setattr(recording, "all_populations", lambda session, snapshot: {})
    assert run("snapshot", dump, "-o", file)[0] == 0
    counts = {n: count for n, (count, _) in _groups(ask("stat", file, "--of", "handles")).items()}
    assert counts == {"Event": 2, "File": 1}
    assert _groups(ask("stat", file, "--of", "heaps")) == {"nt": (3, 3 * PAGE)}
    for of in ("regions", "threads", "modules"):
        status, out, err = run("stat", file, "--of", of)
        assert (status, out) == (3, "")
        assert "the file does not say; make it anew from the dump" in err


# -- gates


@pytest.mark.parametrize("of", ["regions", "heaps", "threads", "modules", "handles"])
def test_a_baseline_accepts_growth_of_every_population(run: Any, tmp_path: Path, of: str) -> None:
    files = []
    for hour in range(3):
        process = _process(HOUR * hour, more=20 * hour)
        process.dump.handles([(4 * n + 4, "Event", "") for n in range(10 + 200 * hour)])
        files.append(_written(tmp_path, str(hour), process))
    line = "--of", of, "--fail-on", "count>=1"
    assert run("diff", *files[:2], *line)[0] == 1
    accepted, level = tmp_path / "accepted.json", tmp_path / "level.dlsnap"
    assert run("diff", *files[:2], "--of", of, "--format", "json", "-o", accepted)[0] == 0
    assert run("snapshot", files[1], "-o", level)[0] == 0
    for baseline in (accepted, level):
        assert run("diff", *files[:2], *line, "--baseline", baseline)[0] == 0
        status, _, err = run("diff", files[0], files[2], *line, "--baseline", baseline)
        assert (status, f"{of}; baseline" in err) == (1, True)


def test_a_baseline_of_another_population_is_refused(run: Any, tmp_path: Path) -> None:
    files = [_written(tmp_path, str(n), _process(HOUR * n, more=20 * n)) for n in range(2)]
    sizes = tmp_path / "sizes.json"
    by_size = "--by", "size"
    assert run("diff", *files, "--of", "regions", *by_size, "--format", "json", "-o", sizes)[0] == 0
    status, _, err = run("diff", *files, *by_size, "--baseline", sizes)
    assert (status, "of regions, and no baseline for blocks" in err) == (3, True)
    blocks = tmp_path / "blocks.json"
    assert run("diff", *files, *by_size, "--format", "json", "-o", blocks)[0] == 0
    status, _, err = run("diff", *files, "--of", "regions", *by_size, "--baseline", blocks)
    assert (status, "of blocks, and no baseline for regions" in err) == (3, True)
    assert run("diff", *files, *by_size, "--baseline", blocks, "--fail-on", "count>=1")[0] == 0


@pytest.mark.parametrize("of", ["threads", "handles"])
def test_suppressions_name_groups_of_every_population(run: Any, tmp_path: Path, of: str) -> None:
    files = []
    for hour in range(2):
        process = _process(HOUR * hour, more=20 * hour)
        process.dump.handles([(4 * n + 4, "Event", "") for n in range(10 + 200 * hour)])
        files.append(_written(tmp_path, str(hour), process))
    name = "work.dll+0x*" if of == "threads" else "Event"
    listed = tmp_path / "known.toml"
    listed.write_text(f'[[suppress]]\nsite = "{name}"\nreason = "known"\nexpires = 2999-01-01\n')
    line = "diff", *files, "--of", of, "--fail-on", "count>=1,site.count>=1"
    assert run(*line)[0] == 1
    assert run(*line, "--suppressions", listed)[0] == 0


@pytest.mark.parametrize("name", ["umdh", "umdh-d"])
def test_formats_that_list_blocks_are_not_given_other_members(
    run: Any, tmp_path: Path, name: str
) -> None:
    files = [_written(tmp_path, str(n), _process(HOUR * n, more=3 * n)) for n in range(2)]
    status, out, err = run("diff", *files, "--of", "threads", "--format", name)
    assert (status, out) == (2, "")
    assert "is of blocks, not of threads" in err


# -- what people read


def _grown(folder: Path, what: Callable[[ProcessBuilder, int], Any], dumps: int = 3) -> list[Path]:
    """A series in which one thing becomes more by the hour."""
    files = []
    for hour in range(dumps):
        process = _process(HOUR * hour)
        what(process, 40 * hour)
        files.append(_written(folder, f"grown{hour}", process))
    return files


def _threads(process: ProcessBuilder, count: int) -> None:
    for _ in range(count):
        process.thread(process.bases["work.dll"] + 0x1100)


def _images(process: ProcessBuilder, count: int) -> None:
    for _ in range(count):
        process.image("plugin.dll")


WORDS = {
    "threads": (_threads, "Threads of 1 start function grew.", "ThreadCreate", "--of threads"),
    "modules": (_images, "Modules of 1 name grew.", "ImageLoad", "--of modules"),
    "mapped": (
        lambda p, n: p.views(n, 0x40000),
        "Regions of 1 use grew.",
        "MapFile",
        "--of regions",
    ),
    "private": (
        lambda p, n: p.private(n, 0x40000),
        "Regions of 1 use grew.",
        "wpr -start VirtualAllocation",
        "",
    ),
    "heaps": (lambda p, n: p.heap(n, 0), "Heaps of 1 kind grew.", "--by heap", "--of heaps"),
}


@pytest.mark.parametrize("what", WORDS)
def test_the_first_screen_says_what_grew_in_its_own_words_and_how_to_see_who_makes_it(
    run: Any, tmp_path: Path, what: str
) -> None:
    grow, headline, trace, named = WORDS[what]
    base, current, last = _grown(tmp_path, grow)
    of = what if what in MEMBERS else "regions"
    text = run("diff", base, current, "--of", of)[1]
    first = text.split("\n\n")[0]
    assert headline.lower() in first.splitlines()[0].lower()
    assert trace in first
    assert "gflags" not in text  # records heap calls only
    assert f"all {of} are listed" in first
    assert "blocks" not in text.replace("heap blocks", "").replace("bytes in heap blocks", "")
    trend = run("trend", base, current, last, "--of", of)[1]
    assert trend.startswith(f"Suspect: {headline.lower()[:-1]} steadily.")
    assert trace in trend
    # Whoever looks at blocks is led to it.
    of_blocks = run("diff", base, current)[1].split("\n\n")[0]
    assert "gflags" not in of_blocks
    assert named in of_blocks


@pytest.mark.parametrize("what", WORDS)
def test_formats_for_ci_and_pages_say_what_they_count(run: Any, tmp_path: Path, what: str) -> None:
    of = what if what in MEMBERS else "regions"
    files = _grown(tmp_path, WORDS[what][0])[:2]
    said = {
        name: run("diff", *files, "--of", of, "--format", name, "--fail-on", "site.count>=1")[1]
        for name in ("markdown", "junit", "sarif", "speedscope", "html")
    }
    assert f"Growth of {of}" in said["markdown"]
    assert f"| bytes +/- | {of} +/- |" in said["markdown"]
    assert f"all {of} are listed" in said["markdown"]
    assert f"+40 {of}" in said["junit"]
    assert "walked" not in said["markdown"] + said["junit"]
    assert f"+40 {of}" in said["sarif"]
    assert f"growth in {of}" in said["speedscope"]
    assert f"{of} +/-" in said["html"]
    assert f"all {of} are listed" in said["html"]
    for name in ("markdown", "junit", "sarif", "speedscope"):
        assert "block" not in said[name].replace("heap blocks", ""), name


def test_reservations_that_become_more_are_suspect_though_they_have_no_bytes(
    run: Any, ask: Any, tmp_path: Path
) -> None:
    files = _grown(tmp_path, lambda p, n: p.private(2 * n, 0, 0x10000))
    told = ask("trend", *files, "--of", "regions", "--by", "protection")
    (site,) = told["sites"]
    assert (site["name"], site["confidence"]) == ("(reserved only)", "suspect")
    assert (site["bytes_per_hour"], site["count_per_hour"]) == (0, 80)
    assert [point["count"] for point in site["points"]] == [1, 81, 161]
    few = _grown(tmp_path, lambda p, n: p.private(n // 40, 0, 0x10000))
    told = ask("trend", *few, "--of", "regions", "--by", "protection")
    assert [site["confidence"] for site in told["sites"]] == ["growth"]


# -- dumps of the test data


DUMPS = sorted(TESTDATA.glob("[0-9]*/*/*.dmp.gz"))[::7]


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: "/".join(path.parts[-3:]))
def test_every_population_adds_up_to_its_rows_of_the_account(path: Path) -> None:
    session = Session.open(path)
    process = process_snapshot(session)
    figures = {figure.name: figure.value for figure in account_of(process)}
    kept = all_populations(session, process)
    for of, size, count in (
        ("regions", "regions.committed_bytes", ""),
        ("heaps", "heaps.committed_bytes", "heaps.count"),
        ("threads", "stacks.bytes", "threads.count"),
        ("modules", "modules.bytes", "modules.count"),
    ):
        assert kept[of].sized
        for by in MEMBERS[of]:
            totals = sum_of([totals for _, totals in kept[of].groups[by]])
            assert totals.bytes == figures[size], (of, by)
            assert not count or totals.count == figures[count], (of, by)


def test_members_that_are_more_and_smaller_are_told_in_the_headline(
    run: Any, tmp_path: Path
) -> None:
    files = []
    for hour, (count, size) in enumerate([(1, 0x80000), (4, 0x1000)]):
        process = ProcessBuilder(3600 * hour).image("app.exe", data=b"").heap(2, 5).thread()
        process.private(count, size)
        files.append(tmp_path / f"{hour}.dmp")
        files[-1].write_bytes(process.build())
    _, out, _ = run("diff", *files, "--of", "regions", "--by", "protection")
    said = "they are 3 more, of no more bytes in all (--by size tells which)"
    assert out.startswith(f"Regions did not grow between these two dumps; {said}.")
