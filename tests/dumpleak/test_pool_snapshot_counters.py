"""`dumpleak pool` on snapshot files of kernel dumps: the same answer as on the dumps."""

from __future__ import annotations

import base64
import copy
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kernel_truth import kernel_pairs
from pool_samples import OWNERS, Pair, leaking, run, run_json
from truth import TESTDATA

from dumpleak.files.checked_json import SnapshotFileError
from dumpleak.files.columns import pack
from dumpleak.files.reader import SnapshotFile
from dumpleak.kernel.pools import PoolReader
from dumpleak.model.snapshot import Snapshot
from dumpleak.survey.open import open_snapshot
from dumpleak.survey.wanted import Wanted
from windumps import open_dump

parquet = pytest.importorskip("pyarrow.parquet")

# Those of the repository; each takes seconds.
PAIRS = [p for p in kernel_pairs("tiny-pair", "leak-pair") if TESTDATA in p[1].dump.parents]
PAIR = kernel_pairs("tiny-pair")[0]
HEAPS = TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"
NO_HANDLES = "kernel objects: who holds them is unknown, a snapshot keeps no handle tables"


def snapshots(
    pair: Pair, folder: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> list[Path]:
    files = [folder / "before.dlsnap", folder / "after.dlsnap"]
    for side, file in zip(pair, files, strict=True):
        assert run(capsys, "snapshot", side.dump, "-o", file, *options) == (0, "", "")
    return files


def take(path: Path) -> Snapshot:
    return open_snapshot(path, Wanted(of="pool"))


def besides_files(told: dict[str, Any]) -> dict[str, Any]:
    """An answer without names of files and holders of kernel objects, which a snapshot cannot know."""
    told = copy.deepcopy(told)
    parts = told, told.get("base", {}), told.get("current", {})
    files = {part["file"] for part in parts if "file" in part}
    for part in parts:
        part.pop("file", None)
    for row in told.get("system", ()):
        for file in files:
            row["reason"] = row["reason"] and row["reason"].replace(file, "FILE")
    for row in told["tags"]:
        row.pop("holders", None)
        row.pop("objects")
    return told


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[1].name)
def test_snapshots_answer_as_their_dumps_do(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dumps, files = [side.dump for side in pair], snapshots(pair, tmp_path, capsys)
    for dump, file in zip(dumps, files, strict=True):
        told = run_json(capsys, "pool", file)
        assert told["file"] == str(file)
        assert besides_files(told) == besides_files(run_json(capsys, "pool", dump))
    whole = run_json(capsys, "pool", *dumps)
    assert whole["verdict"] == "growth"
    assert any(row["new_blocks"] and row["new_blocks"]["samples"] for row in whole["tags"])
    for sides in (files, [files[0], dumps[1]], [dumps[0], files[1]]):
        told = run_json(capsys, "pool", *sides)
        assert (told["base"]["file"], told["current"]["file"]) == tuple(map(str, sides))
        assert besides_files(told) == besides_files(whole)
        for mine, other in zip(told["tags"], whole["tags"], strict=True):
            assert mine["holders"] == ([NO_HANDLES] if other["holders"] else [])
            assert (other["objects"] is None) == (not other["holders"])
    stored, read = (take(name) for name in (files[1], dumps[1]))
    assert (stored.pool, read.pool) != (None, None)
    for name in ("has_session_pool", "why_no_session_pool", "counter_bits", "rows", "account"):
        assert getattr(stored.pool, name) == getattr(read.pool, name)
    assert stored.boot is not None
    assert read.boot is not None
    assert (stored.boot.time, stored.boot.up_time) == (read.boot.time, read.boot.up_time)


def test_counters_are_the_truth_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = snapshots(PAIR, tmp_path, capsys)
    rows = {row["tag"]: row for row in run_json(capsys, "pool", files[1])["tags"]}
    for tag, pools in PAIR[1].read_truth()["tags"].items():
        for pool in ("nonpaged", "paged"):
            for name in ("allocs", "frees", "bytes"):
                assert rows[tag][f"{pool}_{name}"] == pools[pool][name]
    growth = run_json(capsys, "pool", *files)["tags"]
    assert [(row["tag"], row["delta_bytes"]) for row in growth[:3]] == [
        (row["tag"], row["delta_bytes"]) for row in leaking(PAIR)
    ]
    assert {row["tag"]: row["driver"] for row in growth[:3]} == OWNERS


def test_options_work_on_snapshots_and_what_is_not_used_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dumps, files = [side.dump for side in PAIR], snapshots(PAIR, tmp_path, capsys)
    for options in (("--tag", "Ac*"), ("--sort", "allocs"), ("--type", "paged")):
        told, whole = (run_json(capsys, "pool", *sides, *options) for sides in (files, dumps))
        assert besides_files(told) == besides_files(whole)
    told = run_json(capsys, "pool", *files, "--no-walk")
    assert all(row["new_blocks"] is None for row in told["tags"])
    answers = [run(capsys, "pool", side, "--type", "session") for side in (files[1], dumps[1])]
    assert answers[0][0] == answers[1][0]
    code, out, _ = run(capsys, "pool", *files)
    assert code == 0
    assert all(tag in out and driver in out for tag, driver in OWNERS.items())
    notes = tmp_path / "notes.txt"
    notes.write_text("AcNb - other.sys - something else\n")
    told = run_json(capsys, "pool", files[1], "--pooltag", notes)
    assert "other.sys" not in json.dumps(told["tags"])
    assert any("notes.txt is not used" in item["message"] for item in told["diagnostics"])


def test_a_snapshot_without_names_names_no_driver(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dumps = [side.dump for side in PAIR]
    whole = run_json(capsys, "pool", *dumps)
    files = snapshots(PAIR, tmp_path, capsys, "--strip-names")
    drivers = {driver.name.lower() for driver in open_dump(dumps[1]).modules}
    assert drivers >= set(OWNERS.values())
    for file in files:
        kept = json.dumps(metadata_of(file)["pool"]).lower()
        assert not [name for name in drivers if name in kept]
        assert not [word for word in (".sys", "acme", "!", "+0x") if word in kept]
    counters = ("tag", "delta_bytes", "delta_count", "nonpaged_allocs", "paged_frees", "new_blocks")
    for sides in (files, [files[0], dumps[1]], [dumps[0], files[1]]):
        told = run_json(capsys, "pool", *sides)
        for mine, other in zip(told["tags"], whole["tags"], strict=True):
            assert [mine[name] for name in counters] == [other[name] for name in counters]
    told = run_json(capsys, "pool", *files)
    best = [row["drivers"][0] for row in told["tags"][:3]]
    assert all(driver["name"].startswith("module-") for driver in best)
    assert {driver["confidence"] for driver in best} == {
        row["drivers"][0]["confidence"] for row in whole["tags"][:3]
    }


def test_names_that_are_kept_keep_their_evidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = snapshots(PAIR, tmp_path, capsys, "--strip-names", "--keep-name", "acmenet.sys")[1]
    rows = {row["tag"]: row for row in run_json(capsys, "pool", file)["tags"]}
    assert rows["AcNb"]["driver"] == "acmenet.sys"
    assert "acmenet.sys+0x" in "; ".join(rows["AcNb"]["drivers"][0]["evidence"])
    assert rows["AcFc"]["driver"].startswith("module-")


# --- files that are old, of something else, or altered --------------------------------------------------


def metadata_of(path: Path) -> dict[str, Any]:
    packed = parquet.read_metadata(path).metadata[b"dumpleak"]
    return dict(json.loads(zlib.decompress(base64.b64decode(packed))))


def altered(source: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    table, metadata = parquet.read_table(source), metadata_of(source)
    change(metadata)
    with parquet.ParquetWriter(target, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"dumpleak": pack(json.dumps(metadata))})
    return target


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dumpleak.survey.pool_recording import write_pool_snapshot

    path = tmp_path_factory.mktemp("stored") / "after.dlsnap"
    write_pool_snapshot(PoolReader(open_dump(PAIR[1].dump)), path)
    return path


def test_old_files_and_snapshots_of_heaps_are_refused_in_one_line(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = altered(stored, tmp_path / "old.dlsnap", lambda metadata: metadata.pop("pool"))
    code, out, err = run(capsys, "pool", old)
    assert (code, out, len(err.splitlines())) == (3, "", 1)
    assert "old.dlsnap: this snapshot keeps no counters of pool tags" in err
    assert "make it anew from the dump" in err
    assert run(capsys, "stat", old)[0] == 0
    heaps = tmp_path / "heaps.dlsnap"
    assert run(capsys, "snapshot", HEAPS, "-o", heaps)[0] == 0
    code, out, err = run(capsys, "pool", heaps)
    assert (code, out, len(err.splitlines())) == (3, "", 1)
    assert "heaps.dlsnap: a snapshot of one process" in err


def first(metadata: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = metadata["pool"]["tags"][0]
    return row


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "no tags object": lambda m: m.update(pool=[]),
    "no account": lambda m: m["pool"].pop("account"),
    "tag too large": lambda m: first(m).update(tag=1 << 32),
    "tag twice": lambda m: m["pool"]["tags"].insert(0, first(m)),
    "pool of no name": lambda m: first(m)["pools"].update(big=[0, 0, 0, 0]),
    "three counters": lambda m: first(m)["pools"].update(paged=[0, 0, 0]),
    "counter of text": lambda m: first(m)["pools"].update(paged=[0, 0, 0, "1"]),
    "counter of 65 bits": lambda m: first(m)["pools"].update(paged=[0, 0, 0, 1 << 64]),
    "source": lambda m: first(m).update(source="guess"),
    "confidence": lambda m: first(m).update(
        owners=[{"driver": "a.sys", "score": 0.5, "confidence": "sure", "evidence": []}]
    ),
    "score": lambda m: first(m).update(
        owners=[{"driver": "a.sys", "score": float("nan"), "confidence": "weak", "evidence": []}]
    ),
    "evidence": lambda m: first(m).update(
        owners=[{"driver": "a.sys", "score": 0.5, "confidence": "weak", "evidence": [1]}]
    ),
    "counter bits": lambda m: m["pool"].update(counter_bits=1 << 40),
    "up time": lambda m: m["pool"].update(up_time_microseconds=1 << 63),
    "fewer tags than sites": lambda m: m["pool"].update(tags=m["pool"]["tags"][:5]),
    "ranking": lambda m: m["pool"]["account"].update(ranking="best"),
    "residual": lambda m: m["pool"]["account"].update(residuals=[{"tag": "A"}]),
    "flag": lambda m: m["pool"].update(has_trackers=1),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_altered_counters_are_a_typed_error(name: str, stored: Path, tmp_path: Path) -> None:
    path = altered(stored, tmp_path / "altered.dlsnap", DAMAGE[name])
    with pytest.raises(SnapshotFileError, match=r"altered\.dlsnap: ") as error:
        SnapshotFile(path)
    assert "\n" not in str(error.value)


def test_an_altered_file_is_read_where_nothing_was_altered(stored: Path, tmp_path: Path) -> None:
    path = altered(stored, tmp_path / "same.dlsnap", lambda metadata: None)
    read, same = take(stored).pool, take(path).pool
    assert read is not None
    assert same is not None
    assert (same.rows, same.account) == (read.rows, read.account)


def test_blocks_of_tags_that_no_tracker_counts_are_said_to_be_left_out(
    stored: Path, tmp_path: Path
) -> None:
    def more(metadata: dict[str, Any]) -> None:
        metadata["pool"]["account"]["walked_count"] += 3

    told = take(altered(stored, tmp_path / "more.dlsnap", more)).diagnostics
    assert [item.code for item in told].count("pool-blocks-not-kept") == 1
    assert "pool-blocks-not-kept" not in [item.code for item in take(stored).diagnostics]
