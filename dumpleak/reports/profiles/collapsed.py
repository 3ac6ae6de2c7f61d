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


class CollapsedReport:
    """See `Report`; comparisons and totals of one dump."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def diff(self, judged: Judged[Comparison], top: int | None) -> None:
        """All sites, changed or not; a comparison that was refused has none."""
        comparison = judged.answer
        if comparison.refused:
            return
        pairs = compared_pairs(comparison)
        base, current = _added(pairs, False), _added(pairs, True)
        for line in sorted(current):
            self._stream.write(f"{line} {base[line]} {current[line]}\n")

    def stat(self, snapshot: Snapshot, top: int | None) -> None:
        """All groups of one dump."""
        added = _added(site_pairs({}, snapshot.groups), True)
        self._stream.writelines(f"{line} {added[line]}\n" for line in sorted(added))


def _added(pairs: Iterable[SitePair], current: bool) -> Counter[str]:
    """Bytes by line; sites of the same path are one."""
    added: Counter[str] = Counter()
    for pair in pairs:
        line = ";".join(visible(step).replace(";", ":") for step in path_of(pair.site))
        added[line] += pair.current.bytes if current else pair.base.bytes
    return added
