"""The machine's name out of the environment of a process, wherever that is not damaged."""

from __future__ import annotations

import struct

import pytest
from builders.minidump_builder import MinidumpBuilder
from builders.opening import open_bytes

from windumps.process.environment import computer_name

PEB, PARAMETERS, BLOCK = 0x100000, 0x200000, 0x300000
# Where the PEB leads to the parameters, these to the variables, and the width of a pointer; by architecture.
NUMBERS = {"x86": (0x10, 0x48, "<I"), "x64": (0x20, 0x80, "<Q")}


def name_in(architecture: str, block: bytes, peb: int = PEB, start: int = BLOCK) -> str:
    at, then, width = NUMBERS[architecture]
    dump = MinidumpBuilder().memory(PEB, bytes(at) + struct.pack(width, PARAMETERS) + bytes(64))
    dump.memory(PARAMETERS, bytes(then) + struct.pack(width, start) + bytes(64))
    if block:
        dump.memory(BLOCK, block)
    return computer_name(open_bytes(dump.build()).memory, architecture, peb)


def variables(*texts: str, end: str = "\0\0") -> bytes:
    return ("\0".join(texts) + end).encode("utf-16-le", "surrogatepass")


@pytest.mark.parametrize("architecture", NUMBERS)
def test_the_environment_names_the_machine(architecture: str) -> None:
    block = variables("=C:=C:\\", "A=COMPUTERNAME=no", "ComputerName=WS-Köln-7", "Z=1")
    assert name_in(architecture, block + b"COMPUTERNAME=behind") == "WS-Köln-7"


@pytest.mark.parametrize(
    "block",
    [
        b"",
        variables("A=1", "USERNAME=x"),
        variables("A=1") + variables("COMPUTERNAME=BEHIND-THE-END"),
        variables("A=1", "COMPUTERNAME=CU", end=""),
        variables("COMPUTERNAME="),
        variables("COMPUTERNAME=" + "x" * 64),
        variables("COMPUTERNAME=a\nb"),
        variables("COMPUTERNAME=\ud800"),
        b"\xff" * 4096,
    ],
    ids=["absent", "none", "behind", "cut", "empty", "long", "lines", "surrogate", "noise"],
)
def test_a_name_that_is_not_whole_is_none(block: bytes) -> None:
    assert name_in("x64", block) == ""


def test_pointers_to_nowhere_name_nothing() -> None:
    block = variables("COMPUTERNAME=A")
    assert name_in("x64", block, peb=0) == ""
    assert name_in("x64", block, peb=0x7FFFFFFFFFFFF000) == ""
    assert name_in("x64", block, start=(1 << 64) - 2) == ""
    assert name_in("x64", block, start=0) == ""
