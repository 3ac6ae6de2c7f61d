"""Driver Verifier's log of stacks, and what it tracks of drivers that are gone, in dumps written anew."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from builders.pool_builder import PAGE, PoolMemory
from builders.verifier_builder import OFFSETS, VerifiedSystem, Watched
from builders.verifier_memory import DRIVERS, large_table, watched

from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.pools.kernel_pools import KernelPools
from windumps.pools.verifier.records import VerifierData
from windumps.pools.verifier.trace_log import AllocationLog


def opened(made: VerifiedSystem) -> tuple[VerifierData, AllocationLog | None]:
    dump = open_dump(made.save())
    assert isinstance(dump, KernelDump)
    pools = KernelPools(dump.kernel)
    assert pools.verifier is not None
    return pools.verifier, pools.allocation_log


def named(data: VerifierData, log: AllocationLog) -> dict[int, tuple[int, ...] | None]:
    """The stack of each block, by address."""
    return {
        address: log.stacks[number] if number >= 0 else None
        for address, number in zip(data.address.tolist(), log.stack.tolist(), strict=True)
    }


@pytest.mark.parametrize("build", OFFSETS)
def test_verifier_s_drivers_and_blocks_equal_what_was_written(build: str, tmp_path: Path) -> None:
    made = VerifiedSystem(tmp_path, build)
    made.watch("acmenet.sys", "AcNb", "AcNc")
    made.watch("acmeflt.sys", "AcFc", stacks=1, loads=4, unloads=3)
    made.watch("acmegpu.sys")
    data, log = opened(made.write())
    assert log is None
    for wanted, driver in zip(made.watched, data.drivers, strict=True):
        assert (driver.name, driver.loads, driver.unloads) == (
            *(wanted.name, wanted.loads, wanted.unloads),
        )
        assert driver.block_count == len(wanted.blocks)
        if wanted.blocks:
            for use, paged in ((driver.paged, True), (driver.nonpaged, False)):
                blocks, held = wanted.held(paged=paged)
                more = 2 * bool(blocks), 300 * bool(held)
                assert use == (blocks, held, blocks + more[0], held + more[1])
    blocks = [block for driver in made.watched for block in driver.blocks]
    assert len(data) == len(blocks) == 401
    rows = sorted((block.address, block.size, block.caller) for block in blocks)
    columns = data.address.tolist(), data.size.tolist(), data.caller.tolist()
    assert list(zip(*columns, strict=True)) == rows


def acmenet(tmp_path: Path, build: str = "14393-x64") -> tuple[VerifiedSystem, Watched]:
    made = VerifiedSystem(tmp_path, build)
    return made, made.watch("acmenet.sys", "AcNb")


@pytest.mark.parametrize("build", ["7601-x64", "14393-x64"])
def test_a_block_has_the_stack_of_its_record_and_none_where_the_log_has_none(
    build: str, tmp_path: Path
) -> None:
    made, driver = acmenet(tmp_path, build)
    for block in driver.blocks[25:]:
        made.log_allocation(block)
    data, log = opened(made.write())
    assert log is not None
    assert (log.slot_count, log.record_count, log.absent_count) == (512, 200, 0)
    assert log.is_ordered
    found = named(data, log)
    assert [found[b.address] for b in driver.blocks[25:]] == [b.stack for b in driver.blocks[25:]]
    assert {found[b.address] for b in driver.blocks[:25]} == {None}


def test_the_newest_record_of_an_address_is_the_block_s_and_older_ones_are_of_blocks_before(
    tmp_path: Path,
) -> None:
    made, driver = acmenet(tmp_path)
    again, other = driver.blocks[0], made.modules["acmenet.sys"] + 0x1800
    made.logged.append((again.address, again.size, (again.caller, other)))
    made.log_free(again.address, again.size, other)
    for block in driver.blocks:
        made.log_allocation(block)
    freed = driver.blocks[7]
    made.log_free(freed.address, freed.size, other)  # and not logged when it was handed out again
    data, log = opened(made.write())
    assert log is not None
    found = named(data, log)
    assert found[again.address] == again.stack
    assert found[freed.address] is None


def test_in_a_full_ring_nothing_names_a_block_with_two_records_that_differ_has_no_stack(
    tmp_path: Path,
) -> None:
    made, driver = acmenet(tmp_path)
    twice, other = driver.blocks[0], made.modules["acmenet.sys"] + 0x1800
    made.logged.append((twice.address, twice.size, (twice.caller, other)))
    for block in driver.blocks:
        made.log_allocation(block)
    for number in range(500):
        made.log_free(twice.address + 0x10 * number + 8, 64, other)
    del made.logged[1:200]
    made.logged[:0] = [(1 << 63, 64, (other,))] * 100
    assert len(made.logged) > 512
    data, log = opened(made.write())
    assert log is not None
    assert log.record_count == 512
    assert not log.is_ordered
    found = named(data, log)
    last = driver.blocks[-1]
    assert found[last.address] == last.stack
    assert found[twice.address] is None


def test_a_record_of_another_size_or_of_another_caller_names_nobody(tmp_path: Path) -> None:
    made, driver = acmenet(tmp_path)
    for number, block in enumerate(driver.blocks):
        size, stack = block.size, block.stack
        if number % 2:
            size += 8
        else:
            stack = (stack[0] + 5, *stack[1:])
        made.logged.append((block.address, size, stack))
    data, log = opened(made.write())
    assert log is not None
    assert log.record_count == 225
    assert log.stacks == []
    assert set(named(data, log).values()) == {None}


def test_blocks_of_a_driver_that_was_unloaded_are_records_too(tmp_path: Path) -> None:
    made = VerifiedSystem(tmp_path)
    dump = open_dump(made.path)
    assert isinstance(dump, KernelDump)
    gone = next(image for image in dump.kernel.unloaded if image.name == "acmeold.sys")
    made.modules["acmeold.sys"] = gone.base_address
    made.watch("acmeold.sys", "AcFc", loads=1, unloads=1)
    data, _ = opened(made.write())
    (driver,) = data.drivers
    assert (driver.name, driver.image, driver.block_count) == ("acmeold.sys", gone, 175)
    assert driver.counted == 175


def test_counters_say_how_many_blocks_are_missing_when_pages_of_records_are_gone(
    tmp_path: Path,
) -> None:
    made, _ = acmenet(tmp_path)
    made.write()
    made.put(made.pages[1], bytes(PAGE))
    data, _ = opened(made)
    (driver,) = data.drivers
    assert driver.block_count == 127
    assert driver.counted == 225


# --- the ring of builds of which no truth dump has room for one --------------------------------------------

FRAMES = {("x64", 19041): 13, ("x64", 26100): 50, ("x86", 7601): 13}


def with_ring(layout: tuple[str, int], slots: int, newest: int, *, named: bool) -> PoolMemory:
    """A driver with 20 blocks; each was allocated twice in the log, the second time from elsewhere."""
    architecture = layout[0]
    pool, image = PoolMemory(*layout).pool, DRIVERS[architecture]
    rows = [(pool + 0x1000 + n * 0x100, 96, "Acme") for n in range(20)]
    made = watched(layout, {"acme.sys": rows})
    word = "<I" if architecture == "x86" else "<Q"
    width = struct.calcsize(word)
    step = (3 + FRAMES[layout]) * width
    ring = bytearray(step * slots)
    events = [(n, 0x2000) for n in range(20)] + [(n, 0x3000 + n) for n in range(20)]
    filler = [(pool + 0x9000 + 16 * n, 0x4000) for n in range(slots - len(events))]
    for number, (what, outer) in enumerate([*filler, *events]):
        address = what if what > 20 else rows[what][0]
        inner = image + 0x1000 + (what if what <= 20 else 0)
        values = address, 96, pool, made.image + 0x80, inner, image + outer
        raw = b"".join(struct.pack(word, value) for value in values)
        at = (newest - slots + 1 + number) % slots * step
        ring[at : at + len(raw)] = raw
    place = made.put(pool + 0x900000, bytes(ring))
    (table,) = [at for at in made.pieces if at == pool + 0x500000]
    pages = [at for at in made.pieces if at == pool + 0x600000]
    del made.pieces[table]
    for name in ("PoolBigPageTable", "PoolBigPageTableSize"):
        del made.variables[name]
    large_table(made, pages, {place: -(-len(ring) // PAGE) * PAGE})
    if named:
        made.variable("VfPoolTraces", place)
        made.variable("VfPoolTracesLength", slots)
        made.variable("VfPoolTracesIndex", newest + 5 * slots)
    return made


@pytest.mark.parametrize("layout", FRAMES, ids=lambda layout: f"{layout[1]}-{layout[0]}")
def test_symbols_tell_which_record_of_a_full_ring_is_the_newest(layout: tuple[str, int]) -> None:
    pools = KernelPools(with_ring(layout, 256, 37, named=True).kernel())
    data, log = pools.verifier, pools.allocation_log
    assert data is not None
    assert log is not None
    assert (log.slot_count, log.record_count, log.is_ordered) == (256, 256, True)
    image = DRIVERS[layout[0]]
    wanted = [(image + 0x1000 + n, image + 0x3000 + n) for n in range(20)]
    assert list(named(data, log).values()) == wanted


@pytest.mark.parametrize("layout", FRAMES, ids=lambda layout: f"{layout[1]}-{layout[0]}")
def test_without_symbols_the_ring_is_found_and_two_answers_are_none(
    layout: tuple[str, int],
) -> None:
    pools = KernelPools(with_ring(layout, 256, 37, named=False).kernel())
    data, log = pools.verifier, pools.allocation_log
    assert data is not None
    assert log is not None
    assert (log.slot_count, log.record_count, log.is_ordered) == (256, 256, False)
    assert set(named(data, log).values()) == {None}


def test_a_freed_record_still_has_its_caller_and_is_no_block(tmp_path: Path) -> None:
    made, driver = acmenet(tmp_path)
    made.write()
    page = made.pages[0]
    freed = {3: page + 0x20 * 9, 8: 0, 5: made.pages[1] + 0x20 * 2}  # the next free record each
    for number, link in freed.items():
        made.pointer(page + 0x20 * (number + 1), link)
    data, _ = opened(made)
    left = [b.address for number, b in enumerate(driver.blocks) if number not in freed]
    assert sorted(left) == data.address.tolist()
    assert data.drivers[0].counted == 225


def test_a_driver_that_freed_everything_has_its_peaks(tmp_path: Path) -> None:
    made, _ = acmenet(tmp_path)
    made.watch("acmeflt.sys", "AcFc", stacks=1)
    made.write()
    counters = made.get(made.pages[0] + 8)
    for page in made.pages[:2]:
        for number in range(1, 128):
            made.pointer(page + 0x20 * number, page + 0x20 * (number % 127 + 1))
    at = made.offsets
    made.put(counters + at.blocks, struct.pack("<4I", 0, 0, 5, 300))
    made.put(counters + at.bytes, struct.pack("<4Q", 0, 0, 500, 90_000))
    data, _ = opened(made)
    found = {found.name: found for found in data.drivers}
    assert len(data) == 175
    assert found["acmenet.sys"].block_count == 0
    assert found["acmenet.sys"].nonpaged == (0, 0, 300, 90_000)
    assert found["acmenet.sys"].paged == (0, 0, 5, 500)
