"""What was planted as leaked between two dumps is listed as unreferenced and new, all of it."""

from __future__ import annotations

import pytest
from truth import TruthDump, pairs

from dumpleak.model.block_filter import BlockFilter
from dumpleak.survey.open import Wanted, open_subject
from windumps.blocks import State

PAIRS = pairs("leak-pair-*", "page-heap-leak-pair")
# New blocks can be told within one run of a program.
ONE_RUN = [pair for pair in PAIRS if not pair[0].scenario.endswith("aslr")]


def listed(after: TruthDump, asked: BlockFilter) -> set[int]:
    pages = open_subject(after.dump).pages(State.USED, Wanted(blocks=asked))
    return {address for page in pages for address in page.blocks.address.tolist()}


def planted(after: TruthDump) -> tuple[set[int], set[int]]:
    """All blocks that leaked, and those to which by chance some word points."""
    raw = after.read_truth().raw
    columns = raw["alloc_columns"]
    by_chance = columns.index("reachable_by_scan")
    hidden = {row[0] for row in raw["allocations"] if row[by_chance]}
    leaked = set(raw["leaked_since_before"])
    return leaked, leaked & hidden


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=lambda d: d.name)
def test_all_that_leaked_is_unreferenced(before: TruthDump, after: TruthDump) -> None:
    leaked, hidden = planted(after)
    missing = leaked - hidden - listed(after, BlockFilter(unreferenced=True))
    assert leaked
    assert not missing


@pytest.mark.parametrize(("before", "after"), ONE_RUN, ids=lambda d: d.name)
def test_all_that_leaked_is_unreferenced_and_new(before: TruthDump, after: TruthDump) -> None:
    leaked, hidden = planted(after)
    found = listed(after, BlockFilter(unreferenced=True, new_since=before.dump))
    assert not leaked - hidden - found
    assert not hidden - listed(after, BlockFilter(new_since=before.dump))
    assert not found & set(after.read_truth().freed)
