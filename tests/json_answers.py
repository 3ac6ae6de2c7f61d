"""Command lines whose JSON the schemas describe: every command, over every kind of input."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from builders.clr_heap_builder import ClrHeapBuilder
from builders.filled_system import FilledSystem, rebuild
from builders.fleet import planted_fleet
from builders.heaps_process import nt_heap, process_of
from builders.kernel_builder import System
from builders.live_log_builder import Tag, counters, handle_summary, poolmon, process_list
from builders.minidump_builder import MinidumpBuilder, patched, stream_place
from builders.process_builder import ProcessBuilder
from builders.verifier_builder import VerifiedSystem
from fuzz.command_lines import run
from fuzz.dice import Dice
from fuzz.dump_kinds import KERNEL_FORMS, KERNELS
from fuzz.made_dumps import MADE_ROWS
from made_symbols import identity, made_pdb, put_in_store
from truth import TESTDATA

from dumpleak.attribution.grouping import GROUPINGS
from dumpleak.model.populations import POPULATIONS
from dumpleak.survey.pools import POOL_GROUPINGS
from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump

ASLR = TESTDATA / "10.0.26100.5074-x64" / "leak-pair-aslr"
UST = TESTDATA / "6.1.7601.24384-x86" / "leak-pair-ust"
BASE, CURRENT = UST / "before.dmp.gz", UST / "after.dmp.gz"
SERIES = [TESTDATA / "10.0.22621.4541-x64" / "series-ust" / f"dump{n}.dmp.gz" for n in range(6)]
MIXED = TESTDATA / "10.0.26100.5074-x64" / "mixed" / "dump.dmp.gz"
KERNEL = TESTDATA / "kernel" / "14393-x64" / "tiny-pair"
POOLS, MORE_POOLS = KERNEL / "before.dmp.xz", KERNEL / "after.dmp.xz"
SESSION = TESTDATA / "kernel-genuine" / "7601.17514-x86pae" / "session" / "after.dmp.xz"
VERIFIED = [
    TESTDATA / "kernel-verifier" / "14393-x64" / "pair" / f"{which}.dmp.xz"
    for which in ("before", "after")
]
CUT_KERNEL = TESTDATA / "kernel" / "18362-x64" / "truncated" / "after.dmp.xz"
PROCESSES = sorted(TESTDATA.glob("[0-9]*/*/*.dmp.gz"))
SYSTEMS = sorted(TESTDATA.glob("kernel*/*/*/after.dmp.xz"))
GATE = ("--fail-on", "bytes>=1,site.percent>=1,handles.count>=1")
AT_BUILD, AT_TIME, AT_UP_TIME, AN_HOUR = (
    0xC,
    0xFA8,
    0x1030,
    36_000_000_000,
)  # _DUMP_HEADER64, units of 100 ns
# A row of that dump's tracker table: tag, allocs, frees; bytes lie 16 behind its start.
TRACKER, TRACKED_BYTES = struct.pack("<4sII", b"AcNb", 39409, 24150), 16
COUNTERS = counters(
    {
        "\\Process(app)\\Private Bytes": [1e6, None, 9e6, 1e7],
        "\\Process(app)\\Handle Count": [10, 10, 10, None],
        "\\Process(other)\\Private Bytes": [1e6, 1e6, 1e6, 1e6],
    }
)
PLACES = ("0", "7ffe0000", "ffff`ffffffff", "0x1234")
# Of that dump: blocks, one that holds a pointer, one in a register, a heap's header.
HELD_PLACES = ("00000257`cbaf07f0", "00000257cbaf07b8", "257cbafb230", "257cbaf0000")
HANDLES = ("--of", "handles")
MANAGED = ("--of", "managed")
Words = tuple[object, ...]
HANDLE_LINES: list[Words] = [
    ("stat", "handles0.dmp", *HANDLES),
    ("diff", "handles0.dmp", "handles1.dmp", *HANDLES),
    ("trend", *(f"handles{n}.dmp" for n in range(4)), *HANDLES),
]
# Populations of a process, in all ways to name them: (--of, --by).
OF_PROCESS = [
    (of, by)
    for of in ("regions", "heaps", "threads", "modules")
    for by in POPULATIONS[of].groupings
    if by != "process"  # of a system only
]
MEMBER_LINES: list[Words] = [
    (*line, "--of", of, "--by", by)
    for of, by in OF_PROCESS
    for line in (
        ("stat", "whole0.dmp"),
        ("diff", "whole0.dmp", "whole1.dmp"),
        ("trend", *(f"whole{n}.dmp" for n in range(3))),
    )
] + [
    ("stat", "listless.dmp", "--of", "threads"),
    ("diff", "listless.dmp", "whole1.dmp", "--of", "modules"),
    ("stat", "whole0.dlsnap", "--of", "regions"),
    ("diff", "whole0.dlsnap", "whole1.dmp", "--of", "threads"),
]


def _log(dump: Path) -> Callable[[Path], None]:
    return lambda file: _written("snapshot", dump, "--format", "umdh", "-o", file)


def _taken(dump: Path, *words: str) -> Callable[[Path], None]:
    return lambda file: _written("snapshot", dump, "-o", file, *words)


def _written(*words: object) -> None:
    code, _, said = run(*map(str, words))
    assert code == 0, said


def _made(number: int) -> Callable[[Path], None]:
    return lambda file: _put(file, MADE_ROWS[number].dump()[0])


def _put(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def _kernel(form: str, architecture: str) -> Callable[[Path], None]:
    return lambda file: _put(file, bytes(KERNEL_FORMS[form](System(architecture))))


def _poolmon(step: int) -> Callable[[Path], None]:
    tags = [
        Tag("NtfF", "Paged", 9, 2, 700),
        Tag("Leak", "Nonp", 50 + 1000 * step, 0, 6400 * (1 + step)),
    ]
    return lambda file: _put(file, poolmon(tags).encode())


def _managed(step: int, runtime: str = "coreclr.dll") -> Callable[[Path], None]:
    """A process with objects of .NET, and more of them at each step."""
    made = ClrHeapBuilder()
    order = made.type("Shop", "Order", 48, pointers=True)
    array = made.array(made.type("System", "Byte", 24), 1)
    for _ in range(500 + 300 * step):
        made.put(order, body=made.put(array, 100).to_bytes(8, "little"))
    dump = made.build((runtime,)).misc_info(7, (1_700_000_000 + step, 1, 1)).build()
    return lambda file: _put(file, dump)


def _summary(step: int) -> Callable[[Path], None]:
    text = handle_summary([("File", 25), ("Event", 9 + 1000 * step)])
    return lambda file: _put(file, text.encode())


def _processes(step: int) -> Callable[[Path], None]:
    text = process_list([("app", 4711, 507, 20_934_656 << step), ("other", 12, 91, 1_000_000)])
    return lambda file: _put(file, text.encode())


def _cut(dump: Path, share: float) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        data = gzip.decompress(dump.read_bytes())
        file.write_bytes(data[: int(share * len(data))])

    return make


def _damaged(dump: Path) -> Callable[[Path], None]:
    """Every 16th page is overwritten."""

    def make(file: Path) -> None:
        data = bytearray(gzip.decompress(dump.read_bytes()))
        dice = Dice("damaged")
        for at in range(0x10000, len(data), 0x10000):
            data[at : at + 0x1000] = dice.raw(len(data[at : at + 0x1000]))
        file.write_bytes(data)

    return make


def _handles(hours: int, counts: dict[str, int]) -> Callable[[Path], None]:
    """A dump of a process that lists handles and has no heap."""

    def make(file: Path) -> None:
        rows = [("", name) for name, count in counts.items() for _ in range(count)]
        made = MinidumpBuilder(timestamp=1_700_000_000 + 3600 * hours)
        made.handles([(4 * n, kind, text) for n, (text, kind) in enumerate(rows, 1)])
        made.module("C:\\app.exe", 0x400000, 0x5000).comment("taken by hand")
        file.write_bytes(made.build())

    return make


def _whole(hours: int, *, listed: bool = True) -> Callable[[Path], None]:
    """A dump of a process with some of all that there are populations of, more of it every hour."""

    def make(file: Path) -> None:
        process = ProcessBuilder(3600 * hours).image("app.exe", data=b"").heap(2 + 9 * hours, 3)
        for number in range(2 + 20 * hours):
            process.thread(process.bases["app.exe"] + 0x1200 + number % 2).views(1, 0x40000)
            process.private(1, 0x1000, 0xF000).image(f"module{number % 3}.dll", data=b"")
        process.with_regions = listed
        file.write_bytes(process.build())

    return make


def _caused(hours: int) -> Callable[[Path], None]:
    """A dump of a process of which one call leaks text of many sizes."""

    def make(file: Path) -> None:
        heaps = [nt_heap(0, [b"text ".ljust(30 + n) for n in range(60 + 90 * hours)])]
        file.write_bytes(process_of(heaps, time=1_700_000_000 + 3600 * hours))

    return make


def _later(hours: int | None, number: int, *, counted: bool = False) -> Callable[[Path], None]:
    """A kernel dump taken so many hours after its first one; None: after a restart.

    Args:
        hours: The system's own time.
        number: Place in the series.
        counted: The counters of a tag grow, though no block is there.
    """

    def make(file: Path) -> None:
        raw = bytearray(lzma.decompress(POOLS.read_bytes()))
        time, up = (struct.unpack_from("<Q", raw, at)[0] for at in (AT_TIME, AT_UP_TIME))
        alive = AN_HOUR * (number - 2) - AN_HOUR // 2 if hours is None else up + hours * AN_HOUR
        struct.pack_into("<Q", raw, AT_TIME, time + number * AN_HOUR)
        struct.pack_into("<Q", raw, AT_UP_TIME, alive)
        if counted:
            row, more = raw.index(TRACKER), 10_000 * (number + 1)
            struct.pack_into("<I", raw, row + 4, 39409 + more)
            (held,) = struct.unpack_from("<Q", raw, row + TRACKED_BYTES)
            struct.pack_into("<Q", raw, row + TRACKED_BYTES, held + 352 * more)
        file.write_bytes(raw)

    return make


def _kept(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """What a snapshot keeps of a dump, which is read sooner."""

    def taken(file: Path) -> None:
        dump = file.with_suffix(".dmp")
        make(dump)
        _taken(dump)(file)
        dump.unlink()

    return taken


def _filled(file: Path) -> None:
    """A kernel dump that lost a page of its tracker table: a debugger's filler stands there."""
    raw = bytearray(lzma.decompress(MORE_POOLS.read_bytes()))
    for row in {raw.index(name) & ~0xFFF for name in _rows_of(raw)}:
        raw[row : row + 0x1000] = struct.pack("<I", 0xDEADFEED) * 0x400
    file.write_bytes(raw)


def _rows_of(raw: bytes) -> list[bytes]:
    """The places in the tracker tables where one tag is counted: tag, allocs and frees."""
    found, at = [], raw.find(b"AcNb")
    while at >= 0:
        allocs, frees, pad, held = struct.unpack_from("<IIIQ", raw, at + 4)
        if not pad and 0 < frees < allocs < 1 << 20 and held < 1 << 30:
            found.append(bytes(raw[at : at + 12]))
        at = raw.find(b"AcNb", at + 1)
    return found


def _torn(file: Path) -> None:
    """A kernel dump with damage in every part."""
    raw = bytearray(lzma.decompress(POOLS.read_bytes()))
    dice = Dice("torn")
    for at in range(0x40000, len(raw), 0x80000):
        raw[at : at + 0x1000] = dice.raw(0x1000)
    file.write_bytes(raw)


def _stopped(file: Path) -> None:
    """A kernel dump after a bug check that nobody knows, with a block that a component added."""
    raw = patched(bytes(KERNEL_FORMS["full"](System("x64"))), 0x38, struct.pack("<I", 0x777))
    blobs = b"DumpBlob" + struct.pack("<II", 16, 0xF0000000 | 19041)
    _put(file, raw + blobs + struct.pack("<I16sIII", 32, b"\x11" * 16, 20, 4, 8) + bytes(32))


def _short(file: Path) -> None:
    """A kernel dump that lacks its last pages."""
    _put(file, bytes(KERNEL_FORMS["full"](System("x64")))[:-0x5000])


def _timeless(file: Path) -> None:
    data = gzip.decompress(CURRENT.read_bytes())
    file.write_bytes(patched(data, 20, bytes(4)))  # MINIDUMP_HEADER.TimeDateStamp


def _grown(file: Path) -> None:
    """The current dump with one more private allocation: free address space is committed."""
    data = gzip.decompress(CURRENT.read_bytes())
    at, size = stream_place(data, 16)
    for row in range(at + 16, at + size, 48):
        base, _, _, _, room, state = struct.unpack_from("<QQIIQI", data, row)
        if state == 0x10000 and room >= 0x100000:
            made = struct.pack("<QQIIQIII", base, base, 4, 0, 0x100000, 0x1000, 4, 0x20000)
            file.write_bytes(patched(data, row, made))
            return
    raise AssertionError("the dump lists no free address space")


def _suppressions(file: Path) -> None:
    rows = (("*+0x4*", "2999-01-01"), ("nobody!*", "2999-01-01"), ("app.exe*", "2020-01-01"))
    file.write_text(
        "".join(f'[[suppress]]\nsite = "{s}"\nreason = "known"\nexpires = {d}\n' for s, d in rows)
    )


def _headless(file: Path) -> None:
    """A dump whose list of memory regions is empty."""
    data = gzip.decompress(MIXED.read_bytes())
    at, _ = stream_place(data, 16)
    file.write_bytes(patched(data, at + 8, bytes(8)))


def _store(file: Path) -> None:
    """A symbol store with the program's PDB."""
    wanted = identity(open_dump(CURRENT))
    put_in_store(file, wanted, made_pdb(wanted))


def _system(which: str, *ended: str, filled: bool = True) -> Callable[[Path], None]:
    """A system whose processes hold something, the later one more; up to two of some programs ended."""

    def make(file: Path) -> None:
        folder = file.with_suffix(".parts")
        folder.mkdir(exist_ok=True)
        made = FilledSystem(folder, which=which)
        if filled:
            made.fill()
        if filled and which == "after":
            made.holds("acmesvc.exe", pages=0x4000, threads=1, nonpaged=0x200000)
            made.handles("acmesvc.exe", 200)
        for name in ended:
            for process in made.named(name)[:2]:
                made.end(process, listed=False)
        file.write_bytes(made.save().read_bytes())

    return make


def _verified(*, stop: int = 0, counted: bool = True) -> Callable[[Path], None]:
    """A system with Driver Verifier on that stopped for pool left behind, and nothing says whose."""

    def make(file: Path) -> None:
        folder = file.with_suffix(".parts")
        folder.mkdir(exist_ok=True)
        made = VerifiedSystem(folder)
        made.watch("acmenet.sys", "AcNb")
        made.write()
        if not counted:
            made.put(made.data, bytes(0x800))
        made.stop(0xC4, stop, 4096, 8192, 12)
        file.write_bytes(made.save().read_bytes())

    return make


def _alike(number: int) -> Callable[[Path], None]:
    """A PoolMon log of a series in which two groups of tags grow together; of one the root is told."""
    rows = [
        Tag(tag, "Nonp", 10 + each * number, 0, 64 * (10 + each * number))
        for each, tags in ((500, ("File", "IoNm", "Xctx")), (2000, ("Toke", "Thre", "Proc")))
        for tag in tags
    ]
    return lambda file: _put(file, poolmon(rows).encode())


def _held(file: Path) -> None:
    """A system with objects that are held by handle and by pointer, and with some that ended."""
    folder = file.with_suffix(".parts")
    folder.mkdir(exist_ok=True)
    made = FilledSystem(folder).fill()
    rows = {"Toke": list[int](), "AcNb": list[int]()}
    for row in made.truth["small_blocks"]:
        if row["tag"] in rows and not row.get("absent"):
            rows[row["tag"]].append(int(row["user"], 16))
    made.leads("lsass.exe", [rows["Toke"][0] + 0x60])
    for token, block in zip(rows["Toke"], rows["AcNb"], strict=False):
        made.pointer(block + 0x18, token + 0x60)
    thread = next(int(row["thread"], 16) for row in made.truth["processes"][2:])
    made.pointer(thread + 0x488, 133_280_057_472_495_616)  # _ETHREAD.ExitTime
    for process in made.named("svchost.exe"):
        made.end(process, listed=False)
        made.pointer(rows["AcNb"][0] + 0x28, process)
    file.write_bytes(made.save().read_bytes())


def _lived(number: int) -> Callable[[Path], None]:
    """A system of a series over two restarts: it tells where its memory is, and blocks point to something.

    The counters of a tag grow alike in each life; with the last, Windows and a driver are replaced, and then
    another driver.
    """

    def make(file: Path) -> None:
        folder = file.with_suffix(".parts")
        folder.mkdir(exist_ok=True)
        made = FilledSystem(folder, "7601-x64").fill()
        dump = open_dump(made.path)
        assert isinstance(dump, KernelDump)
        for name, pages in (
            ("MmNumberOfPhysicalPages", 1 << 22),
            ("MmAvailablePages", 3 << 20),
            ("MmTotalCommittedPages", 1 << 20),
        ):
            made.put(dump.symbol(name) or 0, struct.pack("<I", pages))
        blocks = [row for row in made.truth["small_blocks"] if row["tag"] in ("AcNb", "Toke")]
        for row in blocks:
            if row["tag"] == "AcNb" and not row.get("absent"):
                made.pointer(int(row["user"], 16), made.module("acmenet.sys") + 0x1011)
        life = number - (4 if number > 3 else 3 if number > 2 else 0)
        if number > 3:
            rebuild(made, "acmenet.sys")
            struct.pack_into("<I", made.raw, AT_BUILD, 7600)
        if number > 4:
            rebuild(made, "acmegpu.sys")
        (time,) = struct.unpack_from("<Q", made.raw, AT_TIME)
        struct.pack_into("<Q", made.raw, AT_TIME, time + number * AN_HOUR)
        struct.pack_into("<Q", made.raw, AT_UP_TIME, AN_HOUR // 2 + life * AN_HOUR)
        for row in _rows_of(made.raw)[:1]:
            at = made.raw.index(row)
            allocs, _, _, held = struct.unpack_from("<IIIQ", made.raw, at + 4)
            struct.pack_into("<I", made.raw, at + 4, allocs + 100 * life)
            struct.pack_into("<Q", made.raw, at + TRACKED_BYTES, held + 35_200 * life)
        file.write_bytes(made.save().read_bytes())

    return make


# Files that are made for this, by name.
def _fleet(folder: Path) -> None:
    """Leaks, what cannot be read, and two dumps of one moment, which cannot be compared."""
    planted_fleet(machines=3, dumps=3, broken=2).write(folder)
    for number in range(2):
        dump = gzip.compress(gzip.decompress(MIXED.read_bytes()), 1, mtime=number)
        (folder / f"same{number}.dmp.gz").write_bytes(dump)


MADE: dict[str, Callable[[Path], None]] = {
    "before.log": _log(BASE),
    "after.log": _log(CURRENT),
    "before.dlsnap": _taken(BASE),
    "after.dlsnap": _taken(CURRENT),
    "nameless.dlsnap": _taken(CURRENT, "--strip-names"),
    "mixed.dlsnap": _taken(MIXED, "--no-holders"),
    "pools.dlsnap": _taken(POOLS),
    "more-pools.dlsnap": _taken(MORE_POOLS),
    "session.dlsnap": _taken(SESSION),
    **{f"{row.name.replace('/', '-')}.dmp": _made(n) for n, row in enumerate(MADE_ROWS)},
    **{f"{form}-{arch}.dmp": _kernel(form, arch) for form, arch in KERNELS},
    "fleet-inputs": _fleet,
    "fleet-folder": Path.mkdir,
    "cut.dmp": _cut(MIXED, 0.6),
    "stub.dmp": _cut(MIXED, 0.01),
    "damaged.dmp": _damaged(MIXED),
    "headless.dmp": _headless,
    **{
        f"handles{n}.dmp": _handles(n, {"Event": 100 + 300 * n, "File": 30, "": 2})
        for n in range(4)
    },
    **{f"whole{n}.dmp": _whole(n) for n in range(3)},
    "whole0.dlsnap": _kept(_whole(0)),
    "listless.dmp": _whole(0, listed=False),
    **{f"caused{n}.dmp": _caused(n) for n in range(3)},
    **{f"run1-{n}.dlsnap": _kept(_later(n, n)) for n in range(3)},
    **{f"run2-{n}.dlsnap": _kept(_later(None, n)) for n in (3, 4)},
    **{f"counted{n}.dlsnap": _kept(_later(n, n, counted=True)) for n in range(3)},
    "later-pools.dmp": _later(48, 48),
    "system0.dmp": _system("before"),
    "system1.dmp": _system("after", "svchost.exe"),
    "bare.dmp": _system("before", filled=False),
    "ended.dmp": _system("after", "svchost.exe", filled=False),
    "system0.dlsnap": _kept(_system("before")),
    **{f"log{n}.log": _log(SERIES[n]) for n in range(3)},
    "left.dmp": _verified(stop=0x60),
    "uncounted.dmp": _verified(counted=False),
    "filled.dmp": _filled,
    "torn.dmp": _torn,
    "stopped.dmp": _stopped,
    "short.dmp": _short,
    "timeless.dmp": _timeless,
    "grown.dmp": _grown,
    **{f"poolmon{n}.log": _poolmon(n) for n in range(3)},
    **{f"alike{n}.log": _alike(n) for n in range(3)},
    "held.dmp": _held,
    **{f"lived{n}.dmp": _lived(n) for n in range(6)},
    "kept-lived.dlsnap": _kept(_lived(0)),
    **{f"handles{n}.txt": _summary(n) for n in range(3)},
    **{f"managed{n}.dmp": _managed(n) for n in range(3)},
    "framework.dmp": _managed(0, "clr.dll"),
    **{f"processes{n}.csv": _processes(n) for n in range(2)},
    "counters.csv": lambda file: _put(file, COUNTERS.encode()),
    "suppressions.toml": _suppressions,
    "baseline.json": lambda file: _written("diff", BASE, CURRENT, "--format", "json", "-o", file),
    "store": _store,
}
MADE_DUMPS = [f"{row.name.replace('/', '-')}.dmp" for row in MADE_ROWS]
MADE_KERNELS = [f"{form}-{arch}.dmp" for form, arch in KERNELS]
POOLMON = [f"poolmon{n}.log" for n in range(3)]
RUNS = [*(f"run1-{n}.dlsnap" for n in range(3)), *(f"run2-{n}.dlsnap" for n in (3, 4))]
COUNTED = [f"counted{n}.dlsnap" for n in range(3)]
WHOLE_SYSTEMS = [file for file in SYSTEMS if "truncated" not in file.parts]


def of_one(files: Iterable[object], *commands: str) -> list[Words]:
    return [(command, file) for file in files for command in commands]


SYSTEM = "system0.dmp", "system1.dmp"
OF_SYSTEM = [
    ("processes", "name"),
    ("processes", "state"),
    ("handles", "process"),
    ("handles", "type"),
    ("threads", "process"),
    ("threads", "start"),
    ("modules", "name"),
]
SYSTEM_LINES: list[Words] = [
    *(("stat", SYSTEM[0], "--of", of, "--by", by) for of, by in OF_SYSTEM),
    *(("diff", *SYSTEM, "--of", of, "--by", by) for of, by in OF_SYSTEM),
    ("diff", "system0.dlsnap", SYSTEM[1], "--of", "processes"),
    ("processes", *SYSTEM),
    ("processes", "system0.dlsnap", SYSTEM[1]),
    ("processes", "bare.dmp", "ended.dmp"),
    ("processes", "processes0.csv", "processes1.csv"),
    ("processes", SYSTEM[1], SYSTEM[0]),  # the wrong order
    *of_one(SYSTEM, "info", "processes"),
    ("pool", *SYSTEM),
    ("trend", POOLS, MORE_POOLS, "later-pools.dmp", "--of", "modules"),
]
# What has an answer, whatever the exit code: it is a document.
JUDGED_FLEET = ("--workers", "1", "--fail-on", "new-clusters>=99")
ANSWERED: list[Words] = [
    ("fleet", "fleet-inputs", "-o", "fleet-folder", *JUDGED_FLEET),
    *of_one(PROCESSES, "info", "heaps", "stat"),
    *of_one(PROCESSES[::4], "modules", "symbols"),
    *of_one([CURRENT, ASLR / "after.dmp.gz", MIXED], "leaks", "allocations"),
    *of_one(MADE_DUMPS, "info", "heaps", "stat", "allocations"),
    *of_one(WHOLE_SYSTEMS, "info", "pool", "modules"),
    *of_one([SESSION, MORE_POOLS], "stat", "heaps", "processes", "symbols"),
    *of_one([CUT_KERNEL], "info", "pool", "verifier"),
    *of_one([*VERIFIED, POOLS, "left.dmp"], "verifier"),
    *of_one(["left.dmp"], "info", "pool"),
    ("stat", VERIFIED[1], "--by", "stack"),
    ("diff", *VERIFIED, "--by", "stack"),
    ("pool", *VERIFIED),
    ("verifier", VERIFIED[1], "acmenet", "--log", "3"),
    ("verifier", "uncounted.dmp", "acmenet.sys"),
    *of_one([SESSION, MORE_POOLS], "allocations"),
    ("allocations", CURRENT, "--unreferenced", "--size", "1-1K", "--new-since", BASE),
    *of_one(MADE_KERNELS, "info"),
    *of_one(["full-x64.dmp", "elf-x64.dmp"], "processes", "modules", "symbols"),
    *of_one(["before.dlsnap", "pools.dlsnap", "session.dlsnap"], "info", "modules", "symbols"),
    *of_one(["before.dlsnap", "mixed.dlsnap", "pools.dlsnap"], "stat", "heaps"),
    *of_one(["before.log"], "stat"),
    *of_one(["poolmon0.log"], "stat", "pool"),
    *(("diff", *POOLMON[:2], "--by", by) for by in ("site", "tag", "driver")),
    ("diff", *POOLMON[:2], "--fail-on", "bytes>=1K"),
    ("diff", "poolmon0.log", MORE_POOLS),
    ("trend", *POOLMON),
    ("pool", *POOLMON[:2]),
    *((command, "alike0.log", "alike1.log") for command in ("pool", "diff")),
    ("trend", *(f"alike{n}.log" for n in range(3))),
    *of_one(["lived0.dmp"], "info", "pool"),
    *(("pool", file, "--tag", "AcNb") for file in ("lived0.dmp", "kept-lived.dlsnap")),
    *((command, "lived0.dmp", "lived4.dmp") for command in ("pool", "diff")),
    ("trend", *(f"lived{n}.dmp" for n in range(6))),
    ("diff", "caused0.dmp", "caused2.dmp"),
    ("trend", *(f"caused{n}.dmp" for n in range(3))),
    *of_one(["caused2.dmp"], "stat", "leaks"),
    ("processes", "held.dmp"),
    *(("pool", "held.dmp", "--tag", tag) for tag in ("Toke", "Thre", "Proc")),
    *of_one(["counters.csv", "handles0.txt", "processes0.csv"], "stat"),
    ("diff", "handles0.txt", "handles1.txt"),
    ("diff", "handles0.dmp", "handles1.txt", *HANDLES),
    ("trend", *(f"handles{n}.txt" for n in range(3))),
    ("diff", "processes0.csv", "processes1.csv", "--process", "app"),
    ("stat", "counters.csv", "--process", "app"),
    *((command, "counters.csv", "--process", "app") for command in ("diff", "trend")),
    ("diff", "counters.csv", "--process", "app", "--fail-on", "counters.private_bytes>=1M"),
    *of_one(["cut.dmp", "damaged.dmp", "headless.dmp", "stub.dmp", "handles0.dmp"], "info"),
    *of_one(["cut.dmp", "damaged.dmp", "headless.dmp"], "heaps", "stat", "modules"),
    *(("stat", MIXED, "--by", by) for by in GROUPINGS),
    *(("leaks", CURRENT, "--by", by) for by in GROUPINGS),
    *(("diff", BASE, CURRENT, "--by", by, "--no-holders") for by in GROUPINGS),
    *(("diff", "before.dlsnap", CURRENT, "--by", by, "--no-holders") for by in GROUPINGS),
    *(("trend", *SERIES[::2], "--by", by, "--no-holders") for by in GROUPINGS),
    *(("stat", MORE_POOLS, "--by", by) for by in POOL_GROUPINGS),
    ("diff", POOLS, MORE_POOLS),
    *(("diff", "pools.dlsnap", "more-pools.dlsnap", "--by", by) for by in POOL_GROUPINGS),
    ("trend", *RUNS),
    *(("trend", *COUNTED, "--by", by) for by in POOL_GROUPINGS),
    *((*line, "--by", by) for line in HANDLE_LINES for by in ("type", "name")),
    *MEMBER_LINES,
    *SYSTEM_LINES,
    ("info", "handles1.dmp"),
    *of_one(["managed0.dmp", "framework.dmp"], "info"),
    *(("stat", "managed0.dmp", *MANAGED, "--by", by) for by in ("type", "holder")),
    ("diff", "managed0.dmp", "managed1.dmp", *MANAGED),
    ("trend", *(f"managed{n}.dmp" for n in range(3)), *MANAGED),
    ("diff", BASE, CURRENT, "--holders"),
    ("diff", ASLR / "before.dmp.gz", ASLR / "after.dmp.gz", "--retained"),
    ("stat", MIXED, "--retained"),
    ("diff", ASLR / "before.dmp.gz", ASLR / "after.dmp.gz", "--contents"),
    ("stat", MIXED, "--contents"),
    ("leaks", CURRENT, "--contents"),
    *(("explain", dump, *PLACES, "--bytes", "16") for dump in (CURRENT, MIXED, MORE_POOLS)),
    *(("explain", dump, *PLACES) for dump in ("headless.dmp", "handles0.dmp", "full-x64.dmp")),
    ("explain", MIXED, *HELD_PLACES),
    ("explain", MIXED, "--type", "app::*"),
    ("explain", "timeless.dmp", "--site", "app"),
    ("explain", MORE_POOLS, "ffffd6d8c0034010"),
    ("explain", "timeless.dmp", "0"),
    ("diff", ASLR / "before.dmp.gz", ASLR / "after.dmp.gz"),
    ("diff", ASLR / "before.dmp.gz", BASE),  # not comparable
    ("diff", CURRENT, BASE),  # the wrong order
    ("diff", MIXED, "damaged.dmp", "--force"),
    ("diff", "before.log", "after.log"),
    ("diff", "before.dlsnap", "nameless.dlsnap"),
    ("diff", BASE, CURRENT, *GATE),
    ("diff", BASE, CURRENT, "--fail-on", "bytes>=1K", "--suppressions", "suppressions.toml"),
    ("diff", BASE, CURRENT, "--fail-on", "bytes>=1K", "--baseline", "baseline.json"),
    ("diff", BASE, CURRENT, "--symbols", "store", "--no-holders"),
    ("stat", CURRENT, "--symbols", "store", "--by", "stack"),
    ("symbols", CURRENT, "--symbols", "store"),
    ("trend", *SERIES),
    ("trend", *SERIES, "--after-idle", SERIES[5], "--fail-on", "leaked>=1,threads.count>=1"),
    ("trend", *SERIES[:2], BASE),  # not comparable
    ("trend", *SERIES, "--fail-on", "site.bytes>=1,handles.count>=1"),
    ("trend", *SERIES, "--fail-on", "bytes>=1K", "--suppressions", "suppressions.toml"),
    ("trend", *(f"log{n}.log" for n in range(3)), "--by", "stack"),
    ("trend", POOLS, MORE_POOLS, "later-pools.dmp"),
    ("diff", BASE, "grown.dmp", "--no-holders"),
    *((command, "timeless.dmp") for command in ("info", "heaps", "leaks")),
    ("diff", "timeless.dmp", "grown.dmp", "--no-holders"),
    ("trend", "timeless.dmp", BASE, CURRENT, "--force"),
    *of_one(["filled.dmp", "torn.dmp"], "info", "pool", "processes"),
    *of_one(["stopped.dmp", "short.dmp"], "info", "processes"),
    ("pool", POOLS, "filled.dmp"),
    ("pool", POOLS, "filled.dmp", "--no-walk"),
    ("pool", "filled.dmp", "--no-walk"),
    ("pool", POOLS, MORE_POOLS),
    ("pool", "pools.dlsnap", MORE_POOLS),
    ("pool", POOLS, CUT_KERNEL),  # not comparable
    ("pool", POOLS, "--no-walk"),
    ("pool", "session.dlsnap"),
    ("pool", SESSION, SESSION, "--no-walk"),
    ("info", "full-x64.dmp", "--process", "acmesvc.exe"),
    ("modules", "full-x64.dmp", "--process", "acmesvc.exe"),
]
# What cannot be answered, without a document: exit code 3 and a line that says why.
REFUSED: list[Words] = [
    *of_one([CUT_KERNEL], "modules", "processes", "stat", "heaps"),
    *of_one(["handles0.dmp", "stub.dmp"], "heaps", "stat", "leaks", "allocations"),
    *of_one(["before.log"], "info", "heaps", "modules", "leaks", "allocations"),
    *of_one([MIXED], "pool", "processes"),
    *of_one(["counters.csv"], "info", "heaps", "trend", "diff"),
    ("diff", "processes0.csv", "processes1.csv"),
    ("stat", POOLS, "--by", "stack"),
    ("stat", MIXED, *HANDLES),
    ("stat", MIXED, "--of", "regions", "--retained"),
    ("stat", POOLS, "--retained"),
    ("stat", POOLS, "--contents"),
    ("diff", BASE, "after.dlsnap", "--contents"),
    ("explain", POOLS, "--site", "*"),
    ("explain", MIXED, "--type", "nobody"),
    ("diff", BASE, "after.dlsnap", "--retained"),
    ("diff", BASE, "after.log", "--retained"),
    ("stat", POOLS, *HANDLES),
    ("stat", MIXED, "--of", "pool"),
    ("stat", "listless.dmp", "--of", "regions"),
    ("stat", "handles0.dmp", "--of", "heaps"),
    ("stat", "before.log", "--of", "threads"),
    ("trend", POOLS, MORE_POOLS, "later-pools.dmp", "--of", "regions"),
    ("diff", BASE, "before.log", "--by", "size"),
    ("trend", BASE, BASE, CURRENT),
]
