"""Tags of the kernel's pools that grow together, and the root that the others hang on."""

from __future__ import annotations

import base64
import gzip
import json
import lzma
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.live_log_builder import Tag, poolmon
from kernel_truth import KernelTruthDump
from pool_samples import pairs_of, run, run_json
from truth import TESTDATA, load_json

from windumps import open_dump

Grown = dict[str, int]
FREED = 1000  # blocks of each tag that come and go between two logs
# What hangs on an open file: tags of Windows' own.
OF_FILES = ("File", "FMfc", "IoNm")


def logs(folder: Path, *points: Grown, kept: tuple[str, ...] = ()) -> list[Path]:
    """A PoolMon log each: how many blocks each tag has more than 10 that it began with.

    Args:
        folder: Where they go.
        points: One a log.
        kept: Tags that are never freed.
    """
    names = []
    for number, grown in enumerate(points):
        rows = []
        for tag in sorted(points[-1]):
            more = grown.get(tag, 0)
            freed = 0 if tag in kept else number * FREED + more
            rows.append(Tag(tag, "Nonp", 10 + more + freed, freed, 64 * (10 + more)))
        path = folder / f"log{number}.txt"
        path.write_text(poolmon(rows))
        names.append(path)
    return names


@pytest.fixture
def found(capsys: pytest.CaptureFixture[str]) -> Any:
    """The groups as every command tells them."""

    def ask(files: list[Path]) -> list[dict[str, Any]]:
        commands = ("pool", "diff") if len(files) == 2 else ("trend",)
        answers = [run_json(capsys, command, *files) for command in commands]
        assert all(answer["groups"] == answers[0]["groups"] for answer in answers)
        for answer in answers:
            for row in answer.get("tags", answer.get("sites")):
                mine = [g for g in answer["groups"] if row["tag"] in [t["tag"] for t in g["tags"]]]
                assert row["group"] == (mine[0]["group"] if mine else None)
                known = mine and mine[0]["root"] is not None
                assert row["root"] == (mine[0]["root"] == row["tag"] if known else None)
        return list(answers[0]["groups"])

    return ask


def tags(group: dict[str, Any]) -> dict[str, int]:
    return {row["tag"]: row["delta_count"] for row in group["tags"]}


def test_the_tag_that_is_not_of_windows_is_the_root_of_those_that_are(
    found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grown = dict.fromkeys((*OF_FILES, "Xctx"), 5000) | {"Ntfx": 40_000}
    files = logs(tmp_path, {}, grown)
    (group,) = found(files)
    assert tags(group) == dict.fromkeys((*OF_FILES, "Xctx"), 5000)
    assert (group["root"], group["tags"][0]["tag"]) == ("Xctx", "Xctx")
    assert group["evidence"] == ["it is no known tag of Windows, the others are Windows' own"]
    for command in ("pool", "diff"):
        out = run(capsys, command, *files)[1]
        headline, *rest = out.splitlines()
        assert "grew, 4 of them together (root: Xctx)" in headline
        assert any(line.split()[:1] == ["Together"] and "Xctx" in line for line in rest)
        rows = run_json(capsys, command, *files)
        order = [row["tag"] for row in rows.get("tags", rows.get("sites"))]
        assert order[:2] == ["Ntfx", "Xctx"], "the root stands in front of what hangs on it"


def test_one_that_grows_for_other_reasons_too_joins_three_others(
    found: Any, tmp_path: Path
) -> None:
    (group,) = found(logs(tmp_path, {}, dict.fromkeys(OF_FILES, 20_000) | {"Xctx": 20_860}))
    assert (group["root"], len(group["tags"])) == ("Xctx", 4)


def test_tags_of_which_each_thing_has_two_belong_to_it(found: Any, tmp_path: Path) -> None:
    (group,) = found(logs(tmp_path, {}, {"Xctx": 3000, "File": 3000, "FMfn": 6000, "IoNm": 6001}))
    assert tags(group) == {"Xctx": 3000, "File": 3000, "FMfn": 6000, "IoNm": 6001}
    assert group["root"] == "Xctx"


@pytest.mark.parametrize(
    "grown",
    [
        {"File": 99, "IoNm": 99, "FMfc": 99, "Xctx": 99},  # few
        {"File": 1, "IoNm": 1, "FMfc": 1},
        {"File": 1000, "IoNm": 1010},  # two are not as alike as that
        {"File": 1000, "IoNm": 2005},
        {"File": 1000, "IoNm": 1030, "FMfc": 1060, "Xctx": 1100},
        {"File": 1000, "IoNm": 3000},
    ],
)
def test_coincidences_are_no_group(found: Any, tmp_path: Path, grown: Grown) -> None:
    assert found(logs(tmp_path, {}, grown)) == []


def test_the_one_that_is_never_freed_is_the_root(found: Any, tmp_path: Path) -> None:
    grown = dict.fromkeys(OF_FILES, 2000)
    (group,) = found(logs(tmp_path, {}, grown, kept=("IoNm",)))
    assert group["root"] == "IoNm"
    assert group["evidence"][0].startswith("0 of its 2,000 new blocks were freed, of the others' ")


def test_where_nothing_tells_the_root_none_is_named(
    found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = logs(tmp_path, {}, dict.fromkeys(OF_FILES, 2000))
    (group,) = found(files)
    assert group["root"] is None
    assert group["evidence"] == [
        "who points to whom was not looked at: contents of blocks are only in dumps"
    ]
    out = run(capsys, "pool", *files)[1]
    assert "root:" not in out
    assert "which of them the others hang on is not known" in out


def test_a_series_groups_what_grows_alike_all_the_way(found: Any, tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    alike = [dict.fromkeys((*OF_FILES, "Xctx"), 700 * n) for n in range(5)]
    # The same at the end, but all at once.
    series = [point | {"MmSt": 2800 * (n > 3)} for n, point in enumerate(alike)]
    (group,) = found(logs(tmp_path, *series))
    assert tags(group) == dict.fromkeys((*OF_FILES, "Xctx"), 2800)
    assert group["root"] == "Xctx"


def test_the_next_step_names_no_driver_of_what_hangs_on_the_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = logs(tmp_path, {}, {"Ntfx": 9000, "Ntff": 9000, "Xctx": 9000})
    for command in ("pool", "diff"):
        steps = run(capsys, command, *files)[1]
        assert "verifier /flags 0x8 /all" in steps
        assert "/driver" not in steps


def test_what_is_never_freed_is_told_of_one_log_and_of_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Xctx: of 510 allocations, none is freed. Thre has too few for that to mean anything.
    files = logs(tmp_path, {}, {"File": 500, "Xctx": 500, "Thre": 20}, kept=("Xctx", "Thre"))
    one, two = (run_json(capsys, "pool", *names)["tags"] for names in (files[1:], files))
    for rows in (one, two):
        assert {row["tag"]: row["never_freed"] for row in rows} == {
            "File": False,
            "Thre": False,
            "Xctx": True,
        }
    assert "Never freed  Xctx of an unknown driver (0 of 510)" in run(capsys, "pool", files[1])[1]
    assert "never freed: 500 allocations, 0 frees" in run(capsys, "pool", *files)[1]


def test_the_page_of_a_tag_tells_what_it_grew_together_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    files = logs(tmp_path, {}, dict.fromkeys((*OF_FILES, "Xctx"), 5000))
    for command in ("pool", "diff"):
        page = run(capsys, command, *files, "--format", "html")[1]
        (packed,) = re.findall(r'<script type="[^"]+" id="more">(.*?)</script>', page, re.DOTALL)
        more = gzip.decompress(base64.b64decode(packed)).decode()
        assert "grew together with Xctx, the root of 4 tags" in more


# -- kernel dumps ----------------------------------------------------------------------------------------

# Bytes of a tracker entry, and where it has nonpaged and paged (bytes, allocs, frees).
ENTRIES = {"22621-x64": (0x50, (8, 32)), "26100-x64": (0x50, (8, 32))}


class CountedSystem:
    """A truth dump whose trackers count more than there is."""

    def __init__(self, build: str) -> None:
        source = TESTDATA / "kernel" / build / "tiny-pair" / "after.dmp.xz"
        self.base = source.with_name("before.dmp.xz")
        self.raw = bytearray(lzma.decompress(source.read_bytes()))
        self.truth = load_json(source.with_name("after.truth.json.xz"))
        self.memory = open_dump(source).memory
        self.size, self.places = ENTRIES[build]

    def count(self, tag: str, more: int, size: int = 64, *, paged: bool = False) -> None:
        """So many allocations more of a tag in one processor's table."""
        tracker = self.truth["tracker"]
        for table in (int(address, 16) for address in tracker["tables"]):
            whole = self.memory.read(table, self.size * tracker["size"])
            keys = [whole[at : at + 4] for at in range(0, len(whole), self.size)]
            if tag.encode() in keys:
                break
        at = table + self.size * keys.index(tag.encode()) + self.places[paged]
        for place, add in ((at, more * size), (at + 8, more)):
            (offset,) = self.memory.locate(np.array([place], np.uint64), 8).tolist()
            (old,) = struct.unpack_from("<Q", self.raw, offset)
            # A processor may free more than it allocates.
            struct.pack_into("<Q", self.raw, offset, (old + add) % (1 << 64))

    def put(self, address: int, data: bytes) -> None:
        (offset,) = self.memory.locate(np.array([address], np.uint64), len(data)).tolist()
        self.raw[offset : offset + len(data)] = data

    def truth_of(self, tag: str) -> list[dict[str, Any]]:
        return [row for row in self.truth["small_blocks"] if row["tag"] == tag]

    def split(self, tag: str, other: str) -> tuple[list[int], list[int]]:
        """Gives half of the new small blocks of a tag to another one; where users of both got them."""
        old = load_json(self.base.with_name("before.truth.json.xz"))
        known = {row["address"] for row in old["small_blocks"]}
        new = [row for row in self.truth_of(tag) if not row.get("absent")]
        new = [row for row in new if row["address"] not in known]
        grew = len(self.truth_of(tag)) - sum(row["tag"] == tag for row in old["small_blocks"])
        its, odd, mine = new[: grew // 2], new[grew // 2 :][: grew % 2], new[-(grew // 2) :]
        for row, to in (*((row, other) for row in its), *((row, "MmSm") for row in odd)):
            self.put(int(row["address"], 16) + 4, to.encode())
            self.count(tag, -1, row["charged"])
            self.count(to, 1, row["charged"])
        return [int(row["user"], 16) for row in mine], [int(row["user"], 16) for row in its]

    def save(self, path: Path) -> Path:
        path.write_bytes(self.raw)
        return path


@pytest.mark.parametrize("build", list(ENTRIES))
def test_what_grew_by_counters_alone_is_told_and_its_root_is_named(
    build: str, found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = CountedSystem(build)
    paged = {"AcFc": True, "NtfF": True}
    for tag in ("AcFc", "File", "NtfF", "IoNm"):
        made.count(tag, 8000, paged=paged.get(tag, False))
    pair = [made.base, made.save(tmp_path / "after.dmp")]
    (group,) = found(pair)
    assert (group["by_counters"], group["root"]) == (True, "AcFc")
    assert tags(group) == dict.fromkeys(("AcFc", "File", "NtfF", "IoNm"), 8000)
    assert group["evidence"] == [
        "acmeflt.sys is no known driver of Windows, the others are Windows' own"
    ]
    for command in ("pool", "diff"):
        out = run(capsys, command, *pair)[1]
        assert "by counters alone 4 together (root: AcFc)" in out.splitlines()[0]
        assert "8,000 more blocks each by the kernel's counters alone" in out


@pytest.mark.parametrize("holder", ["AcNb", "File"])
def test_the_tag_whose_new_blocks_point_to_the_others_is_the_root(
    holder: str, found: Any, tmp_path: Path
) -> None:
    made = CountedSystem("26100-x64")
    mine, its = made.split("AcNb", "File")
    from_, to = (mine, its) if holder == "AcNb" else (its, mine)
    for address, target in zip(from_, to, strict=True):
        made.put(address + 0x20, struct.pack("<Q", target + 0x30))
    (group,) = found([made.base, made.save(tmp_path / "after.dmp")])
    assert (group["root"], group["by_counters"]) == (holder, False)
    held = "File" if holder == "AcNb" else "AcNb"
    share, _, rest = group["evidence"][0].partition("%")
    assert int(share) >= 97, "some are new in place of others that were freed"
    assert rest == f" of its new blocks point to those of {held}, none back"


def test_pointers_both_ways_and_many_to_one_block_tell_nothing(found: Any, tmp_path: Path) -> None:
    made = CountedSystem("26100-x64")
    mine, its = made.split("AcNb", "File")
    for address, target in zip(mine, its, strict=True):
        made.put(address + 0x20, struct.pack("<Q", target))
        made.put(target + 0x20, struct.pack("<Q", address))
    (group,) = found([made.base, made.save(tmp_path / "both.dmp")])
    assert "point to" not in group["evidence"][0]
    made = CountedSystem("26100-x64")
    mine, its = made.split("AcNb", "File")
    for address in its:
        made.put(address + 0x20, struct.pack("<Q", mine[0]))
    (group,) = found([made.base, made.save(tmp_path / "one.dmp")])
    assert group["root"] == "AcNb"
    assert "point to" not in group["evidence"][0]


@pytest.mark.parametrize(
    ("up_time", "groups"),
    [(b"PAGEPAGE", 1), (struct.pack("<Q", 36_000_000_000), 0)],
    ids=["not told", "an hour"],
)
def test_tags_are_no_group_over_a_restart_but_where_nothing_tells_of_one(
    up_time: bytes, groups: int, found: Any, tmp_path: Path
) -> None:
    made = CountedSystem("26100-x64")
    made.split("AcNb", "File")
    made.raw[0x1030:0x1038] = up_time  # _DUMP_HEADER64.SystemUpTime; the dumps are a day apart
    told = found([made.base, made.save(tmp_path / "after.dmp")])
    assert len(told) == groups
    if groups:
        assert told[0]["root"] == "AcNb"
        assert not any("point" in clause for clause in told[0]["evidence"])


@pairs_of("tiny-pair", "traps")
def test_no_group_is_seen_where_none_is(
    pair: tuple[KernelTruthDump, KernelTruthDump], capsys: pytest.CaptureFixture[str]
) -> None:
    answer = run_json(capsys, "pool", pair[0].dump, pair[1].dump)
    assert answer["groups"] == []


def test_a_snapshot_file_tells_of_groups_as_its_dump_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = CountedSystem("22621-x64")
    for tag in ("AcFc", "File", "IoNm"):
        made.count(tag, 500, paged=tag == "AcFc")
    pair = [made.base, made.save(tmp_path / "after.dmp")]
    files = [tmp_path / f"{n}.dlsnap" for n in range(2)]
    for dump, file in zip(pair, files, strict=True):
        assert run(capsys, "snapshot", dump, "-o", file)[0] == 0
    told = [run_json(capsys, "diff", *names)["groups"] for names in (pair, files)]
    assert told[0] == told[1]
    assert json.dumps(told).count('"root": "AcFc"') == 2
