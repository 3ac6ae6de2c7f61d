"""Kernel dumps in every container and of every processor, made by a test."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.kernel_builder import (
    ARCHITECTURE,
    GUID_TEXT,
    NUMBERS,
    PAGE,
    System,
    bitmap,
    full,
    header,
    page_bytes,
    ranges,
    runs,
    summary,
    triage,
)

from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.errors import CorruptDumpError, UnsupportedDumpError
from windumps.images.modules import PdbIdentity
from windumps.memory import Presence
from windumps.symbols.isf import SymbolTableFile

Container = Callable[[System], bytes]
CONTAINERS: dict[str, Container] = {
    "full": full,
    "bitmap-5": lambda system: bitmap(system, 5),
    "bitmap-6": lambda system: bitmap(system, 6),
    "bitmap-7": lambda system: bitmap(system, 7),
    "summary": summary,
    "ranges-8": lambda system: ranges(system, 8),
    "ranges-9": lambda system: ranges(system, 9),
    "ranges-10": lambda system: ranges(system, 10),
}


@pytest.fixture
def systems() -> dict[str, System]:
    return {kind: System(kind) for kind in NUMBERS}


def opened(tmp_path: Path, raw: bytes) -> KernelDump:
    path = tmp_path / "made.dmp"
    path.write_bytes(raw)
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    return dump


def codes(dump: KernelDump) -> set[str]:
    return {item.code for item in dump.diagnostics}


def check(dump: KernelDump, system: System) -> None:
    """All that every container must give."""
    assert dump.architecture == ARCHITECTURE[system.kind]
    assert dump.build == system.n.build
    assert dump.kernel_base == system.kernel
    assert [(m.name, m.base_address, m.size_bytes) for m in dump.modules] == system.modules
    assert {m.pdb for m in dump.modules[:1]} == {PdbIdentity("ntkrnlmp.pdb", GUID_TEXT, 1)}
    assert [
        (p.process_id, p.parent_id, p.name, p.directory_table_base) for p in dump.processes
    ] == system.processes
    assert dump.kdbg is not None
    assert dump.kdbg.address == system.kdbg
    assert dump.symbol("PoolTrackTable") == system.variables[0x1B8]
    assert dump.kernel.build_lab == f"{system.n.build}.1.fre.test"
    user = dump.process_memory(dump.processes[2])
    assert user.read_available(0x30000, 64).rstrip(b"\0") == b"user memory of acmesvc.exe 2244"


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", NUMBERS)
def test_every_container_of_every_processor_opens(
    systems: dict[str, System], tmp_path: Path, kind: str, container: str
) -> None:
    dump = opened(tmp_path, CONTAINERS[container](systems[kind]))
    check(dump, systems[kind])
    assert not codes(dump)
    assert dump.up_time is not None
    assert dump.up_time.total_seconds() == 3600
    assert dump.bug_check is not None
    assert (dump.bug_check.code, dump.bug_check.parameters) == (0xD1, (1, 2, 3, 4))


@pytest.mark.parametrize("kind", NUMBERS)
def test_a_triage_dump_shows_what_it_has(
    systems: dict[str, System], tmp_path: Path, kind: str
) -> None:
    system = systems[kind]
    dump = opened(tmp_path, triage(system))
    assert [(m.name, m.base_address, m.size_bytes) for m in dump.modules] == system.modules
    assert [m.name for m in dump.unloaded_modules] == ["old.sys"]
    assert dump.kernel_base == system.kernel
    assert dump.memory.read(system.kernel + 0x5000, 10) == b"data block"
    assert dump.memory.read(system.kernel + 0x6000, 5) == b"stack"
    assert dump.is_triage
    assert "triage" in dump.why_no_pool
    assert dump.processes == []
    assert dump.current_process is not None
    assert (dump.current_process.process_id, dump.current_process.name) == (2244, "acmesvc.exe")
    with pytest.raises(UnsupportedDumpError, match="no memory of processes"):
        dump.address_space(system.root)


@pytest.mark.parametrize("kind", ["x64", "x86"])
def test_a_dump_of_the_header_alone_says_that_it_holds_nothing(
    systems: dict[str, System], tmp_path: Path, kind: str
) -> None:
    dump = opened(tmp_path, bytes(header(systems[kind], 3)))
    assert dump.modules == []
    assert dump.bug_check is not None
    assert "holds no memory" in dump.why_no_pool


@pytest.mark.parametrize(("kind", "wrong"), [("pae", 0), ("x86", 1), ("pae", 0x50), ("x86", 0x50)])
def test_page_tables_are_chosen_by_what_they_lead_to(
    systems: dict[str, System], tmp_path: Path, kind: str, wrong: int
) -> None:
    check(opened(tmp_path, full(systems[kind], pae=wrong)), systems[kind])


@pytest.mark.parametrize("kind", NUMBERS)
def test_kdbg_is_found_when_the_header_does_not_say(
    systems: dict[str, System], tmp_path: Path, kind: str
) -> None:
    system = systems[kind]
    for kdbg in (0, system.kernel + 0x6000):
        dump = opened(tmp_path, full(system, kdbg=kdbg))
        check(dump, system)
        assert dump.kdbg is not None
        assert "search" in dump.kdbg.source


def encoded(plain: bytes, never: int, always: int, flag: int) -> bytes:
    """KDBG as a 64-bit kernel keeps it since Windows 8; see QEMU's elf2dmp for the way back."""
    out = b""
    for (word,) in struct.iter_unpack("<Q", plain):
        word = int.from_bytes((word ^ always).to_bytes(8, "little"), "big") ^ flag
        turn = never & 63
        word = (word >> turn | word << (64 - turn)) & (1 << 64) - 1
        out += struct.pack("<Q", word ^ never)
    return out


@pytest.mark.parametrize("never", [0, 0x1234567890ABCDC0, 0xFEDCBA9876543211, 0x3F])
@pytest.mark.parametrize("told", [True, False])
def test_an_encoded_kdbg_is_decoded_without_symbols(tmp_path: Path, never: int, told: bool) -> None:
    system = System("x64")
    secret = encoded(system.kdbg_bytes(), never, 0x0123456789ABCDEF, 0xFFFFF80312345678)
    system.write(system.kdbg, secret)
    dump = opened(tmp_path, full(system, kdbg=system.kdbg if told else 0))
    check(dump, system)
    assert dump.kdbg is not None
    assert dump.kdbg.was_encoded
    assert dump.kdbg.raw == system.kdbg_bytes()


@pytest.mark.parametrize("kind", NUMBERS)
def test_lists_are_found_by_structure_when_nothing_names_them(tmp_path: Path, kind: str) -> None:
    system = System(kind)
    system.write(system.kdbg, bytes(0x380))
    dump = opened(tmp_path, full(system, kdbg=0))
    assert dump.kdbg is None
    assert [m.base_address for m in dump.modules] == [base for _, base, _ in system.modules]
    for name, address in (
        ("PsLoadedModuleList", system.module_list),
        ("PsActiveProcessHead", system.process_list),
    ):
        found = dump.find_symbol(name)
        assert found is not None
        assert (found.address, found.source) == (address, "search")
    assert dump.symbol("PoolTrackTable") is None
    assert [p.process_id for p in dump.processes] == [4, 312, 2244]


@pytest.mark.parametrize("kind", NUMBERS)
def test_a_root_that_leads_nowhere_is_replaced_by_one_that_is_found(
    systems: dict[str, System], tmp_path: Path, kind: str
) -> None:
    dump = opened(tmp_path, full(systems[kind], root=0x7777000))
    check(dump, systems[kind])
    assert codes(dump) == {"page-tables-searched"}


@pytest.mark.parametrize("kind", ["x64", "pae"])
def test_a_list_of_drivers_with_a_hole_is_read_from_both_ends(tmp_path: Path, kind: str) -> None:
    system = System(kind)
    place = system.entry_at(system.entries[1])
    system.poke(place, 0x7777 * PAGE | system.n.page_flags, system.n.entry)
    dump = opened(tmp_path, full(system))
    expected = [name for name, _, _ in system.modules]
    assert [m.name for m in dump.modules] == [expected[0], *expected[2:]]
    assert "module-list-broken" in codes(dump)


def test_a_list_of_drivers_that_loops_ends(tmp_path: Path) -> None:
    system = System("x64")
    system.pointer(system.entries[2], system.entries[1])
    dump = opened(tmp_path, full(system))
    assert {"module-list-broken"} <= codes(dump)
    assert len(dump.modules) <= 4


def test_the_kernel_is_not_what_a_cut_list_begins_with(tmp_path: Path) -> None:
    system = System("x64")
    place = system.entry_at(system.entries[0])
    system.poke(place, 0x7777 * PAGE | 0x63, 8)
    dump = opened(tmp_path, full(system))
    assert dump.kernel_base == system.kernel
    assert [m.name for m in dump.modules] == [name for name, _, _ in system.modules[1:]]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", ["x64", "x86"])
def test_what_a_cut_file_lacks_counts_as_absent(
    systems: dict[str, System], tmp_path: Path, kind: str, container: str
) -> None:
    system = systems[kind]
    raw = CONTAINERS[container](system)
    whole = opened(tmp_path, raw)
    assert whole.physical is not None
    last = whole.physical.total_bytes
    cut = opened(tmp_path, raw[: -5 * PAGE - 100])
    assert cut.physical is not None
    assert cut.physical.total_bytes == last - 6 * PAGE
    assert cut.missing_bytes == 6 * PAGE
    assert "memory-cut" in codes(cut)
    said = [item.bytes_affected for item in cut.diagnostics if item.code == "memory-cut"]
    assert said == [6 * PAGE]


@pytest.mark.parametrize("container", ["full", "bitmap-6", "triage"])
def test_blocks_that_components_added_are_listed(
    systems: dict[str, System], tmp_path: Path, container: str
) -> None:
    guids = [bytes([number]) * 16 for number in (0x11, 0x22)]
    blobs = b"DumpBlob" + struct.pack("<II", 16, 0xF0000000 | 19041)
    for guid, size in zip(guids, (20, 4096), strict=True):
        blobs += struct.pack("<I16sIII", 32, guid, size, 4, 8) + bytes(4 + size + 8)
    made = {**CONTAINERS, "triage": triage}[container](systems["x64"])
    dump = opened(tmp_path, made + blobs)
    assert dump.secondary == [("11" * 16, 20), ("22" * 16, 4096)]
    assert opened(tmp_path, made).secondary == []


def test_a_bitmap_whose_count_is_wrong_is_told(systems: dict[str, System], tmp_path: Path) -> None:
    raw = bytearray(bitmap(systems["x64"], 6))
    raw[0x2028] -= 1
    assert "page-count" in codes(opened(tmp_path, bytes(raw)))


def test_a_bitmap_dump_with_the_other_header_is_read(
    systems: dict[str, System], tmp_path: Path
) -> None:
    for source, kind in ((summary, 6), (bitmap, 2)):
        raw = bytearray(source(systems["x64"]))
        struct.pack_into("<I", raw, 0xF98, kind)
        check(opened(tmp_path, bytes(raw)), systems["x64"])


def test_an_unknown_type_is_read_by_what_follows(
    systems: dict[str, System], tmp_path: Path
) -> None:
    for source in (full, bitmap, lambda system: ranges(system, 8)):
        raw = bytearray(source(systems["x64"]))
        struct.pack_into("<I", raw, 0xF98, 77)
        if source is not full:
            raw[0x88:0x8C] = b"PAGE"
        dump = opened(tmp_path, bytes(raw))
        assert codes(dump) == {"unknown-dump-type"}
        assert len(dump.modules) == 4


def test_a_dump_without_runs_is_refused(systems: dict[str, System], tmp_path: Path) -> None:
    raw = bytearray(full(systems["x64"]))
    struct.pack_into("<I", raw, 0x88, 0)
    with pytest.raises(CorruptDumpError, match="memory runs"):
        opened(tmp_path, bytes(raw))


@pytest.mark.parametrize("kind", ["x64", "pae"])
def test_runs_beyond_the_room_of_the_header_do_not_cost_those_in_it(
    systems: dict[str, System], tmp_path: Path, kind: str
) -> None:
    raw = bytearray(full(systems[kind]))
    struct.pack_into("<I", raw, 0x88 if kind == "x64" else 0x64, 1000)
    assert len(opened(tmp_path, bytes(raw)).modules) == 4


def test_a_machine_with_more_runs_than_the_header_tells_is_refused_for_that(
    systems: dict[str, System], tmp_path: Path
) -> None:
    raw = bytearray(full(systems["x64"]))
    pages = struct.unpack_from("<Q", raw, 0x90)[0]
    struct.pack_into("<IIQ", raw, 0x88, 61, 0, pages + 5000)
    with pytest.raises(UnsupportedDumpError, match="61 memory runs and has room for"):
        opened(tmp_path, bytes(raw))


@pytest.mark.parametrize("kind", ["x64", "pae"])
def test_a_header_that_names_nothing_is_no_hindrance(
    systems: dict[str, System], tmp_path: Path, kind: str
) -> None:
    filler = int.from_bytes(b"PAGE" * 2, "little") & ((1 << 8 * systems[kind].n.pointer) - 1)
    names = ("root", "module_list", "process_list", "kdbg")
    raw = full(systems[kind], **dict.fromkeys(names, filler))
    dump = opened(tmp_path, raw)
    assert len(dump.modules) == 4
    assert dump.kernel_base == systems[kind].kernel
    assert "page-tables-searched" in codes(dump)


def test_other_processors_are_refused(systems: dict[str, System], tmp_path: Path) -> None:
    raw = bytearray(full(systems["x64"]))
    struct.pack_into("<I", raw, 0x30, 0x200)
    with pytest.raises(UnsupportedDumpError, match="ia64"):
        opened(tmp_path, bytes(raw))


def test_filler_is_no_value(systems: dict[str, System], tmp_path: Path) -> None:
    raw = bytearray(full(systems["x64"]))
    raw[0x38:0x3C] = b"PAGE"  # the stop code
    raw[0xFA8:0xFB0] = raw[0x1030:0x1038] = b"PAGEPAGE"  # times
    raw[0x80:0x88] = b"PAGEPAGE"  # KDBG
    dump = opened(tmp_path, bytes(raw))
    assert dump.bug_check is None
    assert dump.comments == []
    check(dump, systems["x64"])
    # What the header does not say the kernel's own memory does.
    assert dump.time is not None
    assert dump.time.year == 2023
    assert dump.up_time is not None


def test_the_callers_symbols_go_before_kdbg(systems: dict[str, System], tmp_path: Path) -> None:
    dump = opened(tmp_path, full(systems["x64"]))
    found = dump.find_symbol("PoolTrackTable")
    assert found is not None
    assert found.source == "kdbg"
    table: dict[str, Any] = {
        "symbols": {
            "PoolTrackTable": {"address": 0x4444},
            "Outside": {"address": 0x7FFFFFFF},
        },
        "user_types": {},
        "base_types": {},
    }
    dump.symbols.use(SymbolTableFile(table, "made"), "a made table")
    found = dump.find_symbol("PoolTrackTable")
    assert found is not None
    assert (found.address, found.source, found.detail) == (
        systems["x64"].kernel + 0x4444,
        "symbols",
        "a made table",
    )
    assert dump.symbol("Outside") is None  # not in the image: not this kernel's
    assert dump.symbol("MmUnloadedDrivers") == systems["x64"].variables[0x220]


def test_a_build_between_rows_is_probed_and_says_so(
    systems: dict[str, System], tmp_path: Path
) -> None:
    system = systems["x64"]
    process = system.kernel + 0x80 * 0x10000
    system.write(process + 0x648, (77).to_bytes(8, "little"))  # CommitCharge
    raw = bytearray(full(system))
    own = opened(tmp_path, bytes(raw))
    assert own.process_layout is not None
    assert own.process_layout.source == "table"
    assert own.processes[0].private_commit_bytes == 77 * PAGE
    struct.pack_into("<I", raw, 0xC, 24_000)
    dump = opened(tmp_path, bytes(raw))
    assert [p.process_id for p in dump.processes] == [4, 312, 2244]
    assert dump.process_layout is not None
    assert dump.process_layout.source == "probed"
    assert "probed" in str(dump.process_layout)
    # A number that nothing checks is not taken from a guessed layout.
    assert dump.processes[0].private_commit_bytes is None


def test_processes_are_laid_out_as_the_kernels_symbols_say(
    systems: dict[str, System], tmp_path: Path
) -> None:
    system = systems["x64"]
    system.write(system.kernel + 0x80 * 0x10000 + 0x648, (77).to_bytes(8, "little"))
    raw = bytearray(full(system))
    struct.pack_into("<I", raw, 0xC, 24_000)
    dump = opened(tmp_path, bytes(raw))
    number = {"kind": "base", "name": "unsigned long long"}
    fields = {
        name: {"offset": offset, "type": number}
        for name, offset in (
            *(("UniqueProcessId", 0x440), ("InheritedFromUniqueProcessId", 0x540), ("Peb", 0x550)),
            *(("CreateTime", 0x468), ("CommitCharge", 0x648), ("WoW64Process", 0x580)),
        )
    }
    links = {"kind": "struct", "name": "_LIST_ENTRY"}
    fields["ActiveProcessLinks"] = {"offset": 0x448, "type": links}
    fields["ThreadListHead"] = {"offset": 0x5E0, "type": links}
    text = {"kind": "array", "count": 15, "subtype": {"kind": "base", "name": "char"}}
    fields["ImageFileName"] = {"offset": 0x5A8, "type": text}
    table: dict[str, Any] = {
        "symbols": {},
        "user_types": {
            "_EPROCESS": {"size": 0xA40, "fields": fields},
            "_LIST_ENTRY": {"size": 16, "fields": {}},
        },
        "base_types": {"unsigned long long": {"size": 8}, "char": {"size": 1}},
    }
    dump.symbols.use(SymbolTableFile(table, "made"), "a made table")
    assert dump.process_layout is not None
    assert (dump.process_layout.source, dump.process_layout.score) == ("exact", 1.0)
    assert dump.processes[0].private_commit_bytes == 77 * PAGE


def test_a_layout_is_moved_to_where_kdbg_says_its_fields_are(
    systems: dict[str, System], tmp_path: Path
) -> None:
    dump = opened(tmp_path, full(systems["arm64"]))
    assert dump.process_layout is not None
    assert "moved by -0x48" in str(dump.process_layout)


def test_a_list_of_processes_that_no_layout_fits_is_not_read(tmp_path: Path) -> None:
    system = System("x64")
    process = system.kernel + 0x80 * 0x10000
    for number in range(3):
        head = process + number * 0x1000
        links = system.n.pid + 8
        system.write(head + links + 16, b"\x55" * 0x200)
        system.write(head + system.n.pid, b"\x55" * 8)
    dump = opened(tmp_path, full(system))
    assert dump.process_layout is None
    assert dump.processes == []
    assert "no layout of processes fits" in dump.why_no_processes


def test_a_search_is_asked_last_and_once(systems: dict[str, System], tmp_path: Path) -> None:
    dump = opened(tmp_path, full(systems["x64"]))
    asked = []

    def search() -> int:
        asked.append(1)
        return 0x1234

    dump.symbols.add_search("PoolTrackTable", search)
    dump.symbols.add_search("ExPoolTagTables", search)
    assert dump.symbol("PoolTrackTable") == systems["x64"].variables[0x1B8]
    assert not asked
    for _ in range(3):
        assert dump.symbol("ExPoolTagTables") == 0x1234
    assert len(asked) == 1


@pytest.mark.parametrize("container", ["full", "bitmap", "scattered"])
def test_a_dump_of_eight_gigabytes_opens_without_reading_it(tmp_path: Path, container: str) -> None:
    # The machine lies at the start of memory, eight sparse gigabytes behind it.
    system = System("x64", first_frame=0x10)
    size = 8 << 30
    frames = size // PAGE
    (first, count), *_ = runs(system)
    path = tmp_path / "sparse.dmp"
    if container == "full":
        raw = header(system, 1)
        struct.pack_into("<IIQQQ", raw, 0x88, 1, 0, frames, first, frames)
        start = len(raw)
    else:
        raw = header(system, 6)
        scattered = container == "scattered"  # every second page of the machine
        covered = (2 * frames if scattered else frames) + first
        start = -(-(len(raw) + 0x38 + covered // 8 + 1) // PAGE) * PAGE
        bits = bytearray((b"\x55" if scattered else b"\xff") * (covered // 8))
        bits[: first // 8] = bytes(first // 8)
        for number in system.pages:
            bits[number // 8] |= 1 << number % 8
        frames = sum(byte.bit_count() for byte in bits)
        size = frames * PAGE
        raw += b"SDMPDUMP" + bytes(24) + struct.pack("<QQQ", start, frames, covered)
        raw += bits + b"\0" * (start - len(raw) - len(bits))
    with path.open("wb") as file:
        file.write(raw + page_bytes(system))
        file.truncate(start + size)
    assert len(page_bytes(system)) == count * PAGE
    tracemalloc.start()
    try:
        dump = open_dump(path)
        assert isinstance(dump, KernelDump)
        check(dump, system)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert dump.physical is not None
    assert dump.physical.total_bytes == size
    assert dump.memory.presence(system.kernel) is Presence.PRESENT
    assert peak < 8 << 20
