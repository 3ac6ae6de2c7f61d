"""A fleet from files to datasets: nothing is lost, nothing is read twice, and the order does not matter."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from builders.cabinet_builder import mszip_of
from fleet_inputs import TINY, dump, log, rows, some_of_all
from pyarrow import parquet

import dumpleak
from dumpleak.fleets import reading
from dumpleak.fleets.run import FleetRun, NoInputError
from windumps.errors import ContainerError

COUNT = 80


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    some_of_all(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def ran(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> FleetRun:
    return dumpleak.fleet(inputs, tmp_path_factory.mktemp("fleet"), workers=1)


def test_each_input_has_one_row_and_what_is_broken_says_why(ran: FleetRun) -> None:
    dumps = ran.dumps.to_pylist()
    assert len(dumps) == COUNT == ran.read + ran.errors
    assert (ran.seen.inputs, ran.seen.known, ran.seen.others) == (COUNT, 0, 1)
    for row in dumps:
        assert (row["status"] == "error") == row["url"].endswith(".dmp")
        if row["status"] == "error":
            assert row["error"].startswith(row["url"])
            assert row["error_kind"] == "CorruptDumpError"
            assert row["snapshot"] is None
        else:
            assert row["error"] is None
            assert (ran.folder / row["snapshot"]).is_file()
    assert [row["id"] for row in dumps] == sorted(row["id"] for row in dumps)


def test_the_snapshots_of_a_fleet_tell_what_the_dumps_do(ran: FleetRun) -> None:
    checked = 0
    for row in ran.dumps.to_pylist():
        if not row["url"].endswith(".gz"):
            continue
        direct = dumpleak.snapshot(row["url"])
        kept = dumpleak.snapshot(ran.folder / row["snapshot"])
        assert kept.totals == direct.totals
        assert row["used_count"] == direct.totals.count
        checked += 1
    assert checked == COUNT // 4


def test_sites_are_in_order_of_their_inputs_and_add_up(ran: FleetRun) -> None:
    sites = ran.sites.to_pylist()
    assert [row["id"] for row in sites] == sorted(row["id"] for row in sites)
    for row in ran.dumps.to_pylist():
        if row["status"] == "read":
            kept = dumpleak.snapshot(ran.folder / row["snapshot"])
            mine = {site["key"]: site["count"] for site in sites if site["id"] == row["id"]}
            assert sum(mine[key] for key in kept.groups) == row["used_count"]
            assert mine.keys() == kept.groups.keys()  # private memory adds nothing to what is used


def test_the_rows_are_the_same_with_more_workers_and_in_another_order(
    ran: FleetRun, inputs: Path, tmp_path: Path
) -> None:
    other = dumpleak.fleet(sorted(inputs.iterdir(), reverse=True), tmp_path / "fleet", workers=2)
    # README.txt was named this time, and is no dump.
    assert rows(ran.dumps) == [
        row for row in rows(other.dumps) if not row["url"].endswith("README.txt")
    ]
    assert rows(ran.sites) == rows(other.sites)
    assert rows(ran.growth) == rows(other.growth)
    assert rows(ran.clusters) == rows(other.clusters)


def test_the_command_says_what_is_out_there_and_the_gate_decides(
    run: Any, ran: FleetRun, inputs: Path, tmp_path: Path
) -> None:
    line = ("fleet", inputs, "-o", ran.folder, "--workers", 1)
    code, out, err = run(*line, "--fail-on", "errors>=1")
    assert code == 1
    assert "SUMMARY: FAIL errors>=1 (it is 20)" in err
    assert f"60 of {COUNT} inputs" in out
    assert "<title>dumpleak: fleet</title>" in (ran.folder / "report.html").read_text()
    assert run(*line, "--fail-on", "errors>=21,new-clusters>=1")[0] == 0
    code, _, err = run(*line, "--fail-on", "nonsense>=1")
    assert code == 2
    assert "nonsense" in err
    (tmp_path / "known.toml").write_text("[[known]]\nnam = 1\n")
    assert run(*line, "--known", tmp_path / "known.toml")[0] == 2
    code, out, _ = run(*line, "--format", "csv")
    assert code == 0
    assert out.startswith("fingerprint,name,known,state")


def test_a_second_run_reads_only_what_is_new(run: Any, ran: FleetRun, inputs: Path) -> None:
    before = rows(ran.dumps)
    code, _, err = run("fleet", inputs, "-o", ran.folder, "--workers", 1)
    assert code == 0
    assert f"{COUNT} inputs: {COUNT} known, 0 to read" in err
    assert rows(ran.dumps) == before


def test_nothing_to_read_is_no_answer(run: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no dump")
    code, out, err = run("fleet", tmp_path / "in", "-o", tmp_path / "out")
    assert (code, out) == (3, "")
    assert "no dumps, snapshots or logs there; none of 1 files is one" in err
    with pytest.raises(NoInputError):
        dumpleak.fleet(tmp_path / "*.dmp", tmp_path / "out")


def test_a_name_that_is_nothing_is_said_before_any_work(run: Any, tmp_path: Path) -> None:
    code, _, err = run("fleet", tmp_path / "nope", "-o", tmp_path / "out")
    assert code == 2
    assert "nope: no such file or folder" in err
    assert run("fleet", tmp_path)[0] == 2


def test_a_dry_run_says_what_would_be_read_and_makes_nothing(run: Any, tmp_path: Path) -> None:
    (tmp_path / "a.dmp.gz").write_bytes(dump(1))
    (tmp_path / "b.log").write_bytes(log(1))
    code, out, err = run("fleet", tmp_path, "-o", tmp_path / "out", "--dry-run")
    assert code == 0
    assert "2 inputs: 0 known, 2 to read" in err
    assert f"{tmp_path / 'a.dmp.gz'}" in out
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> FleetRun:
    """Archives, copies, other fleets, packed logs, files that cannot be read."""
    folder = tmp_path_factory.mktemp("odd")
    files = {f"{n}.dmp.gz": dump(n) for n in range(3)} | {"notes.txt": b"no dump", "u.log": log(7)}
    with zipfile.ZipFile(folder / "many.zip", "w", zipfile.ZIP_DEFLATED) as many:
        for name, content in files.items():
            many.writestr(f"in/{name}", content)
    for name, mode in (("many.tar", "w"), ("many.tgz", "w:gz")):
        with tarfile.open(folder / name, mode) as tar:
            for inner, content in files.items():
                about = tarfile.TarInfo(inner)
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
    packed = [(f"in\\{n}.dmp.gz".encode(), dump(n)) for n in range(2)]
    (folder / "many.cab").write_bytes(mszip_of(*packed))
    with zipfile.ZipFile(folder / "one.zip", "w") as one:
        one.write(TINY[3], "dump.dmp.gz")
    with zipfile.ZipFile(folder / "one-plain.zip", "w") as one:
        one.writestr("app.dmp", gzip.decompress(TINY[3].read_bytes()))
    with zipfile.ZipFile(folder / "none.zip", "w") as none:
        none.writestr("notes.txt", "no dump")
    cut = (folder / "many.zip").read_bytes()
    (folder / "cut.zip").write_bytes(cut[: len(cut) // 2])
    (folder / "copy.dmp.gz").write_bytes(dump(1))
    (folder / "u.log.gz").write_bytes(gzip.compress(log(9), mtime=0))
    (folder / "old.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(30))
    (folder / "empty.dmp").write_bytes(b"")
    out = folder / "fleet"
    dumpleak.fleet(TINY[4], out, workers=1)
    shutil.copytree(out, folder / "another fleet")
    return dumpleak.fleet(folder, out, workers=1)


def _odd_row(odd: FleetRun, name: str) -> dict[str, Any]:
    top = odd.folder.parent
    found: dict[str, Any] = next(
        row for row in odd.dumps.to_pylist() if str(top / name) in (row["url"], *row["also"])
    )
    return found


def test_each_dump_in_an_archive_is_an_input_and_copies_are_one_row(odd: FleetRun) -> None:
    top = odd.folder.parent
    for number in range(3):
        row = _odd_row(odd, f"many.zip!in/{number}.dmp.gz")
        places = {
            f"many.zip!in/{number}.dmp.gz",
            f"many.tar!{number}.dmp.gz",
            f"many.tgz!{number}.dmp.gz",
        }
        if number < 2:
            places.add(f"many.cab!in\\{number}.dmp.gz")
        if number == 1:
            places.add("copy.dmp.gz")
        assert {row["url"], *row["also"]} == {str(top / place) for place in places}
        assert row["url"] == min(row["url"], *row["also"])
        assert (row["status"], row["bytes"]) == ("read", len(dump(number)))
    assert _odd_row(odd, "many.tar!u.log")["kind"] == "umdh log"
    assert len(list((odd.folder / "snapshots").iterdir())) == odd.read


def test_an_archive_with_one_dump_is_an_input_itself(odd: FleetRun) -> None:
    assert _odd_row(odd, "one-plain.zip")["status"] == "read"
    assert _odd_row(odd, "one.zip")["status"] == "error"


def test_a_compressed_log_is_read(odd: FleetRun) -> None:
    assert _odd_row(odd, "u.log.gz")["kind"] == "umdh log"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cut.zip", "damaged or cut"),
        ("old.7z", "7z x FILE"),
        ("empty.dmp", "the file is empty"),
    ],
)
def test_what_may_hold_dumps_and_cannot_be_read_is_a_row(
    odd: FleetRun, name: str, said: str
) -> None:
    row = _odd_row(odd, name)
    assert row["status"] == "error"
    assert said in row["error"]


def test_what_fleets_wrote_is_no_input(odd: FleetRun) -> None:
    # The first run's input, whose place is outside, stays.
    assert [row["url"] for row in odd.dumps.to_pylist() if "/tiny/" in row["url"]] == [str(TINY[4])]
    assert not [row for row in odd.dumps.to_pylist() if "fleet/snapshots" in row["url"]]


def test_a_file_that_changed_is_read_again_and_its_error_goes(tmp_path: Path) -> None:
    place, out = tmp_path / "in" / "app.dmp.gz", tmp_path / "out"
    place.parent.mkdir()
    place.write_bytes(dump(1)[:5000])
    first = dumpleak.fleet(place, out, workers=1)
    assert (first.read, first.errors) == (0, 1)
    again = dumpleak.fleet(place, out, workers=1)
    assert (again.seen.to_read, again.errors) == (0, 1)
    again = dumpleak.fleet(place, out, workers=1, retry_errors=True)
    assert (again.seen.to_read, again.errors) == (1, 1)
    place.write_bytes(dump(1))
    again = dumpleak.fleet(place, out, workers=1)
    assert (again.seen.to_read, again.read, again.errors) == (1, 1, 0)
    assert parquet.read_table(out / "dumps.parquet").num_rows == 1


def test_what_a_bomb_unpacks_to_fills_no_disk(tmp_path: Path) -> None:
    with pytest.raises(ContainerError, match=r"a\.zip!b\.dmp: unpacks to more than"):
        reading._copy(io.BytesIO(bytes(100)), tmp_path / "copy", "a.zip!b.dmp", 99)
    reading._copy(io.BytesIO(bytes(99)), tmp_path / "copy", "a.zip!b.dmp", 99)
    assert (tmp_path / "copy").stat().st_size == 99


def test_a_folder_keeps_to_one_grouping(run: Any, tmp_path: Path) -> None:
    dumpleak.fleet(TINY[0], tmp_path, workers=1, by="kind")
    kept = parquet.read_table(tmp_path / "sites.parquet")
    assert "group" in kept["kind"].to_pylist()
    code, _, err = run("fleet", TINY[0], "-o", tmp_path)
    assert code == 3
    assert "made with --by kind" in err


@pytest.mark.parametrize("library", ["distributed", "dask", "psutil"])
def test_a_missing_library_is_said_with_the_extra_that_brings_it(
    tmp_path: Path, library: str
) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from dumpleak.cli import main\n"
        f"main(['fleet', {str(TINY[0])!r}, '-o', {str(tmp_path / 'out')!r}])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (3, "", 1)
    assert "[fleet]" in ran.stderr
    assert f"fleets need {library}, which is not installed" in ran.stderr
    assert not (tmp_path / "out").exists()
