"""The environment of a process: what its variables say of the machine.

`_PEB.ProcessParameters` leads to `_RTL_USER_PROCESS_PARAMETERS`, whose `Environment` is a list of UTF-16
texts "NAME=value", each ended by a zero, the last one by two. These offsets have not changed from Windows
XP to 11 24H2 (public types of ntdll of every build), so they are constants and not layout rows.
"""

from __future__ import annotations

from windumps.memory import AddressSpace
from windumps.process.environment_blocks import read_pointer

MAX_BYTES = 1 << 17  # of an environment; Windows itself allows 32,767 characters a variable
MAX_NAME = 63  # characters of a machine's name
_PARAMETERS = {"x86": 0x10, "x64": 0x20}  # _PEB.ProcessParameters
_ENVIRONMENT = {"x86": 0x48, "x64": 0x80}  # _RTL_USER_PROCESS_PARAMETERS.Environment
_COMPUTER = "computername="


def computer_name(memory: AddressSpace, architecture: str, peb: int) -> str:
    """The variable COMPUTERNAME; "" where the environment is not in the dump, or does not say.

    Args:
        memory: The process's memory.
        architecture: Of the PEB.
        peb: Its address; 0 when unknown.
    """
    which, width = ("x86", 4) if architecture == "x86" else ("x64", 8)
    parameters = peb and read_pointer(memory, peb + _PARAMETERS[which], width)
    start = parameters and read_pointer(memory, parameters + _ENVIRONMENT[which], width)
    if not start:
        return ""
    raw = memory.read_available(start, MAX_BYTES)
    text = raw[: len(raw) // 2 * 2].decode("utf-16-le", "replace")
    variables, ended, _ = text.partition("\0\0")
    texts = variables.split("\0")
    if not ended:
        del texts[-1:]  # it may be cut
    for variable in texts:
        if variable.lower().startswith(_COMPUTER):
            name = variable[len(_COMPUTER) :]
            sound = 0 < len(name) <= MAX_NAME and name.isprintable() and "\ufffd" not in name
            return name if sound else ""
    return ""
