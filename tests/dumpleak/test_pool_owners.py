"""Who owns a pool tag, on drivers made for it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders.driver_builder import (
    DATA,
    TEXT,
    Driver,
    a64_call_slot,
    a64_move,
    export,
    place,
    slot_of,
    x64_call,
    x64_call_slot,
)
from builders.kernel_builder import PAGE, System, full

from dumpleak.files.stripping import stripped_pools
from dumpleak.model.owners import Owner, Ownership
from dumpleak.model.pool import NONE, TRACKERS, TagRow, owner_of_both
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.pool_sites import tag_site
from dumpleak.model.pools import Pools
from dumpleak.model.stripping import Names
from dumpleak.owners.contents import drivers_in
from dumpleak.owners.on_behalf import with_callers
from dumpleak.owners.owners import TagOwners, VerifiedCaller
from dumpleak.owners.tag_table import TagTable, parse_pooltag
from dumpleak.reports.answers.next_steps import track_driver
from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.images.modules import Module
from windumps.pool_tags import tag_number

NET, GPU = 2, 3  # acmenet.sys, acmegpu.sys in the system's list
TAG = tag_number("AbCd")
ALLOCATE = "ExAllocatePoolWithTag"


def owners(
    system: System, tmp_path: Path, *tags: int, written: str = "", **more: object
) -> TagOwners:
    path = tmp_path / "made.dmp"
    path.write_bytes(full(system))
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    table = TagTable(parse_pooltag(written, "pooltag.txt")) if written else None
    wanted = np.array(tags or (TAG,), np.uint32)
    return TagOwners(dump.kernel, wanted, table, **more)  # type: ignore[arg-type]


def owner(found: TagOwners, tag: int = TAG) -> Owner:
    (only,) = found.of(tag).owners
    return only


def x64_allocates(system: System, number: int = 0, tag: int = TAG, before: int = 0) -> bytes:
    """mov r8d, tag; mov ecx, 512; call [import]; `before` bytes of code in front."""
    base = system.modules[NET][1]
    code = b"\x90" * before + b"\x41\xb8" + struct.pack("<I", tag) + b"\xb9\x00\x02\x00\x00"
    return code + x64_call_slot(base + TEXT + len(code), slot_of(system, base, number))


def test_a_tag_given_to_an_import_that_the_linker_s_names_tell(tmp_path: Path) -> None:
    system = System("x64")
    place(system, NET, Driver(x64_allocates(system), imports=(ALLOCATE,)))
    best = owner(owners(system, tmp_path))
    assert (best.driver, best.confidence) == ("acmenet.sys", "strong")
    assert best.evidence[0] == f"its code gives it to {ALLOCATE} (acmenet.sys+0x1002)"


def test_an_import_is_named_by_where_its_slot_points_when_the_names_are_gone(
    tmp_path: Path,
) -> None:
    system = System("x64")
    export(system, {ALLOCATE: 0x2340, "KeBugCheck": 0x2000})
    driver = Driver(
        x64_allocates(system),
        imports=(ALLOCATE,),
        pointers={ALLOCATE: system.kernel + 0x2340},
        with_names=False,
    )
    place(system, NET, driver)
    best = owner(owners(system, tmp_path))
    assert f"gives it to {ALLOCATE} " in best.evidence[0]
    # The section with the names is thrown away in every system: nothing is missing that counts.
    assert len(best.evidence) == 1


def test_an_import_without_any_name_counts_less(tmp_path: Path) -> None:
    system = System("x64")
    place(system, NET, Driver(x64_allocates(system), imports=(ALLOCATE,), with_names=False))
    best = owner(owners(system, tmp_path))
    named = System("x64")
    place(named, NET, Driver(x64_allocates(named), imports=(ALLOCATE,)))
    assert best.score < owner(owners(named, tmp_path)).score
    assert (best.confidence, best.driver) == ("strong", "acmenet.sys")


def test_a_function_that_takes_no_tag_speaks_against_it(tmp_path: Path) -> None:
    system = System("x64")
    place(system, NET, Driver(x64_allocates(system), imports=("KeInitializeEvent",)))
    found = owners(system, tmp_path).of(TAG)
    assert found.driver is None
    assert found.owners[0].confidence == "weak"
    assert "KeInitializeEvent" in found.owners[0].evidence[0]
    assert found.label == "acmenet.sys?"


def test_a_direct_call_of_a_function_without_a_name(tmp_path: Path) -> None:
    system = System("x64")
    base = system.modules[NET][1]
    code = b"\x41\xb8" + struct.pack("<I", TAG)
    place(system, NET, Driver(code + x64_call(base + TEXT + len(code), base + TEXT + 0x100)))
    best = owner(owners(system, tmp_path))
    assert best.evidence[0].startswith("its code gives it to a function of its own")


@pytest.mark.parametrize(
    ("code", "evidence"),
    [
        (b"\xba", "loads it as an argument"),  # mov edx, imm32
        (b"\x41\xb9", "loads it as an argument"),  # mov r9d, imm32
        (b"\xc7\x44\x24\x28", "loads it as an argument"),  # mov [rsp+28h], imm32
        (b"\xb9", "as a constant"),  # mov ecx, imm32: never the tag
        (b"\xc7\x40\x10", "as a constant"),  # mov [rax+10h], imm32
        (b"\x3d", "among its code"),  # cmp eax, imm32
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else "",
)
def test_operands(code: bytes, evidence: str, tmp_path: Path) -> None:
    system = System("x64")
    place(system, NET, Driver(code + struct.pack("<I", TAG)))
    assert evidence in owner(owners(system, tmp_path)).evidence[0]


def test_bytes_in_data_are_a_weak_sign(tmp_path: Path) -> None:
    system = System("x64")
    place(system, NET, Driver(data=b"\0" * 8 + struct.pack("<I", TAG)))
    place(system, GPU, Driver(data=b"\0" * 9 + struct.pack("<I", TAG)))
    found = owners(system, tmp_path).of(TAG)
    assert [o.driver for o in found.owners] == ["acmenet.sys"]
    assert found.driver is None
    assert "its data hold the tag" in found.owners[0].evidence[0]
    assert "no image in the dump gives this tag" in found.note
    unaligned = System("x64")
    place(unaligned, GPU, Driver(data=b"\0" * 9 + struct.pack("<I", TAG)))
    assert "occur in its image" in owner(owners(unaligned, tmp_path)).evidence[0]


def test_code_goes_before_data_and_before_what_is_written(tmp_path: Path) -> None:
    system = System("x64")
    place(system, NET, Driver(x64_allocates(system), imports=(ALLOCATE,)))
    place(system, GPU, Driver(data=struct.pack("<I", TAG)))
    written = "AbCd - acmegpu.sys - what it is for\n"
    found = owners(system, tmp_path, written=written).of(TAG)
    assert [o.driver for o in found.owners] == ["acmenet.sys", "acmegpu.sys"]
    assert found.owners[0].score > found.owners[1].score
    assert found.description == "what it is for"
    assert any("pooltag.txt names it" in text for text in found.owners[1].evidence)


def test_a_driver_that_is_not_loaded_is_named_as_such(tmp_path: Path) -> None:
    found = owners(System("x64"), tmp_path, written="AbCd - gone.sys - x\n").of(TAG)
    assert found.driver is None
    assert "it is not loaded" in found.owners[0].evidence[0]


def test_what_driver_verifier_saw_is_proof(tmp_path: Path) -> None:
    system = System("x64")
    place(system, NET, Driver(x64_allocates(system), imports=(ALLOCATE,)))
    address = system.modules[GPU][1] + TEXT + 0x40
    callers = [VerifiedCaller(TAG, address, 7, 7 * 352)]
    found = owners(system, tmp_path, verified=callers).of(TAG)
    assert [(o.driver, o.confidence) for o in found.owners] == [
        ("acmegpu.sys", "proven"),
        ("acmenet.sys", "strong"),
    ]
    assert "7 blocks, 2464 bytes at acmegpu.sys+0x1040" in found.owners[0].evidence[0]


def test_a_protected_tag_is_the_same_tag(tmp_path: Path) -> None:
    system = System("x64")
    code = x64_allocates(system, tag=TAG | 0x80000000)
    place(system, NET, Driver(code, imports=(ALLOCATE,)))
    assert owner(owners(system, tmp_path)).driver == "acmenet.sys"


@pytest.mark.parametrize("before", [PAGE - 6, PAGE - 5, PAGE - 4, PAGE - 3, PAGE - 2, PAGE - 1])
def test_a_tag_across_two_pages(before: int, tmp_path: Path) -> None:
    system = System("x64")
    place(system, NET, Driver(x64_allocates(system, before=before), imports=(ALLOCATE,)))
    assert f"gives it to {ALLOCATE} " in owner(owners(system, tmp_path)).evidence[0]


def test_a_tag_half_of_which_is_not_in_the_dump_is_not_found(tmp_path: Path) -> None:
    system = System("x64")
    code = x64_allocates(system, before=PAGE - 4)
    place(system, NET, Driver(code, imports=(ALLOCATE,), absent=(TEXT + PAGE,)))
    found = owners(system, tmp_path)
    assert found.of(TAG).owners == ()
    assert "parts of acmenet.sys are not in the dump" in found.of(TAG).note
    assert ("acmenet.sys", 1) in found.absent


def test_what_was_not_searched_is_said(tmp_path: Path) -> None:
    system = System("x64")
    driver = Driver(x64_allocates(system), imports=(ALLOCATE,), absent=(DATA,))
    place(system, NET, driver)
    best = owner(owners(system, tmp_path))
    assert best.evidence[-1] == "not searched, since not in the dump: .data of acmenet.sys"


def test_code_of_32_bit_drivers(tmp_path: Path) -> None:
    system = System("pae")
    base = system.modules[NET][1]
    code = b"\x68" + struct.pack("<I", TAG) + b"\x6a\x40\x6a\x00\xff\x15"
    code += struct.pack("<I", slot_of(system, base, 0))
    place(system, NET, Driver(code, imports=(ALLOCATE,)))
    best = owner(owners(system, tmp_path))
    assert best.evidence[0] == f"its code gives it to {ALLOCATE} (acmenet.sys+0x1001)"


def _swapped(register: int, value: int) -> bytes:
    """MOVZ Wd, #high, lsl #16, something else, MOVK Wd, #low."""
    low, high = value & 0xFFFF, value >> 16
    return struct.pack(
        "<III", 0x52A00000 | high << 5 | register, 0xD503201F, 0x72800000 | low << 5 | register
    )


@pytest.mark.parametrize("move", [a64_move, _swapped])
def test_arm64_code_splits_a_tag_over_two_instructions(
    move: Callable[[int, int], bytes], tmp_path: Path
) -> None:
    system = System("arm64")
    base = system.modules[NET][1]
    code = move(2, TAG)
    code += a64_call_slot(base + TEXT + len(code), slot_of(system, base, 1))
    place(system, NET, Driver(code, imports=("DbgPrint", ALLOCATE)))
    other = struct.pack(
        "<II", 0x52800000 | (TAG & 0xFFFF) << 5 | 2, 0x72A00000 | (TAG >> 16) << 5 | 3
    )
    place(system, GPU, Driver(other))  # two registers: no constant
    best = owner(owners(system, tmp_path))
    assert best.evidence[0] == f"its code gives it to {ALLOCATE} (acmenet.sys+0x1000)"


def test_many_finds_of_a_common_word_do_not_hide_the_code_that_counts(tmp_path: Path) -> None:
    system = System("x64")
    place(system, GPU, Driver(data=b"AbCd" * (PAGE // 4)))
    place(
        system, NET, Driver(x64_allocates(system), data=b"AbCd" * (PAGE // 4), imports=(ALLOCATE,))
    )
    found = owners(system, tmp_path)
    assert found.of(TAG).driver == "acmenet.sys"
    assert len(found.hits.tag) < 100


def test_padding_is_nobody_s_tag_and_costs_nothing(tmp_path: Path) -> None:
    system = System("x64")
    padding = [0, tag_number("    "), 0xCCCCCCCC]
    data = b"".join(struct.pack("<I", tag) * (PAGE // 16) for tag in padding)
    place(system, GPU, Driver(data=data))
    place(system, NET, Driver(x64_allocates(system), imports=(ALLOCATE,)))
    found = owners(system, tmp_path, TAG, *padding)
    assert found.of(TAG).driver == "acmenet.sys"
    assert {found.of(tag).owners for tag in padding} == {()}
    assert set(found.hits.tag.tolist()) == {TAG}


def test_tags_are_kept_apart_and_all_found_in_one_pass(tmp_path: Path) -> None:
    system = System("x64")
    tags = [tag_number(f"T{number:03}") for number in range(200)]
    code = b"".join(b"\x41\xb8" + struct.pack("<I", tag) for tag in tags)
    place(system, NET, Driver(code))
    found = owners(system, tmp_path, *tags, tag_number("Zz9!"))
    assert {found.of(tag).driver for tag in tags} == {"acmenet.sys"}
    assert found.of(tag_number("Zz9!")).owners == ()
    assert found.hits.tag.tolist() == tags
    assert [int(a) - system.modules[NET][1] - TEXT for a in found.hits.address] == [
        6 * number + 2 for number in range(200)
    ]


def test_overlapping_and_absent_images_are_searched_once(tmp_path: Path) -> None:
    system = System("x64")
    base = place(system, NET, Driver(x64_allocates(system), imports=(ALLOCATE,)))
    # A damaged list: another driver that claims the same memory, and one that claims all of it.
    system.pointer(system.entries[GPU] + system.n.dll_base, base)
    system.write(system.entries[1] + system.n.image_size, struct.pack("<I", 1 << 30))
    found = owners(system, tmp_path)
    assert len(found.hits.tag) == 1
    assert found.of(TAG).owners


def test_without_a_list_of_drivers_nothing_is_claimed_of_them(tmp_path: Path) -> None:
    system = System("x64")
    for entry in system.entries:
        system.poke(system.entry_at(entry), 0, system.n.entry)
    found = owners(system, tmp_path, tag_number("Proc"))
    answer: Ownership = found.of(tag_number("Proc"))
    assert "list of drivers is not in the dump" in answer.note or answer.driver
    assert all("not loaded" not in text for o in answer.owners for text in o.evidence)


def test_two_drivers_that_are_equally_likely_are_both_named(tmp_path: Path) -> None:
    system = System("x64")
    for number in (NET, GPU):
        place(system, number, Driver(b"\x90\x41\xb8" + struct.pack("<I", TAG)))
    found = owners(system, tmp_path).of(TAG)
    assert found.drivers == ("acmegpu.sys", "acmenet.sys")
    assert found.driver == found.label == "acmegpu.sys or acmenet.sys"
    step = track_driver([found.drivers])
    assert step.command == "verifier /flags 0x8 /driver acmegpu.sys acmenet.sys"


def test_what_the_kernel_allocates_for_others_is_not_its_own(tmp_path: Path) -> None:
    mdl = tag_number("Mmdi")
    found = owners(System("x64"), tmp_path, mdl).of(mdl)
    assert found.driver == "ntoskrnl.exe"
    assert found.label == "caller unknown"
    assert found.whose == "of an unknown caller of MmAllocatePagesForMdlEx"
    assert "the caller is unknown" in found.note


def test_a_driver_that_allocates_with_a_tag_of_the_kernel_s_is_its_owner(tmp_path: Path) -> None:
    system = System("x64")
    irp = tag_number("Irp ")
    place(system, NET, Driver(x64_allocates(system, tag=irp), imports=(ALLOCATE,)))
    assert owners(system, tmp_path, irp).of(irp).driver == "acmenet.sys"


def test_blocks_that_lead_to_a_driver_make_it_a_likely_caller_and_no_more(tmp_path: Path) -> None:
    system = System("x64")
    base = system.modules[NET][1]
    place(system, NET, Driver(b"\x90"))
    at = system.kernel + 0x4200
    device, driver = at + 0x80, at + 0xC0
    system.write(at, bytes(0x100))
    system.pointer(at + 0x18, base + TEXT)  # a routine of the driver
    system.pointer(at + 0x58, device)  # in the second block
    system.write(device, struct.pack("<H", 3))
    system.pointer(device + 8, driver)
    system.write(driver, struct.pack("<H", 4))
    system.pointer(driver + 0x18, base)
    irp = tag_number("Irp ")
    found = owners(system, tmp_path, irp)
    path = tmp_path / "made.dmp"
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    blocks = np.array([at, at + 0x40, at + 0x78], np.uint64), np.array([0x40, 0x40, 8], np.int64)
    seen, looked_at = drivers_in(dump.kernel, *blocks)
    assert (seen, looked_at) == ([("acmenet.sys", 2)], 3)
    known = with_callers(found.of(irp), seen, looked_at)
    assert known.label == "caller unknown, acmenet.sys?"
    assert known.whose == "of an unknown caller of IoAllocateIrp, perhaps acmenet.sys"
    (guess,) = (owner for owner in known.owners if owner.driver == "acmenet.sys")
    assert guess.confidence == "weak"
    assert guess.evidence[0].startswith("2 of 3 blocks")


def test_a_driver_that_is_gone_is_named_where_nobody_else_owns_a_tag(tmp_path: Path) -> None:
    before = Ownership("AbCd", (Owner("acmegpu.sys", 0.9, "strong", ()),))
    gone = owner_of_both(before, Ownership("AbCd", unloaded=("AcmeGpu.sys",)))
    assert gone.driver == "acmegpu.sys"
    assert "no longer loaded" in gone.note
    still = owner_of_both(before, Ownership("AbCd"))
    assert still.note == "only the base shows its owner"
    path = tmp_path / "made.dmp"
    path.write_bytes(full(System("x64")))
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    # The second only ever wrote a crash dump, the third was loaded again.
    names = ("acmeold.sys", "dump_storahci.sys", "ACMENET.sys")
    dump.kernel.unloaded = [Module(name, name, 0x1000, 0x1000, 0) for name in names]
    found = TagOwners(dump.kernel, np.array([TAG], np.uint32)).of(TAG)
    assert found.unloaded == ("acmeold.sys",)
    assert found.note.endswith("unloaded before the dump: acmeold.sys")


def test_names_of_drivers_that_are_equally_likely_or_gone_can_be_left_out() -> None:
    two = (Owner("acmegpu.sys", 0.9, "strong", ()), Owner("acmenet.sys", 0.9, "strong", ()))
    gone = Ownership(
        "Gone", note="unloaded before the dump: acmeold.sys", unloaded=("acmeold.sys",)
    )
    rows = tuple(
        TagRow(tag_number(owner.tag), owner.tag, {"paged": NONE}, TRACKERS, owner)
        for owner in (Ownership("AbCd", two), gone)
    )
    names = Names(())
    site = names.site(tag_site(rows[0]))
    assert site.name.startswith("AbCd, ")
    assert "acme" not in site.name + (site.driver or "")
    account = PoolAccount(TRACKERS, "", "", "", 0, 2, 0, None, None, 0, None, 0, 0, 0, (), ())
    pools = Pools(rows, account, True, 64, 0, False, "")
    assert "acme" not in str(stripped_pools(pools, names, ()).rows)
