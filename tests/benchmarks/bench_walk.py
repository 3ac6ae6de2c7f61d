"""How fast a dump's heaps are walked, beside two other readers of the same bytes in the same run.

    python tests/benchmarks/bench_walk.py DUMP [ROUNDS]

DUMP is an uncompressed minidump with full memory. Printed are medians; compare the ratios, not the seconds:
machines differ. Memory is that of a fresh process, less what imports alone take.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dumpleak.model.account_rows import account_of
from dumpleak.process.account import outside_figures
from dumpleak.process.private_memory import private_memory
from dumpleak.process.session import Session
from dumpleak.survey.heaps import heap_rows
from dumpleak.survey.info import process_snapshot


def _heap_ranges(session: Session) -> list[tuple[int, int]]:
    """(address, size) of heap memory in the dump; complete after a walk."""
    found = []
    for source in session.readable_heaps:
        heap = source.entry.heap
        for start, size in heap.account.ranges if heap else ():
            pieces = source.view.memory.extents(start, start + size)
            found += list(zip(pieces.address.tolist(), pieces.size.tolist(), strict=True))
    return found


def walk(path: str) -> dict[str, Any]:
    """Our walk; blocks by kind, since kinds differ in speed."""
    session = Session.open(path)
    counts: dict[str, int] = {}
    for source, blocks in session.blocks():
        counts[source.entry.kind] = counts.get(source.entry.kind, 0) + len(blocks)
    return {"blocks": counts, "bytes": sum(size for _, size in _heap_ranges(session))}


def numpy_pass(path: str) -> dict[str, Any]:
    """The plainest possible use of the same bytes: one sum over them as 64-bit words."""
    session = Session.open(path)
    for _ in session.blocks():
        pass
    memory = session.dump.memory
    ranges = _heap_ranges(session)
    started = time.process_time()
    total = 0
    for address, size in ranges:
        view = memory.view(address, size // 8 * 8).view("<u8")
        total += int(np.bitwise_xor.reduce(view))
        session.dump.release()
    return {"bytes": sum(size for _, size in ranges), "seconds": time.process_time() - started}


def minidump_read(path: str) -> dict[str, Any]:
    """The `minidump` package reading the same memory into Python bytes."""
    from minidump.minidumpfile import MinidumpFile

    session = Session.open(path)
    for _ in session.blocks():
        pass
    ranges = _heap_ranges(session)
    reader = MinidumpFile.parse(path).get_reader()
    started = time.process_time()
    for address, size in ranges:
        reader.read(address, size)
    return {"bytes": sum(size for _, size in ranges), "seconds": time.process_time() - started}


def account(path: str) -> dict[str, Any]:
    """The account of the process, after the walk, whose cost is not counted."""
    session = Session.open(path)
    taken = process_snapshot(session)
    started = time.process_time()
    heap_rows(session)
    private_memory(session)
    outside_figures(session)
    rows = account_of(taken)
    seconds = time.process_time() - started
    size = sum(size for _, size in _heap_ranges(session))
    return {"bytes": size, "seconds": seconds, "rows": len(rows)}


READERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "walk": walk,
    "account": account,
    "numpy": numpy_pass,
    "minidump": minidump_read,
}


def _child(reader: str, path: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    result = READERS[reader](path)
    result.setdefault("seconds", time.process_time() - started)
    result["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps(result))


def main() -> None:
    """Runs each reader in processes of its own, in turn, and prints medians."""
    if len(sys.argv) == 4 and sys.argv[1] == "--child":
        _child(sys.argv[2], sys.argv[3])
        return
    path = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in READERS}
    for _ in range(rounds):
        for name in READERS:
            done = subprocess.run(
                [sys.executable, __file__, "--child", name, path],
                capture_output=True,
                text=True,
                check=True,
            )
            runs[name].append(json.loads(done.stdout))
    file_bytes = len(np.memmap(path, np.uint8, "r"))
    base = statistics.median(run["seconds"] for run in runs["walk"])
    for name, results in runs.items():
        seconds = statistics.median(run["seconds"] for run in results)
        memory = statistics.median(run["memory"] for run in results)
        size = results[0]["bytes"]
        line = f"{name:9} {seconds * 1e3:8.1f} ms {size / seconds / 1e6:8.0f} MB/s"
        line += f"  {seconds / base:.2f} x walk"
        if "blocks" in results[0]:
            blocks = results[0]["blocks"]
            line += f"  {sum(blocks.values()) / seconds / 1e6:.2f} M blocks/s {blocks}"
            # The other readers need a walk first, to know what to read.
            line += f"  memory {memory / 1e6:.1f} MB ({memory / file_bytes:.1%} of the file)"
        print(line)


if __name__ == "__main__":
    main()
