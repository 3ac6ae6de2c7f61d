"""Snapshot files of the kernel's pools: the same files as those of heaps.

Totals of tags are what the trackers count; the rows are the blocks that were found. So the rows of a tag may
add up to less than its totals, and groups by size, kind and pool are of the rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dumpleak.files.columns import arrow
from dumpleak.files.metadata import About, Metadata, StoredPopulation
from dumpleak.files.stripping import stripped_metadata
from dumpleak.kernel.pools import PoolReader
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.memory import MemoryByUse
from dumpleak.model.pool import POOLS
from dumpleak.model.pool_sites import driver_of
from dumpleak.model.pools import Pools
from dumpleak.model.process_rows import ProcessRow
from dumpleak.survey.pools import POOL_GROUPINGS, take_pool_snapshot
from dumpleak.survey.populations.system import System, all_of_system
from dumpleak.survey.processes import process_rows
from dumpleak.survey.recording import PATHS, without_paths, write_columns
from windumps.blocks import SIZE_UNKNOWN


def write_pool_snapshot(
    reader: PoolReader,
    path: Path | str,
    include: tuple[str, ...] = (),
    *,
    strip_names: bool = False,
    keep_names: tuple[str, ...] = (),
    of: str | None = None,
) -> None:
    """Walks the pools of a dump and writes their snapshot; arguments and errors as `write_snapshot`."""
    arrow()  # better now than after a long walk
    snapshot = take_pool_snapshot(reader)
    populations, rows = _populations(reader)
    pools = snapshot.pool
    if pools is None:
        raise ValueError("a snapshot of no pools")
    drivers = list(POOL_GROUPINGS["driver"](pools).values())
    number_of = {site.key: number for number, (site, _) in enumerate(drivers)}
    sites = [site for site, _ in snapshot.groups.values()]
    columns = _columns(pools, list(snapshot.groups), [row.label for row in snapshot.heaps])
    metadata = Metadata(
        snapshot,
        {"driver": drivers},
        {
            "site": list(range(len(sites))),
            "driver": [number_of[driver_of(site.driver).key] for site in sites],
        },
        about=_about(reader),
        block_count=len(columns["address"]),
        populations=populations,
        processes=rows,
    )
    needed = metadata.populations.get(of or "")
    if needed is not None and not needed.groups:
        raise CannotAnswerError(f"{reader.dump.path}: {needed.reason}")
    if PATHS not in include:
        metadata = without_paths(metadata)
    if strip_names:
        metadata = stripped_metadata(metadata, keep_names)
    write_columns(path, metadata, columns)


def _populations(
    reader: PoolReader,
) -> tuple[dict[str, StoredPopulation], tuple[ProcessRow, ...] | None]:
    """What the system has besides pool; of a dump without a list of processes only why there is none."""
    system = System(reader.dump, reader)
    try:
        rows = process_rows(system.processes)
    except CannotAnswerError:
        rows = None
    return all_of_system(system), rows


def _about(reader: PoolReader) -> About:
    """Of the dump; a kernel's memory is not accounted for by use."""
    dump = reader.dump
    memory = dump.memory if dump.physical is None else dump.physical
    unloaded = tuple(dump.unloaded_modules)
    return About(dump.full_memory, memory.total_bytes, 0, None, unloaded, MemoryByUse((), False))


def _columns(pools: Pools, keys: list[str], labels: list[str]) -> dict[str, NDArray[Any]]:
    """The blocks of the sites, ascending by address."""
    parts: list[tuple[NDArray[Any], ...]] = []
    heaps = [labels.index(f"{pool} pool") if f"{pool} pool" in labels else 0 for pool in POOLS]
    for number, key in enumerate(keys):
        tag, pool = pools.tags[key]
        blocks = pools.blocks().as_blocks(tag, pool)
        heap = np.full(len(blocks), heaps[pool or 0], np.uint16)
        site = np.full(len(blocks), number, np.int32)
        parts.append((blocks.address, blocks.block_bytes, blocks.kind, heap, site))
    nothing = tuple(np.empty(0, kind) for kind in ("u8", "i8", "u1", "u2", "i4"))
    address, size, kind, heap, site = (
        np.concatenate(column) for column in zip(nothing, *parts, strict=True)
    )
    order = np.argsort(address, kind="stable")
    return {
        "address": address[order],
        "size": np.full(len(order), SIZE_UNKNOWN, np.int64),
        "block_bytes": size[order],
        "kind": kind[order],
        "heap": heap[order],
        "site": site[order],
        "detail": np.zeros(len(order), np.int32),
        "shape": np.zeros(len(order), np.uint16),
    }
