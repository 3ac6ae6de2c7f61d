"""Finds dumps with known truth and reads what must come out of them.

`testdata/` is in the repository. Where the shared collection lies beside the checkout, its dumps
are used too.
"""

from __future__ import annotations

import gzip
import json
import lzma
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TESTDATA = ROOT / "testdata"
SHARED = ROOT.parent / "shared" / "dumps"
REAL = SHARED / "real"


@dataclass(frozen=True)
class TruthDump:
    """One dump and its truth file."""

    dump: Path
    truth: Path

    @property
    def scenario(self) -> str:
        return self.dump.parent.name

    @property
    def build(self) -> str:
        return self.dump.parent.parent.name

    @property
    def name(self) -> str:
        return f"{self.build}/{self.scenario}/{self.dump.name.split('.')[0]}"

    def read_truth(self) -> Truth:
        return Truth(load_json(self.truth))


class Truth:
    """The contents of a truth file."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        columns = raw["alloc_columns"]
        address, size = columns.index("address"), columns.index("requested_size")
        heap = columns.index("heap_index")
        self.sizes = {row[address]: row[size] for row in raw["allocations"]}
        self.heap_of = {row[address]: row[heap] for row in raw["allocations"]}
        self.freed = {row[0] for row in raw["freed"]}

    @property
    def heaps(self) -> list[dict[str, Any]]:
        return list(self.raw["heaps"])

    def used_blocks(self, heap: int) -> dict[int, int]:
        """Address → requested size of every used block of the heap at an address.

        They are the busy entries of the genuine walk; requested sizes where the program made the
        block.
        """
        return {
            row[0]: self.sizes.get(row[0], row[1])
            for row in self.raw["walks"][str(heap)]
            if row[2] & 1
        }


@lru_cache(maxsize=4)
def load_json(path: Path) -> dict[str, Any]:
    opener = {".gz": gzip.open, ".xz": lzma.open}[path.suffix]
    with opener(path) as file:
        return dict(json.load(file))


def truth_dumps(*scenarios: str) -> list[TruthDump]:
    """All dumps of the scenarios (a trailing `*` matches any ending), in testdata and beside the
    checkout."""
    found = []
    for root in (TESTDATA, SHARED / "user"):
        for truth in sorted(root.glob("*/*/truth*.json.*")):
            scenario = truth.parent.name
            if not any(
                scenario.startswith(s[:-1]) if s.endswith("*") else scenario == s for s in scenarios
            ):
                continue
            stem = truth.name.split(".")[0].removeprefix("truth").lstrip("-") or "dump"
            dump = truth.parent / f"{stem}.dmp{truth.suffix}"
            if dump.exists():
                found.append(TruthDump(dump, truth))
    return found


def pairs(*scenarios: str) -> list[tuple[TruthDump, TruthDump]]:
    """(before, after) of every pair."""
    dumps = {(d.dump.parent, d.dump.name.split(".")[0]): d for d in truth_dumps(*scenarios)}
    return [
        (dumps[folder, "before"], after)
        for (folder, stem), after in dumps.items()
        if stem == "after" and (folder, "before") in dumps
    ]
