"""A pytest fixture that holds dumps against a gate.

In a test file or `conftest.py`:

    pytest_plugins = ["dumpleak.pytest_plugin"]

    def test_the_server_keeps_its_memory(assert_no_growth):
        assert_no_growth("before.dmp", "after.dmp", fail_on="site.bytes>=64K")
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from dumpleak.api import Source, compare
from dumpleak.compare.answers import Comparison
from dumpleak.gate.conditions import GateError, parse_gate
from dumpleak.gate.gate import Gate
from dumpleak.gate.suppressions import read_suppressions
from dumpleak.reports.answers.diff import diff_document
from dumpleak.reports.markdown_writer import write_markdown


@pytest.fixture
def assert_no_growth() -> Callable[..., Comparison]:
    """A function that fails the test when growth between two dumps reaches a limit, or when that cannot
    be told.

    It takes the two dumps (as `dumpleak.compare` does), `fail_on` (the conditions of `--fail-on`), and
    `suppressions` (a file, or None), and gives the comparison.
    """
    return _check


def _check(
    base: Source, current: Source, fail_on: str, suppressions: str | Path | None = None
) -> Comparison:
    comparison = compare(base, current)
    if comparison.refused:
        pytest.fail(f"the dumps are not comparable: {'; '.join(comparison.reasons)}", pytrace=False)
    entries = read_suppressions(suppressions) if suppressions is not None else []
    try:
        result = Gate(parse_gate(fail_on), entries).judge(comparison)
    except GateError as error:
        pytest.fail(f"SUMMARY: NO ANSWER; {error}", pytrace=False)
    if not result.passed:
        text = io.StringIO()
        write_markdown(diff_document(comparison, None, result), text)
        pytest.fail(f"{result.summary}\n\n{text.getvalue()}", pytrace=False)
    return comparison
