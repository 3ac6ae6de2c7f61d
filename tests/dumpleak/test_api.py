"""The Python API: its examples run, and say the same as the commands."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest
from truth import ROOT, TESTDATA

import dumpleak
from dumpleak import api
from dumpleak.cli import main
from windumps.errors import WindumpsError

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"
BEFORE, AFTER = PAIR / "before.dmp.gz", PAIR / "after.dmp.gz"
SERIES = [TESTDATA / "10.0.22621.4541-x64" / "series-ust" / f"dump{n}.dmp.gz" for n in range(4)]


def test_the_examples_in_the_documentation_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = doctest.testmod(api)
    assert result.attempted > 15
    assert result.failed == 0


def test_the_functions_are_in_the_package() -> None:
    for name in dumpleak.__all__:
        if name != "__version__":
            assert getattr(dumpleak, name) is getattr(api, name)


def _json(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    with pytest.raises(SystemExit):
        main([*(str(argument) for argument in arguments), "--format", "json"])
    return json.loads(capsys.readouterr().out)


def test_tables_hold_what_the_commands_write(capsys: pytest.CaptureFixture[str]) -> None:
    for answer, command in (
        (dumpleak.compare(BEFORE, AFTER), ("diff", BEFORE, AFTER, "--no-holders")),
        (dumpleak.trend(SERIES), ("trend", *SERIES, "--no-holders")),
    ):
        rows = dumpleak.sites_table(answer).to_pylist()
        written = _json(capsys, *command)["sites"]
        assert len(rows) == len(written)
        for row, site in zip(rows, written, strict=True):
            for name in row.keys() & site.keys() - {"bytes_per_hour", "count_per_hour"}:
                assert row[name] == site[name], name


def test_dumps_sessions_snapshots_and_files_are_mixed_freely(tmp_path: Path) -> None:
    file = tmp_path / "before.dlsnap"
    dumpleak.write_snapshot(dumpleak.open_dump(BEFORE), file)
    expected = dumpleak.compare(BEFORE, AFTER).sites
    assert dumpleak.compare(file, dumpleak.open_dump(AFTER)).sites == expected
    assert dumpleak.compare(dumpleak.snapshot(file), str(AFTER)).sites == expected


def test_groups_and_blocks_of_one_dump_are_tables_too() -> None:
    taken = dumpleak.snapshot(BEFORE)
    blocks = dumpleak.blocks_table(taken)
    sites = dumpleak.sites_table(taken)
    assert blocks.num_rows == taken.totals.count == sum(sites["used_count"].to_pylist())
    assert set(blocks["key"].to_pylist()) == set(sites["key"].to_pylist())
    logless = dumpleak.snapshot(BEFORE)
    logless.blocks = None
    with pytest.raises(ValueError, match="does not know"):
        dumpleak.blocks_table(logless)


def test_what_cannot_be_answered_raises_a_typed_error(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.dmp"
    nothing.write_bytes(b"nothing")
    with pytest.raises(WindumpsError, match="not a Windows dump"):
        dumpleak.snapshot(nothing)
