"""Ways to put blocks together: every used block falls into one group, whatever the key."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from truth import TESTDATA, TruthDump, truth_dumps

from dumpleak.attribution.grouping import GROUPINGS
from dumpleak.attribution.skip_list import MAX_LIST_BYTES, skip_patterns
from dumpleak.attribution.source import shortened
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot

UST = TruthDump(
    TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust" / "after.dmp.gz",
    TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust" / "truth-after.json.gz",
)


def _groups(run: Any, by: str, *more: object) -> list[dict[str, Any]]:
    code, out, _ = run("stat", UST.dump, "--by", by, "--format", "json", *more)
    assert code == 0
    return list(json.loads(out)["groups"])


def test_the_keys_of_the_interface_are_there() -> None:
    wanted = {"stack", "site", "type", "source", "module", "size", "heap", "tag", "kind"}
    assert wanted <= GROUPINGS.keys()


@pytest.mark.parametrize("by", list(GROUPINGS))
def test_groups_add_up_to_all_used_blocks(by: str) -> None:
    snapshot = take_snapshot(Session.open(UST.dump), by)
    totals = [totals for _, totals in snapshot.groups.values()]
    assert sum(total.count for total in totals) == snapshot.totals.count
    assert sum(total.bytes for total in totals) == snapshot.totals.bytes
    everything = take_snapshot(Session.open(UST.dump)).totals
    assert snapshot.totals == everything


def _class_totals(dump: TruthDump, walked: set[int]) -> Counter[str]:
    truth = dump.read_truth()
    column = truth.raw["alloc_columns"].index("class")
    return Counter(
        row[column]
        for row in truth.raw["allocations"]
        if row[0] in walked and (row[column] or "").startswith(".?A")
    )


@pytest.mark.parametrize(
    "dump", [UST, *truth_dumps("nt-ust", "debug-crt-ust")[:6]], ids=lambda d: d.name
)
def test_types_are_counted_also_where_stacks_name_the_sites(dump: TruthDump) -> None:
    session = Session.open(dump.dump)
    snapshot = take_snapshot(session, "type")
    found = {
        key.split("|")[2]: totals.count
        for key, (site, totals) in snapshot.groups.items()
        if site.type is not None
    }
    columns = dump.read_truth().raw.get("crt")
    if columns is None:  # every block of a debug runtime is in its own list, not the heap's
        addresses = {
            address
            for source, blocks in Session.open(dump.dump).blocks()
            for address in blocks.used.address.tolist()
        }
        assert found == _class_totals(dump, addresses)
    assert found
    assert {site.kind for site, _ in take_snapshot(session).groups.values()} >= {"stack"}


@pytest.mark.parametrize("dump", truth_dumps("debug-crt-ust")[:3], ids=lambda d: d.name)
def test_source_lines_are_counted_also_where_stacks_name_the_sites(dump: TruthDump) -> None:
    truth = dump.read_truth()
    crt = truth.raw["crt"]
    columns = crt["block_columns"]
    file, line = columns.index("file"), columns.index("line")
    named = [row for row in crt["blocks"] if row[file]]
    expected = Counter(f"{shortened(row[file])}({row[line]})" for row in named)
    assert any(name.startswith("core\\string.cpp(") for name in expected)
    found: Counter[str] = Counter()
    for site, totals in take_snapshot(Session.open(dump.dump), "source").groups.values():
        if site.kind == "source":
            found[site.name] += totals.count
    # The runtime's own blocks have lines too.
    assert found >= expected
    assert (found - expected).total() <= len(crt["internal"])


def test_a_stack_is_shown_from_the_programs_own_frame_on(run: Any) -> None:
    groups = [group for group in _groups(run, "stack") if group["kind"] == "stack"]
    assert groups
    for group in groups:
        assert group["frames"][0] == group["name"]
        assert not group["name"].startswith("ntdll")
    whole = {group["name"]: group for group in _groups(run, "site") if group["kind"] == "stack"}
    assert whole.keys() == {group["name"] for group in groups}
    assert all(group["frames"][0].startswith("ntdll") for group in whole.values())


def test_stacks_that_differ_only_in_skipped_frames_are_one(run: Any, tmp_path: Path) -> None:
    plain = [group for group in _groups(run, "stack") if group["kind"] == "stack"]
    listed = tmp_path / "skip.txt"
    listed.write_text("# the program's own pool\n\napp.exe!*\n", encoding="utf-8")
    cut = [g for g in _groups(run, "stack", "--skip-frames", listed) if g["kind"] == "stack"]

    def tail(frames: list[str]) -> tuple[str, ...]:
        own = [index for index, frame in enumerate(frames) if not frame.startswith("app.exe")]
        # A stack of nothing but such frames keeps the first that is not a known allocator's.
        return tuple(frames[own[0] :] if own else frames)

    expected: Counter[tuple[str, ...]] = Counter()
    for group in plain:
        expected[tail(group["frames"])] += group["used_count"]
    assert {tuple(group["frames"]): group["used_count"] for group in cut} == expected
    assert sum(g["used_count"] for g in cut) == sum(g["used_count"] for g in plain)
    pattern = _groups(run, "stack", "--skip-frames", "app!*")
    assert [g["name"] for g in pattern if g["kind"] == "stack"] == [g["name"] for g in cut]


def test_skipped_frames_are_left_out_of_the_names_of_sites_and_blocks(run: Any) -> None:
    names = {
        g["name"] for g in _groups(run, "site", "--skip-frames", "app!*", "--skip-frames", "x!y")
    }
    assert not any(name.startswith("ntdll") for name in names)
    assert any(name.startswith("widgets.dll+") for name in names)
    rows = run("allocations", UST.dump, "--format", "json", "--skip-frames", "app!*")[
        1
    ].splitlines()
    assert {json.loads(row)["site"] for row in rows} == names


def test_a_skip_list_that_cannot_be_used_is_said(run: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("malloc\n", encoding="utf-8")
    for value in ("malloc", "!x", "app!", bad):
        code, out, err = run("stat", UST.dump, "--skip-frames", value)
        assert (code, out) == (2, "")
        assert "module!function" in err


def test_patterns_come_from_files_and_words_alike(tmp_path: Path) -> None:
    listed = tmp_path / "skip.txt"
    listed.write_bytes("\ufeff# ours\r\nengine.dll!Pool::*\r\n\r\n  *!my malloc  \r\n".encode())
    assert skip_patterns(["app.exe!f", str(listed), "app!f"]) == (
        *("app!f", "engine!Pool::*", "*!my malloc"),
    )
    assert skip_patterns([]) == ()
    listed.write_bytes(b"a!b\n" * (MAX_LIST_BYTES // 4 + 1))
    with pytest.raises(ValueError, match="at most"):
        skip_patterns([str(listed)])


@pytest.mark.parametrize("by", ["tag", "driver"])
def test_a_group_of_many_classes_goes_by_the_class_of_none_of_them(run: Any, by: str) -> None:
    group, *others = _groups(run, by)
    assert not others
    assert (group["name"], group["type"], group["tag"]) == (f"(no {by})", None, None)
    (held,) = [text for text in group["evidence"] if " held by " in text]
    assert held.endswith(f"held by blocks (no {by})")
