"""Seeds: files besides dumps. Containers, snapshots, logs, lists, symbols."""

from __future__ import annotations

import base64
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import zstandard
from builders import cabinet_builder
from builders.live_log_builder import Tag, counters, handle_summary, poolmon, process_list
from builders.pdb_builder import PdbBuilder
from builders.types_builder import types_table
from made_symbols import identity, made_pdb, put_in_store
from truth import TESTDATA

from fuzz.command_lines import ANY_FORMAT, INPUT, SNAPSHOT_LINES, WHOLE, Line, run, use_file
from fuzz.dice import Dice
from fuzz.dump_kinds import unpacked
from fuzz.invariants import require
from fuzz.made_dumps import MADE_ROWS
from fuzz.seeds import Seed
from windumps.dumps import open_dump
from windumps.errors import WindumpsError
from windumps.symbols.base import find_field
from windumps.symbols.isf import SymbolTableFile
from windumps.symbols.pdb import Pdb
from windumps.unpack.cabinet import Cabinet, CabinetError

PAIR = TESTDATA / "6.1.7601.24384-x86" / "leak-pair-ust"
BEFORE, AFTER = PAIR / "before.dmp.gz", PAIR / "after.dmp.gz"
TINY = TESTDATA / "6.1.7601.24384-x86" / "tiny" / "dump.dmp.gz"
KERNEL = TESTDATA / "kernel" / "7601-x64" / "tiny-pair" / "after.dmp.xz"
HEAP_LINES = 60  # of each heap in a log that are kept
PACKED = b"dumpleak"  # where a snapshot's own metadata is
MOST_UNPACKED = 1 << 28
CONTAINER_LINES = (Line(("info", INPUT)), Line(("stat", INPUT)))
LOG_COMMANDS = (
    Line(("diff", WHOLE, INPUT, "--by", "site"), ("--force",)),
    Line(("diff", INPUT, WHOLE, "--by", "stack"), ("--force",)),
    Line(("stat", INPUT)),
)
POOLMON_LINES = (
    Line(("diff", WHOLE, INPUT), ("--force", "--fail-on", "bytes>=1M"), codes=(0, 1, 2, 3)),
    Line(("diff", INPUT, WHOLE, "--by", "tag"), ("--force",)),
    Line(("stat", INPUT)),
    Line(("pool", WHOLE, INPUT), codes=ANY_FORMAT),
)
COUNTER_LINES = (
    Line(("trend", INPUT, "--process", "app"), ("--force",), ANY_FORMAT),
    Line(
        ("diff", INPUT, "--process", "app", "--fail-on", "handles.count>=1"),
        ("--force",),
        ANY_FORMAT,
    ),
    Line(("diff", WHOLE, INPUT, "--process", "app"), ("--force",), ANY_FORMAT),
    Line(("stat", INPUT), codes=ANY_FORMAT),
)
SUMMARY_LINES = (
    Line(("diff", WHOLE, INPUT, "--fail-on", "handles.count>=64"), ("--force",), ANY_FORMAT),
    Line(("stat", INPUT), codes=ANY_FORMAT),
)
LIST_LINES = (
    Line(("diff", WHOLE, INPUT, "--process", "app3"), ("--force",), ANY_FORMAT),
    Line(("diff", INPUT, WHOLE, "--process", "4703"), ("--force",), ANY_FORMAT),
    Line(("stat", INPUT), codes=ANY_FORMAT),
)
GATED = ("diff", str(BEFORE), str(AFTER), "--no-holders")
SUPPRESSION_LINES = (
    Line((*GATED, "--fail-on", "bytes>=1", "--suppressions", INPUT), codes=(0, 1, 2, 3)),
)
BASELINE_LINES = (Line((*GATED, "--fail-on", "bytes>=1", "--baseline", INPUT)),)
POOLTAG_LINES = (Line(("pool", str(KERNEL), "--no-walk", "--pooltag", INPUT), codes=ANY_FORMAT),)


def written(path: Path, *words: str) -> bytes:
    """What a command writes."""
    code, _, said = run(*words, "-o", str(path))
    require(code == 0, "the seed can be made", said)
    return path.read_bytes()


def file_seed(lines: tuple[Line, ...], data: bytes, mutated: Path, is_text: bool = False) -> Seed:
    """A file that command lines read; WHOLE is the same file without mutations."""
    whole = mutated.with_name(f"whole{mutated.suffix}")
    whole.write_bytes(data)
    return Seed(data, use_file(lines, mutated, whole), is_text=is_text)


def container(pack: Callable[[bytes], bytes], suffix: str, folder: Path) -> Seed:
    return file_seed(CONTAINER_LINES, pack(MADE_ROWS[0].dump()[0]), folder / f"mutated.dmp{suffix}")


def zipped(compression: int, data: bytes) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", compression) as archive:
        archive.writestr("a.dmp", data)
        archive.writestr("readme.txt", b"about it")
    return output.getvalue()


CONTAINERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gz": (".gz", lambda data: gzip.compress(data) + gzip.compress(b"")),
    "xz": (".xz", lzma.compress),
    "zst": (".zst", lambda data: zstandard.ZstdCompressor().compress(data)),
    "zip": (".zip", partial(zipped, zipfile.ZIP_DEFLATED)),
    "zip-stored": (".zip", partial(zipped, zipfile.ZIP_STORED)),
    "cab-stored": (".cab", lambda data: cabinet_builder.stored(data, name=b"a.dmp")),
    "cab-mszip": (".cab", lambda data: cabinet_builder.mszip(data, name=b"a.dmp")),
}


def lzx_cabinet(kinds: tuple[int, ...], calls: int) -> Seed:
    """A cabinet with LZX blocks, unpacked without the checksums that would hide the decoder."""
    text = b"".join(bytes([number % 251, 0xE8]) * 40 + b"hello world" for number in range(300))
    encoder = cabinet_builder.LzxEncoder(kinds, calls, 15)
    blocks = [(encoder.encode(frame), len(frame)) for frame in cabinet_builder.frames(text)]
    data = cabinet_builder.cabinet(blocks, 3 | 15 << 8, len(text), with_checksums=False)

    def use(mutated: bytes, _: Dice) -> None:
        try:
            cabinet = Cabinet(io.BytesIO(mutated))
            for file in cabinet.files:
                size = 0
                for piece in cabinet.pieces(file):
                    size += len(piece)
                    if size > MOST_UNPACKED:
                        break
        except CabinetError:
            return

    return Seed(data, use, pointer_size=4)


def process_snapshot(folder: Path) -> Seed:
    data = written(folder / "seed.dlsnap", "snapshot", str(TINY))
    return file_seed(SNAPSHOT_LINES[:-1], data, folder / "mutated.dlsnap")


def kernel_snapshot(folder: Path) -> Seed:
    data = written(folder / "seed.dlsnap", "snapshot", str(KERNEL))
    return file_seed(SNAPSHOT_LINES, data, folder / "mutated.dlsnap")


def snapshot_metadata(folder: Path) -> Seed:
    """What a snapshot says besides its columns: JSON that is mutated and packed again as it was."""
    whole, mutated = folder / "whole.dlsnap", folder / "mutated.dlsnap"
    written(whole, "snapshot", str(TINY))
    table = parquet.read_table(whole)
    metadata = dict(table.schema.metadata)
    text = zlib.decompress(base64.b64decode(metadata[PACKED]))
    run_line = use_file(SNAPSHOT_LINES[:-1], mutated, whole)

    def use(data: bytes, dice: Dice) -> None:
        packed = base64.b64encode(zlib.compress(data, 1))
        sink = io.BytesIO()
        parquet.write_table(table.replace_schema_metadata(metadata | {PACKED: packed}), sink)
        run_line(sink.getvalue(), dice)

    return Seed(text, use, is_text=True)


def umdh_log(folder: Path) -> Seed:
    text = written(folder / "seed.log", "snapshot", str(BEFORE), "--format", "umdh")
    short, kept = b"", 0
    for line in text.splitlines(keepends=True):
        # Of each heap the first blocks, and all markers: a log that is cut is refused.
        kept = 0 if line.startswith((b"*", b"//")) else kept + 1
        short += line if kept < HEAP_LINES else b""
    return file_seed(LOG_COMMANDS, short, folder / "mutated.log", is_text=True)


def poolmon_log(folder: Path) -> Seed:
    rows = (
        Tag(f"T{number:03}", "Nonp" if number % 2 else "Paged", 9 * number, number, 640 * number)
        for number in range(40)
    )
    text = poolmon((*rows, Tag("NtfF", "Paged", 9, 2, 700, "[ntfs.sys  -  FileInfo.c]")))
    return file_seed(POOLMON_LINES, text.encode(), folder / "mutated.log", is_text=True)


def counter_log(folder: Path) -> Seed:
    columns: dict[str, list[float | None]] = {
        "\\Process(app)\\Private Bytes": [1e6 * number for number in range(1, 30)],
        "\\Process(app)\\Handle Count": [300 + number % 3 for number in range(1, 30)],
        "\\Process(app)\\ID Process": [4711.0] * 29,
        "\\Process(other)\\Private Bytes": [None, *[5e5] * 28],
        "\\Memory\\Committed Bytes": [4e9] * 29,
    }
    return file_seed(
        COUNTER_LINES, counters(columns).encode(), folder / "mutated.csv", is_text=True
    )


def handles_summed(folder: Path) -> Seed:
    text = handle_summary((f"Type {number}", 40 * number) for number in range(30))
    return file_seed(SUMMARY_LINES, text.encode(), folder / "mutated.txt", is_text=True)


def processes_listed(folder: Path) -> Seed:
    rows = [(f"app{number}", 4700 + number, 90 * number, 1_000_000 * number) for number in range(9)]
    text = process_list([*rows, ("app4", 12, 9, 4096)])
    return file_seed(LIST_LINES, text.encode(), folder / "mutated.csv", is_text=True)


def suppressions(folder: Path) -> Seed:
    text = "".join(
        f'[[suppress]]\nsite = "app.exe!C{number}::*"\nreason = "fills up"\n'
        f"expires = 2027-01-3{number % 2}\n"
        for number in range(8)
    )
    return file_seed(SUPPRESSION_LINES, text.encode(), folder / "mutated.toml", is_text=True)


def baseline(folder: Path) -> Seed:
    data = written(folder / "seed.json", *GATED, "--top", "5", "--format", "json")
    return file_seed(BASELINE_LINES, data, folder / "mutated.json", is_text=True)


def pooltag(folder: Path) -> Seed:
    text = "rem comment\r\n" + "".join(
        f"T{number:03} - nt!io - Some thing {number}\r\n*b{number % 10}? - a.sys/b.sys\r\n"
        for number in range(40)
    )
    return file_seed(POOLTAG_LINES, text.encode(), folder / "mutated.txt", is_text=True)


def pdb_in_store(folder: Path) -> Seed:
    """A program's PDB where a symbol store has it; a dump's stacks are named with it."""
    wanted = identity(open_dump(AFTER))
    place = put_in_store(folder / "store", wanted, made_pdb(wanted))
    place.with_name("output").unlink(missing_ok=True)
    named = ("--symbols", str(folder / "store"))
    lines = tuple(
        Line((*words, *named))
        for words in (("stat", str(AFTER), "--by", "stack"), ("symbols", str(AFTER)))
    )
    return Seed(place.read_bytes(), use_file(lines, place, AFTER), pointer_size=4)


def ask(source: Pdb | SymbolTableFile) -> None:
    """Every question there is about symbols; each may be refused for itself."""
    names = ("key", "sample_key", "nobody")
    structures = ("_A", "_B", "net::Session")
    fields = (("_A", "In.Deep"), ("net::Session", "counters.failed"), ("_A", "First"))
    questions: list[Callable[[], object]] = [
        lambda: source.architecture,
        *(partial(source.rva, name) for name in names),
        *(partial(source.nearest, rva) for rva in (0, 0x1014, 0x3009, 1 << 31)),
        *(partial(source.structure, name) for name in structures),
        *(partial(find_field, source, structure, path) for structure, path in fields),
    ]
    for question in questions:
        try:
            question()
        except WindumpsError:
            continue


def pdb_seed(data: bytes) -> Seed:
    def use(mutated: bytes, _: Dice) -> None:
        ask(Pdb(np.frombuffer(mutated, np.uint8), "mutated.pdb"))

    return Seed(data, use, pointer_size=4)


def pdb_sample(architecture: str) -> Seed:
    """What a compiler and a linker wrote."""
    return pdb_seed(unpacked(TESTDATA / "pdb" / f"sample-{architecture}.pdb.gz"))


def tiny_pdb() -> Seed:
    made = PdbBuilder().public("key", 2, 8).public("?f@C@@QEAAXXZ", 1, 0x10).static("s", 2, 0)
    made.structure("_B", 16, made.field_list(made.member("Deep", 0x603, 4)))
    inner = made.field_list(made.member("First", 0x22, 0), made.member("In", 0x1003, 8))
    made.structure("_A", 32, inner)
    return pdb_seed(made.build())


def symbol_table(folder: Path) -> Seed:
    """A table of volatility3."""
    structures = {"_A": {"sizeof": (32, ""), "First": (0, "u4"), "In": (8, "ptr"), "L": (16, "S9")}}
    text = types_table(structures, 8, "0123456789ABCDEF0123456789ABCDEF", 1)
    path = folder / "mutated.json"

    def use(mutated: bytes, _: Dice) -> None:
        path.write_bytes(mutated)
        ask(SymbolTableFile.open(path))

    return Seed(text.encode(), use, is_text=True)


def file_seeds(folder: Path) -> dict[str, Callable[[], Seed]]:
    """All kinds of files that are no dumps; they go into a folder."""
    return {
        **{
            f"container-{name}": partial(container, pack, suffix, folder)
            for name, (suffix, pack) in CONTAINERS.items()
        },
        "container-lzx": partial(lzx_cabinet, (1,), 0),
        "container-lzx-mixed": partial(lzx_cabinet, (1, 2, 3), 20000),
        "snapshot-process": partial(process_snapshot, folder),
        "snapshot-kernel": partial(kernel_snapshot, folder),
        "snapshot-metadata": partial(snapshot_metadata, folder),
        "umdh-log": partial(umdh_log, folder),
        "poolmon-log": partial(poolmon_log, folder),
        "counter-log": partial(counter_log, folder),
        "handle-summary": partial(handles_summed, folder),
        "process-list": partial(processes_listed, folder),
        "suppressions": partial(suppressions, folder),
        "baseline": partial(baseline, folder),
        "pooltag": partial(pooltag, folder),
        "pdb-tiny": tiny_pdb,
        **{f"pdb-sample-{name}": partial(pdb_sample, name) for name in ("x64", "x86")},
        "pdb-in-store": partial(pdb_in_store, folder),
        "symbol-table": partial(symbol_table, folder),
    }
