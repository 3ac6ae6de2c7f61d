"""Layouts of what Driver Verifier keeps of pool, by build.

How sure: the structures are in the kernels' public symbols (read for 7601, 9600, 14393, 18362, 19041 and
22000, all x64) and published headers (vergiliusproject.com, ntdiff), those of 26100 in generated offsets
(ntoskrnlib); 20348 and 22621 are taken for their neighbours. None was tried on a dump of a real system yet.
Which row fits is decided by what memory holds.
"""

from __future__ import annotations

from windumps.layouts.rows import LayoutRow

_SYMBOLS = "public kernel symbols and published headers"
_GENERATED = "generated offsets (ntoskrnlib)"

VERIFIER = "_MM_DRIVER_VERIFIER_DATA"
_VERIFIER_HEAD = {
    "Level": (0x0, "u4"),
    "AllocationsAttempted": (0x10, "u4"),
    "AllocationsSucceeded": (0x14, "u4"),
    "AllocationsSucceededSpecialPool": (0x18, "u4"),
    "AllocationsWithNoTag": (0x1C, "u4"),
    "AllocationsFailed": (0x28, "u4"),
    "AllocationsFailedDeliberately": (0x2C, "u4"),
}
# Bytes of each pool, then their peaks: in all structures one behind the other.
_BYTES = ("PagedBytes", "NonPagedBytes", "PeakPagedBytes", "PeakNonPagedBytes")
_COUNTS = (
    "CurrentPagedPoolAllocations",
    "CurrentNonPagedPoolAllocations",
    "PeakPagedPoolAllocations",
    "PeakNonPagedPoolAllocations",
)


def _bytes(start: int, pointer: int) -> dict[str, tuple[int, str]]:
    return {name: (start + number * pointer, "ptr") for number, name in enumerate(_BYTES)}


def _verifier(
    architecture: str, first: int, last: int, loads: int, held: int, source: str = _SYMBOLS
) -> LayoutRow:
    """A row of the counters over all drivers; `loads` and `held` say where Loads and PagedBytes are."""
    pointer = 4 if architecture == "x86" else 8
    structure = {
        **_VERIFIER_HEAD,
        **{name: (loads + 4 * n, "u4") for n, name in enumerate(("Loads", "Unloads"))},
        "UnTrackedPool": (loads + 0x8, "u4"),
        **{name: (loads + 0x10 + 4 * n, "u4") for n, name in enumerate(_COUNTS)},
        **_bytes(held, pointer),
        "sizeof": (held + 4 * pointer, ""),
    }
    return LayoutRow("verifier", architecture, first, last, {VERIFIER: structure}, source)


# Windows 11 has AllocationFreed before Loads. Seen in symbols of 22000, in generated offsets of 26100.
VERIFIER_LAYOUTS = (
    _verifier("x64", 3790, 20348, 0x30, 0x50),
    _verifier("x64", 22000, 26200, 0x34, 0x58),
    _verifier("x86", 3790, 19045, 0x30, 0x50),
)

VERIFIED_DRIVER = "_VF_TARGET_VERIFIED_DRIVER_DATA"


def _verified(
    architecture: str,
    first: int,
    last: int,
    counts: int,
    held: int,
    source: str = _SYMBOLS,
    *,
    is_suspect: bool = False,
) -> LayoutRow:
    """A row of a driver's counters; `is_suspect` where they are part of the entry with its name."""
    pointer = 4 if architecture == "x86" else 8
    structure = {
        **({} if is_suspect else {"SuspectDriverEntry": (0, "ptr")}),
        **{name: (counts + 4 * number, "u4") for number, name in enumerate(_COUNTS)},
        **_bytes(held, pointer),
        "sizeof": (held + 4 * pointer, ""),
    }
    return LayoutRow(
        "verified driver", architecture, first, last, {VERIFIED_DRIVER: structure}, source
    )


# Before Windows 7 the same numbers are in `_MI_VERIFIER_DRIVER_ENTRY`, which is in the list of names itself.
VERIFIED_DRIVER_LAYOUTS = (
    _verified("x64", 3790, 6003, 0x70, 0x80, is_suspect=True),
    _verified("x64", 7600, 16299, 0x50, 0x60),
    _verified("x64", 17134, 18363, 0x60, 0x70),
    _verified("x64", 19041, 20348, 0x68, 0x78),
    _verified("x64", 22000, 26200, 0x70, 0x80),
    _verified("x86", 3790, 6003, 0x38, 0x48, is_suspect=True),
    _verified("x86", 7600, 16299, 0x28, 0x38),
    _verified("x86", 17134, 18363, 0x30, 0x40),
    _verified("x86", 19041, 19045, 0x34, 0x44),
)

SUSPECT = "_VF_SUSPECT_DRIVER_ENTRY"


def _suspect(
    architecture: str, first: int, last: int, name: int, source: str = _SYMBOLS
) -> LayoutRow:
    pointer = 4 if architecture == "x86" else 8
    structure = {
        "Links": (0, "list"),
        "Loads": (2 * pointer, "u4"),
        "Unloads": (2 * pointer + 4, "u4"),
        "BaseName": (name, f"S{2 * pointer}"),
        "sizeof": (name + 2 * pointer, ""),
    }
    return LayoutRow("suspect driver", architecture, first, last, {SUSPECT: structure}, source)


# Later entries have the full name before the other.
SUSPECT_LAYOUTS = (
    _suspect("x64", 3790, 22631, 0x18),
    _suspect("x64", 26100, 26200, 0x28, _GENERATED),
    _suspect("x86", 3790, 19045, 0x10),
)

# `_VI_POOL_ENTRY`: VirtualAddress, CallingAddress, NumberOfBytes, Tag; a page of them begins with
# `_VI_POOL_PAGE_HEADER`: NextPage, VerifierEntry, Signature.
VERIFIER_ENTRY_BYTES = {4: 0x10, 8: 0x20}

POOL_TRACE = "_VF_POOL_TRACE"


def _trace(
    architecture: str, first: int, last: int, frames: int, source: str = _SYMBOLS
) -> LayoutRow:
    pointer = 4 if architecture == "x86" else 8
    structure = {
        "Address": (0, "ptr"),
        "Size": (pointer, "ptr"),
        "Thread": (2 * pointer, "ptr"),
        "StackTrace": (3 * pointer, f"S{frames * pointer}"),
        "sizeof": ((3 + frames) * pointer, ""),
    }
    return LayoutRow("pool trace", architecture, first, last, {POOL_TRACE: structure}, source)


# Records of the log of allocations and frees, which Windows Vista and later keep.
POOL_TRACE_LAYOUTS = (
    _trace("x64", 6000, 20348, 13),
    _trace("x64", 22000, 26200, 50),
    _trace("x86", 6000, 19045, 13),
)
