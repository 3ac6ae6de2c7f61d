"""Drivers that were unloaded and left blocks: the surest sign of a leak stands first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kernel_truth import kernel_pairs

from dumpleak.compare.diff import compare
from dumpleak.compare.left_behind import left_behind
from dumpleak.compare.pool_answers import Selection, take_growth
from dumpleak.kernel.pools import PoolReader
from dumpleak.model.owners import Owner, Ownership
from dumpleak.model.snapshot import Snapshot
from dumpleak.reports.answers.summary import summarize_comparison
from dumpleak.reports.answers.summary_kernel import summarize_pool_growth
from dumpleak.reports.document import Tone
from dumpleak.survey.pools import take_pool_snapshot
from windumps import open_dump

TAG = "AcGb"


def _sides(unloaded: tuple[str, ...]) -> tuple[Snapshot, Snapshot]:
    """A pair; in its later dump nobody that is loaded owns the tag."""
    pair = kernel_pairs("tiny-pair")[0]
    base, current = (take_pool_snapshot(PoolReader(open_dump(side.dump))) for side in pair)
    assert current.pool is not None
    rows = [
        replace(row, owner=Ownership(row.tag, unloaded=unloaded)) if row.tag == TAG else row
        for row in current.pool.rows
    ]
    return base, replace(current, pool=replace(current.pool, rows=rows))


def test_what_an_unloaded_driver_left_is_called_leaked_by_pool_and_diff() -> None:
    base, current = _sides(("acmegpu.sys", "acmeold.sys"))
    assert current.pool is not None
    (row,) = (row for row in current.pool.rows if row.tag == TAG)
    (left,) = left_behind(base, current)
    assert left == (TAG, "acmegpu.sys", row.total("count"), row.total("bytes"))
    comparison = compare(base, current)
    for summary in (
        summarize_comparison(comparison),
        summarize_pool_growth(take_growth(comparison, Selection())),
    ):
        assert f"{TAG} is leaked: acmegpu.sys was unloaded and left " in summary.headline
        assert summary.tone is Tone.BAD
        assert "nothing will free" in dict(summary.facts)["Left"]


@pytest.mark.parametrize("unloaded", [(), ("acmeold.sys",)])
def test_a_driver_that_was_not_seen_to_go_left_nothing(unloaded: tuple[str, ...]) -> None:
    base, current = _sides(unloaded)
    assert left_behind(base, current) == []
    assert "leaked" not in summarize_comparison(compare(base, current)).headline


def test_what_was_left_is_leaked_also_where_nothing_grew_since() -> None:
    _, current = _sides(("acmegpu.sys",))
    base = replace(_sides(())[0], groups=current.groups, totals=current.totals)
    summary = summarize_comparison(compare(base, current))
    assert summary.headline.startswith("No tag grew between these two dumps. AcGb is leaked: ")
    assert summary.tone is Tone.BAD


def test_a_driver_that_may_own_a_tag_and_is_still_loaded_can_still_free_it() -> None:
    base, current = _sides(("acmegpu.sys",))
    assert base.pool is not None
    two = tuple(Owner(name, 5, "strong", ("",)) for name in ("acmegpu.sys", "acmeflt.sys"))
    rows = [
        replace(row, owner=replace(row.owner, owners=two)) if row.tag == TAG else row
        for row in base.pool.rows
    ]
    assert left_behind(replace(base, pool=replace(base.pool, rows=rows)), current) == []
