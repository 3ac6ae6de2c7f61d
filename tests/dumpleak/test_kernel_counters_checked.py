"""Counters whose place only the build speaks for are shown when the pool trackers bear them out."""

from __future__ import annotations

import pytest
from truth import TESTDATA, load_json

from dumpleak.kernel.info import checked_counters
from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.kernel.counters import Counter

PAIR = TESTDATA / "kernel" / "14393-x64" / "tiny-pair"
PAGE = 0x1000


def _dump() -> KernelDump:
    dump = open_dump(PAIR / "after.dmp.xz")
    assert isinstance(dump, KernelDump)
    return dump


def test_counters_that_the_trackers_bear_out_are_those_of_the_truth() -> None:
    shown = {counter.name: counter for counter in checked_counters(_dump())}
    told = load_json(PAIR / "after.truth.json.xz")["mm"]
    for pool in ("nonpaged_pool", "paged_pool"):
        assert shown[pool].by_build
        assert shown[pool].bytes == told[f"{pool}_pages"] * PAGE


@pytest.mark.parametrize("value", [PAGE, 1 << 40])
def test_counters_that_they_do_not_bear_out_are_unknown(value: int) -> None:
    dump = _dump()
    vars(dump)["counters"] = [
        Counter("paged_pool", value, "a field", by_build=True),
        Counter("driver_commit", 5 * PAGE, "another", by_build=True),
        Counter("committed", 7 * PAGE, "a variable"),
    ]
    paged, driver, committed = checked_counters(dump)
    assert paged.bytes is None
    assert "trackers do not bear it out" in paged.source
    assert driver.bytes is None
    assert committed.bytes == 7 * PAGE


@pytest.mark.parametrize(("committed", "known"), [(1 << 30, True), (PAGE, False)])
def test_a_variable_that_was_searched_for_counts_at_least_the_pools(
    committed: int, known: bool
) -> None:
    dump = _dump()
    vars(dump)["counters"] = [
        Counter("committed", committed, "found", by_build=True, searched=True),
        Counter("available", 5 * PAGE, "found", by_build=True, searched=True),
    ]
    assert [counter.bytes is not None for counter in checked_counters(dump)] == [known, known]
