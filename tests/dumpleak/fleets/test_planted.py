"""From files to leaks, the whole way: each planted leak is one row, nothing healthy is one."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import psutil
import pytest
from builders.fleet import Truth, planted_fleet
from fleet_inputs import TINY, dump, rows

import dumpleak
from dumpleak.fleets.run import FleetRun


def _made(folder: Path, machines: int, dumps: int, broken: int) -> Truth:
    """Snapshots with leaks, broken files, and dumps of programs that are well."""
    truth = planted_fleet(machines, dumps, broken).write(folder)
    for number, path in enumerate(truth.broken):
        # Each another content, for each to be a row.
        path.write_bytes(path.read_bytes() + number.to_bytes(4, "little"))
    for number in range(len(TINY)):
        path = folder / "dumps" / f"{number}" / "app.dmp.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(dump(number))
        truth.files.append(path)
    return truth


def _check(ran: FleetRun, truth: Truth) -> None:
    dumps = ran.dumps.to_pylist()
    status = {row["url"]: row["status"] for row in dumps}
    assert status == {
        **{str(path): "read" for path in truth.files},
        **{str(path): "error" for path in truth.broken},
    }
    assert all(row["error"] for row in dumps if row["status"] == "error")
    told = {
        re.sub(r" in heap.*", "", row["name"]): (
            *(row["machines"], row["series"], row["dumps"], row["delta_count"]),
            *(row["delta_bytes"], set(row["versions"])),
        )
        for row in ran.clusters.to_pylist()
    }
    assert told == {
        name: (
            *(len(leak.machines), leak.series, leak.dumps, leak.count, leak.bytes),
            leak.versions,
        )
        for name, leak in truth.leaks.items()
    }
    assert len(told) == ran.clusters.num_rows


def test_each_planted_leak_is_one_row_with_one_worker_and_with_two(tmp_path: Path) -> None:
    truth = _made(tmp_path / "in", machines=6, dumps=3, broken=6)
    one = dumpleak.fleet(tmp_path / "in", tmp_path / "one", workers=1)
    _check(one, truth)
    backwards = sorted([*truth.files, *truth.broken], reverse=True)
    two = dumpleak.fleet(backwards, tmp_path / "two", workers=2)
    for name in ("dumps", "sites", "growth", "clusters"):
        assert rows(getattr(one, name)) == rows(getattr(two, name)), name


def _kill_a_worker_when(folder: Path, count: int, killed: list[int]) -> None:
    while len(list(folder.glob("snapshots/*"))) < count:
        time.sleep(0.05)
    family = psutil.Process().children(recursive=True)
    readers = [each for each in family if "serving" in " ".join(each.cmdline())]
    worker = readers[0].parent()
    worker.kill()
    killed.append(worker.pid)


@pytest.mark.slow
def test_two_thousand_inputs_say_the_same_though_a_worker_dies(tmp_path: Path) -> None:
    truth = _made(tmp_path / "in", machines=120, dumps=4, broken=71)
    assert len(truth.files) + len(truth.broken) == 2000
    killed: list[int] = []
    about = (tmp_path / "out", 500, killed)
    threading.Thread(target=_kill_a_worker_when, args=about, daemon=True).start()
    _check(dumpleak.fleet(tmp_path / "in", tmp_path / "out", workers=2), truth)
    assert killed
