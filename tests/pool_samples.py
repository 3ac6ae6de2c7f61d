"""Kernel dumps with known pools, and the command line run on them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kernel_truth import KernelTruthDump, kernel_dumps, kernel_pairs

from dumpleak.cli import main

OWNERS = {"AcNb": "acmenet.sys", "AcFc": "acmeflt.sys", "AcGb": "acmegpu.sys"}
COUNTERS = ("allocs", "frees", "bytes")

Pair = tuple[KernelTruthDump, KernelTruthDump]


def pairs_of(*scenarios: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "pair", kernel_pairs(*scenarios), ids=lambda pair: pair[1].name.rpartition("/")[0]
    )


def dumps_of(*scenarios: str, which: str = "after") -> pytest.MarkDecorator:
    found = [d for d in kernel_dumps(*scenarios) if d.dump.name.startswith(which)]
    return pytest.mark.parametrize("source", found, ids=lambda source: source.name)


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def run_json(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    code, out, err = run(capsys, *args, "--format", "json")
    assert (code, err) == (0, "")
    return dict(json.loads(out))


def leaking(pair: Pair) -> list[dict[str, Any]]:
    """The planted tags, the largest growth first."""
    rows = [row for row in pair[1].read_pair()["tags"] if row["tag"] in OWNERS]
    assert len(rows) == len(OWNERS)
    return sorted(rows, key=lambda row: -row["delta_bytes"])


def all_blocks(source: KernelTruthDump) -> tuple[dict[int, tuple[str, int]], set[int]]:
    """(tag and bytes by the address callers got, addresses on pages that are not in the dump)."""
    truth = source.read_truth()
    rows = [row for name in ("small_blocks", "big_allocations") for row in truth[name]]
    blocks = {int(row["user"], 16): (row["tag"], row["charged"]) for row in rows}
    return blocks, {int(row["user"], 16) for row in rows if row.get("absent")}
