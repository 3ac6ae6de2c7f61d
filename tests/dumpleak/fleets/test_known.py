"""Known leaks are named, tracked and muted for a time."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from dumpleak.fleets.known import read_known

TODAY = date(2026, 12, 1)


def test_leaks_are_known_by_pattern_or_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text(
        """
[[known]]
site = "app.exe!Cache::*"
name = "JIRA-1"
[[known]]
fingerprint = "stack-0f"
name = "JIRA-2"
muted = true
expires = 2026-11-30
"""
    )
    known = read_known(path, TODAY)
    first = known.of("stack-1", "APP.EXE!cache::insert")
    assert first is not None
    assert (first.name, first.muted, first.is_expired) == ("JIRA-1", False, False)
    second = known.of("stack-0f77", "anything")
    assert second is not None
    assert (second.name, second.muted, second.is_expired) == ("JIRA-2", True, True)
    assert known.of("stack-1", "app.exe!Other") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("known = 3", "list"),
        ("[[known]]\nname = 'x'", "site"),
        ("[[known]]\nsite = 'x'", "name"),
        ("[[known]]\nsite = 'x'\nname = ' '", "name"),
        ("[[known]]\nsite = 'x'\nname = 'y'\nmute = true", "mute"),
        ("[[", "TOML"),
    ],
)
def test_a_file_that_says_something_else_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_known(path, TODAY)
