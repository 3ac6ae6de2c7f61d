"""What growth runs into: free address space of 32-bit processes, and what the system can commit."""

from __future__ import annotations

import struct

import pytest
from builders.minidump_builder import MinidumpBuilder
from builders.opening import open_bytes

from dumpleak.model.memory import Limit
from dumpleak.process.limits import memory_limits
from dumpleak.process.session import Session

COMMIT, RESERVE, FREE = 0x1000, 0x2000, 0x10000
PRIVATE = 0x20000
SYSTEM_MEMORY_INFO = 21


def _limits(builder: MinidumpBuilder) -> tuple[Limit, ...]:
    return memory_limits(Session(open_bytes(builder.build())))


def _regions(builder: MinidumpBuilder) -> MinidumpBuilder:
    builder.region(0x10000, 0x20000, state=COMMIT, kind=PRIVATE)
    builder.region(0x30000, 0x1000, state=FREE, kind=0)
    builder.region(0x31000, 0xF000, state=RESERVE, kind=PRIVATE)
    return builder.region(0x40000, 0x7FFA0000, state=FREE, kind=0)


def _memory_info(flags: int, page: int, charged: int, limit: int) -> bytes:
    """MINIDUMP_SYSTEM_MEMORY_INFO_1: 4 + 52 bytes of basic information, 60 of the file cache, then pages."""
    basic = struct.pack("<6I3QI", 156250, page, 1000, 1, 1000, 0x10000, 0x10000, 0x7FFEFFFF, 15, 4)
    return (
        struct.pack("<HH", 1, flags)
        + basic
        + bytes(60)
        + struct.pack("<4Q", 5, charged, limit, 9)
        + bytes(344)
    )


def test_free_regions_of_a_32_bit_process_are_what_is_left_of_its_addresses() -> None:
    (limit,) = _limits(_regions(MinidumpBuilder(architecture="x86", build=19041)))
    assert limit == Limit("address space", 0x7FFA1000, 0x7FFD0000)


def test_a_64_bit_process_does_not_run_out_of_addresses() -> None:
    assert _limits(_regions(MinidumpBuilder(architecture="x64", build=19041))) == ()


def test_without_a_region_list_nothing_is_said() -> None:
    assert _limits(MinidumpBuilder(architecture="x86", build=19041)) == ()


def test_the_systems_commit_limit_is_read_where_the_dump_has_it() -> None:
    builder = MinidumpBuilder(architecture="x64", build=19041)
    builder.stream(SYSTEM_MEMORY_INFO, _memory_info(0xF, 4096, 1000, 5000))
    assert _limits(builder) == (Limit("commit limit", 4000 * 4096, 5000 * 4096),)


@pytest.mark.parametrize(
    "body",
    [
        _memory_info(0xD, 4096, 1000, 5000),  # the flag of this part is not set
        _memory_info(0xF, 4096, 0, 0),
        _memory_info(0xF, 4096, 5001, 5000),
        _memory_info(0xF, 4096, 1000, 5000)[:147],
    ],
)
def test_a_commit_limit_that_is_not_there_is_not_made_up(body: bytes) -> None:
    builder = MinidumpBuilder(architecture="x64", build=19041).stream(SYSTEM_MEMORY_INFO, body)
    assert _limits(builder) == ()
