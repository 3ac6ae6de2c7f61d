"""`diff`, `stat`, `allocations`, `trend` and `heaps` on kernel dumps: pools by the same pipeline as heaps."""

from __future__ import annotations

import csv
import io
import json
import lzma
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from kernel_truth import KernelTruthDump, kernel_pairs
from patching import with_bytes
from pool_samples import OWNERS, Pair, all_blocks, dumps_of, leaking, pairs_of, run, run_json
from truth import TESTDATA

from dumpleak.compare.diff import compare
from dumpleak.compare.handle_holders import holder_clauses
from dumpleak.compare.pool_answers import Selection, take_growth
from dumpleak.files.detect import read_snapshot
from dumpleak.kernel.pools import PoolReader
from dumpleak.survey.pools import take_pool_snapshot
from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.errors import WindumpsError
from windumps.pool_tags import tag_number
from windumps.pools.trackers.totals import TagTotals
from windumps.pools.verifier.records import VerifierData

TINY = kernel_pairs("tiny-pair")
MINIDUMP = TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"


@pairs_of("tiny-pair")
def test_diff_ranks_tags_with_driver_sizes_and_addresses(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run_json(capsys, "diff", *(side.dump for side in pair))
    assert (told["schema"], told["verdict"]) == ("dumpleak/diff/1", "growth")
    first = told["sites"][:3]
    assert [(s["kind"], s["tag"], s["delta_bytes"], s["delta_count"]) for s in first] == [
        ("tag", row["tag"], row["delta_bytes"], row["delta_count"]) for row in leaking(pair)
    ]
    blocks, _ = all_blocks(pair[1])
    for site in first:
        assert site["driver"] == OWNERS[site["tag"]]
        assert site["name"].endswith(f", {site['driver']}")
        evidence = "; ".join(site["evidence"])
        assert f"{site['driver']} (strong): its code gives it to" in evidence
        assert "more blocks: " in evidence
        samples = [text for text in site["evidence"] if text.startswith("new, for example: ")]
        addresses = [int(word, 16) for word in samples[0].split()[3:]]
        assert {blocks[address][0] for address in addresses} == {site["tag"]}
    total = sum(row["delta_bytes"] for row in pair[1].read_pair()["tags"])
    tags = [site for site in told["sites"] if not site["name"].split(",")[0].endswith(" session")]
    assert sum(site["delta_bytes"] for site in tags) == total


@pairs_of("tiny-pair")
def test_diff_shows_the_driver_in_text_and_fails_a_gate(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [side.dump for side in pair]
    code, out, _ = run(capsys, "diff", *files, "--fail-on", "bytes>=1", "--top", 3)
    assert code == 1
    for tag, driver in OWNERS.items():
        assert f"{tag} " in out
        assert driver in out
    assert "pool memory walked" in out


@dumps_of("tiny-pair")
def test_stat_adds_up_by_tag_driver_and_size(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = source.read_truth()["tags"]
    session = (source.read_truth().get("session_pool") or {}).get("tags", {})
    held = {tag: row["nonpaged"]["bytes"] + row["paged"]["bytes"] for tag, row in truth.items()}
    for tag, row in session.items():
        held[tag] = held.get(tag, 0) + row["paged"]["bytes"]
    told = run_json(capsys, "stat", source.dump, "--by", "tag")
    assert {g["tag"]: g["used_bytes"] for g in told["groups"]} == {
        t: n for t, n in held.items() if n
    }
    by_driver: Counter[str] = Counter()
    for tag, size in held.items():
        by_driver[truth[tag]["driver"].lower() if tag in truth else "?"] += size
    told = run_json(capsys, "stat", source.dump, "--by", "driver")
    mine = {g["name"].lower(): g["used_bytes"] for g in told["groups"]}
    if not session:
        assert mine == {name: size for name, size in by_driver.items() if size}
    assert sum(mine.values()) == sum(held.values())
    told = run_json(capsys, "stat", source.dump, "--by", "size")
    blocks, absent = all_blocks(source)
    sizes = Counter(str(size) for at, (_, size) in blocks.items() if at not in absent)
    counted = {g["name"]: g["used_count"] for g in told["groups"]}
    for name, count in sizes.items():
        assert counted[name] >= count  # pages in transition, and session pool, come on top


@dumps_of("tiny-pair")
def test_allocations_are_the_blocks_callers_got(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "allocations", source.dump, "--format", "csv")
    assert code == 0
    rows = {int(row["address"], 16): row for row in csv.DictReader(io.StringIO(out))}
    blocks, absent = all_blocks(source)
    for address, (tag, size) in blocks.items():
        if address not in absent:
            row = rows[address]
            assert (row["tag"], int(row["block_bytes"])) == (tag, size)
            assert (row["state"], row["kind"][:5]) == ("used", "pool-")
            assert row["site"].startswith(tag.rstrip())
    pools = {row["heap"].partition("-")[0] for row in rows.values()}
    assert {"nonpaged", "paged"} <= pools
    code, out, _ = run(capsys, "allocations", source.dump, "--state", "free", "--format", "csv")
    assert all(row["tag"] == "" for row in csv.DictReader(io.StringIO(out)))


def test_groupings_that_pools_do_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "stat", TINY[0][1].dump, "--by", "type")
    assert (code, out, len(err.splitlines())) == (3, "", 1)
    assert "site, tag, driver, size" in err


@pytest.mark.parametrize("pair", TINY[:1], ids=lambda pair: pair[1].name)
def test_trend_and_heaps_take_kernel_dumps(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hour = 3600 * 10**7
    raw = bytearray(lzma.decompress(pair[1].dump.read_bytes()))
    at = 0xFA8 if raw[4:8] == b"DU64" else 0xFC0  # _DUMP_HEADER.SystemTime
    time = int.from_bytes(raw[at : at + 8], "little") + hour
    raw[at : at + 8] = time.to_bytes(8, "little")
    later = tmp_path / "later.dmp"
    later.write_bytes(raw)
    told = run_json(capsys, "trend", pair[0].dump, pair[1].dump, later)
    assert {site["tag"] for site in told["sites"][:3]} == set(OWNERS)
    told = run_json(capsys, "heaps", pair[1].dump)
    assert {row["label"] for row in told["heaps"]} >= {"nonpaged pool", "paged pool"}
    held = sum(row["nonpaged"]["bytes"] for row in pair[1].read_truth()["tags"].values())
    (nonpaged,) = (row for row in told["heaps"] if row["label"] == "nonpaged pool")
    assert nonpaged["used_bytes"] == held


# --- who holds kernel objects -------------------------------------------------------------------------

BUILDS = {"22621-x64": (0x570, 0x8), "7601-x64": (0x200, 0x0)}


def with_handles(source: KernelTruthDump, tag: str, processes: list[str], path: Path) -> PoolReader:
    """A dump in which handles of processes lead to the blocks of a tag, in turn; all others have none.

    The tables go where blocks of other tags lie; the dump has none of its own.
    """
    dump = open_dump(source.dump)
    assert isinstance(dump, KernelDump)
    truth = source.read_truth()
    table_at, code_at = BUILDS[source.build]
    blocks, absent = all_blocks(source)
    objects = sorted(at for at, (owner, _) in blocks.items() if owner == tag and at not in absent)
    room = [
        page
        for block in truth["big_allocations"]
        if block["charged"] >= 0x4000 and block["tag"] != "Pool"
        for page in range(int(block["address"], 16), int(block["address"], 16) + 0x4000, 0x1000)
        if dump.memory.present_bytes(page, page + 0x1000) == 0x1000
    ]
    patches = {}
    order = sorted(dump.processes, key=lambda p: (p.name not in processes, p.process_id))
    for number, process in enumerate(order):
        head = dump.memory.read_uint(process.address + table_at, 8)
        entries = bytearray(0x1000)
        struct.pack_into("<Q", entries, 0xFF8, 1)  # a free entry
        mine = objects[number :: len(processes)] if number < len(processes) else []
        for index, header in enumerate(mine, start=1):
            inside = header + 0x10
            # 8.1 and later: 44 bits of the address above 20 bits of other things.
            low = (inside >> 4 & (1 << 44) - 1) << 20 | 1 if code_at else inside | 1
            struct.pack_into("<Q", entries, 16 * index, low)
        patches[room[number]] = bytes(entries)
        patches[head + code_at] = struct.pack("<Q", room[number])
    return PoolReader(patched(dump, patches, path))


def patched(dump: KernelDump, patches: dict[int, bytes], path: Path) -> KernelDump:
    path.write_bytes(with_bytes(dump, patches).memory.data.tobytes())
    opened = open_dump(path)
    assert isinstance(opened, KernelDump)
    return opened


@pytest.mark.parametrize("pair", [p for p in TINY if p[1].build in BUILDS], ids=lambda p: p[1].name)
def test_the_process_whose_handles_hold_the_growth_is_named(pair: Pair, tmp_path: Path) -> None:
    base = with_handles(pair[0], "Toke", [], tmp_path / "base.dmp").read()
    current = with_handles(pair[1], "Toke", ["services.exe"], tmp_path / "made.dmp").read()
    tag = tag_number("Toke")
    blocks, absent = all_blocks(pair[1])
    count = sum(owner == "Toke" and at not in absent for at, (owner, _) in blocks.items())
    clause, *others = holder_clauses(base, current, tag)
    assert clause.startswith("services.exe (pid ")
    assert f"has handles of {count} of these objects, {count} more than before" in clause
    # Of tags that are no objects nobody is asked for.
    assert holder_clauses(base, current, tag_number("AcNb")) == ()
    assert (
        others[0]
        == f"{count} Token objects were found in the pool; handles lead to {count} of them"
    )
    # Tables without any handle are tables that nobody wrote.
    unknown = "who holds them is unknown: the handle tables in the dump hold no handles: "
    assert any(said.startswith(unknown) for said in holder_clauses(base, base, tag))
    again = holder_clauses(current, current, tag)
    assert again[0] == "no process has more handles of them than before"


@pytest.mark.parametrize("pair", [p for p in TINY if p[1].build in BUILDS], ids=lambda p: p[1].name)
def test_holders_are_ranked_by_what_came(pair: Pair, tmp_path: Path) -> None:
    base = with_handles(pair[0], "Toke", [], tmp_path / "base.dmp").read()
    made = tmp_path / "made.dmp"
    current = with_handles(pair[1], "Toke", ["services.exe", "lsass.exe"], made).read()
    clauses = holder_clauses(base, current, tag_number("Toke"))
    assert [clause.split()[0] for clause in clauses][:2] in (
        ["services.exe", "lsass.exe"],
        ["lsass.exe", "services.exe"],
    )


# --- snapshot files -----------------------------------------------------------------------------------


def numbers(path: Path) -> dict[str, tuple[str, ...]]:
    """What a comparison in CSV says of each site."""
    with path.open(newline="") as stream:
        return {
            row["name"].partition(",")[0].strip(): tuple(
                row[name] for name in ("delta_bytes", "delta_count", "current_bytes")
            )
            for row in csv.DictReader(stream)
        }


@pytest.mark.parametrize("pair", TINY[:2], ids=lambda pair: pair[1].name)
def test_snapshot_files_compare_as_their_dumps_do(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "before.dlsnap", tmp_path / "after.dlsnap"]
    for side, file in zip(pair, files, strict=True):
        assert run(capsys, "snapshot", side.dump, "-o", file) == (0, "", "")
        assert file.stat().st_size < len(lzma.decompress(side.dump.read_bytes())) / 100
    for by in ("site", "tag", "driver", "size", "kind", "heap"):
        answers = []
        for sides in (files, [files[0], pair[1].dump], [side.dump for side in pair]):
            out = tmp_path / "out.csv"
            assert run(capsys, "diff", *sides, "--by", by, "--format", "csv", "-o", out)[0] == 0
            answers.append(numbers(out))
        assert answers[0] == answers[1] == answers[2], by
        assert answers[0]
    about = run_json(capsys, "info", files[1])
    whole = run_json(capsys, "info", pair[1].dump)
    for name in ("kind", "build", "time", "architecture", "memory_bytes", "full_memory"):
        assert about[name] == whole[name], name
    assert [m["name"] for m in about["modules"]] == [m["name"] for m in whole["modules"]]
    assert [m["name"] for m in about["unloaded_modules"]] == [
        m["name"] for m in whole["unloaded_modules"]
    ]
    text = run(capsys, "info", files[1])[1]
    assert "Threads" not in text
    assert "of pool memory walked" in text
    code, out, err = run(capsys, "stat", files[1], "--by", "stack")
    assert (code, out, len(err.splitlines())) == (3, "", 1)
    assert run(capsys, "diff", files[0], MINIDUMP)[0] == 3


def test_a_snapshot_without_names_names_no_driver(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = (side.dump for side in TINY[0])
    file = tmp_path / "stripped.dlsnap"
    assert run(capsys, "snapshot", before, "-o", file, "--strip-names")[0] == 0
    snapshot = read_snapshot(file, "site")
    assert snapshot is not None
    told = repr([site for site, _ in snapshot.groups.values()]) + repr(snapshot.modules)
    assert ".sys" not in told
    told_json = run_json(capsys, "diff", file, after)
    assert [site["tag"] for site in told_json["sites"][:3]] == [r["tag"] for r in leaking(TINY[0])]
    assert "acme" not in json.dumps(told_json["sites"])


def test_driver_verifier_s_records_go_before_everything() -> None:
    reader = PoolReader(open_dump(TINY[0][1].dump))
    gpu = next(d for d in reader.dump.kernel.drivers if d.name == "acmegpu.sys")
    callers = [gpu.base_address + 0x1010, gpu.base_address + 0x1020, gpu.base_address + 0x1010]
    tags = [tag_number(text) for text in ("AcNb", "AcNb", "AcNb")]
    count = len(tags)
    reader.pools.__dict__["verifier"] = VerifierData(
        level=8,
        counters={},
        drivers=[],
        address=np.arange(count, dtype=np.uint64) << np.uint64(12),
        size=np.array([100, 200, 300], np.int64),
        tag=np.array(tags, np.uint32),
        caller=np.array(callers, np.uint64),
        driver=np.zeros(count, np.int64),
    )
    first, second = reader.owner(tag_number("AcNb")).owners
    assert (first.driver, first.confidence) == ("acmegpu.sys", "proven")
    assert (second.driver, second.confidence) == ("acmenet.sys", "strong")
    said = "; ".join(first.evidence)
    assert "2 blocks, 400 bytes at acmegpu.sys+0x1010" in said
    assert "1 block, 200 bytes at acmegpu.sys+0x1020" in said
    assert reader.owner(tag_number("AcFc")).driver == "acmeflt.sys"


# --- trackers of which a part is not in the dump -------------------------------------------------------


def without_page(source: KernelTruthDump, table: int, page: int, path: Path) -> KernelDump:
    """A dump in which one page of one processor's tracker table is not mapped any more."""
    dump, truth = open_dump(source.dump), source.read_truth()
    assert isinstance(dump, KernelDump)
    address = int(truth["tracker"]["tables"][table], 16) + page * 0x1000
    # Page tables map themselves: the entry of an address stands at a place that follows from it.
    entry = 0xFFFF << 48 | int(truth["selfmap"], 16) << 39 | (address >> 9 & 0x7F_FFFF_FFF8)
    return patched(dump, {entry: bytes(8)}, path)


def _bytes_of(pool: object) -> int:
    return pool["bytes"] if isinstance(pool, dict) else 0


X64 = [pair for pair in TINY if pair[1].build in ("22621-x64", "7601-x64")]


@pytest.mark.parametrize("table", [0, 1])
@pytest.mark.parametrize("pair", X64, ids=lambda pair: pair[1].name)
def test_tags_whose_counters_are_partly_absent_count_by_their_blocks_and_the_others_exactly(
    pair: Pair, table: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "after.dmp"
    without_page(pair[1], table, 2, path)
    told = run_json(capsys, "pool", path)
    truth = pair[1].read_truth()["tags"]
    lost = {row["tag"] for row in told["tags"] if row["source"] == "walk"}
    held = {tag for tag, entry in truth.items() for pool in entry.values() if _bytes_of(pool)}
    account = told["account"]
    unseen = account["absent_bytes"] + account["damaged_bytes"]
    for row in told["tags"]:
        for pool in ("nonpaged", "paged"):
            expected = truth[row["tag"]][pool]
            if row[f"{pool}_allocs"] is None:
                assert row["tag"] in lost
                assert 0 <= expected["bytes"] - row[f"{pool}_bytes"] <= unseen
                continue
            for name in ("allocs", "frees", "bytes"):
                assert row[f"{pool}_{name}"] == expected[name]
    assert lost
    assert held <= {row["tag"] for row in told["tags"]}
    assert account["tags_by_blocks"] >= len(lost)  # some have no block
    assert account["unknown_tags"] == 0
    assert any(
        "partly" in d["message"] or "not in the dump" in d["message"] for d in told["diagnostics"]
    )
    growth = run_json(capsys, "pool", pair[0].dump, path)["tags"]
    known = [row for row in growth if row["delta_bytes"] is not None]
    assert growth[: len(known)] == known
    exact = {row["tag"]: row["delta_bytes"] for row in pair[1].read_pair()["tags"]}
    assert all(
        abs(row["delta_bytes"] - exact[row["tag"]]) <= (unseen if row["source"] == "walk" else 0)
        for row in known
    )


@pytest.mark.parametrize("pair", X64, ids=lambda pair: pair[1].name)
def test_without_trackers_tags_are_ranked_by_the_walk_and_that_is_said(pair: Pair) -> None:
    readers = [PoolReader(open_dump(side.dump)) for side in pair]
    for reader in readers:
        reader.pools.__dict__["trackers"] = TagTotals.nothing("PoolTrackTable was not found")
    sides = [take_pool_snapshot(reader) for reader in readers]
    growth = take_growth(compare(sides[0], sides[1]), Selection())
    assert growth.comparison.reasons == ()
    assert {row.current.tag for row in growth.deltas[:3]} == set(OWNERS)
    first = growth.deltas[0].current
    assert (first.source, first.pools["nonpaged"].allocs, first.pools["nonpaged"].frees) == (
        "walk",
        None,
        None,
    )
    assert growth.current.ranking == "walk"
    assert "trackers are not known" in growth.current.reason
    # One side with trackers and one without: a difference may be what the walk did not see.
    whole = PoolReader(open_dump(pair[0].dump))
    mixed = take_growth(compare(take_pool_snapshot(whole), sides[1]), Selection())
    assert (mixed.comparison.verdict, mixed.deltas) == ("not-comparable", ())
    assert "what the walk did not see" in mixed.comparison.reasons[0]
    snapshot = take_pool_snapshot(readers[1])
    assert snapshot.totals.bytes == readers[1].blocks.total[1]


# --- damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_give_an_answer_or_an_error(seed: int, tmp_path: Path) -> None:
    pair = TINY[seed % len(TINY)]
    base = take_pool_snapshot(PoolReader(open_dump(pair[0].dump)))
    data = open_dump(pair[1].dump).memory.data.copy()
    generator = np.random.default_rng(seed)
    at = generator.integers(0x2000, len(data), 20000)
    data[at] = generator.integers(0, 256, len(at), dtype=np.uint8)
    path = tmp_path / "damaged.dmp"
    path.write_bytes(data.tobytes())
    try:
        current = take_pool_snapshot(PoolReader(open_dump(path)))
    except WindumpsError as error:
        told = str(error)
    else:
        told = str(compare(base, current).verdict)
        assert told in {"growth", "no-growth", "not-comparable"}
    assert "\n" not in told
