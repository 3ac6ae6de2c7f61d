"""Snapshots without names: types, modules, functions and source files are hashed, but for a keep list.

The hash is the same everywhere, so that sites of two such snapshots, or of one and a dump, still are one.
It is not salted: who has a list of names can try them. It keeps names out of sight, it is no encryption.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dumpleak.files.metadata import Metadata, with_sites
from dumpleak.files.pool_metadata import said_anew
from dumpleak.model.pools import Pools
from dumpleak.model.stripping import Names, _without, stripped_snapshot
from windumps.images.modules import Module

_EVIDENCE_LEFT_OUT = "evidence that names code is left out"


def stripped_metadata(metadata: Metadata, kept: tuple[str, ...]) -> Metadata:
    """All that a snapshot file holds, with its names hashed."""
    names = Names(kept)
    about = metadata.about
    if about is not None:
        unloaded = tuple(names.module(module) for module in about.unloaded_modules)
        about = replace(about, unloaded_modules=unloaded)
    images = (
        *metadata.snapshot.modules,
        *(metadata.about.unloaded_modules if metadata.about else ()),
    )
    snapshot = stripped_snapshot(metadata.snapshot, kept)
    snapshot.pool = snapshot.pool and stripped_pools(snapshot.pool, names, images)
    # Clauses on holders name their programs.
    processes = metadata.processes and tuple(
        replace(row, name=names.name("module", row.name), held_by=()) for row in metadata.processes
    )
    return replace(
        with_sites(metadata, names.site), about=about, snapshot=snapshot, processes=processes
    )


def stripped_pools(pools: Pools, names: Names, images: Iterable[Module]) -> Pools:
    """Pools by tag, with the names of their owners hashed.

    What speaks for a driver names its code, and a description may name whose it is: both are left out, but
    for drivers that are kept.
    """
    drivers = {owner.driver for row in pools.rows for owner in row.owner.owners}
    unloaded = {name for row in pools.rows for name in row.owner.unloaded}
    every = drivers | unloaded | {image.name for image in images}
    # The longest first: one name may be the end of another.
    shown = {name: names.name("module", name) for name in sorted(every, key=lambda n: -len(n))}
    hidden = [old.lower() for old, new in shown.items() if old and old != new]
    said = said_anew(pools, lambda text: _without(text, shown))
    rows = []
    for old, row in zip(pools.rows, said.rows, strict=True):
        owners = []
        for one in old.owner.owners:
            kept = shown[one.driver] == one.driver
            evidence = [
                text
                for text in one.evidence
                if kept and not any(name in text.lower() for name in hidden)
            ]
            if len(evidence) < len(one.evidence):
                evidence.append(_EVIDENCE_LEFT_OUT)
            owners.append(replace(one, driver=shown[one.driver], evidence=tuple(evidence)))
        open_ = bool(owners) and owners[0].driver == old.owner.owners[0].driver
        description = row.owner.description if open_ else ""
        owner = replace(
            row.owner,
            owners=tuple(owners),
            description=description,
            unloaded=tuple(shown[name] for name in old.owner.unloaded),
        )
        rows.append(replace(row, owner=owner))
    return replace(said, rows=tuple(rows))
