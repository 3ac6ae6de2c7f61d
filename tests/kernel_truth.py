"""Finds kernel dumps with known truth and reads what must come out of them.

`testdata/kernel/` is in the repository. Where the shared collection lies beside the checkout, its
dumps are used too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from truth import SHARED, TESTDATA, load_json

REAL_KERNEL = SHARED / "real" / "kernel"


@dataclass(frozen=True)
class KernelTruthDump:
    """One kernel dump and its truth file."""

    dump: Path

    @property
    def build(self) -> str:
        """The build and the architecture: "22621-x64"."""
        return self.dump.parent.parent.name

    @property
    def scenario(self) -> str:
        return self.dump.parent.name

    @property
    def name(self) -> str:
        return f"{self.build}/{self.scenario}/{self.dump.name.split('.')[0]}"

    @property
    def is_truncated(self) -> bool:
        return self.scenario == "truncated"

    def read_truth(self) -> dict[str, Any]:
        return load_json(self.dump.with_name(self.dump.name.replace(".dmp.", ".truth.json.")))

    def read_pair(self) -> dict[str, Any]:
        return load_json(self.dump.with_name("pair.json.xz"))


@lru_cache(maxsize=1)
def _all() -> tuple[KernelTruthDump, ...]:
    found: dict[str, KernelTruthDump] = {}
    for root in (TESTDATA / "kernel", SHARED / "kernel"):
        for path in sorted(root.glob("*/*/*.dmp.xz")):
            dump = KernelTruthDump(path)
            found.setdefault(dump.name, dump)
    return tuple(found.values())


def kernel_dumps(*scenarios: str) -> list[KernelTruthDump]:
    """All dumps of the scenarios (all scenarios when none is given)."""
    return [dump for dump in _all() if not scenarios or dump.scenario in scenarios]


def genuine_kernel_dumps() -> list[KernelTruthDump]:
    """Dumps whose pools were laid out by genuine kernels."""
    found: dict[str, KernelTruthDump] = {}
    for root in (TESTDATA / "kernel-genuine", SHARED / "kernel-genuine"):
        for path in sorted(root.glob("*/*/*.dmp.xz")):
            dump = KernelTruthDump(path)
            found.setdefault(dump.name, dump)
    return list(found.values())


def kernel_pairs(*scenarios: str) -> list[tuple[KernelTruthDump, KernelTruthDump]]:
    """(before, after) of every pair."""
    return [
        (KernelTruthDump(dump.dump.with_name("before.dmp.xz")), dump)
        for dump in kernel_dumps(*scenarios)
        if dump.dump.name.startswith("after.")
    ]
