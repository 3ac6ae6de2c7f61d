"""Pools that genuine kernels laid out, against the log of the calls that made their blocks."""

from __future__ import annotations

from collections import Counter

import pytest
from kernel_truth import KernelTruthDump, genuine_kernel_dumps
from pool_truth import COUNTERS, POOLS, open_pools

from windumps import open_dump
from windumps.blocks import Blocks
from windumps.dumps.kernel.dump import KernelDump
from windumps.pool_tags import POOL_TAG, Pool, tag_number, tag_text
from windumps.pools.kernel_pools import KernelPools
from windumps.pools.trackers.audit import Source

_TAGGED = [dump for dump in genuine_kernel_dumps() if dump.scenario != "untagged"]
_UNTAGGED = [dump for dump in genuine_kernel_dumps() if dump.scenario == "untagged"]


class _Walked:
    """One dump, walked."""

    def __init__(self, source: KernelTruthDump) -> None:
        dump = open_dump(source.dump)
        assert isinstance(dump, KernelDump)
        self.truth = source.read_truth()
        self.pools: KernelPools = open_pools(dump)
        blocks = Blocks.concatenate(self.pools.blocks())
        self.used = blocks.select((blocks.state == 1) & (blocks.tag != POOL_TAG))


@pytest.fixture(scope="module", params=_TAGGED, ids=lambda source: source.name)
def walked(request: pytest.FixtureRequest) -> _Walked:
    return _Walked(request.param)


def test_used_blocks_are_those_of_the_call_log(walked: _Walked) -> None:
    used = walked.used
    found = Counter(
        (address, size, tag_text(tag).rstrip(), Pool(pool).is_paged, "session" in Pool(pool).label)
        for address, size, tag, pool in zip(
            used.address.tolist(),
            used.block_bytes.tolist(),
            used.tag.tolist(),
            used.heap.tolist(),
            strict=True,
        )
    )
    expected = Counter(
        (int(b["user"], 16), b["charged"], b["tag"].rstrip(), b["paged"], bool(b.get("session")))
        for b in walked.truth["blocks"]
    )
    assert found == expected


def test_counters_are_the_sums_of_the_kernels_tables(walked: _Walked) -> None:
    totals = walked.pools.trackers
    for tag, entry in walked.truth["tags"].items():
        row = totals.row(tag_number(tag))
        for pool in POOLS:
            for name in COUNTERS:
                found = int(getattr(totals, f"{pool}_{name}")[row]) if row is not None else 0
                assert (tag, pool, name, found) == (tag, pool, name, entry[pool][name])


def test_session_counters_are_those_of_the_sessions_table(walked: _Walked) -> None:
    session = walked.truth["session"]
    assert len(walked.pools.sessions) == bool(session)
    for tag, entry in (session or {"tags": {}})["tags"].items():
        totals = walked.pools.sessions[0].totals
        row = totals.row(tag_number(tag))
        assert row is not None
        assert [int(getattr(totals, f"paged_{name}")[row]) for name in COUNTERS] == [
            entry[name] for name in COUNTERS
        ]


def test_blocks_bear_the_counters_out_tag_by_tag(walked: _Walked) -> None:
    audit = walked.pools.audit
    assert not audit.differs.any()
    assert (audit.source == Source.COUNTED).all()


@pytest.mark.parametrize("source", _UNTAGGED, ids=lambda source: source.name)
def test_a_kernel_without_pool_tagging_is_said_to_have_none(source: KernelTruthDump) -> None:
    walked = _Walked(source)
    assert not walked.pools.trackers.is_found
    assert not walked.pools.big_pages.is_found
    assert {item.code for item in walked.pools.log.collect()} == {"no-pool-tagging"}
    small = {int(b["user"], 16): b["charged"] for b in walked.truth["blocks"] if not b.get("big")}
    found = dict(zip(walked.used.address.tolist(), walked.used.block_bytes.tolist(), strict=True))
    assert found == small
