"""Other readers of kernel dumps see the same; runs where they are installed.

kdmp_parser 0.7 reads x64 dumps of types 1, 5 and 6; volatility3 2.28 types 1 and 5. volatility3 needs a
symbol table for every kernel, so the few structures asked for are described here by hand.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from kernel_truth import KernelTruthDump, kernel_dumps

from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump

PAGE = 0x1000
# One of each build and kind that they read; every other one says the same again.
KDMP_PARSER = [
    dump
    for dump in kernel_dumps("tiny-pair", "leak-pair-full", "leak-pair-bmp5")
    if dump.dump.name.startswith("before")
    and dump.build.endswith("-x64")
    and (dump.build, dump.scenario) != ("7601-x64", "tiny-pair")
]
VOLATILITY3 = [dump for dump in KDMP_PARSER if dump.scenario != "tiny-pair"]
# _EPROCESS by build, 64 bits: UniqueProcessId, ActiveProcessLinks, ImageFileName (public symbols).
EPROCESS = {
    7601: (0x180, 0x188, 0x2E0),
    9600: (0x2E0, 0x2E8, 0x438),
    14393: (0x2E8, 0x2F0, 0x450),
    18362: (0x2E8, 0x2F0, 0x450),
    19041: (0x440, 0x448, 0x5A8),
    22621: (0x440, 0x448, 0x5A8),
    26100: (0x1D0, 0x1D8, 0x338),
}


def unpacked(source: KernelTruthDump, tmp_path: Path) -> tuple[Path, KernelDump]:
    path = tmp_path / "peer.dmp"
    path.write_bytes(lzma.decompress(source.dump.read_bytes()))
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    return path, dump


def pages_of(dump: KernelDump, count: int) -> list[int]:
    """Kernel pages, spread over all there are."""
    found = [
        page
        for address, size in zip(*(c.tolist() for c in dump.memory.runs[:2]), strict=True)
        for page in range(address, address + size, PAGE)
        if address >= 1 << 31
    ]
    return found[:: max(len(found) // count, 1)]


@pytest.mark.parametrize("source", KDMP_PARSER, ids=lambda source: source.name)
def test_kdmp_parser_reads_the_same_bytes(source: KernelTruthDump, tmp_path: Path) -> None:
    kdmp_parser = pytest.importorskip("kdmp_parser")
    path, dump = unpacked(source, tmp_path)
    peer = kdmp_parser.KernelDumpParser(path)
    pages = pages_of(dump, 400)
    assert len(pages) >= 400
    read = 0
    for page in pages:
        theirs = peer.read_virtual_page(page)
        if theirs is not None:  # it does not follow entries in transition
            assert bytes(theirs) == dump.memory.read(page, PAGE)
            read += 1
    assert read > 0.95 * len(pages)


def _table(build: int, dump: KernelDump) -> dict[str, Any]:
    """A symbol table in volatility3's format with what this test asks for."""

    def field(offset: int, kind: str, name: str, **more: Any) -> dict[str, Any]:
        return {"offset": offset, "type": {"kind": kind, "name": name, **more}}

    pid, links, image = EPROCESS[build]

    def pointer(name: str) -> dict[str, Any]:
        return {"kind": "pointer", "subtype": {"kind": "struct", "name": name}}

    def struct(size: int, fields: dict[str, Any]) -> dict[str, Any]:
        return {"size": size, "kind": "struct", "fields": fields}

    number = {"kind": "int", "signed": False, "endian": "little"}
    text = {"kind": "array", "count": 15, "subtype": {"kind": "base", "name": "char"}}
    return {
        "metadata": {"format": "6.2.0", "producer": {"name": "test", "version": "1"}},
        "base_types": {
            "pointer": {"size": 8, **number},
            "unsigned long long": {"size": 8, **number},
            "unsigned long": {"size": 4, **number},
            "unsigned short": {"size": 2, **number},
            "char": {"size": 1, "kind": "char", "signed": True, "endian": "little"},
            "void": {"size": 0, "kind": "void", "signed": False, "endian": "little"},
        },
        "enums": {},
        "user_types": {
            "_LIST_ENTRY": struct(
                16,
                {
                    "Flink": {"offset": 0, "type": pointer("_LIST_ENTRY")},
                    "Blink": {"offset": 8, "type": pointer("_LIST_ENTRY")},
                },
            ),
            "_UNICODE_STRING": struct(
                16,
                {
                    "Length": field(0, "base", "unsigned short"),
                    "MaximumLength": field(2, "base", "unsigned short"),
                    "Buffer": {
                        "offset": 8,
                        "type": {
                            "kind": "pointer",
                            "subtype": {"kind": "base", "name": "unsigned short"},
                        },
                    },
                },
            ),
            "_LDR_DATA_TABLE_ENTRY": struct(
                0xA0,
                {
                    "InLoadOrderLinks": field(0, "struct", "_LIST_ENTRY"),
                    "DllBase": field(0x30, "base", "unsigned long long"),
                    "SizeOfImage": field(0x40, "base", "unsigned long"),
                    "BaseDllName": field(0x58, "struct", "_UNICODE_STRING"),
                },
            ),
            "_EPROCESS": struct(
                0x600,
                {
                    "UniqueProcessId": field(pid, "base", "unsigned long long"),
                    "ActiveProcessLinks": field(links, "struct", "_LIST_ENTRY"),
                    "ImageFileName": {"offset": image, "type": text},
                },
            ),
        },
        "symbols": {
            name: {
                "address": address - dump.kernel_base,
                "type": {"kind": "struct", "name": "_LIST_ENTRY"},
            }
            for name, address in (
                ("PsLoadedModuleList", dump.kernel.module_list),
                ("PsActiveProcessHead", dump.kernel.process_list),
            )
        },
    }


@pytest.mark.parametrize("source", VOLATILITY3, ids=lambda source: source.name)
def test_volatility3_reads_the_same_bytes_modules_and_processes(
    source: KernelTruthDump, tmp_path: Path
) -> None:
    pytest.importorskip("volatility3")
    from volatility3.framework.contexts import Context
    from volatility3.framework.layers import crash, intel, physical
    from volatility3.framework.symbols import intermed
    from volatility3.framework.symbols.windows import extensions

    path, dump = unpacked(source, tmp_path)
    context: Any = Context()
    context.config["file.location"] = path.as_uri()
    context.add_layer(physical.FileLayer(context, "file", "file"))
    context.config["crash.base_layer"] = "file"
    context.add_layer(crash.WindowsCrashDump64Layer(context, "crash", "crash"))
    context.config["kernel.memory_layer"] = "crash"
    context.config["kernel.page_map_offset"] = dump.memory.directory_base  # type: ignore[attr-defined]
    context.add_layer(intel.WindowsIntel32e(context, "kernel", "kernel"))
    table = tmp_path / "nt.json"
    table.write_text(json.dumps(_table(dump.build, dump)))
    symbols = intermed.IntermediateSymbolTable(context, "nt", "nt", table.as_uri())
    symbols.set_type_class("_LIST_ENTRY", extensions.LIST_ENTRY)
    symbols.set_type_class("_UNICODE_STRING", extensions.UNICODE_STRING)
    context.symbol_space.append(symbols)
    kernel = context.module("nt", layer_name="kernel", offset=dump.kernel_base)

    head = kernel.object_from_symbol("PsLoadedModuleList")
    modules = head.to_list("nt!_LDR_DATA_TABLE_ENTRY", "InLoadOrderLinks")
    assert [
        (m.BaseDllName.get_string(), int(m.DllBase) & (1 << 64) - 1, int(m.SizeOfImage))
        for m in modules
    ] == [(m.name, m.base_address, m.size_bytes) for m in dump.modules]
    head = kernel.object_from_symbol("PsActiveProcessHead")
    processes = head.to_list("nt!_EPROCESS", "ActiveProcessLinks")
    assert [
        (
            int(p.UniqueProcessId),
            p.ImageFileName.cast("string", max_length=15, errors="replace"),
        )
        for p in processes
    ] == [(p.process_id, p.name) for p in dump.processes]
    layer = context.layers["kernel"]
    for page in pages_of(dump, 200):
        assert layer.read(page, PAGE) == dump.memory.read(page, PAGE)
