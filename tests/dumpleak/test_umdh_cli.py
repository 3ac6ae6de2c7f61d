"""UMDH logs and UMDH's form of a comparison, through the command line."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from builders.pdb_builder import PdbBuilder
from made_symbols import identity, put_in_store
from truth import TESTDATA, TruthDump, pairs

from windumps import open_dump

PAIRS = [pair for pair in pairs("leak-pair-ust") if TESTDATA in pair[0].dump.parents]
PLAIN = TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"

each_pair = pytest.mark.parametrize(("base", "current"), PAIRS, ids=lambda d: d.name)


def _deltas(document: str) -> dict[tuple[str, ...], tuple[int, int]]:
    """Frames → (bytes, blocks) of the sites that have a stack."""
    return {
        tuple(site["frames"]): (site["delta_bytes"], site["delta_count"])
        for site in json.loads(document)["sites"]
        if site["kind"] == "stack"
    }


def _truth_deltas(base: TruthDump, current: TruthDump) -> dict[tuple[str, ...], tuple[int, int]]:
    totals: Counter[int] = Counter()
    counts: Counter[int] = Counter()
    stacks = current.read_truth().raw["stacks"]
    for dump, sign in ((current, 1), (base, -1)):
        truth = dump.read_truth()
        column = truth.raw["alloc_columns"].index("stack_id")
        for row in truth.raw["allocations"]:
            totals[row[column]] += sign * truth.sizes[row[0]]
            counts[row[column]] += sign
    return {
        tuple(f"{module}+0x{offset:x}" for module, offset in stacks[stack]): (
            totals[stack],
            counts[stack],
        )
        for stack in counts
        if totals[stack] or counts[stack]
    }


def test_there_are_pairs() -> None:
    assert {base.build.rsplit("-")[-1] for base, _ in PAIRS} == {"x86", "x64"}


@each_pair
def test_logs_and_dumps_give_the_same_growth_in_any_mixture(
    base: TruthDump, current: TruthDump, run: Any, tmp_path: Path
) -> None:
    logs = [tmp_path / "base.log", tmp_path / "current.log"]
    for dump, log in zip((base, current), logs, strict=True):
        assert run("snapshot", dump.dump, "--format", "umdh", "-o", log) == (0, "", "")
    code, out, _ = run("diff", base.dump, current.dump, "--format", "json")
    assert code == 0
    expected = _deltas(out)
    assert expected.items() >= _truth_deltas(base, current).items()
    for sides in (logs, (logs[0], current.dump), (base.dump, logs[1])):
        code, out, _ = run("diff", *sides, "--format", "json")
        document = json.loads(out)
        assert (code, document["verdict"]) == (0, "growth")
        assert _deltas(out) == expected
        assert document["totals"]["delta_bytes"] == sum(b for b, _ in expected.values())
        assert {site["kind"] for site in document["sites"]} == {"stack"}


@each_pair
def test_logs_that_do_not_say_who_their_images_are_match_by_name(
    base: TruthDump, current: TruthDump, run: Any, tmp_path: Path
) -> None:
    _, log, _ = run("snapshot", current.dump, "--format", "umdh")
    # As UMDH itself writes it: no identities, Windows line ends.
    plain = "".join(line for line in log.splitlines(True) if not line.startswith("// image"))
    path = tmp_path / "plain.log"
    path.write_bytes(plain.replace("\n", "\r\n").encode("cp1252"))
    expected = _deltas(run("diff", base.dump, current.dump, "--format", "json")[1])
    code, out, _ = run("diff", base.dump, path, "--format", "json")
    codes = {item["code"] for item in json.loads(out)["diagnostics"]}
    assert code == 0
    assert {"umdh-names-only", "umdh-match-by-name"} <= codes
    assert not {found for found in codes if "build" in found}
    assert _deltas(out) == expected


@each_pair
def test_diff_in_umdhs_form_has_every_site_and_adds_up(
    base: TruthDump, current: TruthDump, run: Any
) -> None:
    code, out, _ = run("diff", base.dump, current.dump, "--format", "umdh-d")
    assert code == 0
    head = r"^([+-]) +(\d+) \( *(\d+) - +(\d+)\) +(\d+) allocs\tBackTrace([0-9A-F]+)$"
    groups = re.findall(head, out, re.MULTILINE)
    for sign, amount, new, old, _, _ in groups:
        assert int(sign + amount) == int(new) - int(old)
    document = json.loads(run("diff", base.dump, current.dump, "--format", "json")[1])
    assert [int(sign + amount) for sign, amount, *_ in groups] == [
        site["delta_bytes"] for site in document["sites"]
    ]
    assert [int(count) for *_, count, _ in groups] == [
        site["current_count"] for site in document["sites"]
    ]
    total = re.search(
        r"^Total increase == (\d+) requested \+ +(-?\d+) overhead = (\d+)$", out, re.M
    )
    assert total is not None
    assert int(total[1]) == document["totals"]["delta_bytes"] == int(total[3]) - int(total[2])
    hexadecimal = run("diff", base.dump, current.dump, "--format", "umdh")[1]
    assert f"Total increase == {int(total[1]):x} requested" in hexadecimal
    assert run("diff", base.dump, current.dump, "--format", "umdh", "--top", "2")[1].count(
        "\tallocations\n"
    ) == min(2, len(groups))


def test_a_log_is_taken_where_a_dump_is(run: Any, tmp_path: Path) -> None:
    dump = PAIRS[0][1].dump
    log = tmp_path / "one.log"
    run("snapshot", dump, "--format", "umdh", "-o", log)
    for by in ("site", "stack"):
        shown = [
            {
                (group["name"], tuple(group["frames"]), group["used_bytes"], group["used_count"])
                for group in json.loads(run("stat", file, "--by", by, "--format", "json")[1])[
                    "groups"
                ]
                if group["kind"] == "stack"
            }
            for file in (dump, log)
        ]
        assert shown[0] == shown[1] != set()


def test_frames_to_skip_are_skipped_in_a_log_as_in_a_dump(run: Any, tmp_path: Path) -> None:
    dump = PAIRS[0][1].dump
    log = tmp_path / "one.log"
    run("snapshot", dump, "--format", "umdh", "-o", log)
    names = []
    for file in (dump, log):
        args = ("stat", file, "--by", "stack", "--format", "json", "--skip-frames", "APP.exe!*")
        groups = json.loads(run(*args)[1])["groups"]
        names.append({group["name"] for group in groups if group["kind"] == "stack"})
    assert names[0] == names[1]
    assert any(name.startswith("widgets.dll+") for name in names[0])


@pytest.mark.parametrize("by", ["site", "stack"])
def test_a_log_read_with_symbols_says_what_the_dump_does(run: Any, tmp_path: Path, by: str) -> None:
    base, current = next(pair for pair in PAIRS if pair[0].build == "10.0.26100.5074-x64")
    app = identity(open_dump(current.dump))
    builder = PdbBuilder(guid=app.guid, age=app.age)
    builder.sections = [(".text", 0x1000, 0x9000)]
    # The second function counts as the allocator's.
    for number, name in enumerate(("?main@@YAXXZ", "??2@YAPEAX_K@Z", "?work@app@@YAXXZ")):
        builder.public(name, 1, 0x1000 * number)
    put_in_store(tmp_path / "store", app, builder.build())
    log = tmp_path / "current.log"
    run("snapshot", current.dump, "--format", "umdh", "-o", log)
    args = ("--by", by, "--symbols", tmp_path / "store", "--format", "json")
    found = []
    for side in (current.dump, log):
        code, out, _ = run("diff", base.dump, side, *args)
        assert code == 0
        sites = [site for site in json.loads(out)["sites"] if site["kind"] == "stack"]
        found.append([(site["name"], site["frames"], site["delta_bytes"]) for site in sites])
    assert found[0] == found[1]
    assert any("!app::work" in name for name, _, _ in found[1])


def test_a_dump_without_recorded_stacks_makes_no_log(run: Any, tmp_path: Path) -> None:
    log = tmp_path / "no.log"
    code, out, err = run("snapshot", PLAIN, "--format", "umdh", "-o", log)
    assert (code, out) == (3, "")
    assert "+ust" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    code, out, err = run("snapshot", PLAIN, "--format", "umdh")
    assert (code, out) == (3, "")


@pytest.mark.parametrize("command", ["info", "leaks", "snapshot"])
def test_a_log_is_not_taken_for_a_broken_dump(run: Any, tmp_path: Path, command: str) -> None:
    log, out_file = tmp_path / "one.log", tmp_path / "out"
    run("snapshot", PAIRS[0][0].dump, "--format", "umdh", "-o", log)
    code, out, err = run(command, log, "-o", out_file)
    assert (code, out) == (3, "")
    assert err == (
        f"dumpleak: {log}: a snapshot, which has no memory in it; stat, diff and trend take it, "
        "this needs the dump\n"
    )
    assert not out_file.exists()
    # A file that happens to be named in the command does not matter.
    broken = tmp_path / "broken.dmp"
    broken.write_bytes(b"nothing")
    assert "not a Windows dump" in run(command, broken, "-o", log)[2]


def test_what_a_log_cannot_tell_is_refused(run: Any, tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    run("snapshot", PAIRS[0][0].dump, "--format", "umdh", "-o", log)
    for args in (("stat", log, "--by", "module"), ("diff", log, PAIRS[0][1].dump, "--by", "size")):
        code, out, err = run(*args)
        assert (code, out) == (3, "")
        assert "stacks only" in err
    grown = tmp_path / "grown.txt"
    run("diff", *(dump.dump for dump in PAIRS[0]), "--format", "umdh", "-o", grown)
    code, out, err = run("diff", log, grown)
    assert (code, out) == (3, "")
    assert "comparison" in err


def test_a_series_may_have_logs_in_it(run: Any, tmp_path: Path) -> None:
    series = TESTDATA / "10.0.22621.4541-x64" / "series-ust"
    dumps = [series / f"dump{number}.dmp.gz" for number in range(4)]
    logs = [tmp_path / f"{number}.log" for number in range(4)]
    for dump, log in zip(dumps, logs, strict=True):
        run("snapshot", dump, "--format", "umdh", "-o", log)
    mixtures = (logs, [*logs[:3], dumps[3]], [dumps[0], *logs[1:3], dumps[3]])
    found = []
    for files in (dumps, *mixtures):
        code, out, _ = run("trend", *files, "--format", "json")
        document = json.loads(out)
        assert code == 0
        sites = [site for site in document["sites"] if site["kind"] == "stack"]
        found.append({tuple(s["frames"]): [p["count"] for p in s["points"]] for s in sites})
        assert (document.get("private") or []) == [] or files is dumps
    assert found[0]
    assert all(other == found[0] for other in found[1:])


def test_a_log_is_not_compared_with_a_dump_without_stacks(run: Any, tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    run("snapshot", PAIRS[0][0].dump, "--format", "umdh", "-o", log)
    for sides in ((log, PLAIN), (PLAIN, log)):
        code, out, err = run("diff", *sides, "--force")
        assert (code, out) == (3, "")
        assert "recorded stack" in err


def test_a_comparison_that_is_refused_shows_no_numbers(run: Any) -> None:
    x86 = next(base for base, _ in PAIRS if base.build.endswith("x86"))
    x64 = next(base for base, _ in PAIRS if base.build.endswith("x64"))
    code, out, _ = run("diff", x86.dump, x64.dump, "--format", "umdh")
    assert code == 3
    assert "// not comparable: " in out
    assert all(line.startswith("//") for line in out.splitlines() if line)


@pytest.mark.parametrize("cut_side", [0, 1])
def test_half_a_log_never_passes_a_gate(run: Any, tmp_path: Path, cut_side: int) -> None:
    logs = [tmp_path / "base.log", tmp_path / "current.log"]
    for dump, log in zip(PAIRS[0], logs, strict=True):
        run("snapshot", dump.dump, "--format", "umdh", "-o", log)
    whole = logs[cut_side].read_text(encoding="utf-8")
    for share in (0.05, 0.3, 0.5, 0.9):
        logs[cut_side].write_text(whole[: int(share * len(whole))], encoding="utf-8")
        code, out, err = run("diff", *logs, "--fail-on", "bytes>=1000")
        assert (code, out) == (3, "")
        assert err.count("\n") == 1
        assert "cut" in err


FORMATS = ("text", "markdown", "html", "json", "junit")


@pytest.mark.parametrize("format_", FORMATS)
def test_an_answer_from_logs_says_what_a_log_never_shows(
    run: Any, tmp_path: Path, format_: str
) -> None:
    logs = [tmp_path / "base.log", tmp_path / "current.log"]
    for dump, log in zip(PAIRS[0], logs, strict=True):
        run("snapshot", dump.dump, "--format", "umdh", "-o", log)
    code, out, _ = run("diff", *logs, "--format", format_)
    assert code == 0
    assert "100.0%" not in out
    if format_ == "junit":
        assert 'name="base.walked_share" value="unknown"' in out
    else:
        assert "only blocks with a recorded stack" in " ".join(out.split())
    if format_ == "text":
        assert out.index("recorded stack") < 1000
    if format_ == "json":
        assert json.loads(out)["coverage"]["base"]["committed_bytes"] is None


def test_a_log_cut_short_anywhere_is_read_or_refused(run: Any, tmp_path: Path) -> None:
    whole = run("snapshot", PAIRS[-1][0].dump, "--format", "umdh")[1]
    path = tmp_path / "cut.log"
    for end in (0, 1, 40, 300, 1000, len(whole) // 3, len(whole) - 5):
        path.write_text(whole[:end], encoding="utf-8")
        code, out, err = run("stat", path, "--format", "json")
        assert code in (0, 3)
        assert "internal error" not in err
        assert bool(out) == (code == 0)
