"""Opens made dumps from memory, and finds diagnostics by code."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from windumps.diagnostics import Diagnostic
from windumps.dump import Dump
from windumps.dumps.minidump.reader import open_minidump


def open_bytes(data: bytes) -> Dump:
    """A minidump that is no file."""
    return open_minidump(Path("made.dmp"), np.frombuffer(data, np.uint8))


def codes(dump: Dump) -> list[str]:
    """The codes of all diagnostics, in order."""
    return [item.code for item in dump.diagnostics]


def only(dump: Dump, code: str) -> Diagnostic:
    """The one diagnostic with this code."""
    found = [item for item in dump.diagnostics if item.code == code]
    assert len(found) == 1, dump.diagnostics
    return found[0]
