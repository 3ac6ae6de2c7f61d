"""The main job: two dumps in, the planted growth out, on every pair with known truth."""

from __future__ import annotations

from collections import Counter

import pytest
from truth import TruthDump, pairs

from dumpleak.compare.answers import Comparison, Verdict
from dumpleak.compare.diff import compare
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot

PAIRS = [pair for pair in pairs("leak-pair-*") if not pair[0].build.startswith("5.")]


def _compare(base: TruthDump, current: TruthDump) -> tuple[Comparison, set[int]]:
    sessions = [Session.open(d.dump) for d in (base, current)]
    snapshots = [take_snapshot(session) for session in sessions]
    read = {index for index, source in enumerate(sessions[1].heaps) if source.entry.heap}
    return compare(*snapshots), read


# Pairs with recorded stacks have sites of stacks: `test_stack_sites.py`.
@pytest.mark.parametrize(
    ("base", "current"),
    [pair for pair in PAIRS if not pair[0].scenario.endswith("-ust")],
    ids=lambda d: d.name,
)
def test_the_planted_leak_comes_first_with_its_exact_growth(
    base: TruthDump, current: TruthDump
) -> None:
    comparison, read = _compare(base, current)
    before, after = base.read_truth(), current.read_truth()
    planted = Counter(
        (after.heap_of[address], after.sizes[address])
        for address in after.raw["leaked_since_before"]
        if after.heap_of[address] in read
    )
    # The planted leak of most bytes in each heap; its size may have honest growth too, so that
    # counts in.
    growth = Counter(
        (after.heap_of[a], size) for a, size in after.sizes.items() if after.heap_of[a] in read
    )
    growth.subtract(
        (before.heap_of[a], size) for a, size in before.sizes.items() if before.heap_of[a] in read
    )
    largest = max(planted, key=lambda key: key[1] * planted[key])
    leaders = [key for key in planted if key[1] == largest[1]]
    assert comparison.verdict is Verdict.GROWTH
    first = comparison.sites[0]
    top = first.parts or (first,)  # heaps that leak alike are one row
    assert {f"{size} bytes in heap {heap} " for heap, size in leaders} == {
        f"{delta.site.name.split('(')[0]}" for delta in top
    }
    for delta in top:
        heap = int(delta.site.name.split("heap ")[1].split()[0])
        count = growth[heap, largest[1]]
        assert (delta.delta_count, delta.delta_bytes) == (count, count * largest[1])
    assert first.delta_bytes == sum(delta.delta_bytes for delta in top)


@pytest.mark.parametrize(("base", "current"), PAIRS, ids=lambda d: d.name)
def test_totals_are_the_difference_of_live_allocations(base: TruthDump, current: TruthDump) -> None:
    comparison, read = _compare(base, current)
    live = []
    for dump in (base, current):
        truth = dump.read_truth()
        heaps = [heap for index, heap in enumerate(truth.heaps) if index in read]
        live.append(
            (
                sum(heap["live_count"] for heap in heaps),
                sum(heap["live_bytes"] for heap in heaps),
            )
        )
    assert comparison.delta_count == live[1][0] - live[0][0]
    assert comparison.delta_bytes == live[1][1] - live[0][1]
    assert sum(delta.delta_bytes for delta in comparison.sites) == comparison.delta_bytes
    assert sum(delta.delta_count for delta in comparison.sites) == comparison.delta_count


@pytest.mark.parametrize(
    ("base", "current"),
    [p for p in PAIRS if p[0].scenario == "leak-pair-aslr"],
    ids=lambda d: d.name,
)
def test_sites_match_although_all_addresses_differ(base: TruthDump, current: TruthDump) -> None:
    comparison, _ = _compare(base, current)
    matched = comparison.base.groups.keys() & comparison.current.groups.keys()
    share = sum(comparison.base.groups[key][1].bytes for key in matched)
    assert share > 0.5 * comparison.base_totals.bytes
    assert not any("0x" in key for key in comparison.current.groups)


def test_a_dump_compared_with_itself_is_no_answer() -> None:
    base, _ = PAIRS[0]
    comparison, _ = _compare(base, base)
    assert comparison.verdict is Verdict.NOT_COMPARABLE
    assert "one and the same" in comparison.reasons[0]
    assert comparison.sites == ()
