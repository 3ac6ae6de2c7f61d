"""What several dumps tell of in the same way, so that it can be compared: bytes, and private memory.

A list that one dump has and another lacks must be no growth: with a list of regions, private memory is what
was committed; without, it is what the file holds beside images, heaps and stacks, mapped memory included.
All dumps of an answer are taken by the same measure; where there is none, nothing is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dumpleak.model.sites import Site, without_allocator
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals, sum_of
from windumps.diagnostics import Diagnostic, Severity

NOT_SAID = "the snapshot file does not say what the dump's file held beside heaps"


def with_same_bytes(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """Snapshots of members that all have bytes, or none has: where one dump lacks them, none is compared."""
    if all(snapshot.has_bytes for snapshot in snapshots):
        return list(snapshots)
    return [
        replace(
            snapshot,
            groups={k: (site, Totals(t.count)) for k, (site, t) in snapshot.groups.items()},
            totals=Totals(snapshot.totals.count),
            sized=False,
        )
        for snapshot in snapshots
    ]


def with_same_private(snapshots: Sequence[Snapshot]) -> tuple[list[Snapshot], list[Diagnostic]]:
    """Snapshots whose private memory can be compared, and what has to be said of that.

    Snapshots of logs and of kernels have none, and stay as they are.
    """
    if not all(snapshot.allocators_known for snapshot in snapshots):
        snapshots = [_of_no_allocator(snapshot) for snapshot in snapshots]
    if all(snapshot.by_regions and not snapshot.private_unknown for snapshot in snapshots):
        return list(snapshots), []
    files = [snapshot.in_file for snapshot in snapshots]
    # How many pieces of a file that is tells nothing of how many allocations there were.
    shared = [
        {site.key: (site, replace(totals, count=min(totals.count, 1)))}
        for site, totals in (found for found in files if found is not None)
    ]
    if len(shared) == len(snapshots):
        message = (
            "not all dumps list the process's memory regions: memory outside heaps is compared by what their "
            "files hold, mapped memory included"
        )
        note = Diagnostic(
            "private-by-file", Severity.WARNING, "MemoryInfoListStream", None, message
        )
        same = [
            replace(snapshot, private=private, private_unknown="", by_regions=False)
            for snapshot, private in zip(snapshots, shared, strict=True)
        ]
        return same, [note]
    reasons = [
        f"{snapshot.source.file}: {snapshot.private_unknown or NOT_SAID}"
        for snapshot in snapshots
        if snapshot.private_unknown or snapshot.in_file is None
    ]
    message = f"private memory outside heaps is not compared: {'; '.join(dict.fromkeys(reasons))}"
    note = Diagnostic("private-not-compared", Severity.WARNING, "comparison", None, message)
    unknown = "; ".join(dict.fromkeys(reasons))
    return [replace(snapshot, private={}, private_unknown=unknown) for snapshot in snapshots], [
        note
    ]


def _of_no_allocator(snapshot: Snapshot) -> Snapshot:
    """With private memory as files of older versions tell of it: by size alone."""
    merged: dict[str, tuple[Site, list[Totals]]] = {}
    for key, (site, totals) in snapshot.private.items():
        plain = without_allocator(key)
        if plain != key:
            size = site.name.rpartition(", ")[2]
            site = replace(site, key=plain, name=f"private memory outside heaps, {size}")
        merged.setdefault(plain, (site, []))[1].append(totals)
    groups = {key: (site, sum_of(totals)) for key, (site, totals) in merged.items()}
    return replace(snapshot, private=groups)
