"""Growth that a container holds is said to be held by it, and what nothing leads to is not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from truth import TruthDump, pairs

from dumpleak.compare.diff import compare, with_proof
from dumpleak.compare.evidence import with_containers
from dumpleak.model.holding import Finder
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot

PAIRS = pairs("leak-pair-*")
PLANTED = 0.95  # of the honest blocks of a pair the program keeps nearly all in its caches


@pytest.mark.parametrize(("base", "current"), PAIRS, ids=lambda d: d.name)
def test_honest_growth_is_held_by_a_named_container_and_leaked_blocks_are_not(
    base: TruthDump, current: TruthDump
) -> None:
    before = take_snapshot(Session.open(base.dump), keep_blocks=True)
    after = take_snapshot(Session.open(current.dump), keep_blocks=True, holders=True)
    comparison = compare(before, after)
    finder = comparison.current.holders
    assert isinstance(finder, Finder)
    comparison.current.held_by = finder([delta.site.key for delta in comparison.sites])
    comparison.current.unreferenced = finder.unreferenced
    comparison.current.contained = contained = finder.contained
    answer = with_containers(with_proof(comparison))
    assert contained is not None
    assert after.blocks is not None
    truth, older = current.read_truth(), base.read_truth()
    leaked = np.array(truth.raw["leaked_since_before"], np.uint64)
    table = after.blocks()
    held = table.address[contained.of_block >= 0]
    chance = truth.raw["unreachable_by_design_but_found_by_scan"]
    assert len(np.intersect1d(held, leaked)) <= chance
    if comparison.survivors is None:
        return
    honest = set(truth.sizes) - set(older.sizes) - set(leaked.tolist())
    kept = np.intersect1d(held, np.array(sorted(honest), np.uint64))
    assert len(kept) >= PLANTED * len(honest)
    told = [delta for delta in answer.sites if delta.contained is not None]
    assert told
    assert all(delta.confidence != "leaked" for delta in told)
    for delta in told:
        assert delta.contained is not None
        assert delta.contained.largest.place.startswith("global app.exe+0x")
        assert any(delta.contained.told in clause for clause in delta.evidence)


def test_the_answer_names_the_container_and_what_to_look_at(run: Any) -> None:
    base, current = next(pair for pair in PAIRS if pair[0].scenario == "leak-pair-ust")
    code, out, err = run("diff", base.dump, current.dump, "--format", "json")
    assert (code, err) == (0, "")
    found = [site for site in json.loads(out)["sites"] if "container" in site]
    assert any(site["container"]["new_members"] for site in found)
    code, out, _ = run("diff", base.dump, current.dump)
    assert code == 0
    assert "Containers   hold what grew: array of pointers at global app.exe+0x" in out
    assert "what bounds it:" in out
    address = out.partition("dumpleak explain CURRENT ")[2].split()[0]
    code, out, _ = run("explain", current.dump, address)
    assert code == 0


def test_a_member_explains_what_it_is_in(run: Any) -> None:
    _, current = next(pair for pair in PAIRS if pair[0].scenario == "leak-pair-ust")
    truth = current.read_truth()
    leaked = set(truth.raw["leaked_since_before"])
    newest = [a for a in truth.sizes if a not in leaked][-60:]
    code, out, _ = run("explain", current.dump, *map(hex, newest), "--format", "json")
    assert code == 0
    notes = [note for line in out.splitlines() for note in json.loads(line)["notes"]]
    assert any(
        note.startswith("It is a member of a container: array of pointers") for note in notes
    )
