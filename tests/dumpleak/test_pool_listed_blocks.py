"""`pool DUMP --tag T` lists the blocks of one dump, and what they point to."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.filled_system import FilledSystem
from kernel_truth import KernelTruthDump, kernel_dumps
from pool_samples import all_blocks, dumps_of, run, run_json

from dumpleak.kernel.pools import PoolReader
from dumpleak.owners.pointed import pointed_to
from windumps import open_dump

DEVICE, DRIVER = 3, 4  # wdm.h: types of I/O objects; DriverObject lies at 8, DriverStart at 0x18
DEVICE_OWNER, DRIVER_START = 8, 0x18


def listed(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    return dict(run_json(capsys, "pool", *args)["blocks"])


@dumps_of("tiny-pair")
def test_the_blocks_of_a_tag_are_listed_with_address_size_and_pool(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks, lost = all_blocks(source)
    told = listed(capsys, source.dump, "--tag", "AcNb")
    expected = {at: size for at, (tag, size) in blocks.items() if tag == "AcNb" and at not in lost}
    mine = {int(row["address"], 16): row["block_bytes"] for row in told["listed"]}
    assert expected
    assert mine == expected
    assert (told["count"], told["bytes"]) == (len(expected), sum(expected.values()))
    assert {(row["tag"], row["state"], row["pool"]) for row in told["listed"]} == {
        ("AcNb", "used", "nonpaged")
    }


def test_a_terminal_lists_the_first_blocks_and_says_how_many_more_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = FilledSystem(tmp_path).save()
    many = listed(capsys, made, "--tag", "AcNb")["count"]
    code, out, _ = run(capsys, "pool", made, "--tag", "AcNb", "--top", 3)
    assert code == 0
    assert many > 3
    assert f"… and {many - 3:,} more blocks" in out
    assert out.count(" used ") == 3
    assert listed(capsys, made, "--tag", "AcNb", "--top", 3)["count"] == many


def test_what_a_block_points_to_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system = FilledSystem(tmp_path)
    rows = {row["tag"]: row for row in system.truth["small_blocks"] if not row.get("absent")}
    block, other = (int(rows[tag]["user"], 16) for tag in ("AcNb", "Toke"))
    driver = next(row for row in system.truth["modules"] if row["name"] == "acmenet.sys")
    base = int(driver["base"], 16)
    (device, its_driver) = (system._spare[-1], system._spare[-1] + 0x100)
    system.put(device, struct.pack("<HH4xQ", DEVICE, 0x150, its_driver))
    system.put(its_driver, struct.pack("<HH", DRIVER, 0x150))
    system.pointer(its_driver + DRIVER_START, base)
    words = (base + 0x1011, device, its_driver, other, other + 8, block + 8, 0x1234)
    system.put(block, struct.pack(f"<{len(words)}Q", *words))
    told = listed(capsys, system.save(), "--tag", "AcNb")
    mine = next(row for row in told["listed"] if int(row["address"], 16) == block)
    found = [(each["kind"], each["name"], each["count"]) for each in mine["points_to"]]
    # The block's own addresses lead nowhere else, and a number is no pointer.
    assert found[:4] == [
        ("device", "acmenet.sys", 1),
        ("driver", "acmenet.sys", 1),
        ("code", "acmenet.sys+0x1011", 1),
        ("block", "Toke", 2),
    ]
    assert len([each for each in found if each[0] != "block"]) == 3


def test_a_device_of_no_loaded_driver_is_no_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system = FilledSystem(tmp_path)
    block = next(
        int(row["user"], 16) for row in system.truth["small_blocks"] if row["tag"] == "AcNb"
    )
    device = system._spare[-1]
    system.put(device, struct.pack("<HH4xQ", DEVICE, 0x150, device + 0x100))
    system.put(device + 0x100, struct.pack("<HH", DRIVER, 0x150))
    system.pointer(device + 0x100 + DRIVER_START, 0xFFFFF80000001000)
    system.put(block, struct.pack("<QQ", device, device + 0x100))
    told = listed(capsys, system.save(), "--tag", "AcNb")
    mine = next(row for row in told["listed"] if int(row["address"], 16) == block)
    assert {each["kind"] for each in mine["points_to"]} <= {"block"}


def test_a_snapshot_lists_addresses_and_says_that_it_keeps_no_contents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, kept = FilledSystem(tmp_path).save(), tmp_path / "kept.dlsnap"
    assert run(capsys, "snapshot", made, "-o", kept)[0] == 0
    of_dump, of_file = (listed(capsys, path, "--tag", "AcNb") for path in (made, kept))
    assert of_dump["contents_unknown"] is None
    assert "snapshot" in of_file["contents_unknown"]
    assert {row["points_to"] is None for row in of_file["listed"]} == {True}
    assert [row["address"] for row in of_file["listed"]] == [
        row["address"] for row in of_dump["listed"]
    ]


def test_without_a_tag_or_without_a_walk_no_block_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = FilledSystem(tmp_path).save()
    assert run_json(capsys, "pool", made)["blocks"] is None
    assert run_json(capsys, "pool", made, "--no-walk", "--tag", "AcNb")["blocks"] is None


def test_only_the_pools_that_are_asked_for_have_their_blocks_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = FilledSystem(tmp_path).save()
    told = listed(capsys, made, "--tag", "Ac*", "--type", "paged")
    assert told["count"]
    assert {row["pool"] for row in told["listed"]} == {"paged"}
    assert all(row["tag"].startswith("Ac") for row in told["listed"])
    everything = listed(capsys, made, "--tag", "Ac*")
    assert told["count"] == sum(row["pool"] == "paged" for row in everything["listed"])
    assert told["count"] < everything["count"]


def test_what_a_block_points_to_is_unknown_where_its_contents_are_not_in_the_dump() -> None:
    source = next(d for d in kernel_dumps("tiny-pair") if d.dump.name.startswith("after"))
    reader = PoolReader(open_dump(source.dump))
    (_, large) = max(
        (row["charged"], int(row["user"], 16)) for row in source.read_truth()["big_allocations"]
    )
    nowhere = 0xFFFFAAAA00000000
    asked = np.array([nowhere, large], np.uint64), np.array([64, 64], np.int64)
    found = pointed_to(reader.dump.kernel, reader.blocks, *asked)
    assert found[0] is None
    assert found[1] is not None
