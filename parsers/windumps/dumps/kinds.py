"""What formats of dumps are called, how their first bytes tell them, and which are of a whole system."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from windumps.dump import Dump

if TYPE_CHECKING:  # its readers are loaded when there is one
    from windumps.dumps.kernel.dump import KernelDump

MINIDUMP = "minidump"
KERNEL = "kernel dump"
PROCESS_OF_KERNEL = "process of a kernel dump"
ELF = "ELF core of a virtual machine"
XEN = "Xen core of a virtual machine"
RAW = "raw memory image"
OF_SYSTEMS = frozenset({KERNEL, ELF, XEN, RAW})


def is_system(dump: Dump) -> TypeGuard[KernelDump]:
    """True for a dump of a whole system, False for one of a process."""
    return dump.kind in OF_SYSTEMS
