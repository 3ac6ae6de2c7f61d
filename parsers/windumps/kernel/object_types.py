"""Types of kernel objects by the pool tag of the block that holds them.

Source: pooltag.txt of the Debugging Tools, "… objects". Needs no layout of objects or types.
"""

from __future__ import annotations

from windumps.pool_tags import tag_text

OBJECT_TYPES = {
    "ALPC": "ALPC Port",
    "Call": "Callback",
    "DbgO": "DebugObject",
    "Desk": "Desktop",
    "Devi": "Device",
    "Dire": "Directory",
    "Driv": "Driver",
    "EtwR": "EtwRegistration",
    "Even": "Event",
    "File": "File",
    "IoCo": "IoCompletion",
    "Job ": "Job",
    "Key ": "Key",
    "Muta": "Mutant",
    "ObjT": "Type",
    "Part": "Partition",
    "Port": "Port",
    "Proc": "Process",
    "Prof": "Profile",
    "Sect": "Section",
    "Sema": "Semaphore",
    "Sess": "Session",
    "Symb": "SymbolicLink",
    "Thre": "Thread",
    "Time": "Timer",
    "TmEn": "TmEn",
    "TmRm": "TmRm",
    "TmTm": "TmTm",
    "TmTx": "TmTx",
    "Toke": "Token",
    "TpWo": "TpWorkerFactory",
    "Wait": "WaitCompletionPacket",
    "Wind": "WindowStation",
}


def object_type(tag: int) -> str:
    """The type of the objects with a pool tag; by the tag where that is of no known type."""
    text = tag_text(tag)
    return OBJECT_TYPES.get(text) or f"(objects with pool tag {text})"
