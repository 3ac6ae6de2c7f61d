"""How much time and memory this version takes for the work of the other benchmarks, beside another version.

    python tests/benchmarks/bench_against.py OTHER DUMP [ROUNDS [WORK]]

OTHER is a checkout of the other version; DUMP an uncompressed minidump with full memory; WORK the first
letters of the work to do. Each version runs in a process of its own, which does each work when it is told:
the two in turn, so load on the machine meets both. The heaps and pools walked are made by the builders of
this version. Printed are the ratios, this version to the other, of the medians and minima of processor time
(the first round left out), and of the peak memory of `dumpleak stat`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
THIS = HERE.parents[1]
WORK = (
    "open and walk all heaps",
    "NT heaps",
    "segment heap, VS chunks",
    "segment heap, LFH blocks",
    "all sites",
    "pages with pool header chains",
    "segment heap of the pool",
)


@cache
def _bench(name: str) -> ModuleType:
    """A benchmark of this version, over whichever version is imported already."""
    sys.path.insert(0, str(HERE))
    return __import__(name)


def _all_heaps(path: str) -> None:
    from dumpleak.process.session import Session

    for _ in Session.open(path).blocks():
        pass


def _drain(walk: Iterator[object]) -> None:
    for _ in walk:
        pass


def _sites(path: str) -> float:
    """Seconds of the sites alone, without the walk between them."""
    from dumpleak.attribution import SiteFinder
    from dumpleak.process.session import Session

    session, seconds = Session.open(path), 0.0
    finder = SiteFinder(session)
    for source, piece in session.blocks():
        used = piece.used
        started = time.process_time()
        finder.assign(source, used)
        seconds += time.process_time() - started
    return seconds


def _work(name: str, path: str) -> Callable[[], float | None]:
    """What to time: returns the seconds where not all of it counts."""
    if name == "open and walk all heaps":
        return lambda: _all_heaps(path)
    if name == "all sites":
        return lambda: _sites(path)
    if name == "NT heaps":
        return lambda: _drain(_bench("bench_segment")._nt_walk(path))
    if name.startswith("segment heap, "):
        segment = _bench("bench_segment")
        heap = segment.vs_heap() if "VS" in name else segment.lfh_heap()
        return lambda: _drain(segment._segment_walk(heap))
    pool = _bench("bench_pool")
    if name == "segment heap of the pool":
        kernel = pool.heap_pool()
        return lambda: pool.walk_heap(kernel) and None
    kernel = pool.page_pool()
    return lambda: pool.walk_pages(kernel) and None


def _child(checkout: str, path: str) -> None:
    """Does each work whose name is read, once a line."""
    sys.path[:0] = [f"{checkout}/parsers", checkout]
    import dumpleak
    import windumps

    if any(Path(checkout) not in Path(str(m.__file__)).parents for m in (dumpleak, windumps)):
        raise SystemExit(f"not of {checkout}: {dumpleak.__file__}, {windumps.__file__}")
    name, work = "", None
    for line in sys.stdin:
        if work is None or line.strip() != name:
            name = line.strip()
            work = _work(name, path)
        started = time.process_time()
        seconds = work()
        print(seconds if seconds is not None else time.process_time() - started, flush=True)


def _peak(checkout: Path, path: str) -> int:
    """Peak memory of the command in bytes."""
    paths = f"{checkout / 'parsers'}{os.pathsep}{checkout}"
    line = [sys.executable, "-m", "dumpleak", "stat", path, "--no-holders"]
    process = subprocess.Popen(
        line, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": paths}, cwd=checkout
    )
    return os.wait4(process.pid, 0)[2].ru_maxrss * 1024


def _show(name: str, now: list[float], then: list[float]) -> None:
    ratios = [statistics.median(now) / statistics.median(then), min(now) / min(then)]
    times = f"{statistics.median(now) * 1e3:8.1f} ms to {statistics.median(then) * 1e3:8.1f} ms"
    print(f"{name:30} {times}: medians {ratios[0]:.2f}, minima {ratios[1]:.2f}", flush=True)


def main() -> None:
    """Runs the rounds and prints the ratios."""
    if sys.argv[1] == "--child":
        _child(*sys.argv[2:4])
        return
    other, path = Path(sys.argv[1]).resolve(), str(Path(sys.argv[2]).resolve())
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 9
    wanted = sys.argv[4] if len(sys.argv) > 4 else ""
    versions = [
        subprocess.Popen(
            [sys.executable, __file__, "--child", str(checkout), path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for checkout in (THIS, other)
    ]
    for name in WORK:
        if not name.startswith(wanted):
            continue
        seconds: list[list[float]] = [[], []]
        for _ in range(rounds + 1):
            for version, times in zip(versions, seconds, strict=True):
                assert version.stdin is not None
                assert version.stdout is not None
                print(name, file=version.stdin, flush=True)
                times.append(float(version.stdout.readline()))
        _show(name, *(times[1:] for times in seconds))
    for version in versions:
        version.communicate()
    if "peak memory".startswith(wanted):
        peaks = [
            statistics.median(_peak(checkout, path) for _ in range(5)) for checkout in (THIS, other)
        ]
        print(f"{'peak memory of stat':30} {peaks[0] / 1e6:8.1f} MB to {peaks[1] / 1e6:8.1f} MB")


if __name__ == "__main__":
    main()
