"""Snapshot files made without symbols, read with them: the same sites as from the dump itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.pdb_builder import PdbBuilder
from made_symbols import identity, made_pdb, put_in_store
from truth import TESTDATA

from dumpleak.cli import main
from windumps import open_dump

pytest.importorskip("pyarrow")

PAIR = TESTDATA / "10.0.26100.5074-x64" / "leak-pair-ust"
BEFORE, AFTER = PAIR / "before.dmp.gz", PAIR / "after.dmp.gz"
APP = identity(open_dump(AFTER))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def _run(*args: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        return int(stop.value.code or 0), capsys.readouterr().out

    return _run


@pytest.fixture
def held(run: Any, tmp_path: Path) -> tuple[Path, Path]:
    """Both dumps as snapshots that were made without symbols."""
    paths = tmp_path / "before.snapshot", tmp_path / "after.snapshot"
    for dump, path in zip((BEFORE, AFTER), paths, strict=True):
        assert run("snapshot", dump, "-o", path)[0] == 0
    return paths


def _sites(run: Any, *args: object) -> list[dict[str, Any]]:
    code, out = run("diff", *args, "--format", "json", "--no-holders")
    assert code == 0
    shown = ("kind", "name", "frames", "type", "delta_bytes", "delta_count", "base_bytes")
    return [{name: site[name] for name in shown} for site in json.loads(out)["sites"]]


@pytest.mark.parametrize("by", ["site", "stack"])
def test_a_snapshot_read_with_symbols_says_what_the_dump_does(
    run: Any, held: tuple[Path, Path], tmp_path: Path, by: str
) -> None:
    # The second function counts as the allocator's: with symbols, cut stacks begin behind it.
    builder = PdbBuilder(guid=APP.guid, age=APP.age)
    builder.sections = [(".text", 0x1000, 0x9000)]
    for number, name in enumerate(("?main@@YAXXZ", "??2@YAPEAX_K@Z", "?work@app@@YAXXZ")):
        builder.public(name, 1, 0x1000 * number)
    put_in_store(tmp_path / "store", APP, builder.build())
    with_symbols = ("--symbols", tmp_path / "store", "--by", by)
    of_dumps = _sites(run, BEFORE, AFTER, *with_symbols)
    assert _sites(run, *held, *with_symbols) == of_dumps
    assert _sites(run, held[0], AFTER, *with_symbols) == of_dumps
    assert _sites(run, BEFORE, held[1], *with_symbols) == of_dumps
    named = [site for site in of_dumps if site["kind"] == "stack"]
    assert {frame for site in named for frame in site["frames"] if "!" in frame}
    assert not any(site["name"].startswith("app.exe!operator new") for site in named)
    assert of_dumps != _sites(run, *held, "--by", by)


def test_symbols_of_another_build_name_nothing(
    run: Any, held: tuple[Path, Path], tmp_path: Path
) -> None:
    other = APP.__class__(APP.name, "F" * 32, 1)
    put_in_store(tmp_path / "store", APP, made_pdb(other))
    plain = _sites(run, *held)
    assert _sites(run, *held, "--symbols", tmp_path / "store") == plain
