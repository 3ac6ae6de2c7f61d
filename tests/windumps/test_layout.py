"""The two readers of a declared structure."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from windumps.errors import TruncatedDumpError
from windumps.file_structure import Layout

PAIR = Layout("PAIR", 12, [("First", "u4"), ("Second", "u8")])


def _bytes(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw, np.uint8)


def test_both_readers_give_the_same_values() -> None:
    every = Layout(
        "EVERY", 27, [("A", "u1"), ("B", "u2"), ("C", "u4"), ("D", "u8"), ("E", "i4"), ("F", "S8")]
    )
    raw = struct.pack("<BHIQi8s", 0xFE, 0xFEDC, 0xFEDCBA98, 0xFEDCBA9876543210, -7, b"sixteen ")
    one = every.record(_bytes(b"xyz" + raw), 3)
    many = every.records(_bytes(b"xyz" + raw), 3, 1)[0]
    assert (one.A, one.B, one.C) == (many["A"], many["B"], many["C"]) == (0xFE, 0xFEDC, 0xFEDCBA98)
    assert one.D == many["D"] == 0xFEDCBA9876543210
    assert one.E == many["E"] == -7
    assert one.F == many["F"].tobytes() == b"sixteen "


def test_a_structure_declared_with_a_wrong_size_fails_at_once() -> None:
    with pytest.raises(ValueError, match="PAIR is declared with 12 bytes, not 16"):
        Layout("PAIR", 16, [("First", "u4"), ("Second", "u8")])


@pytest.mark.parametrize(("offset", "present"), [(0, 11), (5, 6), (11, 0), (12, 0), (-1, 12)])
def test_a_record_that_the_file_does_not_hold_is_refused(offset: int, present: int) -> None:
    with pytest.raises(TruncatedDumpError) as caught:
        PAIR.record(_bytes(bytes(11)), offset)
    assert (caught.value.needed, caught.value.present) == (12, present)


@pytest.mark.parametrize(
    ("offset", "count", "stride", "expected"),
    [
        (0, 3, None, 2),
        (0, 1, None, 1),
        (1, 9, None, 1),
        (12, 9, None, 1),
        (13, 9, None, 0),
        (24, 9, None, 0),
        (24, 0, None, 0),
        (25, 9, None, 0),
        (-1, 9, None, 0),
        (0, 2**63, None, 2),
        (0, 2**64 - 1, 2**32 - 1, 1),
        (0, 9, 11, 0),
        (0, 9, 0, 0),
        (0, 9, 13, 1),
        (0, 9, 12, 2),
    ],
)
def test_records_never_reach_outside_the_file(
    offset: int, count: int, stride: int | None, expected: int
) -> None:
    rows = PAIR.records(_bytes(bytes(range(24))), offset, count, stride)
    assert len(rows) == expected
    assert [int(x) & 0xFF for x in rows["First"]] == [
        offset + i * (stride or 12) for i in range(expected)
    ]


def test_an_empty_file_has_no_records() -> None:
    assert len(PAIR.records(_bytes(b""), 0, 5)) == 0


def test_records_with_a_longer_stride_skip_what_a_newer_writer_added() -> None:
    raw = struct.pack("<IQxxxx", 1, 2) + struct.pack("<IQxxxx", 3, 4)
    rows = PAIR.records(_bytes(raw), 0, 2, 16)
    assert rows["First"].tolist() == [1, 3]
    assert rows["Second"].tolist() == [2, 4]


def test_records_are_a_read_only_view_of_the_file() -> None:
    data = _bytes(bytes(24))
    rows = PAIR.records(data, 0, 2)
    assert np.shares_memory(rows, data)
    assert not rows.flags.writeable
