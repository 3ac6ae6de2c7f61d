"""Seeded runs over damaged inputs: fuzzing, honesty of walks, honesty of the gate.

The scripts here run from a checkout, whose code goes before an installed one. The developer's own symbols,
and servers, have no part in them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

for _part in (ROOT / "tests", ROOT / "parsers", ROOT):
    if str(_part) not in sys.path:
        sys.path.insert(0, str(_part))
os.environ.pop("_NT_SYMBOL_PATH", None)
