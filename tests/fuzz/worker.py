"""Tries cases in a process of its own, with limits on time and memory; `fuzz.py` starts it.

    python tests/fuzz/worker.py '{"run": 1, "limit_s": 10, "limit_bytes": 1073741824, "slices": [...]}'

Each slice is `[kind, first case, seconds, least number of cases]`. A line of JSON goes out before each case
and after it, so that whoever reads them knows which case ended the process.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.cases import Finding, case_of, outcome
from fuzz.kinds import all_kinds

Tell = Callable[[dict[str, Any]], None]


def address_space() -> int:
    """Bytes of address space this process has now."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    return pages * resource.getpagesize()


def limit_memory(more: int) -> None:
    """From now on this process may take so much more than it has."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + more, hard))


def lift_limit() -> None:
    """The making of a seed is not limited."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def work(plan: dict[str, Any], folder: Path, tell: Tell) -> None:
    """Tries the slices of a plan."""
    kinds = all_kinds(folder)
    for kind, first, seconds, least in plan["slices"]:
        tell({"kind": kind, "n": -1})
        end = time.monotonic() + seconds
        lift_limit()
        seed = kinds[kind]()
        limit_memory(plan["limit_bytes"])
        number = first
        while number < first + least or time.monotonic() < end:
            tell({"kind": kind, "n": number})
            data, dice = case_of(seed, kind, plan["run"], number)
            started = time.process_time()
            found = outcome(seed, data, dice, plan["limit_s"])
            took = time.process_time() - started
            row = {"kind": kind, "n": number, "s": round(took, 3)}
            if isinstance(found, Finding):
                tell(row | {"finding": {**asdict(found), "key": found.key}})
            else:
                tell(row | {"outcome": found})
            number += 1
        del seed


def main() -> None:
    """Reads the plan from the command line."""
    # Only these lines go to standard output: what commands print is caught, and C libraries are quiet.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as output:

        def tell(row: dict[str, Any]) -> None:
            output.write(json.dumps(row) + "\n")
            output.flush()

        with tempfile.TemporaryDirectory() as folder:
            tempfile.tempdir = folder
            work(json.loads(sys.argv[1]), Path(folder), tell)


if __name__ == "__main__":
    main()
