"""Kernel dumps of every kind and architecture against what is known to be in them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from kernel_truth import REAL_KERNEL, KernelTruthDump, kernel_dumps

from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.memory import PageTableMemory, Presence

PAGE = 0x1000
# What dumps of the kernel alone leave out.
USER_PAGES = " PEB"
FULL = (1, 5)

ALL = kernel_dumps()
WHOLE = [dump for dump in ALL if not dump.is_truncated]
CUT = [dump for dump in ALL if dump.is_truncated]


class Opened(NamedTuple):
    source: KernelTruthDump
    dump: KernelDump
    truth: dict[str, Any]


def _open(source: KernelTruthDump) -> Opened:
    dump = open_dump(source.dump)
    assert isinstance(dump, KernelDump)
    return Opened(source, dump, source.read_truth())


# Of the scope of the module, so that each dump is opened once for all tests.
@pytest.fixture(scope="module", params=WHOLE, ids=lambda source: source.name)
def whole(request: pytest.FixtureRequest) -> Opened:
    return _open(request.param)


@pytest.fixture(scope="module", params=CUT, ids=lambda source: source.name)
def cut(request: pytest.FixtureRequest) -> Opened:
    return _open(request.param)


def _hash(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def test_there_are_dumps_of_several_builds_and_kinds() -> None:
    assert len({source.build for source in WHOLE}) >= 6
    assert CUT


def test_the_dump_says_what_it_is(whole: Opened) -> None:
    _, dump, truth = whole
    assert dump.architecture == truth["arch"]
    assert dump.os_version == (*map(int, truth["version"].split(".")[:2]), truth["build"])
    assert dump.dump_type == truth["dump"]["dump_type"]
    assert dump.full_memory == (dump.dump_type in FULL)
    started = datetime(1601, 1, 1, tzinfo=UTC)
    assert dump.time == started + timedelta(microseconds=truth["system_time"] // 10)
    if "boot_time" in truth:
        up = truth["system_time"] - truth["boot_time"]
        assert dump.up_time == timedelta(microseconds=up // 10)
    assert dump.kernel.processor_count == truth["cpus"]
    assert dump.kernel.build_lab.startswith(f"{truth['build']}.")
    if "bugcheck" in truth:
        assert dump.bug_check is not None
        assert hex(dump.bug_check.code) == truth["bugcheck"]["code"]
        assert [hex(p) for p in dump.bug_check.parameters] == truth["bugcheck"]["params"]
    assert not [item for item in dump.diagnostics if item.severity != "info"]
    assert dump.missing_bytes == 0
    assert dump.why_no_pool == ""


def test_kernel_and_kdbg_are_found(whole: Opened) -> None:
    source, dump, truth = whole
    assert hex(dump.kernel_base) == truth["kernel_base"]
    assert dump.kernel.image is not None
    assert dump.kernel.image.pdb is not None
    assert dump.kernel.image.pdb.key == truth["pdb"]
    assert dump.kdbg is not None
    assert hex(dump.kdbg.address) == truth["kdbg"]
    # The scenario with traps keeps KDBG as a raw image has it: encoded, since Windows 8.
    assert dump.kdbg.was_encoded == (source.scenario == "traps")
    table = dump.kernel.value("PoolTrackTable")
    assert table is not None
    assert hex(table) == truth["tracker"]["tables"][0]


def test_drivers_are_complete(whole: Opened) -> None:
    _, dump, truth = whole
    assert [
        (m.name, hex(m.base_address), m.size_bytes, m.timestamp, m.pdb.key if m.pdb else None)
        for m in dump.modules
    ] == [(m["name"], m["base"], m["size"], m["timestamp"], m["pdb"]) for m in truth["modules"]]
    if "unloaded" in truth:
        assert [m.name for m in dump.unloaded_modules] == truth["unloaded"][::-1]


def test_processes_are_complete(whole: Opened) -> None:
    _, dump, truth = whole
    assert dump.process_layout is not None
    assert dump.process_layout.score == 1.0
    assert [
        (p.process_id, p.parent_id, p.name, hex(p.address), hex(p.directory_table_base), p.peb)
        for p in dump.processes
    ] == [
        (p["pid"], p["ppid"], p["name"], p["eprocess"], p["dtb"], int(p.get("peb", "0x0"), 16))
        for p in truth["processes"]
    ]
    assert all(p.create_time and dump.time and p.create_time <= dump.time for p in dump.processes)


def test_probed_memory_is_read_as_it_was(whole: Opened) -> None:
    _, dump, truth = whole
    spaces: dict[str, PageTableMemory] = {}
    absent = []
    for probe in truth["probes"]:
        root = probe["dtb"]
        if root not in spaces:
            spaces[root] = dump.address_space(int(root, 16))
        raw = spaces[root].read_available(int(probe["va"], 16), probe["bytes"])
        if len(raw) < probe["bytes"]:
            absent.append(probe["what"])
        else:
            assert _hash(raw) == probe["sha256"], probe["what"]
    if dump.full_memory or truth["arch"] == "x86":
        assert not absent
    assert all(what.endswith(USER_PAGES) for what in absent)


def _check_absent_pages(opened: Opened) -> None:
    source, dump, truth = opened
    for page in truth["absent_pages"]:
        address = int(page["va"], 16)
        presence = dump.memory.presence(address)
        if page["state"] == "transition":
            if presence is Presence.PRESENT:
                assert _hash(dump.memory.read(address, PAGE)) == page["sha256"]
            elif not source.is_truncated:
                pytest.fail(f"a page in transition that is in the dump reads as {presence}")
        else:
            assert presence is not Presence.PRESENT
            if not source.is_truncated:
                assert presence is Presence.ABSENT


def test_paged_out_memory_is_absent_and_pages_in_transition_are_read(whole: Opened) -> None:
    assert whole.truth["absent_pages"]
    _check_absent_pages(whole)


def test_paged_out_memory_is_absent_from_a_cut_dump(cut: Opened) -> None:
    _check_absent_pages(cut)


def test_what_a_cut_dump_still_gives_is_true(cut: Opened) -> None:
    _, dump, truth = cut
    assert "memory-cut" in {item.code for item in dump.diagnostics}
    lost = truth["dump"]["required"] - len(dump.memory.data)
    assert dump.missing_bytes == -(-lost // PAGE) * PAGE  # half a page is none
    listed = [(m["name"], int(m["base"], 16), m["size"]) for m in truth["modules"]]
    found = [(m.name, m.base_address, m.size_bytes) for m in dump.modules]
    assert found == [module for module in listed if module in found]
    known = {(p["pid"], p["name"], int(p["dtb"], 16)) for p in truth["processes"]}
    assert {(p.process_id, p.name, p.directory_table_base) for p in dump.processes} <= known
    if len(found) < len(listed):
        assert "module-list-broken" in {item.code for item in dump.diagnostics}
    if dump.kernel_base:
        assert hex(dump.kernel_base) == truth["kernel_base"]
    for probe in truth["probes"]:
        memory = dump.address_space(int(probe["dtb"], 16))
        raw = memory.read_available(int(probe["va"], 16), probe["bytes"])
        assert len(raw) < probe["bytes"] or _hash(raw) == probe["sha256"], probe["what"]


def test_one_read_and_a_whole_translation_agree(whole: Opened) -> None:
    dump = whole.dump
    runs = dump.memory.runs
    ends = runs.address[:-1].astype(object) + runs.size[:-1]
    assert (ends <= runs.address[1:].astype(object)).all()
    step = max(len(runs.address) // 200, 1)
    for address, size, offset in list(zip(*(c.tolist() for c in runs), strict=True))[::step]:
        assert dump.memory.view(address, 16).tobytes() == bytes(
            dump.memory.data[offset : offset + 16]
        )
        assert dump.memory.presence(address + size - 1) is Presence.PRESENT


REAL = sorted(REAL_KERNEL.glob("*.dmp"))
# Build, architecture, stop code, drivers, unloaded drivers, time: read off the files with a hex
# editor by the offsets of rizin's declarations.
TRIAGE = {
    "rizin_triage_x64.dmp": (19041, "x64", 0x1000007E, 151, 4, "2021-02-21 01:38:22"),
    "rizin_triage_arm64.dmp": (22000, "arm64", 0x1C8, 245, 11, "2021-09-14 02:51:58"),
}


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_a_real_triage_dump_says_what_it_is_and_what_it_is_not(path: Any) -> None:
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    build, architecture, code, drivers, unloaded, when = TRIAGE[path.name]
    assert (dump.build, dump.architecture) == (build, architecture)
    assert dump.bug_check is not None
    assert dump.bug_check.code == code
    assert (len(dump.modules), len(dump.unloaded_modules)) == (drivers, unloaded)
    assert f"{dump.time:%Y-%m-%d %H:%M:%S}" == when
    assert dump.modules[0].name == "ntoskrnl.exe"
    assert dump.modules[0].base_address == dump.kernel_base
    assert all(m.path and m.size_bytes for m in dump.modules)
    assert dump.kdbg is not None
    assert dump.kernel.build_lab.startswith(f"{build}.")
    assert dump.symbol("PoolTrackTable")
    assert dump.is_triage
    assert "triage" in dump.why_no_pool
    assert not [item for item in dump.diagnostics if item.severity != "info"]
    assert dump.current_process is not None
    assert (dump.current_process.process_id, dump.current_process.name) == (4, "System")
    # The blobs behind the dump are walked to the last byte.
    assert dump.secondary
