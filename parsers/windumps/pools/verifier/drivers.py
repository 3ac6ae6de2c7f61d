"""The drivers Driver Verifier watches: names, loads, and what each holds and held at most.

A page of records names its driver's counters, and these name the driver's entry in the list of all. Both
prove themselves: the name by being one, the counters by what the records add up to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from windumps.errors import MemoryReadError
from windumps.images.modules import Module
from windumps.kernel.drivers import read_string
from windumps.kernel.kernel import Kernel
from windumps.layouts.rows import candidates
from windumps.layouts.verifier import (
    SUSPECT,
    SUSPECT_LAYOUTS,
    VERIFIED_DRIVER,
    VERIFIED_DRIVER_LAYOUTS,
)
from windumps.memory.lists import list_nodes
from windumps.pools.verifier.pool_use import NONPAGED, PAGED, PoolUse, pool_use

_MAX_SUSPECTS = 4096
_NAME = re.compile(r"[^\x00-\x1f\\/:*?\"<>|]{1,60}\.[A-Za-z]{2,4}")


@dataclass(frozen=True)
class VerifiedDriver:
    """One driver the Verifier watches.

    Attributes:
        name: File name of its image.
        image: Its image, loaded or unloaded before; None when neither list has it.
        is_loaded: It is loaded.
        block_count: Its blocks among the records found.
        block_bytes: Bytes asked for in them.
        paged: Of paged pool; None when its counters are not known.
        nonpaged: Of nonpaged pool; None when its counters are not known.
        loads: How often it was loaded since it is watched; None when not known.
        unloads: How often it was unloaded; None when not known.
    """

    name: str
    image: Module | None
    is_loaded: bool
    block_count: int = 0
    block_bytes: int = 0
    paged: PoolUse | None = None
    nonpaged: PoolUse | None = None
    loads: int | None = None
    unloads: int | None = None

    @property
    def counted(self) -> int | None:
        """Blocks it holds by its own counters; None when these are not known."""
        if self.paged is None or self.nonpaged is None:
            return None
        return self.paged.blocks + self.nonpaged.blocks


class Suspect(NamedTuple):
    """An entry of the list of all drivers to be watched."""

    address: int
    name: str
    loads: int
    unloads: int


def suspect_at(kernel: Kernel, address: int) -> Suspect | None:
    """The entry at an address; None where there is none."""
    for row in candidates(SUSPECT_LAYOUTS, kernel.architecture, kernel.build):
        try:
            record = row.read(kernel.memory, SUSPECT, address)
        except MemoryReadError:
            continue
        name = read_string(kernel.memory, record.bytes_of("BaseName"), row.pointer_size)
        if _NAME.fullmatch(name) and record["Unloads"] <= record["Loads"]:
            return Suspect(address, name, record["Loads"], record["Unloads"])
    return None


def read_driver(
    kernel: Kernel, entry: int, count: int, held: int, caller: Module | None
) -> tuple[VerifiedDriver, Suspect | None]:
    """A watched driver, and its entry in the list of all.

    Args:
        kernel: The kernel.
        entry: Address of its counters.
        count: Its blocks among the records found.
        held: Their bytes.
        caller: The image most of them were allocated from.
    """
    paged, nonpaged, suspect = _counters(kernel, entry, count, held)
    name = suspect.name if suspect is not None else caller.name if caller is not None else ""
    image = _image_named(kernel, name) or (caller if suspect is None else None)
    driver = VerifiedDriver(name, image, image in kernel.drivers, count, held, paged, nonpaged)
    if suspect is not None:
        driver = replace(driver, loads=suspect.loads, unloads=suspect.unloads)
    return driver, suspect


def without_records(kernel: Kernel, suspect: Suspect, use: PoolUse | None) -> VerifiedDriver:
    """A watched driver of which no record was found; `use` is what is known of either pool."""
    image = _image_named(kernel, suspect.name)
    driver = VerifiedDriver(suspect.name, image, image in kernel.drivers, paged=use, nonpaged=use)
    return replace(driver, loads=suspect.loads, unloads=suspect.unloads)


def _image_named(kernel: Kernel, name: str) -> Module | None:
    """A driver by name, a loaded one before one that was unloaded."""
    images = (*kernel.drivers, *kernel.unloaded)
    return next((image for image in images if image.name.lower() == name.lower()), None)


def listed_drivers(kernel: Kernel, known: Iterable[Suspect]) -> list[Suspect]:
    """All entries of the list of drivers to be watched, as far as something leads to it.

    Args:
        kernel: The kernel.
        known: Some of its entries.
    """
    found = {suspect.address: suspect for suspect in known}
    head = kernel.symbol("VfSuspectDriversList") or next(iter(found), None)
    if head is None:
        return []
    for node in list_nodes(kernel.memory, head, kernel.pointer_size)[0][:_MAX_SUSPECTS]:
        suspect = suspect_at(kernel, node)
        if suspect is not None:  # the head itself is none
            found[node] = suspect
    return list(found.values())


def _counters(
    kernel: Kernel, entry: int, count: int, held: int
) -> tuple[PoolUse | None, PoolUse | None, Suspect | None]:
    """A driver's counters under the layout that agrees with the records best, and its entry."""
    best: tuple[int, PoolUse, PoolUse] | None = None
    named: Suspect | None = None
    for row in candidates(VERIFIED_DRIVER_LAYOUTS, kernel.architecture, kernel.build):
        try:
            record = row.read(kernel.memory, VERIFIED_DRIVER, entry)
        except MemoryReadError:
            continue
        has_list = row.has(VERIFIED_DRIVER, "SuspectDriverEntry")
        suspect = suspect_at(kernel, record["SuspectDriverEntry"] if has_list else entry)
        named = named or suspect
        is_own = row.first_build <= kernel.build <= row.last_build
        paged, nonpaged = pool_use(record, PAGED), pool_use(record, NONPAGED)
        if paged is None or nonpaged is None or not _are_of(paged, nonpaged, count, held):
            continue
        is_same = count > 0 and paged.blocks + nonpaged.blocks == count
        # Some records may not be in the dump: then the build and a name have to speak for the counters.
        if not is_same and not (is_own and suspect is not None):
            continue
        score = 4 * is_same + 2 * (suspect is not None) + is_own
        if best is None or score > best[0]:
            best = score, paged, nonpaged
    return (None, None, named) if best is None else (best[1], best[2], named)


def _are_of(paged: PoolUse, nonpaged: PoolUse, count: int, held: int) -> bool:
    """Whether counters can be those of a driver with so many blocks found, of so many bytes."""
    return paged.blocks + nonpaged.blocks >= count and paged.bytes + nonpaged.bytes >= held
