"""What holds for all tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_symbol_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own symbols, and servers, have no part in tests."""
    monkeypatch.delenv("_NT_SYMBOL_PATH", raising=False)
