"""What the machine that runs this has."""

from __future__ import annotations

import os
import sys


def memory_bytes() -> int | None:
    """Bytes of its physical memory; None where the system does not tell."""
    if sys.platform == "win32":
        return _windows_memory()
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    return pages * size if pages > 0 and size > 0 else None


def _windows_memory() -> int | None:
    if sys.platform != "win32":
        return None
    import ctypes

    size = ctypes.c_ulonglong()
    # In KiB.
    found = ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(size))
    return size.value * 1024 if found else None
