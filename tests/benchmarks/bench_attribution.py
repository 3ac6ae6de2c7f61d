"""How long it takes to give all used blocks of a dump their sites, beside the walk that finds them; and
who holds those of 20 sites, which reads all memory once more.

    python tests/benchmarks/bench_attribution.py DUMP [ROUNDS]

DUMP is an uncompressed minidump with full memory. Each round opens the dump in a fresh process.
Printed are medians of processor time; compare the ratios, not the seconds: machines differ.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any

from dumpleak.attribution import SiteFinder
from dumpleak.attribution.shape import ShapeAttributor
from dumpleak.attribution.table import SiteTable
from dumpleak.attribution.type import TypeAttributor
from dumpleak.pointers.holders import HolderFinder
from dumpleak.pointers.references import BlockIndexBuilder
from dumpleak.process.session import Session


def _child(path: str) -> None:
    session = Session.open(path)
    finder = SiteFinder(session)
    alone = {
        "types alone": TypeAttributor(session, SiteTable()),
        "shapes alone": ShapeAttributor(session, SiteTable()),
    }
    steps: dict[str, Any] = {"all sites": finder, **alone}
    seconds = dict.fromkeys(("walk", *steps), 0.0)
    blocks = 0
    builder = BlockIndexBuilder()
    started = time.process_time()
    for source, piece in session.blocks():
        used = piece.used
        seconds["walk"] += time.process_time() - started
        blocks += len(used)
        for name, step in steps.items():
            started = time.process_time()
            sites = step.assign(source, used)
            seconds[name] += time.process_time() - started
            if step is finder:
                builder.add(used, sites, source.view.pointer_size)
        started = time.process_time()
    started = time.process_time()
    find = HolderFinder(session, builder.build(), finder.table.sites)
    find({site.key for site in finder.table.sites[:20]})
    seconds["holders"] = time.process_time() - started
    print(json.dumps({"blocks": blocks, "sites": len(finder.table.sites), "seconds": seconds}))


def main() -> None:
    """Runs the rounds and prints medians."""
    if len(sys.argv) == 3 and sys.argv[1] == "--child":
        _child(sys.argv[2])
        return
    path = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    runs = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, __file__, "--child", path], capture_output=True, text=True, check=True
        )
        runs.append(json.loads(done.stdout))
    blocks = runs[0]["blocks"]
    print(f"{blocks} used blocks, {runs[0]['sites']} sites")
    walk = statistics.median(run["seconds"]["walk"] for run in runs)
    for name in runs[0]["seconds"]:
        seconds = statistics.median(run["seconds"][name] for run in runs)
        line = f"{name:12} {seconds * 1e3:8.1f} ms {blocks / seconds / 1e6:6.2f} M blocks/s"
        print(f"{line}  {seconds / walk:.2f} x walk")


if __name__ == "__main__":
    main()
