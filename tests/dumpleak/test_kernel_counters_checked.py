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
    dump.counters = [  # type: ignore[misc]
        Counter("paged_pool", value, "a field", by_build=True),
        Counter("driver_commit", 5 * PAGE, "another", by_build=True),
        Counter("committed", 7 * PAGE, "a variable"),
    ]
    paged, driver, committed = checked_counters(dump)
    assert paged.bytes is None
    assert "trackers do not bear it out" in paged.source
    assert driver.bytes is None
    assert committed.bytes == 7 * PAGE
