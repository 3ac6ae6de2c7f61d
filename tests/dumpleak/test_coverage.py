"""How much of the heaps' memory an answer covers."""

from __future__ import annotations

import pytest
from patching import without
from truth import TESTDATA

from dumpleak.model.coverage import Coverage
from dumpleak.process.coverage import coverage
from dumpleak.process.session import Session
from windumps import Dump, open_dump
from windumps.blocks import Blocks, Kind

PAGE = 0x1000


def _covered(dump: Dump) -> Coverage:
    session = Session(dump)
    for _ in session.blocks():
        pass
    return coverage(session)


@pytest.mark.parametrize("build", ["10.0.19041.3324-x64", "10.0.26100.5074-x64"])
def test_a_page_that_is_absent_is_not_counted_as_present(build: str) -> None:
    dump = open_dump(TESTDATA / build / "mixed" / "dump.dmp.gz")
    whole = _covered(dump)
    assert whole.present_bytes == whole.committed_bytes == whole.walked_bytes
    (heap,) = (s.entry.heap for s in Session(dump).heaps if s.entry.ordinal == 1)
    assert heap is not None
    used = Blocks.concatenate(heap.blocks()).used
    # A page inside one large block: no header is lost, so all blocks are still found.
    inside = used.select((used.size > 3 * PAGE) & (used.kind != Kind.NT_VIRTUAL))
    page = (int(inside.address[0]) + PAGE) // PAGE * PAGE
    torn = _covered(without(dump, page, PAGE))
    assert torn.present_bytes == whole.present_bytes - PAGE
    assert torn.committed_bytes == whole.committed_bytes


def test_where_the_list_of_heaps_is_cut_nothing_is_complete() -> None:
    covered = Coverage(100, 100, 100, 2, 2, list_cut=True)
    assert not covered.is_complete
    assert covered.share_text == "99.9%"
    assert covered.shown_share == 0.999
    assert covered.heaps_text == "2 of at least 2 heaps"
