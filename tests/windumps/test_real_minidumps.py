"""The reader against dumps of known content, the `minidump` package, and pairs made by LLDB."""

from __future__ import annotations

import logging
import lzma
import tempfile
from pathlib import Path
from typing import Any

import pytest
from minidump.minidumpfile import MinidumpFile
from truth import REAL, TruthDump, truth_dumps

from windumps.dump import Dump
from windumps.dumps import open_dump

# Dumps that the package cannot parse at all, with what it stumbles over.
PACKAGE_FAILS = {
    "minidumptruck-invalid-record-count-059263.dmp": "not a valid MINIDUMP_STREAM_TYPE",
    "symbolicator-macos-no-fp.dmp": "not a valid PROCESSOR_ARCHITECTURE",
    "wine8-leak-x64.dmp.xz": "not a valid MINIDUMP_STREAM_TYPE",
}
# Parts that the package reads wrongly, with the reason.
PADDING = "it takes the padding behind the count for records"
PACKAGE_IS_WRONG = {
    ("swift-lldb-memory-list-padded-8b7e83.dmp", "memory"): PADDING,
    ("swift-lldb-module-list-padded-431c7c.dmp", "modules"): PADDING,
    ("swift-lldb-linux-arm-partial-uuids-match-12045d.dmp", "modules"): PADDING,
    ("swift-lldb-thread-list-padded-838a4d.dmp", "threads"): PADDING,
    ("swift-lldb-arm64-macos-ba658d.dmp", "threads"): PADDING,
    ("symbolic-crash_macos.dmp", "modules"): PADDING,
    ("symbolic-crash_macos.dmp", "threads"): PADDING,
    ("symbolic-crash_macos.dmp", "memory"): PADDING,
    (
        "swift-lldb-bad_duplicate_streams-d9be8e.dmp",
        "threads",
    ): "it takes the last stream of a type",
}
REAL_DUMPS = sorted(p for p in REAL.rglob("*.dmp*") if "kernel" not in p.parts)


def _read(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def _parts_of_package(dump: Any) -> dict[str, list[tuple[Any, ...]]]:
    def rows(stream: Any, name: str) -> list[Any]:
        return [] if stream is None else getattr(stream, name)

    memory = rows(dump.memory_segments_64, "memory_segments")
    memory = memory + rows(dump.memory_segments, "memory_segments")
    return {
        "modules": [
            (m.name.rstrip("\0"), m.baseaddress, m.size, m.timestamp)
            for m in rows(dump.modules, "modules")
        ],
        "unloaded": [
            (m.name, m.baseaddress, m.size) for m in rows(dump.unloaded_modules, "modules")
        ],
        "threads": [
            (t.ThreadId, t.Teb, t.Stack.StartOfMemoryRange, t.Stack.DataSize)
            for t in rows(dump.threads, "threads")
        ],
        "regions": [
            (r.BaseAddress, r.AllocationBase, r.RegionSize) for r in rows(dump.memory_info, "infos")
        ],
        "memory": [
            (s.start_virtual_address, s.size, s.start_file_address) for s in memory if s.size
        ],
    }


def _parts_of_ours(dump: Dump) -> dict[str, list[tuple[Any, ...]]]:
    regions = dump.memory.regions
    return {
        "modules": [(m.path, m.base_address, m.size_bytes, m.timestamp) for m in dump.modules],
        "unloaded": [(m.path, m.base_address, m.size_bytes) for m in dump.unloaded_modules],
        "threads": [(t.thread_id, t.teb, t.stack_start, t.stack_size) for t in dump.threads],
        "regions": list(
            zip(
                regions.base_address.tolist(),
                regions.allocation_base.tolist(),
                regions.region_size.tolist(),
                strict=True,
            )
        ),
    }


@pytest.fixture(autouse=True)
def _silent_package() -> Any:
    logging.disable(logging.CRITICAL)  # it logs a traceback for each dump without a PEB
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("path", REAL_DUMPS, ids=lambda path: path.name)
def test_real_dumps_read_as_the_minidump_package_reads_them(path: Path) -> None:
    dump = open_dump(path)
    raw = _read(path)
    if path.name in PACKAGE_FAILS:
        with pytest.raises(ValueError, match=PACKAGE_FAILS[path.name]):
            MinidumpFile.parse_bytes(raw)
        return
    theirs = _parts_of_package(MinidumpFile.parse_bytes(raw))
    ours = _parts_of_ours(dump)
    for part, rows in ours.items():
        if (path.name, part) in PACKAGE_IS_WRONG:
            assert rows != theirs[part]
        elif theirs[part]:
            assert rows == theirs[part], part
    if (path.name, "memory") in PACKAGE_IS_WRONG:
        return
    for address, size, offset in theirs["memory"]:
        assert dump.memory.read(address, size) == raw[offset : offset + size]
    overlap = sum(item.bytes_affected for item in dump.diagnostics if "overlap" in item.code)
    assert dump.memory.total_bytes + overlap == sum(size for _, size, _ in theirs["memory"])


PAIRS = [
    ("memory-list-padded-8b7e83", "memory-list-not-padded-cb7b5f"),
    ("module-list-padded-431c7c", "module-list-not-padded-b37e25"),
    ("thread-list-padded-838a4d", "thread-list-not-padded-34ba5c"),
]


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared dumps are not beside the repository")
@pytest.mark.parametrize(("padded", "plain"), PAIRS)
def test_lists_of_lldb_with_and_without_padding_hold_the_same(padded: str, plain: str) -> None:
    one, other = (
        open_dump(REAL / "malformed" / f"swift-lldb-{name}.dmp") for name in (padded, plain)
    )
    assert _parts_of_ours(one) == _parts_of_ours(other)
    assert one.memory.runs.address.tolist() == other.memory.runs.address.tolist()
    assert [one.memory.read(a, int(n)) for a, n, _ in zip(*one.memory.runs, strict=True)] == [
        other.memory.read(a, int(n)) for a, n, _ in zip(*other.memory.runs, strict=True)
    ]


@pytest.mark.parametrize("case", truth_dumps("tiny", "mixed"), ids=lambda case: case.name)
def test_a_dump_of_known_content_is_read_in_full(case: TruthDump) -> None:
    dump = open_dump(case.dump)
    raw = case.read_truth().raw
    assert dump.diagnostics == []
    assert dump.architecture == raw["arch"]
    assert ".".join(str(n) for n in dump.os_version) == raw["build"].rpartition(".")[0]
    assert dump.process_id == raw["pid"]
    assert dump.full_memory
    assert {(m.name, m.base_address, m.size_bytes) for m in dump.modules} == {
        (m["name"], m["base"], m["size"]) for m in raw["modules"]
    }
    stack, code = ("esp", "eip") if raw["arch"] == "x86" else ("rsp", "rip")
    assert [(t.thread_id, t.teb, t.registers[stack], t.registers[code]) for t in dump.threads] == [
        (t["tid"], t["teb"], t["rsp"], t["rip"]) for t in raw["threads"]
    ]
    for module in dump.modules:
        assert dump.memory.read(module.base_address, 2) == b"MZ"
        assert module.pdb is not None
    assert dump.memory.total_bytes == raw["memory_bytes"]
    addresses = [row[0] for row in raw["allocations"]]
    assert all(dump.memory.present_bytes(a, a + 1) for a in addresses[:200])


def test_a_dump_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    case = truth_dumps("tiny")[0]
    assert open_dump(case.dump).memory.total_bytes > 1_000_000
    assert list(tmp_path.iterdir()) == []
