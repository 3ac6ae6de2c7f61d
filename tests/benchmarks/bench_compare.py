"""How long two snapshots of ten million blocks and 10,000 sites take to compare, and how large they are.

    python tests/benchmarks/bench_compare.py [BLOCKS [SITES [ROUNDS]]]

The snapshots are made up: sites of very different sizes, four block sizes each; from the first to the second
one in ten blocks is freed and as many new ones appear. Each comparison runs in a fresh process, which
prints its time and the most memory it ever had.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dumpleak.compare.diff import compare
from dumpleak.files.detect import read_snapshot
from dumpleak.files.metadata import Metadata
from dumpleak.model.coverage import Coverage
from dumpleak.model.group_sums import GroupSums
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.survey.recording import write_columns
from windumps.blocks import Kind

HEAP = 0x1D2C0F00000


def _blocks(random: np.random.Generator, count: int, sites: int) -> dict[str, np.ndarray[Any, Any]]:
    weights = 1 / np.arange(1, sites + 1) ** 0.8
    site = random.choice(sites, count, p=weights / weights.sum()).astype(np.int32)
    sizes = np.minimum(np.exp(np.random.default_rng(1).normal(4.5, 1.2, (sites, 4))), 1 << 20) + 1
    size = sizes.astype(np.int64)[site, random.integers(0, 4, count)]
    block_bytes = (size + 31) // 16 * 16
    gaps = (random.random(count) < 0.2) * random.integers(1, 64, count) * 16
    address = HEAP + np.cumsum(block_bytes + gaps)
    shapes = np.random.default_rng(2).integers(0, 65536, sites) * (np.arange(sites) % 5 < 2)
    return {
        "address": address.astype(np.uint64),
        "size": size,
        "block_bytes": block_bytes,
        "kind": np.where(size < 16384, Kind.NT_LFH, Kind.NT_BACKEND).astype(np.uint8),
        "heap": np.zeros(count, np.uint16),
        "site": site,
        "detail": (random.random(count) < 0.05).astype(np.int32),
        "shape": shapes.astype(np.uint16)[site],
    }


def _metadata(columns: dict[str, np.ndarray[Any, Any]], sites: int, hour: int) -> Metadata:
    sums = GroupSums()
    sums.add(columns["site"].astype(np.int64), columns["size"], columns["block_bytes"])
    sums.add(np.arange(sites), np.zeros(sites, np.int64), np.zeros(sites, np.int64))
    counts = np.bincount(columns["site"], minlength=sites)
    groups = {}
    for number in range(sites):
        frames = tuple(
            f"app.exe!Module{number % 97}::call{(number * k) % 4999}+0x41" for k in range(1, 17)
        )
        site = Site(SiteKind.STACK, f"stack|{number:032x}", frames[0], frames=frames)
        totals = sums.totals(number)
        groups[site.key] = (
            site,
            type(totals)(int(counts[number]), totals.bytes, totals.block_bytes, totals.largest),
        )
    total = type(totals)(
        len(columns["size"]), int(columns["size"].sum()), int(columns["block_bytes"].sum()), 1 << 20
    )
    when = datetime(2026, 1, 1, hour, tzinfo=UTC)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    source = SourceInfo(
        "",
        "minidump",
        "Windows 10.0.22631 x64",
        "x64",
        22631,
        when,
        4711,
        "app.exe",
        start,
        1 << 46,
    )
    return Metadata(
        Snapshot(
            source,
            "site",
            groups,
            total,
            {},
            [HeapRow("heap 1", HEAP, "nt", "x64", "")],
            Coverage(1 << 30, 1 << 30, 1 << 30, 1, 1),
        ),
        classes={"site": np.repeat(np.arange(sites), 2).tolist()},
        block_count=len(columns["address"]),
    )


def _make(folder: Path, blocks: int, sites: int) -> None:
    random = np.random.default_rng(3)
    before = _blocks(random, blocks, sites)
    stay = random.random(blocks) < 0.9
    fresh = _blocks(random, int((~stay).sum()), sites)
    fresh["address"] += before["address"][-1] - np.uint64(HEAP) + np.uint64(1 << 16)
    after = {name: np.concatenate((before[name][stay], fresh[name])) for name in before}
    for name, columns, hour in (("before", before, 1), ("after", after, 2)):
        file = folder / f"{name}.dlsnap"
        write_columns(file, _metadata(columns, sites, hour), columns)
        print(f"{name}: {file.stat().st_size / 1e6:.1f} MB")


def _child(base: str, current: str) -> None:
    started = time.process_time()
    snapshots = [read_snapshot(Path(file), "site") for file in (base, current)]
    if snapshots[0] is None or snapshots[1] is None:
        raise SystemExit("no snapshots")
    comparison = compare(snapshots[0], snapshots[1])
    if comparison.survivors is None:
        raise SystemExit("no survivors")
    print(
        json.dumps(
            {
                "seconds": time.process_time() - started,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "sites": len(comparison.sites),
                "kept": comparison.survivors.total.kept,
            }
        )
    )


def main() -> None:
    """Makes the snapshots and prints medians."""
    if sys.argv[1:2] == ["--child"]:
        _child(*sys.argv[2:4])
        return
    if sys.argv[1:2] == ["--make"]:
        _make(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
        return
    given = [int(text) for text in sys.argv[1:4]]
    blocks, sites, rounds = (*given, *(10_000_000, 10_000, 3)[len(given) :])
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: a child's peak counts what its parent had when it was started.
        line = [sys.executable, __file__, "--make", folder, str(blocks), str(sites)]
        subprocess.run(line, check=True)
        files = [Path(folder) / "before.dlsnap", Path(folder) / "after.dlsnap"]
        runs = []
        for _ in range(rounds):
            line = [sys.executable, __file__, "--child", *map(str, files)]
            done = subprocess.run(line, capture_output=True, text=True, check=True)
            runs.append(json.loads(done.stdout))
    for name in ("seconds", "peak_mb"):
        print(f"{name}: {statistics.median(run[name] for run in runs):.2f}")
    print(f"{runs[0]['sites']} sites changed, {runs[0]['kept']} blocks are still there")


if __name__ == "__main__":
    main()
