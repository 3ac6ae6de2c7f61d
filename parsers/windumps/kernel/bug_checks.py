"""Stop codes: their names, and what the parameters mean where they are about pool or memory.

Source: Microsoft's "Bug Check Code Reference" (bug-check-0x*.md of the driver documentation).
"""

from __future__ import annotations

from dataclasses import dataclass

_MINIDUMP_FLAG = 0x1000_0000  # set in codes that a small dump's writer found afterwards

NAMES: dict[int, str] = {
    0x1: "APC_INDEX_MISMATCH",
    0xA: "IRQL_NOT_LESS_OR_EQUAL",
    0x12: "TRAP_CAUSE_UNKNOWN",
    0x19: "BAD_POOL_HEADER",
    0x1A: "MEMORY_MANAGEMENT",
    0x1E: "KMODE_EXCEPTION_NOT_HANDLED",
    0x20: "KERNEL_APC_PENDING_DURING_EXIT",
    0x21: "QUOTA_UNDERFLOW",
    0x23: "FAT_FILE_SYSTEM",
    0x24: "NTFS_FILE_SYSTEM",
    0x2E: "DATA_BUS_ERROR",
    0x34: "CACHE_MANAGER",
    0x35: "NO_MORE_IRP_STACK_LOCATIONS",
    0x3B: "SYSTEM_SERVICE_EXCEPTION",
    0x3F: "NO_MORE_SYSTEM_PTES",
    0x41: "MUST_SUCCEED_POOL_EMPTY",
    0x44: "MULTIPLE_IRP_COMPLETE_REQUESTS",
    0x4A: "IRQL_GT_ZERO_AT_SYSTEM_SERVICE",
    0x4D: "NO_PAGES_AVAILABLE",
    0x4E: "PFN_LIST_CORRUPT",
    0x50: "PAGE_FAULT_IN_NONPAGED_AREA",
    0x51: "REGISTRY_ERROR",
    0x74: "BAD_SYSTEM_CONFIG_INFO",
    0x76: "PROCESS_HAS_LOCKED_PAGES",
    0x77: "KERNEL_STACK_INPAGE_ERROR",
    0x7A: "KERNEL_DATA_INPAGE_ERROR",
    0x7B: "INACCESSIBLE_BOOT_DEVICE",
    0x7C: "BUGCODE_NDIS_DRIVER",
    0x7E: "SYSTEM_THREAD_EXCEPTION_NOT_HANDLED",
    0x7F: "UNEXPECTED_KERNEL_MODE_TRAP",
    0x80: "NMI_HARDWARE_FAILURE",
    0x8E: "KERNEL_MODE_EXCEPTION_NOT_HANDLED",
    0x93: "INVALID_KERNEL_HANDLE",
    0x9C: "MACHINE_CHECK_EXCEPTION",
    0x9F: "DRIVER_POWER_STATE_FAILURE",
    0xA0: "INTERNAL_POWER_ERROR",
    0xA5: "ACPI_BIOS_ERROR",
    0xAB: "SESSION_HAS_VALID_POOL_ON_EXIT",
    0xB8: "ATTEMPTED_SWITCH_FROM_DPC",
    0xBE: "ATTEMPTED_WRITE_TO_READONLY_MEMORY",
    0xC1: "SPECIAL_POOL_DETECTED_MEMORY_CORRUPTION",
    0xC2: "BAD_POOL_CALLER",
    0xC4: "DRIVER_VERIFIER_DETECTED_VIOLATION",
    0xC5: "DRIVER_CORRUPTED_EXPOOL",
    0xC6: "DRIVER_CAUGHT_MODIFYING_FREED_POOL",
    0xC9: "DRIVER_VERIFIER_IOMANAGER_VIOLATION",
    0xCA: "PNP_DETECTED_FATAL_ERROR",
    0xCB: "DRIVER_LEFT_LOCKED_PAGES_IN_PROCESS",
    0xCC: "PAGE_FAULT_IN_FREED_SPECIAL_POOL",
    0xCD: "PAGE_FAULT_BEYOND_END_OF_ALLOCATION",
    0xCE: "DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS",
    0xD0: "DRIVER_CORRUPTED_MMPOOL",
    0xD1: "DRIVER_IRQL_NOT_LESS_OR_EQUAL",
    0xD3: "DRIVER_PORTION_MUST_BE_NONPAGED",
    0xD5: "DRIVER_PAGE_FAULT_IN_FREED_SPECIAL_POOL",
    0xD6: "DRIVER_PAGE_FAULT_BEYOND_END_OF_ALLOCATION",
    0xD8: "DRIVER_USED_EXCESSIVE_PTES",
    0xDA: "SYSTEM_PTE_MISUSE",
    0xDE: "POOL_CORRUPTION_IN_FILE_AREA",
    0xE2: "MANUALLY_INITIATED_CRASH",
    0xE3: "RESOURCE_NOT_OWNED",
    0xE6: "DRIVER_VERIFIER_DMA_VIOLATION",
    0xEA: "THREAD_STUCK_IN_DEVICE_DRIVER",
    0xEC: "SESSION_HAS_VALID_SPECIAL_POOL_ON_EXIT",
    0xED: "UNMOUNTABLE_BOOT_VOLUME",
    0xEF: "CRITICAL_PROCESS_DIED",
    0xF4: "CRITICAL_OBJECT_TERMINATION",
    0xF7: "DRIVER_OVERRAN_STACK_BUFFER",
    0xFC: "ATTEMPTED_EXECUTE_OF_NOEXECUTE_MEMORY",
    0xFE: "BUGCODE_USB_DRIVER",
    0x101: "CLOCK_WATCHDOG_TIMEOUT",
    0x109: "CRITICAL_STRUCTURE_CORRUPTION",
    0x10D: "WDF_VIOLATION",
    0x10E: "VIDEO_MEMORY_MANAGEMENT_INTERNAL",
    0x113: "VIDEO_DXGKRNL_FATAL_ERROR",
    0x116: "VIDEO_TDR_FAILURE",
    0x117: "VIDEO_TDR_TIMEOUT_DETECTED",
    0x119: "VIDEO_SCHEDULER_INTERNAL_ERROR",
    0x124: "WHEA_UNCORRECTABLE_ERROR",
    0x12B: "FAULTY_HARDWARE_CORRUPTED_PAGE",
    0x133: "DPC_WATCHDOG_VIOLATION",
    0x139: "KERNEL_SECURITY_CHECK_FAILURE",
    0x13A: "KERNEL_MODE_HEAP_CORRUPTION",
    0x141: "VIDEO_ENGINE_TIMEOUT_DETECTED",
    0x144: "BUGCODE_USB3_DRIVER",
    0x154: "UNEXPECTED_STORE_EXCEPTION",
    0x15E: "BUGCODE_NDIS_DRIVER_LIVE_DUMP",
    0x15F: "CONNECTED_STANDBY_WATCHDOG_TIMEOUT_LIVEDUMP",
    0x161: "LIVE_SYSTEM_DUMP",
    0x193: "VIDEO_DXGKRNL_LIVEDUMP",
    0x1C8: "MANUALLY_INITIATED_POWER_BUTTON_HOLD",
    0x1CA: "SYNTHETIC_WATCHDOG_TIMEOUT",
}

# Names of the four parameters; "" for one that says nothing about memory.
PARAMETERS: dict[int, tuple[str, str, str, str]] = {
    0x19: ("what is wrong", "pool entry", "next or freed entry", ""),
    0x3F: ("kind of PTE", "PTEs asked for", "free PTEs", "PTEs in all"),
    0x41: ("bytes asked for", "nonpaged pages in use", "requests above a page", "pages available"),
    0x4D: (
        "dirty pages",
        "dirty pages for page files",
        "nonpaged pages in use",
        "last write status",
    ),
    0xAB: ("session", "paged bytes left", "nonpaged bytes left", "blocks left"),
    0xC1: ("address", "", "", "what is wrong"),
    0xC2: ("what is wrong", "", "", ""),
    0xC5: ("memory referenced", "IRQL", "0 read, 1 write", "code address"),
    0xC6: ("memory", "", "", ""),
    0xCC: ("memory referenced", "0 read, 1 write", "code address", ""),
    0xCD: ("memory referenced", "0 read, 1 write", "code address", ""),
    0xD0: ("memory referenced", "IRQL", "0 read, 1 write", "code address"),
    0xD1: ("memory referenced", "IRQL", "0 read, 1 write", "code address"),
    0xD5: ("memory referenced", "0 read, 1 write", "code address", ""),
    0xD6: ("memory referenced", "0 read, 1 write", "code address", ""),
    0x13A: ("what is wrong", "heap", "address", ""),
}

# By the first parameter: what a code is about, and names of the other three.
SUBCODES: dict[tuple[int, int], tuple[str, tuple[str, str, str]]] = {
    (0x19, 0x2): ("the pattern behind a special pool block is damaged", ("block", "bytes", "")),
    (0x19, 0x3): ("a free list of the pool is damaged", ("entry", "Flink read", "Blink read")),
    (0x19, 0x20): ("the sizes in a pool block's header do not fit", ("entry", "next entry", "")),
    (0x19, 0x21): ("what follows a freed pool block was overwritten", ("block", "bytes", "")),
    (0x19, 0x22): ("an address being freed is no pool block", ("address", "pool type", "")),
    (0xC2, 0x0): ("a pool block of no bytes was asked for", ("", "pool type", "tag")),
    (0xC2, 0x1): ("the header of a pool block is damaged", ("header", "its contents", "")),
    (0xC2, 0x2): ("the header of a pool block is damaged", ("header", "its contents", "")),
    (0xC2, 0x4): ("the header of a pool block is damaged", ("header", "its contents", "")),
    (0xC2, 0x6): ("a pool block was freed twice", ("", "header", "its contents")),
    (0xC2, 0x7): ("a pool block was freed twice", ("", "its header's contents", "block")),
    (0xC2, 0x8): ("pool was asked for at a wrong IRQL", ("IRQL", "pool type", "bytes")),
    (0xC2, 0x9): ("pool was freed at a wrong IRQL", ("IRQL", "pool type", "block")),
    (0xC2, 0xA): (
        "a pool block was freed under another tag",
        ("block", "tag it was allocated with", "tag it was freed with"),
    ),
    (0xC2, 0x99): ("an address that is no pool block was freed", ("address", "", "")),
    (0xC4, 0x60): (
        "a driver was unloaded without freeing its pool",
        ("paged bytes left", "nonpaged bytes left", "blocks left"),
    ),
    (0xC4, 0x61): (
        "a driver allocated pool while it was unloaded",
        ("paged bytes left", "nonpaged bytes left", "blocks left"),
    ),
    (0xC4, 0x62): (
        "a driver was unloaded without freeing its pool",
        ("address of its name", "", "blocks left"),
    ),
}


@dataclass(frozen=True)
class BugCheck:
    """Why a system stopped.

    Attributes:
        code: As in the header.
        parameters: Its four parameters.
    """

    code: int
    parameters: tuple[int, ...]

    @property
    def name(self) -> str:
        """Microsoft's name; "" for a code that is not in the table."""
        return NAMES.get(self.code, NAMES.get(self.code & ~_MINIDUMP_FLAG, ""))

    @property
    def meaning(self) -> str:
        """What the first parameter says, where it is about pool; else ""."""
        found = SUBCODES.get((self._base, self.parameters[0])) if self.parameters else None
        return found[0] if found is not None else ""

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """What each parameter is; "" where it is not about memory or not known."""
        if self.parameters and (found := SUBCODES.get((self._base, self.parameters[0]))):
            return ("what is wrong", *found[1])
        return PARAMETERS.get(self._base, ("", "", "", ""))

    @property
    def _base(self) -> int:
        return self.code if self.code in NAMES else self.code & ~_MINIDUMP_FLAG
