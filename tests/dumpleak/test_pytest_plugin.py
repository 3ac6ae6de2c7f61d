"""The pytest fixture, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from truth import TESTDATA

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"

_TESTS = """
pytest_plugins = ["dumpleak.pytest_plugin"]
BEFORE, AFTER, OTHER = {files!r}

def test_small(assert_no_growth):
    assert assert_no_growth(BEFORE, AFTER, fail_on="bytes>=1G").delta_count == 3126

def test_large(assert_no_growth):
    assert_no_growth(BEFORE, AFTER, fail_on="site.bytes>=200K")

def test_unknown(assert_no_growth):
    assert_no_growth(BEFORE, AFTER, fail_on="bytes>=1G,handles.count>=1")

def test_other(assert_no_growth):
    assert_no_growth(BEFORE, OTHER, fail_on="bytes>=1G")
"""


def test_the_fixture_fails_a_test_and_says_which_sites_grew(tmp_path: Path) -> None:
    other = TESTDATA / "6.1.7601.24384-x86" / "leak-pair-ust" / "after.dmp.gz"
    files = [str(PAIR / "before.dmp.gz"), str(PAIR / "after.dmp.gz"), str(other)]
    (tmp_path / "test_memory.py").write_text(_TESTS.format(files=files))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_memory.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "3 failed, 1 passed" in done.stdout
    assert "SUMMARY: FAIL site.bytes>=200K" in done.stdout
    assert "| +464 KiB | +628 | failed | `app.exe+0x4446` |" in done.stdout
    assert "not comparable" in done.stdout
    assert "SUMMARY: NO ANSWER; handles.count>=1" in done.stdout
