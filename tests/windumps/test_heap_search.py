"""Where the search for heaps that no list names looks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from builders.minidump_builder import MinidumpBuilder
from builders.opening import open_bytes

from windumps.heaps.heap_search import allocation_starts

TOP = 1 << 64


@pytest.mark.parametrize("base", [TOP - 0x10000, TOP - 0x1000])
def test_an_image_that_ends_behind_the_address_space_hides_what_it_covers_only(base: int) -> None:
    data = (
        MinidumpBuilder()
        .memory(0x10000, bytes(0x1000))
        .memory(TOP - 0x10000, bytes(0x1000))
        .build()
    )
    image = SimpleNamespace(base_address=base, end_address=base + 0x20000)
    view: Any = SimpleNamespace(pointer_size=8, modules=[image], peb=0)
    starts = allocation_starts(open_bytes(data).memory, view).tolist()
    assert starts == [0x10000] + [TOP - 0x10000] * (base > TOP - 0x10000)
