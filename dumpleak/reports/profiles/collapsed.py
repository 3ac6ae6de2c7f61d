"""Collapsed stacks: one line a stack, outermost caller first, then numbers, for flame graph tools.

One dump has one number, its bytes. A comparison has two, base and current bytes, as difffolded.pl writes
them and flamegraph.pl and inferno read them: they colour what grew red and what shrank blue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import IO

from dumpleak.compare.answers import Comparison
from dumpleak.gate.gate import Judged
from dumpleak.model.snapshot import Snapshot
from dumpleak.reports.names import visible
from dumpleak.reports.profiles.stack_tree import SitePair, compared_pairs, path_of, site_pairs


def write_diff(judged: Judged[Comparison], _: int | None, stream: IO[str]) -> None:
    """All sites, changed or not; a comparison that was refused has none."""
    comparison = judged.answer
    if comparison.refused:
        return
    base, current = _added(compared_pairs(comparison))
    stream.writelines(f"{line} {base[line]} {current[line]}\n" for line in sorted(current))


def write_stat(snapshot: Snapshot, stream: IO[str]) -> None:
    """All groups of one dump."""
    _, added = _added(site_pairs({}, snapshot.groups))
    stream.writelines(f"{line} {added[line]}\n" for line in sorted(added))


def _added(pairs: Iterable[SitePair]) -> tuple[Counter[str], Counter[str]]:
    """Bytes before and after by line; sites of the same path are one."""
    base: Counter[str] = Counter()
    current: Counter[str] = Counter()
    for pair in pairs:
        line = ";".join(visible(step).replace(";", ":") for step in path_of(pair.site))
        base[line] += pair.base.bytes
        current[line] += pair.current.bytes
    return base, current
