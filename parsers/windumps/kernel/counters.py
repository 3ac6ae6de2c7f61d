"""The memory manager's own counters: commit, pool in use and limits, system PTEs.

Up to Windows 8.1 KDBG says where they are. Since Windows 10 they are fields of two large variables,
nt!MiState and nt!MiSystemPartition, whose layout changes with every build: offsets come from the
kernel's symbols when the user has them with types, else from the table below, for the builds it
has. What no way leads to is unknown (None), and so is a zero that cannot be true: a field that
KDBG still names and nobody writes.

Sources: public kernel symbols of each build in the table (offsets), `_POOL_DESCRIPTOR` of XP to 8.1
(published headers); units: pages, except the two that say bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from windumps.arrays import PAGE_SIZE
from windumps.builds import WITHOUT_PARTITIONS
from windumps.errors import MemoryReadError
from windumps.kernel.kernel import Kernel
from windumps.kernel.memory_state import find_state
from windumps.kernel.partition import find_partition
from windumps.symbols.base import find_field

MAX_BYTES = 1 << 56  # more is no counter of memory but damage
_MAX_POOLS = 64


@dataclass(frozen=True)
class Counter:
    """One counter.

    Attributes:
        name: Stable, for scripts: "committed".
        bytes: Its value; None when unknown. Of "system_ptes" and "free_system_ptes" a count.
        source: Where it comes from, or why it is unknown.
        by_build: Its place is that of another kernel of the same build. Revisions of one build differ there,
            so something else must bear the value out.
        searched: It is of MiSystemPartition, which nothing names; that was found by what it holds.
    """

    name: str
    bytes: int | None
    source: str
    by_build: bool = False
    searched: bool = False


# In the order they are shown. (name, KDBG field, bytes of its unit, bytes of the variable or 0 for a
# pointer's).
_KDBG = (
    ("physical_memory", "MmNumberOfPhysicalPages", PAGE_SIZE, 0),
    ("available", "MmAvailablePages", PAGE_SIZE, 0),
    ("committed", "MmTotalCommittedPages", PAGE_SIZE, 0),
    ("commit_limit", "MmTotalCommitLimit", PAGE_SIZE, 0),
    ("peak_commit", "MmPeakCommitment", PAGE_SIZE, 0),
    ("nonpaged_pool", "MmAllocatedNonPagedPool", PAGE_SIZE, 0),
    ("nonpaged_pool_limit", "MmMaximumNonPagedPoolInBytes", 1, 0),
    ("paged_pool", "", PAGE_SIZE, 0),
    ("paged_pool_limit", "MmSizeOfPagedPoolInBytes", 1, 0),
    ("paged_pool_commit", "MmPagedPoolCommit", PAGE_SIZE, 0),
    ("driver_commit", "MmDriverCommit", PAGE_SIZE, 4),
    ("shared_commit", "MmSharedCommit", PAGE_SIZE, 0),
    ("system_ptes", "", 1, 0),
)
NAMES = tuple(row[0] for row in _KDBG)

# Where Windows 10 and later keep them: (variable, its structure, path of the field).
_STATE, _PARTITION = "MiState", "MiSystemPartition"
_STRUCTURES = {_STATE: "_MI_SYSTEM_INFORMATION", _PARTITION: "_MI_PARTITION"}
_FIELDS: dict[str, tuple[str, str]] = {
    "physical_memory": (_PARTITION, "Vp.NumberOfPhysicalPages"),
    "available": (_PARTITION, "Vp.AvailablePages"),
    "committed": (_PARTITION, "Vp.TotalCommittedPages"),
    "commit_limit": (_PARTITION, "Vp.TotalCommitLimit"),
    "peak_commit": (_PARTITION, "Commit.PeakCommitment"),
    "shared_commit": (_PARTITION, "Vp.SharedCommit"),
    "nonpaged_pool": (_STATE, "Pools.AllocatedNonPagedPool"),
    "paged_pool": (_STATE, "Vs.PagedPoolInfo.AllocatedPagedPool"),
    "driver_commit": (_STATE, "Vs.DriverCommit"),
}
_COLUMNS = tuple(_FIELDS)
# (architecture, first build, last build): offsets in the order of `_COLUMNS`; 0 where a build has
# no such field.
_OFFSETS: dict[tuple[str, int, int], tuple[int, ...]] = {
    ("x64", 10240, 10240): (
        *(0x14D0, 0x1580, 0x15C8, 0x1668, 0x1280, 0),
        *(0x18, 0x1618, 0x16D8),
    ),
    ("x64", 10586, 10586): (
        *(0x1650, 0x1700, 0x1748, 0x17E8, 0x1380, 0),
        *(0x18, 0x1618, 0x16D8),
    ),
    ("x64", 14393, 14393): (
        *(0x1410, 0x14C0, 0x17A8, 0x1828, 0x1180, 0),
        *(0x18, 0x1718, 0x17E0),
    ),
    ("x64", 15063, 15063): (
        *(0x15D0, 0x1680, 0x17F0, 0x1868, 0x1340, 0x1888),
        *(0x18, 0x12C8, 0x1380),
    ),
    ("x64", 16299, 16299): (
        *(0x1690, 0x1740, 0x18B0, 0x1928, 0x13C0, 0x1948),
        *(0x18, 0x1288, 0x1340),
    ),
    ("x64", 17134, 17134): (
        *(0x1AD0, 0x1B80, 0x1CE8, 0x1D68, 0x1800, 0x1D88),
        *(0x18, 0x14C8, 0x1578),
    ),
    ("x64", 17763, 17763): (
        *(0x1BD0, 0x1C80, 0x1DE8, 0x1E68, 0x1900, 0x1E88),
        *(0x18, 0x25C8, 0x2678),
    ),
    ("x64", 18362, 18363): (
        *(0x1ED0, 0x1F80, 0x20E8, 0x2168, 0x1C00, 0x2188),
        *(0x8, 0x24A8, 0x2550),
    ),
    ("x64", 19041, 19045): (
        *(0x1B10, 0x1BC0, 0x1D28, 0x1DA8, 0x1840, 0x1DC8),
        *(0x8, 0x25E8, 0x2690),
    ),
    ("x64", 26100, 26200): (
        *(0x4850, 0x4900, 0x4B40, 0x4C98, 0x41C0, 0x4CB8),
        *(0x8, 0xAB10, 0xABB0),
    ),
    ("x86", 10240, 10240): (
        *(0xBC8, 0xC40, 0xC84, 0xD14, 0xA80, 0),
        *(0x10, 0x34EC, 0x3550),
    ),
    ("x86", 15063, 15063): (
        *(0xDC8, 0xE40, 0xF40, 0xFD4, 0xC00, 0xFE4),
        *(0x10, 0x32E4, 0x3344),
    ),
    ("x86", 16299, 16299): (
        *(0xE48, 0xEC0, 0xFC0, 0x1054, 0xC80, 0x1064),
        *(0x10, 0x3364, 0x33C4),
    ),
    ("x86", 17134, 17134): (
        *(0xF88, 0x1000, 0x10FC, 0x1154, 0xDC0, 0x1164),
        *(0x10, 0x45A4, 0x4600),
    ),
    ("x86", 17763, 17763): (
        *(0x1048, 0x10C0, 0x11BC, 0x1214, 0xE80, 0x1224),
        *(0x10, 0x46A4, 0x4700),
    ),
    ("x86", 18362, 18363): (
        *(0x11C8, 0x1240, 0x133C, 0x1394, 0x1000, 0x13A4),
        *(0x4, 0x4194, 0x41EC),
    ),
    ("x86", 19041, 19045): (
        *(0xF48, 0xFC0, 0x10BC, 0x1114, 0xD80, 0x1124),
        *(0x4, 0x41D4, 0x422C),
    ),
}
_FOUR_BYTES = frozenset({"driver_commit"})

# `_POOL_DESCRIPTOR`: (first build, TotalPages, TotalBigPages), four bytes each.
_DESCRIPTORS = ((7600, 0xC0, 0x48), (2600, 0x10, 0x14))


def read_counters(kernel: Kernel) -> list[Counter]:
    """All counters, known or not, in the order of `NAMES`."""
    known = {counter.name: counter for counter in _known(kernel)}
    return [known.get(name) or Counter(name, None, _why_unknown(kernel, name)) for name in NAMES]


def _known(kernel: Kernel) -> Iterator[Counter]:
    for name, field, unit, size in _KDBG:
        value = kernel.value(field, size or None) if field else None
        if value and value < MAX_BYTES // unit:
            yield Counter(name, value * unit, f"nt!{field}")
    if kernel.build in WITHOUT_PARTITIONS:
        pages = _paged_pool_pages(kernel)
        if pages:
            yield Counter("paged_pool", pages * PAGE_SIZE, "sum of the paged pools' descriptors")
    else:
        yield from _fields_of_variables(kernel)
    start, end = kernel.value("MmSystemPtesStart"), kernel.value("MmSystemPtesEnd")
    if start and end and start < end < start + MAX_BYTES:
        yield Counter(
            "system_ptes",
            (end - start + PAGE_SIZE - 1) // PAGE_SIZE,
            "nt!MmSystemPtesStart and End",
        )


def _fields_of_variables(kernel: Kernel) -> Iterator[Counter]:
    architecture = "x86" if kernel.architecture == "x86" else "x64"
    row = next(
        (
            offsets
            for (arch, first, last), offsets in _OFFSETS.items()
            if arch == architecture and first <= kernel.build <= last
        ),
        # ARM64 has other paddings: the table is not for it.
        None,
    )
    offsets = (
        dict(zip(_COLUMNS, row, strict=True)) if row and kernel.architecture != "arm64" else {}
    )
    symbols = kernel.symbols.source
    places = {variable: kernel.symbol(variable) for variable in _STRUCTURES}
    # Offsets that symbols give belong to a kernel whose variables have names.
    searched = {
        variable: place
        for variable, find in ((_PARTITION, find_partition), (_STATE, find_state))
        if places[variable] is None and offsets and (place := find(kernel, offsets)) is not None
    }
    for name, (variable, path) in _FIELDS.items():
        address = searched.get(variable, places[variable])
        if address is None:
            continue
        found = find_field(symbols, _STRUCTURES[variable], path) if symbols is not None else None
        offset = found.offset if found is not None else offsets.get(name)
        if found is None and not offset:
            continue
        size = 4 if name in _FOUR_BYTES else kernel.pointer_size
        try:
            value = kernel.memory.read_uint(address + (offset or 0), size)
        except MemoryReadError:
            continue
        if 0 < value < MAX_BYTES // PAGE_SIZE:
            how = "symbols" if found is not None else f"layout of build {kernel.build}"
            how += ", found by its structure" * (variable in searched)
            source = f"nt!{variable}.{path} ({how})"
            of_partition = variable == _PARTITION and variable in searched
            yield Counter(name, value * PAGE_SIZE, source, found is None, of_partition)


def _paged_pool_pages(kernel: Kernel) -> int:
    """Pages of all paged pools by their descriptors; 0 when one is not in the dump."""
    count, array = kernel.value("ExpNumberOfPagedPools", 4), kernel.symbol("ExpPagedPoolDescriptor")
    if not count or not array or count > _MAX_POOLS:
        return 0
    offsets = next(
        row[1:] for row in _DESCRIPTORS if kernel.build >= row[0] or row is _DESCRIPTORS[-1]
    )
    total = 0
    try:
        for number in range(count + 1):
            pool = kernel.memory.read_uint(
                array + number * kernel.pointer_size, kernel.pointer_size
            )
            total += sum(kernel.memory.read_uint(pool + offset, 4) for offset in offsets)
    except MemoryReadError:
        return 0
    return total


def _why_unknown(kernel: Kernel, name: str) -> str:
    if kernel.kdbg is None:
        return "KDBG was not found"
    if kernel.build in WITHOUT_PARTITIONS or name not in _FIELDS:
        return "no variable holds it in this dump"
    variable = _FIELDS[name][0]
    if kernel.symbol(variable) is None:
        return f"nt!{variable} needs the kernel's symbols"
    return f"nt!{variable} of build {kernel.build} needs the kernel's symbols, or reads zero"
