"""Commands of "What next" ask for what the answer that names them is about."""

from __future__ import annotations

from typing import Any

import pytest
from truth import TESTDATA

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("--of", "regions"), "--of regions"),
        (("--of", "regions", "--by", "size"), "--of regions --by size"),
        ((), ""),
    ],
)
def test_the_third_dump_is_asked_about_the_same_population(
    run: Any, asked: tuple[str, ...], told: str
) -> None:
    _, out, _ = run("diff", PAIR / "before.dmp.gz", PAIR / "after.dmp.gz", *asked)
    lines = [line.strip() for line in out.splitlines()]
    assert f"dumpleak trend BASE CURRENT THIRD {told}".strip() in lines
