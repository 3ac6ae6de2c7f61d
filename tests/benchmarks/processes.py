"""Whole processes, measured by what the system counts for them: processor time, and peak memory where it is told."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DUMPLEAK = (sys.executable, "-m", "dumpleak")
MEGABYTE = 1_000_000


class Cost(NamedTuple):
    """What a process took.

    Attributes:
        seconds: Processor time; where the system does not tell, time by the clock.
        peak: Most memory it ever had, in bytes; 0 where the system does not tell.
        code: Its exit code.
    """

    seconds: float
    peak: int
    code: int


def environment() -> dict[str, str]:
    """Of a process that runs this checkout, whatever is installed."""
    paths = os.pathsep.join((str(ROOT / "parsers"), str(ROOT)))
    return {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}


def cost_of(line: Sequence[str], output: int | None = subprocess.DEVNULL) -> Cost:
    """Runs a command to its end; `output` is where its output goes."""
    begin = time.perf_counter()
    # A child's peak counts what its parent had when it was started, so this process has to stay small.
    process = subprocess.Popen(line, stdout=output, stderr=subprocess.DEVNULL, env=environment())
    if not hasattr(os, "wait4"):  # Windows
        return Cost(0.0, 0, process.wait())._replace(seconds=time.perf_counter() - begin)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss * unit, process.returncode)


def medians(lines: Mapping[str, Sequence[str]], rounds: int) -> dict[str, Cost]:
    """Runs all commands in turn, round by round, so that load on the machine meets all of them."""
    runs: dict[str, list[Cost]] = {name: [] for name in lines}
    for _ in range(rounds):
        for name, line in lines.items():
            runs[name].append(cost_of(line))
    return {name: median_of(costs) for name, costs in runs.items()}


def median_of(costs: Sequence[Cost]) -> Cost:
    """The medians of some runs, and the worst of their exit codes."""
    seconds = statistics.median(cost.seconds for cost in costs)
    peak = int(statistics.median(cost.peak for cost in costs))
    return Cost(seconds, peak, max((cost.code for cost in costs), key=abs))


def show(name: str, cost: Cost, more: str = "") -> None:
    """Prints a row."""
    peak = f"{cost.peak / MEGABYTE:7.0f} MB" if cost.peak else "   unknown"
    failed = f"  exit code {cost.code}" if cost.code else ""
    print(f"{name:34} {cost.seconds:8.2f} s {peak}{more}{failed}", flush=True)
