"""How well workers share the work of a fleet, and what the process that leads them needs.

    python tests/benchmarks/bench_fleet.py [DUMPS] [FEW] [MANY]

DUMPS (96) inputs that take processor time are read by one worker and by two: the ratio of the times, the
start of the workers among them, nears 2 on two cores that nobody else uses. FEW (500) and MANY (4000) small
inputs are read by two workers: printed is the peak memory of the process that leads them, and how long an
input keeps a worker beside its own processor time.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / "parsers"), str(TESTS.parent), str(TESTS)]

from fleet_inputs import dump, log  # noqa: E402
from pyarrow import compute, parquet  # noqa: E402
from truth import TESTDATA  # noqa: E402

LARGE = TESTDATA / "10.0.22621.4541-x64" / "series-ust" / "dump5.dmp.gz"
RUN = """
import dumpleak, json, resource, sys, time
if __name__ == "__main__":
    started = time.perf_counter()
    dumpleak.fleet(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]))
    seconds = time.perf_counter() - started
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10]))
"""


def measured(inputs: Path, workers: int) -> tuple[float, int, float]:
    """Seconds by the clock, peak MiB of the leading process, and processor seconds of all inputs."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "run.py")
        script.write_text(RUN)
        out = Path(folder, "fleet")
        line = [sys.executable, str(script), str(inputs), str(out), str(workers)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path[:2])}
        ran = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
        seconds, mebibytes = json.loads(ran.stdout)
        spent = compute.sum(parquet.read_table(out / "dumps.parquet")["seconds"]).as_py()
        return seconds, mebibytes, spent


def sharing(folder: Path, count: int) -> None:
    """Prints how much faster two workers are than one."""
    many = folder / "large"
    many.mkdir()
    content = gzip.decompress(LARGE.read_bytes())
    for number in range(count):
        (many / f"{number}.dmp.gz").write_bytes(gzip.compress(content, 1, mtime=number))
    taken = {workers: measured(many, workers)[0] for workers in (1, 2)}
    print(
        f"{count} dumps: one worker {taken[1]:.1f} s, two {taken[2]:.1f} s: "
        f"{taken[1] / taken[2]:.2f} times as fast"
    )


def leading(folder: Path, count: int) -> None:
    """Prints the peak memory of the leading process."""
    many = folder / str(count)
    many.mkdir()
    for number in range(count):
        is_dump = number % 10 == 0
        name = f"{number}.dmp.gz" if is_dump else f"{number}.log"
        (many / name).write_bytes(dump(number) if is_dump else log(number))
    seconds, mebibytes, spent = measured(many, 2)
    beside = 1000 * (2 * seconds - spent) / count
    print(
        f"{count} small inputs: {mebibytes} MiB in the leading process; {seconds:.1f} s; an input keeps a "
        f"worker {beside:.0f} ms besides its own {1000 * spent / count:.0f} ms"
    )


def main() -> None:
    """Prints all."""
    given = [int(word) for word in sys.argv[1:]]
    dumps, few, many = given + [96, 500, 4000][len(given) :]
    with tempfile.TemporaryDirectory() as folder:
        sharing(Path(folder), dumps)
        leading(Path(folder), few)
        leading(Path(folder), many)


if __name__ == "__main__":
    main()
