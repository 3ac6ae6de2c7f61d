"""Nothing changed: a system against itself, and healthy processes and systems a minute apart."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from builders.filled_system import FilledSystem
from builders.process_builder import ProcessBuilder
from kernel_truth import REAL_KERNEL, genuine_kernel_dumps, kernel_dumps

from dumpleak.compare.answers import Comparison, Verdict
from dumpleak.compare.diff import compare
from dumpleak.compare.process_growth import compare_processes
from dumpleak.model.account_rows import account_of, what_grew
from dumpleak.model.coverage import ListCovered
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.populations import HANDLES, THREADS
from dumpleak.model.process_rows import ProcessTable
from dumpleak.model.snapshot import Snapshot
from dumpleak.survey.open import open_snapshot
from dumpleak.survey.pools import take_pool_snapshot
from dumpleak.survey.populations.system import SYSTEM_PRODUCERS, System, system_snapshot
from dumpleak.survey.processes import process_rows
from dumpleak.survey.wanted import Wanted
from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump


def _kernel_dumps() -> list[Path]:
    made = [dump.dump for dump in (*kernel_dumps(), *genuine_kernel_dumps())]
    return [*made, *sorted(REAL_KERNEL.glob("*.dmp*"))]


def _answers(path: Path) -> tuple[dict[str, Snapshot], ProcessTable | None]:
    """Everything that a dump of a system tells of, by what."""
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    found: dict[str, Snapshot] = {}
    system = System.of(dump)
    if system.pools is not None:
        found["pool"] = take_pool_snapshot(system.pools, even_short=True)
    for of in SYSTEM_PRODUCERS:
        by = "process" if of in (HANDLES, THREADS) else "name"
        try:
            found[of] = system_snapshot(system, of, by)
        except CannotAnswerError:
            continue
    table = None
    if "processes" in found:
        table = ProcessTable(found["processes"], process_rows(system.processes))
    return found, table


def _later(snapshot: Snapshot) -> Snapshot:
    time = snapshot.source.time
    source = replace(snapshot.source, file="later", time=time and time + timedelta(minutes=1))
    return replace(snapshot, source=source)


def _nothing_grew(compared: Comparison) -> None:
    assert compared.sites == compared.private == ()
    assert what_grew(compared.account) == []
    if compared.verdict is not Verdict.NO_GROWTH:
        # Then the dump holds too little of the pools, or not all lists, and what they do is not known.
        assert compared.verdict is Verdict.NOT_COMPARABLE
        covered = compared.base.coverage
        assert compared.base.shortfall or (isinstance(covered, ListCovered) and covered.lacking)


@pytest.mark.parametrize("path", _kernel_dumps(), ids=lambda path: "/".join(path.parts[-3:]))
def test_a_system_against_itself_shows_no_growth_in_anything(path: Path) -> None:
    (older, base), (newer, current) = _answers(path), _answers(path)
    assert older.keys() == newer.keys()
    for of, snapshot in older.items():
        compared = compare(snapshot, _later(newer[of]))
        _nothing_grew(compared)
        assert all(not row.delta for row in compared.account)
    if base is not None and current is not None:
        later = ProcessTable(_later(current.snapshot), current.rows)
        grown = compare_processes(base, later)
        # Where figures are not known, nothing grew that is known, and more is not said.
        verdict = Verdict.NOT_COMPARABLE if grown.unknown else Verdict.NO_GROWTH
        assert (grown.verdict, grown.programs) == (verdict, ())


# -- a minute apart --------------------------------------------------------------------------------------


def _process(folder: Path, minute: int) -> Path:
    """A process whose blocks are as many, elsewhere; it has a thread, a view and some handles more."""
    made = ProcessBuilder(time=60 * minute).image("app.exe").heap()
    for _ in range(4 + minute):
        made.thread()
    made.private(2, 0x40000)
    made.views(3 + minute, 0x10000)
    made.dump.handles([(4 * n, "Event", "") for n in range(1, 40 + 5 * minute)])
    made.dump.vm_counters(working_set=(20 + minute) << 20, private=(30 << 20) + minute * 0x5000)
    path = folder / f"app-{minute}.dmp"
    path.write_bytes(made.build())
    return path


def test_a_healthy_process_does_not_grow_within_a_minute(run: Any, tmp_path: Path) -> None:
    pair = [_process(tmp_path, minute) for minute in range(2)]
    base, current = (open_snapshot(path, Wanted()) for path in pair)
    compared = compare(base, current)
    assert {figure.name: figure.value for figure in account_of(current)}["threads.count"] == 5
    assert any(row.delta for row in compared.account)
    assert (compared.verdict, what_grew(compared.account)) == (Verdict.NO_GROWTH, [])
    for of in ("blocks", "threads", "handles", "regions", "modules", "heaps"):
        gates = "threads.count>=9,handles.count>=65,private.bytes>=64K"
        code, _, err = run("diff", *pair, "--of", of, "--fail-on", gates)
        assert (code, "PASS" in err) == (0, True), of


def test_a_healthy_system_does_not_grow_within_a_minute(run: Any, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    before = FilledSystem(folders[0]).fill()
    after = FilledSystem(folders[1]).fill()
    after.holds("acmesvc.exe", pages=0x180, threads=1, paged=0x9000)
    after.handles("acmesvc.exe", 30)
    after.handles("lsass.exe", 2)
    after.minutes_later(1)
    pair = before.save(), after.save()
    said = {"pool": "No tag grew", "modules": "did not grow", "threads": "did not become more"}
    for of, text in said.items():
        code, out, _ = run("diff", *pair, "--of", of)
        assert (code, text in out) == (0, True), of
    code, out, _ = run("diff", *pair, "--of", "handles", "--by", "process")
    assert (code, "did not grow" in out) == (0, True)
    code, out, _ = run("processes", *pair)
    assert (code, out.startswith("No process grew")) == (0, True)
