"""How much of the pools an answer rests on: what was found as blocks, never what is true by construction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from kernel_truth import kernel_pairs
from pool_samples import Pair, run, run_json

from dumpleak.model.pool import TRACKERS, WALK
from dumpleak.model.pool_account import PoolAccount

PAIR = next(pair for pair in kernel_pairs("tiny-pair") if pair[1].build == "14393-x64")
KNOWN = PoolAccount(
    ranking=TRACKERS,
    reason="",
    trackers="",
    walk="pages",
    tracked_bytes=1000,
    tag_count=10,
    unknown_tags=0,
    walked_bytes=900,
    walked_count=9,
    uncounted_bytes=0,
    matched_bytes=900,
    absent_bytes=0x1000,
    damaged_bytes=0,
    missing_bytes=0,
    residuals=(),
)


@pytest.fixture(name="pair")
def _pair() -> Pair:
    return PAIR


def lost_bytes(pair: Pair) -> int:
    """What the trackers count of blocks that the walk did not find."""
    truth = pair[1].read_truth()
    return sum(block["charged"] for block in truth["small_blocks"] if block.get("absent"))


def test_blocks_on_pages_that_are_not_in_the_dump_are_not_said_to_be_walked(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump, stored = pair[1].dump, tmp_path / "after.dlsnap"
    assert run(capsys, "snapshot", dump, "-o", stored)[0] == 0
    lost = lost_bytes(pair)
    assert lost
    told = run_json(capsys, "stat", dump)["coverage"]
    assert told["committed_bytes"] - told["walked_bytes"] == lost
    assert told["counted_bytes"] == lost  # the trackers know it, so that no total lacks it
    for command in ("stat", "pool"):
        for source in (dump, stored):
            answer = run_json(capsys, command, source)
            assert (
                answer["coverage"] if command == "stat" else answer["account"]["coverage"]
            ) == told
    assert run_json(capsys, "diff", pair[0].dump, dump)["coverage"]["current"] == told
    assert "100.0%" not in run(capsys, "stat", dump)[1]


def test_absent_pages_are_no_hole_in_totals_that_the_trackers_count(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [side.dump for side in pair]
    grown = run_json(capsys, "diff", *files)["totals"]["delta_bytes"]
    assert run(capsys, "diff", *files, "--fail-on", f"bytes>={grown + 1}")[0] == 0
    # Of groups of blocks, what was not found as blocks is missing.
    code, _, err = run(capsys, "diff", *files, "--by", "size", "--fail-on", f"bytes>={grown + 1}")
    assert (code, "were not walked" in err) == (3, True)


def test_unseen_memory_is_a_hole_once_a_tag_is_counted_by_its_blocks() -> None:
    covered = KNOWN.covered()
    assert covered is not None
    assert (covered.walked_bytes, covered.committed_bytes) == (900, 1000)
    assert (covered.hidden_bytes, covered.shortfall) == (0, "")
    some = replace(KNOWN, tags_by_blocks=1, refuted_tags=1, by_blocks_bytes=50, uncounted_bytes=50)
    covered = some.covered()
    assert covered is not None
    assert (covered.walked_bytes, covered.hidden_bytes) == (950, 0x1000)
    assert some.said_of_blocks == (
        "1 tag is counted by blocks found (1 with counters that the blocks refute)"
    )


def test_tags_of_which_nothing_is_known_leave_the_pools_incomplete() -> None:
    whole = replace(KNOWN, matched_bytes=1000, walked_bytes=1000, absent_bytes=0)
    covered = whole.covered()
    assert covered is not None
    assert (covered.is_complete, covered.share_text) == (True, "100.0%")
    covered = replace(whole, unknown_tags=1).covered()
    assert covered is not None
    assert (covered.is_complete, covered.share_text) == (False, "an unknown share")


def test_a_kernel_whose_large_blocks_are_in_no_table_was_never_walked_whole() -> None:
    untagged = replace(
        KNOWN,
        ranking=WALK,
        tracked_bytes=None,
        matched_bytes=None,
        absent_bytes=0,
        large_unknown=True,
    )
    covered = untagged.covered()
    assert covered is not None
    assert (covered.is_complete, covered.shown_share) == (False, None)
    # Where the memory manager's totals are known, they tell how much was not seen.
    covered = replace(untagged, pool_bytes=2000).covered()
    assert covered is not None
    assert (covered.share_text, covered.is_complete) == ("45.0%", False)


def test_what_may_hold_blocks_where_no_counters_tell_is_not_walked() -> None:
    blind = replace(KNOWN, ranking=WALK, tracked_bytes=None, matched_bytes=None, absent_bytes=0)
    for account in (blind, replace(blind, large_unknown=True, pool_bytes=950)):
        covered = replace(account, doubt_bytes=100).covered()
        assert covered is not None
        assert (covered.walked_bytes, covered.committed_bytes) == (900, 1000)
        assert covered.unbounded == account.large_unknown
