"""What `info` says of recorded stacks."""

from __future__ import annotations

import dataclasses

from truth import TESTDATA

from dumpleak.info import take_info
from dumpleak.reports.summary import summarize_info
from dumpleak.session import Session


def test_page_heap_records_stacks_without_the_flag_for_them() -> None:
    session = Session.open(TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz")
    plain = take_info(session)
    assert dict(summarize_info(plain).facts)["Call stacks"].startswith("not recorded")
    heaps = [dataclasses.replace(heap, kind="page-heap") for heap in plain.heaps]
    assert "Call stacks" not in dict(summarize_info(dataclasses.replace(plain, heaps=heaps)).facts)
