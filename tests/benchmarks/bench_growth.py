"""How what `stat` and `diff` take grows with the number of blocks, of heaps, and of dumps in a series.

    python tests/benchmarks/bench_growth.py [--large] [--only blocks|heaps|dumps]

The dumps are made (`builders/grown_process.py`), in a temporary folder. 0.1, 1 and 10 million blocks in heaps of a
million at most, with --large also 40 million (dumps of 4 GB each); 1, 100 and 2,000 heaps of 1,000 blocks; 2, 10
and 100 snapshots of 20,000 blocks in a trend. Printed are processor time and peak memory of whole commands, once
each, and what a million blocks (a heap, a dump) more takes than the step before: that has to stay the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from processes import DUMPLEAK, MEGABYTE, Cost, cost_of, show

TESTS = Path(__file__).resolve().parents[1]

MILLION = 1_000_000
BLOCKS, LARGE = (100_000, MILLION, 10 * MILLION), 40 * MILLION
HEAPS = (1, 100, 2000)
IN_EACH = 1000
DUMPS = (2, 10, 100)
IN_TREND = 20_000
GROWTH = 1.05  # blocks of a later dump, to those of the first
MAKE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from builders.grown_process import write_grown
write_grown(Path(sys.argv[2]), *map(int, sys.argv[3:]))
"""


def make(path: Path, heaps: int, blocks: int, hours: int = 0) -> None:
    """Writes a dump, in a process of its own: this one has to stay small."""
    numbers = map(str, (heaps, blocks, hours))
    line = [sys.executable, "-c", MAKE, str(TESTS), str(path), *numbers]
    if cost_of(line).code:
        raise SystemExit(f"{path} could not be made")


class Growth:
    """Prints the rows of one command, with what grew between them."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._before: dict[str, tuple[float, Cost]] = {}

    def add(self, command: str, label: str, amount: float, *words: str) -> None:
        """Runs a command on an input with so many units."""
        cost = cost_of([*DUMPLEAK, *words])
        more = ""
        if command in self._before:
            had, before = self._before[command]
            step = amount - had
            seconds = (cost.seconds - before.seconds) / step
            peak = (cost.peak - before.peak) / step / MEGABYTE
            more = f"   {seconds * 1000:9.1f} ms, {peak:8.2f} MB a {self._unit} more"
        self._before[command] = amount, cost
        show(f"{command}, {label}", cost, more)


def by_blocks(folder: Path, counts: tuple[int, ...]) -> None:
    """More blocks, in heaps of a million."""
    growth = Growth("million blocks")
    for count in counts:
        heaps, each = max(count // MILLION, 1), min(count, MILLION)
        files = [folder / "1.dmp", folder / "2.dmp"]
        make(files[0], heaps, each)
        label, amount = f"{count / MILLION:g} million blocks", count / MILLION
        size = files[0].stat().st_size / MEGABYTE
        print(f"{label}: a file of {size:,.0f} MB", flush=True)
        for words in (("stat", "--by", "heap"), ("stat", "--no-holders"), ("stat",), ("leaks",)):
            growth.add(" ".join(words), label, amount, words[0], str(files[0]), *words[1:])
        make(files[1], heaps, int(each * GROWTH), 1)
        growth.add("diff", label, amount, "diff", *map(str, files))


def by_heaps(folder: Path) -> None:
    """More heaps of the same size."""
    growth = Growth("heap")
    for count in HEAPS:
        file = folder / "heaps.dmp"
        make(file, count, IN_EACH)
        for words in (("heaps",), ("stat", "--no-holders"), ("stat",)):
            growth.add(" ".join(words), f"{count} heaps", count, words[0], str(file), *words[1:])


def by_dumps(folder: Path) -> None:
    """More snapshots in a trend; each is made of a dump once."""
    growth, files = Growth("dump"), []
    for hour in range(max(DUMPS)):
        make(folder / "trend.dmp", 1, IN_TREND + 200 * hour, hour)
        files.append(folder / f"{hour:03}.dlsnap")
        line = [*DUMPLEAK, "snapshot", str(folder / "trend.dmp"), "-o", str(files[-1])]
        if cost_of(line).code:
            raise SystemExit(f"no snapshot: {' '.join(line)}")
    for count in DUMPS:
        growth.add("trend", f"{count} snapshots", count, "trend", *map(str, files[:count]))


def main() -> None:
    """Makes the dumps and prints a row for each command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--only", choices=("blocks", "heaps", "dumps"))
    given = parser.parse_args()
    counts = (*BLOCKS, LARGE) if given.large else BLOCKS
    kinds: dict[str, Callable[[Path], None]] = {
        "blocks": lambda folder: by_blocks(folder, counts),
        "heaps": by_heaps,
        "dumps": by_dumps,
    }
    for name, measure in kinds.items():
        if given.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                measure(Path(folder))


if __name__ == "__main__":
    main()
