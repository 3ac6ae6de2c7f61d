"""What holds for all tests."""

from __future__ import annotations

from typing import Any

import pytest

from dumpleak.cli import main


@pytest.fixture(autouse=True)
def _no_symbol_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own symbols, and servers, have no part in tests."""
    monkeypatch.delenv("_NT_SYMBOL_PATH", raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line: exit code, standard output, standard error."""

    def _run(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        output = capsys.readouterr()
        return int(stop.value.code or 0), output.out, output.err

    return _run
