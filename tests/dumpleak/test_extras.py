"""How to get a library that is missing: into the environment that runs, whoever made it."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from dumpleak.model import optional_libraries as extras
from dumpleak.model.optional_libraries import install_command


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment of dumpleak's own, in which it is installed."""
    made = tmp_path / "dumpleak"
    made.mkdir()
    monkeypatch.setattr(sys, "prefix", str(made))
    monkeypatch.setattr(sys, "executable", str(made / "bin" / "python"))
    return made


def _pip_is(found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec("json") if found else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


def test_the_interpreter_that_runs_is_the_one_that_gets_the_extra(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pip_is(True, monkeypatch)
    assert install_command("html") == f'{environment}/bin/python -m pip install "dumpleak[html]"'


def test_an_interpreter_in_a_folder_with_spaces_stands_in_quotes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _pip_is(True, monkeypatch)
    monkeypatch.setattr(sys, "executable", r"C:\Program Files\Python\python.exe")
    assert install_command("html").startswith(r'"C:\Program Files\Python\python.exe" -m pip')


def test_what_pipx_installed_gets_it_through_pipx(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (environment / extras.PIPX_MARK).write_text("{}")
    for found in (True, False):
        _pip_is(found, monkeypatch)
        assert install_command("trend") == 'pipx runpip dumpleak install "dumpleak[trend]"'


def test_an_environment_without_pip_gets_it_through_uv(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pip_is(False, monkeypatch)
    python = environment / "bin" / "python"
    assert install_command("trend") == f'uv pip install --python {python} "dumpleak[trend]"'


def test_a_clone_that_was_not_installed_is_named_by_its_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", missing)
    clone = Path(__file__).resolve().parents[2]
    assert f'"{clone}[html]"' in install_command("html")
