"""Snapshot files: the same answers as from the dump, nothing of its memory, and no trust in what they say."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from truth import TESTDATA, TruthDump, truth_dumps

from dumpleak.attribution.grouping import GROUPINGS
from dumpleak.files import reader
from dumpleak.files.checked_json import SnapshotFileError
from dumpleak.files.columns import COLUMNS, pack
from dumpleak.files.detect import read_snapshot
from dumpleak.files.metadata import Metadata, to_json
from dumpleak.files.reader import SnapshotFile, read_snapshot_file
from dumpleak.files.stripping import stripped_metadata
from dumpleak.model.block_table import BY_PDB
from dumpleak.model.optional_libraries import install_command
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.subject import Subject
from dumpleak.model.totals import Totals
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.recording import without_folders, write_columns, write_snapshot
from windumps.errors import WindumpsError

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"
BEFORE, AFTER = PAIR / "before.dmp.gz", PAIR / "after.dmp.gz"
TWO_LIVES = TESTDATA / "10.0.26100.5074-x64" / "leak-pair-aslr"
SERIES = TESTDATA / "10.0.22621.4541-x64" / "series-ust"
TINY = TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.dlsnap"
    write_snapshot(Session.open(TINY), path)
    return path


def _snapshots(run: Any, folder: Path, *dumps: Path, options: tuple[str, ...] = ()) -> list[Path]:
    made = []
    for number, dump in enumerate(dumps):
        made.append(folder / f"{number}.dlsnap")
        assert run("snapshot", dump, "-o", made[-1], *options)[0] == 0
    return made


def _metadata(path: Path) -> Any:
    """As the documentation says it is read."""
    packed = parquet.ParquetFile(path).metadata.metadata[b"dumpleak"]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def _without_names(text: str, files: list[Path]) -> str:
    for file in files:
        text = text.replace(str(file), "FILE")
    return text


def _without_containers(text: str) -> Any:
    """The answer but for the containers of the last dump: a snapshot file does not keep them."""
    answer = json.loads(text)
    for site in answer["sites"]:
        site.pop("container", None)
        site["evidence"] = [told for told in site["evidence"] if " members" not in told]
    return answer


# -- the same answers --------------------------------------------------------------------------------


@pytest.mark.parametrize("by", list(GROUPINGS))
@pytest.mark.parametrize("folder", [PAIR, TWO_LIVES], ids=lambda p: p.name)
def test_a_comparison_is_the_same_from_dumps_and_from_snapshots(
    run: Any, tmp_path: Path, folder: Path, by: str
) -> None:
    dumps = [folder / "before.dmp.gz", folder / "after.dmp.gz"]
    files = _snapshots(run, tmp_path, *dumps, options=("--no-holders",))
    options = ("--by", by, "--no-holders", "--format", "json")
    expected = _without_names(run("diff", *dumps, *options)[1], dumps)
    assert json.loads(expected)["by"] == by
    for mixed in (files, [dumps[0], files[1]], [files[0], dumps[1]]):
        assert _without_names(run("diff", *mixed, *options)[1], mixed) == expected


def test_a_comparison_by_site_has_the_same_holders_too(run: Any, tmp_path: Path) -> None:
    files = _snapshots(run, tmp_path, BEFORE, AFTER)
    expected = run("diff", BEFORE, AFTER, "--format", "json")[1]
    found = run("diff", *files, "--format", "json")[1]
    assert "held by" in expected
    assert _without_containers(_without_names(found, files)) == _without_containers(
        _without_names(expected, [BEFORE, AFTER])
    )


@pytest.mark.parametrize("command", ["stat", "heaps"])
def test_one_dump_and_its_snapshot_give_the_same_answer(
    run: Any, tmp_path: Path, command: str
) -> None:
    (file,) = _snapshots(run, tmp_path, AFTER)
    expected = run(command, AFTER, "--format", "json")[1]
    assert _without_names(run(command, file, "--format", "json")[1], [file]) == _without_names(
        expected, [AFTER]
    )


def test_info_tells_of_the_dump_behind_a_snapshot(run: Any, tmp_path: Path) -> None:
    (file,) = _snapshots(run, tmp_path, AFTER, options=("--include", "paths"))
    for command in ("info", "modules"):
        expected = run(command, AFTER, "--format", "json")[1]
        found = run(command, file, "--format", "json")[1]
        assert _without_names(found, [file]) == _without_names(expected, [AFTER])
    assert "Good enough to look for leaks? yes" in run(file)[1]


def test_a_trend_is_the_same_from_dumps_and_from_snapshots(run: Any, tmp_path: Path) -> None:
    dumps = [SERIES / f"dump{number}.dmp.gz" for number in range(4)]
    files = _snapshots(run, tmp_path, *dumps)
    expected = run("trend", *dumps, "--format", "json")[1]
    mixed = [files[0], dumps[1], files[2], files[3]]
    found = run("trend", *mixed, "--format", "json")[1]
    assert json.loads(expected)["sites"][0]["confidence"] == "suspect"
    assert _without_containers(_without_names(found, mixed)) == _without_containers(
        _without_names(expected, dumps)
    )


@pytest.mark.parametrize("dump", truth_dumps("debug-crt-ust")[:2], ids=lambda d: d.name)
def test_source_lines_of_a_debug_runtime_are_kept(dump: TruthDump, tmp_path: Path) -> None:
    write_snapshot(Session.open(dump.dump), tmp_path / "a.dlsnap")
    for by in ("site", "source"):
        read = read_snapshot_file(tmp_path / "a.dlsnap", by)
        assert read.groups == take_snapshot(Session.open(dump.dump), by).groups


def test_frames_can_be_skipped_when_a_snapshot_is_read(run: Any, tmp_path: Path) -> None:
    files = _snapshots(run, tmp_path, BEFORE, AFTER)
    for by in ("site", "stack"):
        options = (*("--skip-frames", "app!*", "--by", by, "--no-holders", "--format", "json"),)
        expected = run("diff", BEFORE, AFTER, *options)[1]
        assert expected != run("diff", BEFORE, AFTER, *options[2:])[1]
        found = run("diff", *files, *options)[1]
        assert _without_names(found, files) == _without_names(expected, [BEFORE, AFTER])


def test_everything_a_snapshot_holds_is_written_and_read(tiny: Path) -> None:
    """A new field of a site, heap or snapshot that is not written would be lost in silence."""
    session = Session.open(TINY)
    taken, read = take_snapshot(session), read_snapshot_file(tiny, "site")
    by_other_means = {"blocks", "holders", "held_by", "details", "memory", "grouping", "source"}
    for name in vars(taken).keys() - by_other_means:
        expected = getattr(taken, name)
        if name == "modules":
            assert [m.name for m in read.modules] == [m.name for m in expected]
            continue
        assert getattr(read, name) == expected, name
    assert vars(taken.source).keys() == vars(read.source).keys()
    assert {**vars(taken.source), "file": ""} == {**vars(read.source), "file": ""}


# -- the file for other tools ------------------------------------------------------------------------


def test_rows_are_the_used_blocks_and_the_metadata_names_their_sites(run: Any, tiny: Path) -> None:
    table = parquet.read_table(tiny)
    listed = run("allocations", TINY, "--format", "json")[1].splitlines()
    expected = {int(row["address"], 16): row for row in map(json.loads, listed)}
    metadata = _metadata(tiny)
    sites = metadata["groups"]["site"]
    heaps = {row["label"]: row["address"] for row in metadata["heaps"]}
    assert metadata["format"] == "dumpleak/snapshot/1"
    assert table.num_rows == len(expected)
    for row in table.to_pylist():
        block = expected[row["address"]]
        assert (row["size"], row["block_bytes"]) == (block["size"], block["block_bytes"])
        assert row["kind"] == block["kind"]
        assert heaps[row["heap"]] == int(block["heap"], 16)
        assert sites[row["site"]]["name"] == row["site_name"] == block["site"]


# -- nothing of the memory ---------------------------------------------------------------------------


def _windows(data: bytes) -> set[bytes]:
    return {data[at : at + 8] for at in range(len(data) - 7)}


@pytest.mark.parametrize(
    "dump",
    [*truth_dumps("tiny")[:9], *truth_dumps("debug-crt")[:1], *truth_dumps("mixed")[:1]],
    ids=lambda d: d.name,
)
def test_no_run_of_eight_bytes_of_any_block_is_in_a_snapshot(
    dump: TruthDump, tmp_path: Path
) -> None:
    path = tmp_path / "a.dlsnap"
    write_snapshot(Session.open(dump.dump), path)
    raw = path.read_bytes()
    held = _windows(raw) | _windows(json.dumps(_metadata(path)["groups"]).encode())
    session = Session.open(dump.dump)
    looked_at = 0
    for _, blocks in session.blocks():
        used = blocks.used
        for address, size in zip(used.address.tolist(), used.counted_bytes.tolist(), strict=True):
            for run in _windows(session.dump.memory.read_available(address, size)):
                looked_at += 1
                # Zeros and small numbers are in any file.
                assert run not in held or len(set(run)) <= 2, run
    assert looked_at > 1000


@pytest.mark.parametrize("dump", truth_dumps("tiny")[:9], ids=lambda d: d.name)
def test_no_string_of_the_environment_or_command_line_is_in_a_snapshot(
    dump: TruthDump, tmp_path: Path
) -> None:
    path = tmp_path / "a.dlsnap"
    write_snapshot(Session.open(dump.dump), path)
    raw = path.read_bytes()
    metadata = json.dumps(_metadata(path)).encode()
    strings = _environment(Session.open(dump.dump))
    assert any(text.startswith("Path=") for text in strings)
    for text in strings:
        for part in (text, text.partition("=")[2]):
            if len(part) >= 6:
                for encoded in (part.encode(), part.encode("utf-16-le")):
                    assert encoded.lower() not in raw.lower()
                    assert encoded.lower() not in metadata.replace(b"\\\\", b"\\").lower()


def _environment(session: Session) -> list[str]:
    """The strings of RTL_USER_PROCESS_PARAMETERS.Environment."""
    view = session.views[0]
    width, memory = view.pointer_size, view.memory
    parameters = memory.read_uint(view.peb + (0x20 if width == 8 else 0x10), width)
    block = memory.read_uint(parameters + (0x80 if width == 8 else 0x48), width)
    text = memory.read_available(block, 0x2000).decode("utf-16-le", "replace")
    return text.partition("\0\0")[0].split("\0")


def test_folders_are_left_out_unless_they_are_asked_for(run: Any, tmp_path: Path) -> None:
    (without,) = _snapshots(run, tmp_path, TINY)
    assert "\\" not in "".join(m.path for m in read_snapshot_file(without, "site").modules)
    (with_,) = _snapshots(run, tmp_path, TINY, options=("--include", "paths"))
    paths = [m.path for m in read_snapshot_file(with_, "site").modules]
    assert paths == [m.path for m in Session.open(TINY).dump.modules]
    assert any("\\" in path for path in paths)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no PDB in C:\\Users\\Bob Smith\\sym\\a.pdb or D:\\x\\b.pdb", "no PDB in a.pdb or b.pdb"),
        ("'/home/bob/my symbols/a.pdb': none", "'a.pdb': none"),
        ("\\\\server\\share\\a.pdb", "a.pdb"),
        ("VS / LFH and 3/4 of x64/x86", "VS / LFH and 3/4 of x64/x86"),
        ("src\\cache.cpp(41)", "src\\cache.cpp(41)"),
    ],
)
def test_folders_are_left_out_of_sentences(text: str, expected: str) -> None:
    assert without_folders(text) == expected


# -- without names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [PAIR, TWO_LIVES], ids=lambda p: p.name)
def test_stripped_snapshots_hold_no_names_and_compare_as_before(
    run: Any, tmp_path: Path, folder: Path
) -> None:
    dumps = [folder / "before.dmp.gz", folder / "after.dmp.gz"]
    files = _snapshots(run, tmp_path, *dumps, options=("--strip-names", "--keep-name", "ntdll.dll"))
    names = {m.name for m in Session.open(dumps[0]).dump.modules} - {"ntdll.dll"}
    types = {site.type for site, _ in take_snapshot(Session.open(dumps[1]), "type").groups.values()}
    metadata = json.dumps(_metadata(files[1])).lower()
    assert "app.exe" not in set(parquet.read_table(files[1])["site_name"].to_pylist())
    assert {"app.exe", "widgets.dll"} <= names
    for name in (names | types) - {None}:
        assert name.lower() not in metadata
    assert "ntdll.dll" in metadata
    plain = json.loads(run("diff", *dumps, "--format", "json")[1])
    for mixed in (files, [dumps[0], files[1]], [files[0], dumps[1]]):
        stripped = json.loads(run("diff", *mixed, "--format", "json")[1])
        assert stripped["totals"] == plain["totals"]
        assert stripped["survivors"] == plain["survivors"]
        numbers = [
            [(s["delta_bytes"], s["delta_count"], s["base_count"]) for s in document["sites"]]
            for document in (stripped, plain)
        ]
        assert sorted(numbers[0]) == sorted(numbers[1])
        assert not any("app.exe" in site["name"] for site in stripped["sites"])


# -- nothing is trusted ------------------------------------------------------------------------------


def test_a_parquet_file_of_something_else_is_no_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    parquet.write_table(pa.table({"a": [1, 2]}), path)
    with pytest.raises(SnapshotFileError, match="no snapshot of a dump"):
        read_snapshot(path, "site")


def _altered(tiny: Path, target: Path, change: Any = None, columns: Any = None) -> Path:
    table = parquet.read_table(tiny)
    metadata = _metadata(tiny)
    if change is not None:
        change(metadata)
    for name, values in (columns or {}).items():
        column = pa.array(values, table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), name, column)
    with parquet.ParquetWriter(target, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"dumpleak": pack(json.dumps(metadata))})
    return target


def test_an_altered_file_is_read_where_nothing_was_altered(tiny: Path, tmp_path: Path) -> None:
    path = _altered(tiny, tmp_path / "a.dlsnap")
    assert read_snapshot_file(path, "site").groups == read_snapshot_file(tiny, "site").groups


def test_a_newer_version_is_said_to_be_one(tiny: Path, tmp_path: Path) -> None:
    newer = _altered(tiny, tmp_path / "a.dlsnap", lambda m: m.update(format="dumpleak/snapshot/2"))
    with pytest.raises(SnapshotFileError, match=r"snapshot/2.*is not known to this version"):
        read_snapshot(newer, "site")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("groups"),
        lambda m: m["groups"].pop("site"),
        lambda m: m["groups"]["site"][0].update(kind="magic"),
        lambda m: m["groups"]["site"][0].update(count="many"),
        lambda m: m["groups"]["site"][0].update(count=-1),
        lambda m: m["groups"]["site"][0].update(bytes=1 << 64),
        lambda m: m["groups"]["site"][0].update(frames=[10**6]),
        lambda m: m["groups"]["site"].append(m["groups"]["site"][0]),
        lambda m: m["classes"].update(site=[99999]),
        lambda m: m["classes"].update(type=[]),
        lambda m: m["classes"]["site"].reverse(),
        lambda m: m.update(blocks=m["blocks"] + 1),
        lambda m: m.update(stripped="yes"),
        lambda m: m["source"].update(time="yesterday"),
        lambda m: m["source"].update(time="2025-01-01T00:00:00"),
        lambda m: m.update(texts=[1]),
        lambda m: m.update(places=[[]]),
        lambda m: m.update(heaps=[{}]),
        lambda m: m.update(diagnostics=[{"severity": "fatal"}]),
        lambda m: m.update(modules=3),
        lambda m: m["holders"][0].update(site=99999),
        # What every version wrote is not taken for nothing where it is absent.
        lambda m: m.pop("modules"),
        lambda m: m.pop("texts"),
        lambda m: m["totals"].pop("count"),
        lambda m: m["groups"]["site"][0].pop("bytes"),
        lambda m: m["holders"][0].pop("fields"),
        lambda m: m["about"]["memory"].pop("rows"),
        lambda m: m["classes"].update(owner=[0]),
        lambda m: m.update(shapes_by=3),
    ],
)
def test_metadata_that_is_not_what_it_should_be_is_refused(
    tiny: Path, tmp_path: Path, change: Any
) -> None:
    path = _altered(tiny, tmp_path / "a.dlsnap", change)
    with pytest.raises(SnapshotFileError, match=str(path)):
        read_snapshot(path, "site")


def test_a_file_without_what_later_versions_added_is_read(tiny: Path, tmp_path: Path) -> None:
    def older(metadata: Any) -> None:
        for name in ("shapes_by", "about", "populations", "private_unknown", "by_regions"):
            del metadata[name]
        for name in ("in_file", "account", "unreferenced"):
            metadata.pop(name, None)
        for name in ("subject", "cut_bytes"):
            del metadata["source"][name]
        for name in ("unread_bytes", "list_cut"):
            del metadata["coverage"][name]
        for module in metadata["modules"]:
            del module["checksum"]

    old = SnapshotFile(_altered(tiny, tmp_path / "a.dlsnap", older)).metadata
    new = SnapshotFile(tiny).metadata
    assert (old.about, old.populations, old.shapes_by) == (None, {}, BY_PDB)
    snapshot = old.snapshot
    assert (snapshot.private_unknown, snapshot.by_regions, snapshot.in_file) == ("", True, None)
    assert (snapshot.outside, snapshot.unreferenced) == (None, None)
    assert (snapshot.source.subject, snapshot.source.cut_bytes) == (Subject.PROCESS, 0)
    assert snapshot.coverage == new.snapshot.coverage
    assert {module.checksum for module in snapshot.modules} == {0}
    assert snapshot.groups == new.snapshot.groups


@pytest.mark.parametrize(
    ("by", "column", "change"),
    [
        ("site", "address", lambda v: v[::-1]),
        ("site", "site", lambda v: [*v[:-1], 10**6]),
        ("site", "site", lambda v: [*v[:-1], -1]),
        ("site", "site", lambda v: [v[0]] * len(v)),
        ("type", "detail", lambda v: [*v[:-1], 10**6]),
        ("size", "size", lambda v: [*v[:-1], 1 << 60]),
        ("size", "block_bytes", lambda v: [*v[:-1], -5]),
        ("kind", "kind", lambda v: [*v[:-1], "nt-magic"]),
        ("heap", "heap", lambda v: [*v[:-1], "heap 99"]),
        ("site", "shape", lambda v: [*v[:-1], None]),
        ("site", "address", lambda v: [*v[:-1], None]),
    ],
)
def test_blocks_that_are_not_what_they_should_be_are_refused(
    tiny: Path, tmp_path: Path, by: str, column: str, change: Any
) -> None:
    values = parquet.read_table(tiny)[column].to_pylist()
    path = _altered(tiny, tmp_path / "a.dlsnap", columns={column: change(values)})
    with pytest.raises(SnapshotFileError, match="damaged or was altered"):
        _read_all(path, by)


def test_more_blocks_than_a_file_of_its_size_can_hold_are_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_ROWS", 0)
    assert read_snapshot(tiny, "site")
    monkeypatch.setattr(reader, "MAX_ROWS_PER_BYTE", 0)
    with pytest.raises(SnapshotFileError, match="more than a file of this size can hold"):
        read_snapshot(tiny, "site")


def _read_all(path: Path, by: str) -> Snapshot:
    snapshot = read_snapshot(path, by)
    assert snapshot is not None
    assert snapshot.blocks is not None
    snapshot.blocks()
    return snapshot


def test_every_prefix_of_a_snapshot_is_refused_in_one_line(tiny: Path, tmp_path: Path) -> None:
    raw = tiny.read_bytes()
    path = tmp_path / "cut.dlsnap"
    for length in range(4, len(raw), max(1, len(raw) // 200)):
        path.write_bytes(raw[:length])
        with pytest.raises(SnapshotFileError) as error:
            read_snapshot(path, "site")
        assert "\n" not in str(error.value)


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150
)
@given(st.data())
def test_flipped_bytes_give_an_answer_or_a_typed_error(
    tiny: Path, tmp_path: Path, data: st.DataObject
) -> None:
    raw = bytearray(tiny.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(4, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "flipped.dlsnap"
    path.write_bytes(raw)
    by = data.draw(st.sampled_from(list(GROUPINGS)))
    with contextlib.suppress(WindumpsError):
        _read_all(path, by)


def test_names_that_are_no_unicode_text_are_written_and_read(tmp_path: Path) -> None:
    taken = take_snapshot(Session.open(TINY))
    key = "shape|\ud800\x00|a"
    site = Site(SiteKind.SHAPE, key, "app\ud800\x00.exe", type="\udfff")
    taken.groups = {key: (site, Totals(1, 8, 16, 8))}
    columns = {
        **{name: np.ones(1, type_) for name, type_ in COLUMNS.items() if type_ != "string"},
        "site": np.zeros(1, np.int32),
        "detail": np.zeros(1, np.int32),
        "kind": np.zeros(1, np.uint8),
        "heap": np.zeros(1, np.uint16),
    }
    metadata = Metadata(taken, classes={"site": [0]}, block_count=1)
    for number, one in enumerate((metadata, stripped_metadata(metadata, ()))):
        path = tmp_path / f"{number}.dlsnap"
        write_columns(path, one, columns)
        read = _read_all(path, "site")
        assert list(read.groups.values()) == list(one.snapshot.groups.values())


# -- the command -------------------------------------------------------------------------------------


def test_without_pyarrow_the_error_names_the_extra(
    run: Any, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for arguments in (["stat", tiny], ["snapshot", TINY, "-o", tmp_path / "a.dlsnap"]):
        code, _, err = run(*arguments)
        assert code == 3
        assert install_command("snapshots") in err


def test_a_snapshot_is_complete_or_not_there_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet.ParquetWriter, "add_key_value_metadata", fail)
    with pytest.raises(OSError, match="No space"):
        write_snapshot(Session.open(TINY), tmp_path / "a.dlsnap")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["snapshot", TINY], 2, "-o FILE"),
        (["snapshot", TINY, "--format", "umdh", "--strip-names"], 2, "dlsnap only"),
        (["snapshot", TINY, "-o", "no/such/folder/x"], 2, "no/such/folder"),
    ],
)
def test_wrong_use_is_said(run: Any, arguments: list[Any], code: int, said: str) -> None:
    found, _, err = run(*arguments)
    assert found == code
    assert said in err


def test_a_sites_every_field_is_written(tiny: Path) -> None:
    assert set(Site.__dataclass_fields__) == {
        *("kind", "key", "name", "frames", "type", "tag", "driver", "lines", "places"),
    }, "add the new field to dumpleak/files/metadata.py and to this list"
    assert to_json(SnapshotFile(tiny).metadata)["format"] == "dumpleak/snapshot/1"
