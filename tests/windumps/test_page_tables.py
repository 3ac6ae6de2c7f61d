"""Translation on page tables that a test writes itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from builders.kernel_builder import ARCHITECTURE, NUMBERS, PAGE, Machine, page_bytes, runs

from windumps.diagnostics import DiagnosticLog
from windumps.memory import PageTableMemory, Presence, RunMemory
from windumps.memory.paging import ARM64, X64, X64_LA57, X86, X86_PAE

PAGING = {"x64": X64, "la57": X64_LA57, "arm64": ARM64, "pae": X86_PAE, "x86": X86}
WIDE = ("x64", "la57", "arm64")
EVERY = pytest.mark.parametrize("kind", NUMBERS)


def physical_of(machine: Machine) -> RunMemory:
    places = runs(machine)
    data = np.frombuffer(page_bytes(machine), np.uint8)
    sizes = np.array([count * PAGE for _, count in places], np.int64)
    starts = np.array([first * PAGE for first, _ in places], np.uint64)
    return RunMemory(data, starts, sizes, np.cumsum(sizes) - sizes)


def memory_of(
    machine: Machine, limit: int = 0, log: DiagnosticLog | None = None
) -> PageTableMemory:
    return PageTableMemory(physical_of(machine), PAGING[machine.kind], machine.root, limit, log)


def kernel_address(machine: Machine) -> int:
    return machine.n.kernel


@EVERY
def test_bytes_written_over_pages_are_read_back(kind: str) -> None:
    machine = Machine(kind)
    text = bytes(range(256)) * 40  # ten kilobytes, over scattered frames
    for address in (0x10F80, kernel_address(machine) + 0xFFC):
        machine.write(address, text)
        machine.frame()
    memory = memory_of(machine)
    for address in (0x10F80, kernel_address(machine) + 0xFFC):
        assert memory.read(address, len(text)) == text
        assert memory.read_available(address - 1, 2)[1:] == text[:1]
        extents = memory.extents(address, address + len(text))
        assert int(extents.size.sum()) == len(text)
        assert memory.bytes_from(address, 1 << 20) >= len(text)
    assert ARCHITECTURE[kind] in ("x86", "x64", "arm64")


@EVERY
def test_an_address_without_entry_is_not_mapped(kind: str) -> None:
    machine = Machine(kind)
    machine.write(0x10000, b"here")
    memory = memory_of(machine)
    assert memory.presence(0x10000) is Presence.PRESENT
    assert memory.presence(0x11000) is Presence.NOT_MAPPED
    assert memory.presence(kernel_address(machine)) is Presence.NOT_MAPPED
    assert memory.presence(-1) is Presence.NOT_MAPPED
    assert memory.presence(1 << 64) is Presence.NOT_MAPPED


@EVERY
def test_a_mapped_page_that_is_not_in_the_dump_is_absent(kind: str) -> None:
    machine = Machine(kind)
    machine.map(0x10000, 0x7000)
    machine.write(0x11000, b"here")
    memory = memory_of(machine)
    assert memory.presence(0x10000) is Presence.ABSENT
    assert memory.translate(0x10123) == 0x7000 * PAGE + 0x123
    assert memory.absent_bytes(0, 0x20000) == PAGE
    assert memory.present_bytes(0, 0x20000) == PAGE


@EVERY
def test_a_table_that_is_not_in_the_dump_makes_its_range_absent(kind: str) -> None:
    machine = Machine(kind)
    machine.write(0x10000, b"gone")
    machine.write(kernel_address(machine), b"here")
    table = machine.entry_at(0x10000) // PAGE
    del machine.pages[table]
    memory = memory_of(machine)
    assert memory.presence(0x10000) is Presence.ABSENT
    assert memory.presence(kernel_address(machine)) is Presence.PRESENT


@pytest.mark.parametrize("kind", WIDE)
def test_addresses_that_are_not_canonical_are_not_mapped(kind: str) -> None:
    machine = Machine(kind)
    machine.write(0x10000, b"here")
    memory = memory_of(machine)
    bits = PAGING[kind].address_bits
    assert memory.presence(0x10000 | 1 << bits) is Presence.NOT_MAPPED
    assert memory.presence(0x10000 | 1 << (bits - 1)) is Presence.NOT_MAPPED


@pytest.mark.parametrize(
    ("kind", "level", "span"),
    [
        ("x64", 2, 1 << 21),
        ("x64", 1, 1 << 30),
        ("la57", 3, 1 << 21),
        ("la57", 2, 1 << 30),
        ("arm64", 2, 1 << 21),
        ("arm64", 1, 1 << 30),
        ("pae", 1, 1 << 21),
        ("x86", 0, 1 << 22),
    ],
)
def test_large_pages(kind: str, level: int, span: int) -> None:
    machine = Machine(kind)
    address = kernel_address(machine) & ~(span - 1)
    place = machine.entry_at(address, level)
    first = 0x40000000 // PAGE  # a physical address that any large page may have
    machine.poke(place, first * PAGE | machine.n.large_flags, machine.n.entry)
    for frame in (0, 3, span // PAGE - 1):
        machine.pages[first + frame] = bytearray(b"%08d" % frame * (PAGE // 8))
    memory = memory_of(machine)
    for frame in (0, 3, span // PAGE - 1):
        assert memory.read(address + frame * PAGE + 8, 8) == b"%08d" % frame
        assert memory.translate(address + frame * PAGE) == (first + frame) * PAGE
    assert memory.presence(address + PAGE) is Presence.ABSENT
    assert memory.present_bytes(address, address + span) == 3 * PAGE
    assert memory.absent_bytes(address, address + span) == span - 3 * PAGE
    # The bit that stands for a page attribute in a large page's entry is no address bit.
    if kind != "arm64":
        machine.poke(place, first * PAGE | machine.n.large_flags | 0x1000, machine.n.entry)
        assert memory_of(machine).translate(address) == first * PAGE


def test_pse_36_large_pages_reach_over_four_gigabytes() -> None:
    machine = Machine("x86")
    address = 0x80000000
    machine.poke(machine.entry_at(address, 0), 0x00400000 | 0x2000 | 0xE3, 4)  # bit 13: 4 GiB
    assert memory_of(machine).translate(address) == 0x1_0040_0000


@EVERY
def test_a_page_in_transition_is_read(kind: str) -> None:
    machine = Machine(kind)
    frame = machine.frame()
    machine.pages[frame][:5] = b"moved"
    place = machine.entry_at(0x10000)
    machine.poke(place, frame * PAGE | 0x880, machine.n.entry)
    memory = memory_of(machine)
    assert memory.read(0x10000, 5) == b"moved"


@pytest.mark.parametrize("mask_bit", [45, 40, 38])
def test_bits_above_memory_in_a_transition_entry_are_taken_off(mask_bit: int) -> None:
    machine = Machine("x64")
    frame = machine.frame()
    machine.pages[frame][:5] = b"moved"
    machine.poke(machine.entry_at(0x10000), (frame * PAGE | 0x880) ^ 1 << mask_bit, 8)
    # With SwizzleBit set the entry is as it is: the same bits are a true address then.
    machine.poke(machine.entry_at(0x11000), (frame * PAGE | 0x890) | 1 << mask_bit, 8)
    memory = memory_of(machine, limit=(machine.first_frame + 0x100) * PAGE)
    assert memory.read(0x10000, 5) == b"moved"
    assert memory.presence(0x11000) is Presence.ABSENT


@pytest.mark.parametrize("kind", ["x64", "arm64", "pae"])
def test_a_prototype_leads_to_the_shared_page(kind: str) -> None:
    machine = Machine(kind)
    pool = kernel_address(machine) + 0x200000
    frames = [machine.frame(), machine.frame()]
    for number, frame in enumerate(frames):
        machine.pages[frame][:6] = b"shared"
        flags = 0x880 if number else machine.n.page_flags  # the second in transition
        machine.write(pool + 8 * number, (frame * PAGE | flags).to_bytes(8, "little"))
    machine.write(pool + 16, (0x00012345_00000080).to_bytes(8, "little"))  # in a page file
    machine.write(pool + 24, (pool << 16 & (1 << 64) - 1 | 0x400).to_bytes(8, "little"))
    for number in range(4):
        target = pool + 8 * number
        entry = target << 32 if kind == "pae" else target << 16
        machine.poke(machine.entry_at(0x10000 + number * PAGE), (entry | 0x400) & (1 << 64) - 1, 8)
    memory = memory_of(machine)
    assert memory.read(0x10000, 6) == b"shared"
    assert memory.read(0x11000, 6) == b"shared"
    assert memory.presence(0x12000) is Presence.ABSENT
    # A prototype that names another one is followed once.
    assert memory.presence(0x13000) is Presence.ABSENT


@EVERY
def test_pages_in_a_page_file_are_absent_and_never_touched_ones_not_mapped(kind: str) -> None:
    machine = Machine(kind)
    in_file = 0x0012345_00000094 if machine.n.entry == 8 else 0x12345094
    machine.poke(machine.entry_at(0x10000), in_file, machine.n.entry)
    machine.poke(machine.entry_at(0x11000), 0x80, machine.n.entry)  # zeros on demand
    memory = memory_of(machine)
    assert memory.presence(0x10000) is Presence.ABSENT
    assert memory.presence(0x11000) is Presence.NOT_MAPPED


def test_an_entry_that_points_to_a_file_is_no_page_in_transition() -> None:
    machine = Machine("x64")
    frame = machine.frame()
    entry = 0xFFFFA00000000000 | frame * PAGE | 0x880
    machine.poke(machine.entry_at(0x10000), entry, 8)
    memory = memory_of(machine, limit=(machine.first_frame + 0x100) * PAGE)
    assert memory.presence(0x10000) is Presence.ABSENT


@EVERY
def test_many_addresses_at_once_and_one_at_a_time_agree(kind: str) -> None:
    machine = Machine(kind)
    random = np.random.default_rng(1)
    base = kernel_address(machine)
    for page in random.integers(0, 3000, 200).tolist():
        machine.write(base + page * PAGE, page.to_bytes(4, "little") * 64)
    for page in random.integers(0, 3000, 50).tolist():
        if not machine.peek(machine.entry_at(base + page * PAGE), machine.n.entry):
            machine.map(base + page * PAGE, 0x6000 + page)
    memory = memory_of(machine)
    addresses = base + random.integers(0, 3000 * PAGE, 2000).astype(np.uint64)
    values, present = memory.gather(addresses, "<u4")
    for address, value, there in zip(
        addresses.tolist(), values.tolist(), present.tolist(), strict=True
    ):
        raw = memory.read_available(address, 4)
        assert there == (len(raw) == 4)
        assert value == (int.from_bytes(raw, "little") if there else 0)
    pieces = memory.runs
    listed = {
        address + at
        for address, size in zip(pieces.address.tolist(), pieces.size.tolist(), strict=True)
        for at in range(0, size, PAGE)
    }
    present_pages = {a & ~(PAGE - 1) for a, t in zip(addresses.tolist(), present, strict=True) if t}
    assert present_pages <= listed


def _loops() -> Iterator[tuple[str, int]]:
    for kind in NUMBERS:
        for level in range(len(NUMBERS[kind].shifts) - 1):
            yield kind, level


@pytest.mark.parametrize(("kind", "level"), list(_loops()))
def test_tables_that_name_themselves_end(kind: str, level: int) -> None:
    machine = Machine(kind)
    address = kernel_address(machine)
    place = machine.entry_at(address, level)
    table = place // PAGE * PAGE
    flags = 1 if kind == "pae" and level == 0 else machine.n.table_flags
    count = 4 if kind == "pae" and level == 0 else PAGE // machine.n.entry
    for index in range(count):
        machine.poke(table + index * machine.n.entry, table | flags, machine.n.entry)
    log = DiagnosticLog()
    memory = memory_of(machine, log=log)
    pieces = sum(1 for _ in memory.pieces(0, 1 << 64))
    assert pieces < 1 << 16
    memory.presence(address)
    codes = {item.code for item in log.collect()}
    assert codes <= {"page-tables-without-end"}


def test_a_root_that_maps_everything_to_itself_is_told() -> None:
    machine = Machine("x64")
    for index in range(512):
        machine.poke(machine.root + index * 8, machine.root | 0x63, 8)
    log = DiagnosticLog()
    memory = memory_of(machine, log=log)
    for _ in memory.pieces(0, 1 << 64):
        pass
    assert [item.code for item in log.collect()] == ["page-tables-without-end"]
    assert memory.lost_upper_tables()  # what lies above the end is not known


def test_an_end_hides_what_lies_behind() -> None:
    machine = Machine("x64")
    machine.write(0x10000, b"user")
    machine.write(machine.n.kernel, b"kernel")
    memory = PageTableMemory(physical_of(machine), X64, machine.root, end=1 << 47)
    assert memory.read(0x10000, 4) == b"user"
    assert memory.presence(machine.n.kernel) is Presence.NOT_MAPPED
    assert memory.total_bytes == PAGE
    assert int(memory.runs.address[0]) == 0x10000


@EVERY
def test_a_leaf_table_of_the_kernel_that_leads_to_no_page_is_told(kind: str) -> None:
    machine = Machine(kind)
    address = kernel_address(machine)
    machine.write(address, b"here")
    assert memory_of(machine).leaf_tables()[1].tolist() == [True]
    table = machine.entry_at(address) // PAGE
    for data in (bytearray(PAGE), None):
        if data is None:
            del machine.pages[table]
        else:
            machine.pages[table] = data
        first, there = memory_of(machine).leaf_tables()
        assert there.tolist() == [False]
        assert int(first[0]) == address & -memory_of(machine).table_bytes


@pytest.mark.parametrize("data", [bytearray(PAGE), bytearray(b"\xcc" * PAGE), None])
@pytest.mark.parametrize("kind", [*WIDE, "pae"])
def test_an_upper_table_of_the_kernel_that_leads_nowhere_is_told(
    kind: str, data: bytearray | None
) -> None:
    machine = Machine(kind)
    address = kernel_address(machine)
    machine.write(0x10000, b"user")
    machine.write(address, b"here")
    assert not memory_of(machine).lost_upper_tables()
    above = len(machine.n.shifts) - 2  # the leaf table
    for start, is_told in ((0x10000, False), (address, True)):
        frame = machine.entry_at(start, above) // PAGE
        old = machine.pages.pop(frame)
        if data is not None:
            machine.pages[frame] = data
        # Of the other half they may be empty.
        assert memory_of(machine).lost_upper_tables() == is_told
        machine.pages[frame] = old
