"""The first screen: recorded stacks, and what references prove."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from truth import TESTDATA, TruthDump

from dumpleak.process.session import Session
from dumpleak.reports.answers.summary import summarize_info
from dumpleak.survey.info import take_info
from dumpleak.survey.leaks import find_leaks


def test_page_heap_records_stacks_without_the_flag_for_them() -> None:
    session = Session.open(TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz")
    plain = take_info(session)
    assert dict(summarize_info(plain).facts)["Call stacks"].startswith("not recorded")
    heaps = [dataclasses.replace(heap, kind="page-heap") for heap in plain.heaps]
    assert "Call stacks" not in dict(summarize_info(dataclasses.replace(plain, heaps=heaps)).facts)


PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"


def test_the_headline_says_how_many_new_blocks_nothing_points_to(run: Any, tmp_path: Path) -> None:
    """Counted anew: what `leaks` lists of the later dump, less what the base had at that address."""
    taken = [tmp_path / name for name in ("before.dlsnap", "after.dlsnap")]
    dumps = [PAIR / f"{stem}.dmp.gz" for stem in ("before", "after")]
    for dump, target in zip(dumps, taken, strict=True):
        run("snapshot", dump, "-o", target)
    truths = [TruthDump(d, d.parent / f"truth-{d.name.split('.')[0]}.json.gz") for d in dumps]
    before, after = (truth.read_truth() for truth in truths)
    session = Session.open(dumps[1])
    lost = {int(a) for group in find_leaks(session).groups for a in group.addresses}
    new = {a for a in after.sizes if a not in before.sizes}
    expected = f"{len(lost & new):,} of {len(new):,} new blocks are unreferenced"
    for files in (dumps, taken):
        assert expected in run("diff", *files)[1].splitlines()[0]
    # Where nobody looked, or two dumps are of two runs, there is no such proof.
    assert "cannot tell" in run("diff", *dumps, "--no-holders")[1].splitlines()[0]


def test_unreferenced_blocks_are_a_condition_of_the_gate(run: Any) -> None:
    files = PAIR / "before.dmp.gz", PAIR / "after.dmp.gz"
    assert run("diff", *files, "--fail-on", "unreferenced.count>=1680")[0] == 1
    assert run("diff", *files, "--fail-on", "unreferenced.count>=1681")[0] == 0
    code, _, err = run("diff", *files, "--fail-on", "unreferenced.bytes>=1", "--no-holders")
    assert code == 3
    assert "SUMMARY: NO ANSWER; unreferenced.bytes>=1" in err
