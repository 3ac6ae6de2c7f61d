"""All benchmarks, one after the other; each prints its rows.

    python tests/benchmarks/run.py DUMP [--later DUMP2] [--rival 'COMMAND with {dump}'] [--rounds N]
        [--only NAMES] [--large]

DUMP is an uncompressed minidump with full memory, DUMP2 one of the same process taken later; both may be
dumps of a kernel, which other benchmarks are for. COMMAND lists the blocks of a dump as another tool
does. NAMES are separated by commas: whole, walk, segment, attribution, retained, growth, compare, clr,
kernel, pool, pool_dump, fleet. What cannot be run is said, and the others go on. Compare the ratios
within a run, not the seconds: machines differ.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime

from bench_whole import is_kernel
from processes import HERE, environment

NEEDS_PROCESS = ("walk", "segment", "attribution", "retained")
NEEDS_KERNEL = ("pool",)


def plan(given: argparse.Namespace) -> dict[str, list[str]]:
    """The arguments of each benchmark, in the order they are run."""
    dump, rounds = given.dump, str(given.rounds)
    later = ["--later", given.later] if given.later else []
    rival = ["--rival", given.rival] if given.rival else []
    return {
        "whole": [dump, *later, *rival, "--rounds", rounds],
        "walk": [dump, rounds],
        "segment": [dump, rounds],
        "attribution": [dump, rounds],
        "retained": [dump, rounds],
        "growth": ["--large"] * given.large,
        "compare": [] if given.large else ["1000000"],
        "clr": [] if given.large else ["1000000"],
        "kernel": ["8" if given.large else "2", rounds],
        "pool": [dump, given.later or dump, rounds],
        "pool_dump": [dump] * is_kernel(dump),
        "fleet": [] if given.large else ["8", "100", "400"],
    }


def why_not(name: str, dump: str) -> str:
    """Why a benchmark cannot be run on a dump; "" where it can."""
    if name in NEEDS_PROCESS and is_kernel(dump):
        return "it needs a dump of a process"
    if name in NEEDS_KERNEL and not is_kernel(dump):
        return "it needs a dump of a kernel"
    return ""


def main() -> None:
    """Runs what was asked for; ends with 1 where one of them failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dump")
    parser.add_argument("--later")
    parser.add_argument("--rival")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--large", action="store_true")
    given = parser.parse_args()
    every = plan(given)
    wanted = given.only.split(",") if given.only else list(every)
    if unknown := [name for name in wanted if name not in every]:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(every)}")
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    where = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{load}"
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {where}, Python {platform.python_version()}")
    failed = []
    for name in wanted:
        reason = why_not(name, given.dump)
        print(f"\n== {name}" + f": left out, {reason}" * bool(reason), flush=True)
        line = [sys.executable, str(HERE / f"bench_{name}.py"), *every[name]]
        if not reason and subprocess.run(line, env=environment()).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
