"""Seeds: dumps of processes and kernels, in files, opened by command lines."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from builders import kernel_builder
from builders.minidump_builder import MinidumpBuilder
from truth import REAL, SHARED, TESTDATA

from dumpleak.compare.pool_answers import Selection, take_pool
from dumpleak.kernel.pools import PoolReader
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.pools import take_pool_snapshot
from fuzz.command_lines import KERNEL_LINES, PROCESS_LINES, groupings, use_file
from fuzz.dice import Dice
from fuzz.invariants import check_session, check_snapshot
from fuzz.made_dumps import MADE_ROWS, MadeRow
from fuzz.seeds import Seed, header_places, places_read, runs_of
from windumps.dump import Dump
from windumps.dumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.dumps.minidump.reader import open_minidump

# Of the shared collection: one dump of each kind of heap that testdata lacks.
SHARED_DUMPS = (
    "10.0.19041.3324-x64/segment-basic",
    "10.0.26100.5074-x64/segment-lfh-vs-large",
    "10.0.19041.3996-x86/segment-basic",
    "10.0.10586.1106-x64/segment-ust",
    "10.0.16299.15-x86/segment-basic",
    "5.1.2600.5512-x86/page-heap-full",
    "5.1.2600.5512-x86/page-heap-light",
    "6.2.9200.16578-x86/page-heap-range",
    "10.0.19041.2130-x86/page-heap-light",
    "10.0.26100.5074-x64/debug-crt",
    "6.1.7601.24384-x86/debug-crt-ust",
    "10.0.19041.3324-x64/nt-ust",
    "6.1.7601.24545-x64/nt-lfh",
    "6.2.9200.16578-x86/nt-lfh",
    "5.1.2600.6055-x86/nt-lfh",
    "5.1.2600.6055-x86/nt-ust",
    "10.0.22621.4541-x64/nt-vad",
)
SMALL_REAL_DUMP = 60_000
# Half of the cases walk through the API, where single blocks can be checked.
WALKS = 0.5
SUMS = 0.3
HEADER_BYTES = 0x2400  # of a file, where its own structures begin
KERNELS = (
    *(("full", architecture) for architecture in ("x64", "pae", "x86", "arm64", "la57")),
    *(("bitmap", architecture) for architecture in ("x64", "pae")),
    *(("summary", architecture) for architecture in ("x64", "x86")),
    *(("triage", architecture) for architecture in ("x64", "pae")),
    *((form, "x64") for form in ("ranges8", "ranges10", "elf", "xen", "raw")),
)
KERNEL_FORMS: dict[str, Callable[[kernel_builder.System], bytes]] = {
    "full": kernel_builder.full,
    "bitmap": kernel_builder.bitmap,
    "summary": kernel_builder.summary,
    "triage": kernel_builder.triage,
    "ranges8": lambda system: kernel_builder.ranges(system, 8),
    "ranges10": lambda system: kernel_builder.ranges(system, 10),
    "elf": kernel_builder.elf_core,
    "xen": kernel_builder.xen_core,
    "raw": kernel_builder.raw_image,
}


def unpacked(path: Path) -> bytes:
    """A file's bytes, without the compression of dumps in collections."""
    unpack = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix, bytes)
    return unpack(path.read_bytes())


def process_seed(data: bytes, folder: Path) -> Seed:
    """A minidump: walked with its blocks checked, or given to a command line."""
    array = np.frombuffer(data, np.uint8)
    dump = open_minidump(Path("seed.dmp"), array)
    headers: list[int] = []

    def walk() -> None:
        for source, blocks in Session(open_minidump(Path("seed.dmp"), array)).blocks():
            header = 2 * source.view.pointer_size
            headers.extend(header_places(source.view.memory, blocks.address, header))

    places = places_read(walk)
    runs = runs_of(dump.memory)
    streams = list(range(0, min([offset for _, _, offset in runs] + [len(data)]), 4))
    whole = folder / "whole.dmp"
    whole.write_bytes(data)
    run_line = use_file(PROCESS_LINES, folder / "mutated.dmp", whole)

    def use(mutated: bytes, dice: Dice) -> None:
        if dice.chance(WALKS):
            walk_file(mutated, dice)
        else:
            run_line(mutated, dice)

    pointer_size = 4 if dump.architecture == "x86" else 8
    return Seed(data, use, pointer_size, runs, [*places, headers, streams])


def walk_file(data: bytes, dice: Dice) -> None:
    """Opens a minidump and checks all its blocks, and sometimes their sums."""
    dump: Dump = open_minidump(Path("mutated.dmp"), np.frombuffer(data, np.uint8))
    check_session(Session(dump))
    if dice.chance(SUMS):
        check_snapshot(take_snapshot(Session(dump), dice.pick(groupings("stat"))))


def made_minidump(architecture: str) -> bytes:
    """A process with a module of each kind, a thread, regions, and memory in both lists."""
    made = MinidumpBuilder(architecture, padded=architecture == "x86")
    guid = "0123456789ABCDEF0123456789ABCDEF"
    made.misc_info(7, (1_700_000_000, 1, 2)).comment("made", wide=True)
    made.module("C:\\a.exe", 0x400000, 0x3000, version=(1, 2, 3, 4), pdb=("a.pdb", guid, 1))
    made.module("b.dll", 0x500000, 0x1000).unloaded_module("c.dll", 0x600000, 0x1000)
    register = "rsp" if architecture == "x64" else "esp"
    made.thread(1, 0x10000, (0x20000, 64), {register: 0x20010})
    made.handles([(4, "Event", "\\a"), (8, "Event", ""), (12, "", ""), (16, "File", "\\Device\\x")])
    made.region(0x10000, 0x1000).region(0x20000, 0x2000)
    made.memory_list(0x20000, bytes(64))
    made.memory(0x10000, bytes(range(64))).memory(0x10040, b"next to it")
    return made.build()


def kernel_seed(data: bytes, folder: Path) -> Seed:
    """A dump of a kernel, given to command lines."""
    whole = folder / "whole.dmp"
    whole.write_bytes(data)

    def read() -> None:
        dump = open_dump(whole)
        if isinstance(dump, KernelDump) and not dump.why_no_pool:
            take_pool(take_pool_snapshot(PoolReader(dump), even_short=True), Selection())

    places = places_read(read)
    head = list(range(0, min(HEADER_BYTES, len(data)), 4))
    return Seed(data, use_file(KERNEL_LINES, folder / "mutated.dmp", whole), 8, (), [*places, head])


def process_file(path: Path, folder: Path) -> Seed:
    return process_seed(unpacked(path), folder)


def kernel_file(path: Path, folder: Path) -> Seed:
    return kernel_seed(unpacked(path), folder)


def made_process(architecture: str, folder: Path) -> Seed:
    return process_seed(made_minidump(architecture), folder)


def made_heaps(row: MadeRow, folder: Path) -> Seed:
    return process_seed(row.dump()[0], folder)


def made_kernel(form: str, architecture: str, folder: Path) -> Seed:
    return kernel_seed(bytes(KERNEL_FORMS[form](kernel_builder.System(architecture))), folder)


def dump_seeds(folder: Path) -> dict[str, Callable[[], Seed]]:
    """All kinds of dumps; files go into a folder."""
    files = [*TESTDATA.glob("*/tiny/dump.dmp.gz"), *TESTDATA.glob("*/mixed/dump.dmp.gz")]
    files += [SHARED / "user" / name / "dump.dmp.xz" for name in SHARED_DUMPS]
    real = [p for p in (REAL / "user").glob("*.dmp") if p.stat().st_size < SMALL_REAL_DUMP]
    kernels = sorted((TESTDATA / "kernel").glob("*/*/after.dmp.xz"))
    processes = {f"process-made-{a}": partial(made_process, a, folder) for a in ("x64", "x86")}
    for row in MADE_ROWS:
        name = f"process-made-{row.scenario}-{'x64' if row.x64 else 'x86'}"
        processes[name] = partial(made_heaps, row, folder)
    made = {f"kernel-{form}-{a}": partial(made_kernel, form, a, folder) for form, a in KERNELS}
    return {
        **processes,
        **{
            f"process-{p.parts[-2]}-{p.parts[-3]}": partial(process_file, p, folder)
            for p in sorted(files)
            if p.exists()
        },
        **{f"process-real-{p.stem}": partial(process_file, p, folder) for p in sorted(real)},
        **made,
        **{f"kernel-{p.parts[-2]}-{p.parts[-3]}": partial(kernel_file, p, folder) for p in kernels},
    }
