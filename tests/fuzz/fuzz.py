"""Fuzzes every kind of input through the whole pipeline.

    python tests/fuzz/fuzz.py --list
    python tests/fuzz/fuzz.py --kind 'heap-*' --seconds 600 --seed 1 --out rows.jsonl
    python tests/fuzz/fuzz.py --replay heap-nt-8-x64:17 --seed 1 --save mutated.bin

Cases are tried in a process of their own; one that dies or hangs is a finding, and the next process goes on
behind it. Ends with 1 when there is any finding.
"""

from __future__ import annotations

import argparse
import json
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.cases import ANSWERED, REFUSED, Finding, case_of, outcome
from fuzz.kinds import all_kinds
from fuzz.running import append, chosen, read_rows

LIMIT_SECONDS = 10
LIMIT_BYTES = 1 << 30
LEAST_CASES = 4
# Without a word from the worker for so long it hangs where no alarm reaches it.
WATCHDOG_SECONDS = 120
SHOWN_TEXT = 160
WORKER = Path(__file__).with_name("worker.py")


@dataclass
class Tally:
    """What came out, by kind.

    Attributes:
        cases: Kind → outcome → number.
        findings: Key of a finding → its cases.
        slowest: Kind → processor time of its slowest case.
    """

    cases: dict[str, Counter[str]] = field(default_factory=dict)
    findings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    slowest: dict[str, float] = field(default_factory=dict)

    def add(self, row: dict[str, Any]) -> None:
        kind, found = row["kind"], row.get("finding")
        counts = self.cases.setdefault(kind, Counter())
        counts["finding" if found else row["outcome"]] += 1
        self.slowest[kind] = max(self.slowest.get(kind, 0.0), row.get("s", 0.0))
        if found:
            self.findings.setdefault(found["key"], []).append(row)

    @property
    def total(self) -> int:
        return sum(sum(counts.values()) for counts in self.cases.values())


class Supervisor:
    """Starts workers until a plan is done.

    Args:
        run: The seed of the run.
        out: Where a line of JSON for each case goes.
        worker: The script that tries cases.
    """

    def __init__(self, run: int, out: Path | None = None, worker: Path = WORKER) -> None:
        self.run, self.out, self.script = run, out, worker
        self.tally = Tally()

    def work(self, slices: list[list[Any]]) -> None:
        """Tries all slices; behind a case that ends its process another goes on."""
        while slices:
            started = time.monotonic()
            kind, number, why = self._worker(slices)
            if not why:
                return
            self._note({"kind": kind, "n": number, "finding": _died(kind, number, why)})
            while slices and slices[0][0] != kind:
                slices.pop(0)
            left = slices[0][2] - (time.monotonic() - started)
            slices[0] = [kind, number + 1, max(left, 0), 0 if number < 0 else LEAST_CASES]
            if number < 0 or left <= 0:
                slices.pop(0)

    def _worker(self, slices: list[list[Any]]) -> tuple[str, int, str]:
        """Where a worker ended, and why; "" when it did all."""
        plan = {"run": self.run, "limit_s": LIMIT_SECONDS, "limit_bytes": LIMIT_BYTES}
        line = [sys.executable, str(self.script)]
        line.append(json.dumps({**plan, "slices": slices}))
        kind, number, why = slices[0][0], -1, ""
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
            if worker.stdout is None or worker.stderr is None:
                raise RuntimeError("a worker without pipes")
            while True:
                if not select.select([worker.stdout], [], [], WATCHDOG_SECONDS)[0]:
                    worker.kill()
                    why = f"no answer for {WATCHDOG_SECONDS} s"
                    break
                text = worker.stdout.readline()
                if not text:
                    break
                row = json.loads(text)
                kind, number = row["kind"], row["n"]
                if "outcome" in row or "finding" in row:
                    self._note(row)
            said = worker.stderr.read().decode(errors="replace").strip()
        if worker.returncode and not why:
            why = f"exit code {worker.returncode}: {said[-2000:]}"
        return kind, number, why

    def _note(self, row: dict[str, Any]) -> None:
        self.tally.add(row)
        if self.out is not None:
            append(self.out, row)


def _died(kind: str, number: int, why: str) -> dict[str, Any]:
    what = "the process ended" if number >= 0 else "the seed cannot be made"
    return {"what": what, "text": why, "where": [], "key": f"{what} | {kind} | {why[-80:]}"}


def fuzz(kinds: list[str], seconds: float, run: int, out: Path | None = None) -> Tally:
    """Gives each kind its share of the time, and a few cases at least."""
    supervisor = Supervisor(run, out)
    share = seconds / max(len(kinds), 1)
    supervisor.work([[kind, 0, share, LEAST_CASES] for kind in kinds])
    return supervisor.tally


def replay(name: str, run: int, save: Path | None) -> int:
    """One case again, in this process."""
    kind, _, number = name.rpartition(":")
    with tempfile.TemporaryDirectory() as folder:
        seed = all_kinds(Path(folder))[kind]()
        data, dice = case_of(seed, kind, run, int(number))
        if save is not None:
            save.write_bytes(data)
        found = outcome(seed, data, dice, LIMIT_SECONDS)
    if not isinstance(found, Finding):
        print(f"{name}: {found}")
        return 0
    print(f"{name}: {found.what}: {found.text}")
    print("\n".join(f"  {frame}" for frame in found.where))
    return 1


def report(tally: Tally, run: int) -> None:
    """Each finding once, with the line that shows it again; the last line is the result."""
    for rows in sorted(tally.findings.values(), key=len, reverse=True):
        found, first = rows[0]["finding"], rows[0]
        text = found["text"][-SHOWN_TEXT:].replace("\n", " ")
        print(f"{len(rows)} x {found['what']} at {', '.join(found['where'][-2:])}: {text}")
        print(f"    python tests/fuzz/fuzz.py --seed {run} --replay '{first['kind']}:{first['n']}'")
    sums = sum(tally.cases.values(), Counter())
    found = sums["finding"]
    print(
        f"fuzz: {tally.total} cases of {len(tally.cases)} kinds: {sums[ANSWERED]} answered, "
        f"{sums[REFUSED]} refused, {found} findings of {len(tally.findings)} causes"
    )


def family(kind: str) -> str:
    """What a table has one line for: "heap-nt", "process-made", "kernel"."""
    first, _, rest = kind.partition("-")
    second = rest.partition("-")[0]
    return f"{first}-{second}" if first == "heap" or second in ("made", "real") else first


def table(path: Path) -> None:
    """Cases and findings by family, as a table for the README."""
    tally = Tally()
    for row in read_rows(path):
        tally.add(row | {"kind": family(row["kind"])})
    print(
        "| kind | cases | answered | refused | findings | slowest |\n| --- | --- | --- | --- | --- | --- |"
    )
    for kind, counts in tally.cases.items():
        numbers = (counts[ANSWERED], counts[REFUSED], counts["finding"])
        told = " | ".join(map(str, (sum(counts.values()), *numbers)))
        print(f"| {kind} | {told} | {tally.slowest[kind]:.1f} s |")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="*", help="patterns of kinds, with commas between them")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a line of JSON for each case goes there")
    parser.add_argument("--table", type=Path, help="what --out wrote, as a table")
    parser.add_argument("--list", action="store_true", help="names of all kinds")
    parser.add_argument("--replay", metavar="KIND:N", help="one case again")
    parser.add_argument("--save", type=Path, help="with --replay: the mutated bytes go there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = list(all_kinds(Path(folder)))
    kinds = chosen(names, given.kind)
    if given.list:
        print("\n".join(kinds))
    elif given.table:
        table(given.table)
    elif given.replay:
        return replay(given.replay, given.seed, given.save)
    else:
        tally = fuzz(kinds, given.seconds, given.seed, given.out)
        report(tally, given.seed)
        return 1 if tally.findings or not tally.total else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
