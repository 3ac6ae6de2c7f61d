"""PoolMon logs in place of kernel dumps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.live_log_builder import Tag, poolmon
from kernel_truth import KernelTruthDump, kernel_pairs
from truth import TESTDATA

from dumpleak.files.detect import read_snapshot
from dumpleak.files.poolmon_lines import is_log, parse
from dumpleak.model.snapshot import Snapshot
from dumpleak.survey.open import open_snapshot
from dumpleak.survey.wanted import Wanted
from windumps.errors import WindumpsError

KINDS = {"nonpaged": "Nonp", "paged": "Paged"}
# Sizes of a machine's own day: tags that hold much, little, and nothing now.
USUAL = (
    Tag("EtwB", "Nonp", 6394, 4056, 163_418_368),
    Tag("MmSt", "Paged", 2_269_405, 2_095_404, 156_097_152),
    Tag("Io  ", "Nonp", 1_021_112, 1_020_985, 91_912),
    Tag("File", "Paged", 100, 40, 4000),
    Tag("File", "Nonp", 25_376_177, 25_200_767, 70_145_152),
    Tag("ObSt", "Nonp", 2_791_258, 2_791_258, 0),
)
PAIRS = [pair for pair in kernel_pairs("tiny-pair") if TESTDATA in pair[0].dump.parents]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(name: str, text: str, encoding: str = "latin-1") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return _write


def leaking(step: int, tag: str = "Leak") -> list[Tag]:
    """The usual tags, and one of which 1,000 blocks more are held at each step."""
    rows = [row._replace(allocs=row.allocs + step, frees=row.frees + step) for row in USUAL]
    return [*rows, Tag(tag, "Nonp", 5000 + 1000 * step, 4990, (10 + 1000 * step) * 4096)]


def read(path: Path, by: str = "site") -> Snapshot:
    found = read_snapshot(path, by)
    assert found is not None
    return found


def held(path: Path) -> dict[str, tuple[int, int]]:
    return {key: (t.count, t.bytes) for key, (_, t) in read(path).groups.items()}


def truth_log(dump: KernelTruthDump) -> str:
    """The log that PoolMon would have written where a dump was taken."""
    tags = dump.read_truth()["tags"]
    return poolmon(
        Tag(tag, KINDS[pool], row[pool]["allocs"], row[pool]["frees"], row[pool]["bytes"])
        for tag, row in tags.items()
        for pool in KINDS
        if row[pool]["allocs"]
    )


@pytest.mark.parametrize("live", [False, True], ids=["/n", "window"])
def test_a_poolmon_log_tells_blocks_and_bytes_of_each_tag_in_each_pool(
    live: bool, write: Write
) -> None:
    path = write("pool.log", poolmon(USUAL, live=live))
    assert held(path) == {
        "tag|EtwB|nonpaged": (2338, 163_418_368),
        "tag|MmSt|paged": (174_001, 156_097_152),
        "tag|Io  |nonpaged": (127, 91_912),
        "tag|File|paged": (60, 4000),
        "tag|File|nonpaged": (175_410, 70_145_152),
    }
    snapshot = read(path)
    assert (snapshot.population, snapshot.source.kind) == ("pool", "poolmon log")
    assert [item.code for item in snapshot.diagnostics] == ["poolmon-log"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_a_poolmon_log_in_any_encoding_that_windows_writes_is_read(
    encoding: str, write: Write
) -> None:
    path = write("pool.log", poolmon(USUAL).replace("\n", "\r\n"), encoding)
    assert len(held(path)) == 5


def test_a_log_whose_blanks_in_front_were_cut_off_is_the_same_log(write: Write) -> None:
    whole = write("pool.log", poolmon(USUAL))
    trimmed = write("trimmed.log", "\n".join(x.strip() for x in poolmon(USUAL).splitlines()))
    assert held(trimmed) == held(whole)


def test_tags_of_any_bytes_keep_their_keys(write: Write) -> None:
    rows = [Tag("a\0\0\0", "Nonp", 3, 1, 64), Tag(" b c", "Paged", 2, 1, 32)]
    path = write("pool.log", poolmon(rows))
    assert held(path) == {"tag|00000061|nonpaged": (2, 64), "tag| b c|paged": (1, 32)}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[1].name)
def test_a_log_and_a_dump_of_one_moment_give_the_same_sites(
    pair: tuple[KernelTruthDump, KernelTruthDump], write: Write, run: Any
) -> None:
    """The dump's blocks go beyond its trackers in session pool only, which PoolMon shows with /s."""
    for number, dump in enumerate(pair):
        log = read(write(f"{number}.log", truth_log(dump)))
        taken = open_snapshot(dump.dump, Wanted())
        ours = {key: (t.count, t.bytes) for key, (_, t) in log.groups.items()}
        theirs = {
            key: (t.count, t.bytes)
            for key, (_, t) in taken.groups.items()
            if not key.endswith("|session")
        }
        assert ours == theirs
    base, current = write("a.log", truth_log(pair[0])), pair[1].dump
    code, output, _ = run("diff", base, current, "--format", "json")
    found = json.loads(output)
    assert (code, found["verdict"]) == (0, "growth")
    grown = {site["tag"]: site["delta_bytes"] for site in found["sites"]}
    sessions = dict(pair[1].read_truth().get("session_pool", {})).get("tags", {})
    told = [row for row in pair[1].read_pair()["tags"] if row["tag"] not in sessions]
    assert {tag: size for tag, size in grown.items() if size and tag not in sessions} == {
        row["tag"]: row["delta_bytes"] for row in told if row["delta_bytes"]
    }
    assert not [site for site in found["sites"] if "session" in site["name"]]
    code, output, _ = run("pool", base, current, "--format", "json")
    rows = {row["tag"]: row for row in json.loads(output)["tags"]}
    assert code == 0
    assert not {tag for tag in sessions if rows.get(tag, {}).get("delta_session_bytes")}
    for row in told:
        ours = rows.get(row["tag"], {})
        sizes = [ours.get(f"delta_{pool}_bytes") or 0 for pool in KINDS]
        assert sum(sizes) == row["delta_bytes"]


def test_owners_come_from_the_tables_and_from_the_log_itself(write: Write) -> None:
    rows = [
        Tag("NtfF", "Paged", 3, 1, 64),
        Tag("Zzz1", "Paged", 2, 1, 32, "[zebra.sys  -  Stripes]"),
        Tag("Zzz2", "Paged", 2, 1, 32, "Unknown Driver"),
    ]
    path = write("pool.log", poolmon(rows))
    drivers = {site.tag: site.driver for site, _ in read(path).groups.values()}
    assert drivers == {"NtfF": "ntfs.sys", "Zzz1": "zebra.sys", "Zzz2": None}
    write("pooltag.txt", "Zzz2 - lion.sys - Mane\n")
    drivers = {site.tag: site.driver for site, _ in read(path).groups.values()}
    assert drivers["Zzz2"] == "lion.sys"
    assert {site.name for site, _ in read(path, "driver").groups.values()} == {
        "ntfs.sys",
        "zebra.sys",
        "lion.sys",
    }


def test_stat_says_first_that_a_log_shows_no_blocks(write: Write, run: Any) -> None:
    path = write("pool.log", poolmon(USUAL))
    code, output, _ = run("stat", path)
    assert code == 0
    assert "Pool memory walked: unknown; a PoolMon log counts the blocks of each tag" in output
    assert "100.0" not in output
    code, output, said = run("stat", path, "--by", "size")
    assert (code, output) == (3, "")
    assert "by site, tag, driver, not by size" in said


def test_three_logs_make_the_leaking_tag_a_suspect(write: Write, run: Any) -> None:
    logs = [write(f"{n}.log", poolmon(leaking(n))) for n in range(3)]
    code, output, _ = run("trend", *logs, "--format", "json")
    found = json.loads(output)
    assert (code, found["verdict"]) == (0, "growth")
    first = found["sites"][0]
    assert (first["tag"], first["confidence"], first["delta_count"]) == ("Leak", "suspect", 2000)
    assert [point["bytes"] for point in first["points"]] == [40960, 4136960, 8232960]


def test_pool_takes_one_log_and_two(write: Write, run: Any) -> None:
    logs = [write(f"{n}.log", poolmon(leaking(n))) for n in range(2)]
    code, output, _ = run("pool", logs[0], "--format", "json")
    rows = {row["tag"]: row for row in json.loads(output)["tags"]}
    assert code == 0
    assert (rows["EtwB"]["nonpaged_allocs"], rows["EtwB"]["nonpaged_frees"]) == (6394, 4056)
    assert rows["File"]["paged_bytes"] == 4000
    code, output, _ = run("pool", *logs, "--format", "json")
    first = json.loads(output)["tags"][0]
    assert code == 0
    assert (first["tag"], first["delta_nonpaged_bytes"]) == ("Leak", 4_096_000)


def test_nothing_grew_between_two_logs_is_an_answer(write: Write, run: Any) -> None:
    logs = [
        write(
            f"{n}.log",
            poolmon([row._replace(allocs=row.allocs + n, frees=row.frees + n) for row in USUAL]),
        )
        for n in range(2)
    ]
    code, _, said = run("diff", *logs, "--fail-on", "bytes>=1M")
    assert (code, said.startswith("SUMMARY: PASS")) == (0, True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("4000     66", "4000      6"),
        ("4000", "4001000"),
        ("      60 ", "     160 "),
        ("100", "-100"),
        (" File Paged", " File Pagd"),
        ("127", "1" * 30),
    ],
)
def test_a_row_that_contradicts_itself_is_left_out_and_said(
    old: str, new: str, write: Write, run: Any
) -> None:
    text = poolmon(USUAL)
    assert old in text
    path = write("pool.log", text.replace(old, new))
    snapshot = read(path)
    assert [item.code for item in snapshot.diagnostics] == ["poolmon-log", "pool-tags-unknown"]
    assert len(snapshot.groups) == 4
    same = write("base.log", text)
    code, _, said = run("diff", same, path, "--fail-on", "bytes>=1M")
    assert code == 3
    assert "SUMMARY: NO ANSWER" in said


def test_a_log_that_lacks_tags_of_an_earlier_one_is_no_proof_of_anything(
    write: Write, run: Any
) -> None:
    base = write("base.log", poolmon(leaking(0)))
    lines = poolmon(leaking(1)).splitlines(keepends=True)
    current = write("cut.log", "".join(lines[:-2]))
    code, output, said = run("diff", base, current, "--fail-on", "bytes>=1M")
    assert code == 3
    assert "the log lacks 2 tags that" in output
    assert "SUMMARY: NO ANSWER" in said


def test_tags_that_a_cut_base_lacks_have_not_grown(write: Write, run: Any) -> None:
    lines = poolmon(leaking(0)).splitlines(keepends=True)
    base = write("cut.log", "".join(lines[:-3]))
    current = write("current.log", poolmon(leaking(0)))
    code, _, said = run("diff", base, current)
    assert code == 3
    assert "were not walked, and what grew" in said


def test_what_is_in_doubt_passes_no_baseline(write: Write, run: Any) -> None:
    lines = poolmon(leaking(0)).splitlines(keepends=True)
    base = write("cut.log", "".join(lines[:-3]))
    current = write("current.log", poolmon(leaking(0)))
    code, _, said = run("diff", base, current, "--baseline", base)
    assert (code, said.splitlines()[-1][:19]) == (3, "SUMMARY: NO ANSWER;")
    assert "PASS" not in said


def test_a_new_tag_is_growth_where_the_header_shows_that_the_base_is_whole(
    write: Write, run: Any
) -> None:
    base = write("base.log", poolmon(USUAL))
    current = write("current.log", poolmon(leaking(2)))
    code, output, _ = run("diff", base, current, "--format", "json")
    assert (code, json.loads(output)["sites"][0]["tag"]) == (0, "Leak")


def test_logs_in_the_wrong_order_pass_no_gate(write: Write, run: Any) -> None:
    logs = [write(f"{n}.log", poolmon(leaking(n))) for n in range(2)]
    code, output, said = run("diff", *reversed(logs), "--fail-on", "bytes>=1M")
    assert code == 3
    assert "or the two are swapped" in output
    assert "SUMMARY: NO ANSWER" in said


def test_the_gate_of_pool_answers_for_lost_tags_as_that_of_diff_does(
    write: Write, run: Any
) -> None:
    lines = poolmon(leaking(1)).splitlines(keepends=True)
    pair = write("0.log", poolmon(leaking(0))), write("cut.log", "".join(lines[:-2]))
    gate = ("--fail-on", "bytes>=1M")
    ends = [run(command, *pair, *gate) for command in ("diff", "pool")]
    assert [code for code, _, _ in ends] == [3, 3]
    assert all("SUMMARY: NO ANSWER" in said for _, _, said in ends)


def test_counters_that_wrapped_are_no_damage(write: Write) -> None:
    rows = [Tag("Wrap", "Nonp", (1 << 32) + 5, (1 << 32) - 5, 640)]
    assert held(write("pool.log", poolmon(rows))) == {"tag|Wrap|nonpaged": (10, 640)}
    signed = poolmon(rows).replace(str((1 << 32) - 5), "-5")
    assert held(write("signed.log", signed)) == {"tag|Wrap|nonpaged": (10, 640)}


def test_session_pool_is_told_apart(write: Write) -> None:
    title = "All sessions pool information"
    path = write("pool.log", poolmon([Tag("Gh05", "Paged", 9, 2, 700)], title=title))
    assert held(path) == {"tag|Gh05|session": (7, 700)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (poolmon(USUAL) * 2, "several snapshots in one file"),
        (poolmon([]), "cut before its first tag"),
    ],
)
def test_what_is_no_single_whole_log_is_refused(text: str, said: str, write: Write) -> None:
    path = write("pool.log", text)
    with pytest.raises(WindumpsError, match=said):
        read_snapshot(path, "site")


def test_a_log_of_a_part_of_the_pool_says_so(write: Write) -> None:
    path = write("pool.log", poolmon(USUAL[-3:-1], nonpaged_kb=400_000))
    assert "it is cut, or was filtered" in " ".join(d.message for d in read(path).diagnostics)


def test_lines_without_an_end_are_read_in_bounded_time() -> None:
    line = f" EtwB Nonp {' ' * 16000}6394"
    assert parse([line] * 50).damaged == 50
    assert not is_log(b"Tag " * 10_000)


def test_a_log_tells_the_account_of_its_system(write: Write, run: Any) -> None:
    logs = [
        write(f"{n}.log", poolmon(leaking(n), commit_kb=(4_000_000 + 500_000 * n, 9_000_000)))
        for n in range(2)
    ]
    code, output, _ = run("diff", *logs, "--format", "json")
    rows = {row["name"]: row for row in json.loads(output)["account"]}
    assert code == 0
    assert rows["pool.nonpaged_bytes"]["delta"] == rows["pool.bytes"]["delta"] == 4_096_000
    assert rows["pool.count"]["delta"] == 1000
    assert rows["memory.committed_bytes"]["delta"] == 512_000_000
    assert rows["memory.commit_limit_bytes"]["base"] == 9_216_000_000
    code, _, said = run("diff", *logs, "--fail-on", "memory.committed_bytes>=256M")
    assert (code, said.startswith("SUMMARY: FAIL memory.committed_bytes")) == (1, True)
    only_paged = write("paged.log", poolmon([row for row in USUAL if row.type == "Paged"]))
    code, _, said = run("diff", only_paged, logs[0], "--fail-on", "pool.nonpaged_bytes>=64M")
    assert code == 3


def test_the_account_of_a_system_is_not_called_a_process(write: Write, run: Any) -> None:
    logs = [write(f"{n}.log", poolmon(leaking(9 * n))) for n in range(2)]
    for form in ("text", "html"):
        _, output, _ = run("diff", *logs, "--format", form)
        assert "he system as a whole" in output
        assert "process as a whole" not in output


def test_pool_shows_no_growth_of_tags_that_a_cut_log_lacks(write: Write, run: Any) -> None:
    whole = write("whole.log", poolmon(leaking(1)))
    cut = write("cut.log", "".join(poolmon(leaking(0)).splitlines(keepends=True)[:-3]))
    for sides in ((cut, whole), (whole, cut)):
        code, output, _ = run("pool", *sides, "--format", "json")
        rows = {row["tag"]: row for row in json.loads(output)["tags"]}
        assert code == run("diff", *sides)[0] == 3
        assert rows["Leak"]["delta_nonpaged_bytes"] is None
        _, output, _ = run("pool", *sides)
        assert "tags that" in output
        assert "it is cut or filtered" in output
    other = write("other.log", poolmon(leaking(0)))
    _, output, _ = run("pool", whole, other)
    assert "or the two are swapped" in output
