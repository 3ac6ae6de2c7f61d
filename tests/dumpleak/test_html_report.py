"""What a page is given, and what its file holds; `tests/browser` looks at it with a browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_samples import (
    CHANGES,
    GROWING,
    HOSTILE_NAMES,
    comparison,
    described,
    growth,
    not_comparable,
    series,
    shape,
    stack,
)
from truth import TESTDATA, TruthDump

from dumpleak.cli import main
from dumpleak.compare.answers import Comparison
from dumpleak.model.group_sums import DetailSums
from dumpleak.model.optional_libraries import MissingExtraError, install_command
from dumpleak.process.session import Session
from dumpleak.reports.answers.diff import diff_document
from dumpleak.reports.answers.info import info_document
from dumpleak.reports.answers.summary import summarize_comparison
from dumpleak.reports.answers.trend import trend_document
from dumpleak.reports.document import Document
from dumpleak.reports.page import writer as html_page
from dumpleak.reports.page.data import Page, page_of
from dumpleak.reports.page.writer import render, write_page
from dumpleak.reports.profiles.stack_tree import build_tree, prune, site_pairs
from dumpleak.survey.heaps import take_snapshot
from windumps.blocks import Blocks, Kind

pytest.importorskip("jinja2")
pytest.importorskip("plotly")

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"
KERNEL = TESTDATA / "kernel" / "22621-x64" / "tiny-pair"
ISLAND = re.compile(r'<script type="[^"]+" id="(\w+)">(.*?)</script>', re.DOTALL)


def column(page: Page, grid: str, title: str) -> list[Any]:
    found = next(g for g in page.grids if g.table.id == grid)
    at = [column.title for column in found.columns].index(title)
    return [row[at] for row in found.rows]


def diff_page(answer: Comparison) -> Page:
    return page_of(diff_document(answer, None))


def islands(text: str) -> dict[str, str]:
    return dict(ISLAND.findall(text))


def unpacked(text: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(text)))


def test_a_diff_page_has_the_numbers_of_its_comparison() -> None:
    page = diff_page(growth())
    assert column(page, "sites", "bytes +/-") == [458_752, 77_700, 24_000, 400, -5_760]
    assert column(page, "sites", "blocks +/-") == [448, 100, 24, 4, -90]
    assert column(page, "sites", "base") == [65_536, 0, 10_000, 300, 6_400]
    assert column(page, "sites", "of growth")[0] == pytest.approx(458_752 / 560_852)
    assert column(page, "sites", "of growth")[-1] is None
    assert column(page, "heaps", "used +/-") == [458_752 + 77_700 + 24_000 + 400 - 5_760]
    assert [meter.share for meter in page.gauges] == [1.0, 1.0]


def test_a_site_opens_to_its_frames_sizes_and_addresses() -> None:
    page = diff_page(growth())
    detail = page.grids[0].details[0]
    assert [page.strings.texts[number] for number in detail["frames"]] == list(GROWING.frames)
    assert detail["sizes"] == [["base", [[64, 3], [128, 1]]], ["current", [[64, 3], [128, 1]]]]
    assert detail["samples"] == ["0x0000000010000000", "0x0000000010000040"]
    assert any("81.8%" in clause for clause in detail["evidence"])


def test_links_to_sites_stay_when_everything_else_changes() -> None:
    first = diff_page(comparison(CHANGES)).grids[0]
    second = diff_page(comparison([(shape("another"), (0, 0), (9_000_000, 9)), *CHANGES])).grids[0]
    assert len(set(first.ids)) == len(first.ids)
    assert set(first.ids) < set(second.ids)


def test_the_flame_graph_adds_up_at_every_node() -> None:
    tree = diff_page(growth()).tree
    count = len(tree["names"])
    assert [tree["base"][0], tree["current"][0]] == [82_236, 637_328]
    assert tree["grew"][0] - tree["shrank"][0] == tree["current"][0] - tree["base"][0]
    for name in ("base", "current", "grew", "shrank", "counts"):
        below = [0] * count
        for node, parent in enumerate(tree["parents"]):
            if parent >= 0:
                assert parent < node
                below[parent] += tree[name][node]
        inner = {parent for parent in tree["parents"] if parent >= 0}
        assert all(below[node] == tree[name][node] for node in inner)


def test_a_pruned_tree_keeps_its_sums_and_its_largest_nodes() -> None:
    changes = [
        (stack(f"m!f{n}", f"m!g{n % 7}", "m!main"), (n, 1), (3 * n, 2)) for n in range(1, 400)
    ]
    answer = comparison(changes)
    pairs = site_pairs(answer.base.groups, answer.current.groups)
    tree = prune(build_tree(pairs, "all"), 60)
    nodes, stack_ = 0, [tree]
    while stack_:
        node = stack_.pop()
        nodes += 1
        stack_.extend(node.children.values())
        if node.children:
            assert sum(child.grew_bytes for child in node.children.values()) == node.grew_bytes
    assert nodes <= 60 + 8  # one node for the rest under each of main and seven callers
    assert tree.grew_bytes == sum(2 * n for n in range(1, 400))
    kept = {
        name for caller in tree.children["m!main"].children.values() for name in caller.children
    }
    assert "m!f399" in kept
    assert "m!f1" not in kept


def test_a_frame_that_is_called_like_the_rest_is_kept_apart() -> None:
    names = [f"m!f{n}" for n in range(50)]
    changes = [(stack(name, "m!main"), (0, 0), (10, 1)) for name in [*names, "(51 smaller)"]]
    answer = comparison([*changes, (stack("(50 smaller)", "m!main"), (0, 0), (9_999, 1))])
    tree = build_tree(site_pairs(answer.base.groups, answer.current.groups), "all")
    assert prune(tree, 5).grew_bytes == 51 * 10 + 9_999
    children = tree.children["m!main"].children.values()
    assert sum(child.grew_bytes for child in children) == 51 * 10 + 9_999


def test_a_refused_comparison_says_why_and_shows_no_sites() -> None:
    page = diff_page(not_comparable())
    assert page.grids == []
    assert page.tree == {}
    assert page.summary.tone == "cannot-tell"
    assert any("b.exe" in text for _, text in page.facts)
    assert page.notes[0][0] == "error"


def test_a_trend_page_has_every_point() -> None:
    pytest.importorskip("scipy")
    page = page_of(trend_document(series(after_idle=False), None))
    assert column(page, "sites", "series")[0] == [100_000, 200_000, 300_000, 400_000]
    assert page.grids[0].details[0]["points"] == [
        [100_000, 1000], [200_000, 2000], [300_000, 3000], [400_000, 4000],
    ]  # fmt: skip
    assert column(page, "sites", "verdict") == ["suspect", "growth"]
    assert column(page, "sites", "bytes/hour")[0] == 100_000
    assert len(page.document.series) == len(page.gauges) == 4


def test_an_info_page_says_what_is_missing() -> None:
    assert page_of(info_document(described(usable=True))).summary.tone == "good"
    page = page_of(info_document(described(usable=False)))
    assert page.summary.tone == "cannot-tell"
    assert page.summary.steps[0].command == "procdump -ma app.exe app.dmp"
    assert page.gauges == []


def test_the_page_of_a_real_pair_has_the_truth(tmp_path: Path) -> None:
    truths = [
        TruthDump(PAIR / f"{name}.dmp.gz", PAIR / f"truth-{name}.json.gz").read_truth()
        for name in ("before", "after")
    ]
    files = [str(PAIR / "before.dmp.gz"), str(PAIR / "after.dmp.gz")]
    path = tmp_path / "page.html"
    with pytest.raises(SystemExit):
        main(["diff", *files, "--format", "html", "-o", str(path), "--no-holders"])
    held = islands(path.read_text(encoding="utf-8"))
    first, more = json.loads(held["data"]), unpacked(held["more"])
    tree = more["tree"]
    # All blocks have stacks here; private memory outside heaps has none and stands beside them.
    outside = [
        place
        for place, parent in enumerate(tree["parents"])
        if parent == 0 and more["strings"][tree["names"][place]] == "(shapes)"
    ]
    assert len(outside) == 1
    for side, truth in zip(("base", "current"), truths, strict=True):
        assert tree[side][0] - tree[side][outside[0]] == sum(truth.sizes.values())
    rows = first["grids"][0]["rows"]
    assert sum(row[2] for row in rows) == len(truths[1].sizes) - len(truths[0].sizes)
    samples = {int(a, 16) for detail in more["details"]["sites"] for a in detail["samples"]}
    assert samples
    assert samples <= truths[1].sizes.keys()
    for row, detail in zip(rows, more["details"]["sites"], strict=True):
        assert sum(blocks for _, blocks in detail["sizes"][-1][1]) == row[5]


def test_the_pool_page_has_the_numbers_of_the_json_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = []

    def keep(document: Document) -> Page:
        pages.append(page_of(document))
        return pages[-1]

    monkeypatch.setattr("dumpleak.reports.page.writer.page_of", keep)
    files = [str(KERNEL / "before.dmp.xz"), str(KERNEL / "after.dmp.xz")]
    for kind in ("html", "json"):
        with pytest.raises(SystemExit):
            main(["pool", *files, "--format", kind])
    out = capsys.readouterr().out
    tags = json.loads(out[out.rindex('{\n "schema"') :])["tags"]
    assert column(pages[0], "sites", "bytes +/-") == [tag["delta_bytes"] for tag in tags]
    assert column(pages[0], "sites", "blocks +/-") == [tag["delta_count"] for tag in tags]
    names = column(pages[0], "sites", "tag and driver")
    assert all(name.startswith(tag["tag"]) for name, tag in zip(names, tags, strict=True))


# -- the file -----------------------------------------------------------------------------------------------


def test_the_page_runs_its_own_scripts_and_names_nothing_outside() -> None:
    text = render(diff_page(growth()))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    rules = policy[1].replace("&#39;", "'")
    held = islands(text)
    own = text[text.rindex("<script>") + len("<script>") : text.rindex("</script>")]
    charts = gzip.decompress(base64.b64decode(held["charts"])).decode()
    assert "plotly.js" in charts[:200]
    for script in (own, charts):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules
    assert "default-src 'none'" in rules
    assert "unsafe-eval" not in rules
    assert "'unsafe-inline'" not in rules.split("style-src")[0]
    rest = ISLAND.sub("", text)
    assert not re.search(
        r"""(?:src|href|action)\s*=\s*["']?\s*(?:https?:)?//""", rest, re.IGNORECASE
    )
    assert "@import" not in rest
    assert "url(" not in rest


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_end_no_element_and_stay_short(name: str) -> None:
    answer = comparison([(stack(name, name), (1, 1), (9, 2)), (shape(name), (1, 1), (5, 2))], name)
    answer.current.source = replace(answer.current.source, file=name, machine=name)
    text = render(diff_page(answer))
    text.encode("utf-8")  # no lone surrogate is left
    assert len(re.findall(r"<script", text, re.IGNORECASE)) == 4
    assert len(re.findall(r"</script", text, re.IGNORECASE)) == 4
    assert "<img" not in text
    assert "<b>bold" not in text
    assert "x" * 500 not in text
    held = islands(text)
    assert json.loads(held["data"])["grids"][0]["rows"]
    assert unpacked(held["more"])["strings"]


def test_commands_to_copy_never_hold_a_name_from_the_dump() -> None:
    for name in ("a & calc.exe", "$(reboot).exe", "a;b.exe", "..\\x.exe", "a\nb.exe", '"x".exe'):
        summary = summarize_comparison(comparison([(shape("s"), (1, 1), (9, 2))], name))
        assert [step.command for step in summary.steps][-1] == "gflags /i app.exe +ust"
    summary = summarize_comparison(comparison([(shape("s"), (1, 1), (9, 2))], "my-app_2.exe"))
    assert summary.steps[-1].command == "gflags /i my-app_2.exe +ust"


@pytest.mark.parametrize("library", ["jinja2", "plotly"])
def test_without_its_libraries_the_message_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    for cached in (html_page._environment, html_page._plotly, html_page._packed_charts):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.offline", None)
    with pytest.raises(MissingExtraError, match=re.escape(install_command("html"))):
        write_page(diff_document(growth(), None), io.StringIO())


# -- details ------------------------------------------------------------------------------------------------


def test_details_count_sizes_by_powers_of_two_and_keep_the_first_addresses() -> None:
    sizes = [0, 1, 2, 3, 4, 7, 8, 1023, 1024, 5, 5]
    blocks = Blocks.build(
        np.arange(11, dtype=np.uint64) * np.uint64(0x10),
        np.array(sizes),
        np.array(sizes) + 8,
        np.ones(11, np.bool_),
        Kind.NT_BACKEND,
        0,
    )
    sums = DetailSums()
    sums.add(np.array([0] * 5 + [2] * 6), blocks, 4)
    sums.add(np.array([2] * 5 + [0] * 6), blocks, 4)
    first, nothing, third = sums.details(3)
    assert first.sizes == ((0, 1), (1, 1), (2, 2), (4, 4), (8, 1), (512, 1), (1024, 1))
    assert first.samples == (0x00, 0x10, 0x20, 0x30, 0x40)
    assert third.samples == (0x50, 0x60, 0x70, 0x80, 0x90)
    assert nothing.sizes == nothing.samples == ()
    assert first.pointer_size == 4


def test_details_are_collected_only_when_asked_for() -> None:
    dump = TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"
    plain = take_snapshot(Session.open(dump))
    assert plain.details == {}
    assert plain.memory is None
    snapshot = take_snapshot(Session.open(dump), details=True)
    assert snapshot.memory is not None
    for key, (_, totals) in snapshot.groups.items():
        assert sum(count for _, count in snapshot.details[key].sizes) == totals.count
