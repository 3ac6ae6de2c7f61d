"""A fleet with planted leaks: snapshot files of many machines, programs and versions, and what must be found.

fleet = planted_fleet(machines=20, dumps=4)
truth = fleet.write(folder)            # one .dlsnap a dump
truth.leaks["app.exe!Cache::Insert"]   # machines, series, dumps, blocks, bytes, versions
truth.broken                           # files that cannot be read

Healthy sites keep their blocks, fill up once, or come and go; every life of a program has other load
addresses, and every version other places in its images.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from dumpleak.files.metadata import Metadata
from dumpleak.fleets.belonging import Series, series
from dumpleak.fleets.growth import grown
from dumpleak.fleets.identity import described, site_rows
from dumpleak.fleets.tables import DUMPS, SITES, schema_of
from dumpleak.model.coverage import Coverage
from dumpleak.model.sites import Place, Site, SiteKind, stack_key
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.model.totals import Totals
from dumpleak.survey.open import open_snapshot
from dumpleak.survey.recording import write_columns
from dumpleak.survey.wanted import Wanted
from windumps.images.modules import Module, PdbIdentity

START = datetime(2026, 11, 1, tzinfo=UTC)
HEAP = 0x20_0000_0000
BUILD = 19045
MOVING = "Request::New"  # its blocks come and go


@dataclass(frozen=True)
class Leak:
    """A planted leak.

    Attributes:
        program: Whose.
        function: The innermost frame of the program's own; "" for a shape, which has a size alone.
        size: Bytes of a block.
        per_dump: New blocks from one dump of a life to the next.
        since: First version with it.
        until: First version without it; "" where none is.
    """

    program: str
    function: str
    size: int
    per_dump: int
    since: str = "1.0"
    until: str = ""

    @property
    def name(self) -> str:
        return f"{self.program}!{self.function}" if self.function else f"{self.size} bytes"

    def is_in(self, version: str) -> bool:
        order = number(version)
        return number(self.since) <= order and (not self.until or order < number(self.until))


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@dataclass
class Found:
    """What a fleet must say of a leak."""

    machines: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    series: int = 0
    dumps: int = 0
    count: int = 0
    bytes: int = 0


@dataclass
class Truth:
    """What a written fleet holds."""

    files: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    leaks: dict[str, Found] = field(default_factory=dict)
    series: int = 0


@dataclass(frozen=True)
class Life:
    """One life of a program on a machine.

    Attributes:
        computer: The machine.
        program: Its executable.
        version: Of that.
        dumps: How many were taken, an hour apart.
        number: Which life of all.
    """

    computer: str
    program: str
    version: str
    dumps: int
    number: int


class Fleet:
    """Lives of programs, each with its dumps.

    Args:
        lives: All of them.
        leaks: What is planted.
        broken: How many files cannot be read.
    """

    def __init__(self, lives: Sequence[Life], leaks: Sequence[Leak], broken: int = 0) -> None:
        self.lives, self.leaks, self._broken = lives, leaks, broken

    def write(self, folder: Path) -> Truth:
        """Writes all files, and says what they hold."""
        folder.mkdir(parents=True, exist_ok=True)
        truth = Truth(series=len(self.lives))
        for life in self.lives:
            for taken in range(life.dumps):
                path = folder / f"{life.computer}-{life.program}-{life.number}-{taken}.dlsnap"
                write(path, *dump_of(life, self.leaks, taken))
                truth.files.append(path)
            for leak in self.leaks:
                if leak.program == life.program and leak.is_in(life.version) and life.dumps > 1:
                    _add(truth.leaks.setdefault(leak.name, Found()), leak, life)
        for number_ in range(self._broken):
            path = folder / f"broken{number_}.dmp"
            path.write_bytes((b"MDMP" + bytes(20), b"", b"no dump at all")[number_ % 3])
            truth.broken.append(path)
        return truth

    def snapshots(self, folder: Path) -> Iterator[tuple[str, Snapshot]]:
        """(id, snapshot) of each dump, written as the store of a fleet has them: `snapshots/ID.dlsnap`."""
        (folder / "snapshots").mkdir(parents=True, exist_ok=True)
        for life in self.lives:
            for taken in range(life.dumps):
                name = f"{life.computer}-{life.program}-{life.number}-{taken}"
                id_ = blake2b(name.encode(), digest_size=16).hexdigest()
                snapshot, sites = dump_of(life, self.leaks, taken)
                write(folder / "snapshots" / f"{id_}.dlsnap", snapshot, sites)
                yield id_, snapshot


def _add(found: Found, leak: Leak, life: Life) -> None:
    blocks = leak.per_dump * (life.dumps - 1)
    found.machines.add(life.computer)
    found.versions.add(life.version)
    found.series += 1
    found.dumps += life.dumps
    found.count += blocks
    found.bytes += blocks * leak.size


LEAKS = (
    Leak("app.exe", "Cache::Insert", 96, 40, since="1.2"),
    Leak("app.exe", "Session::Open", 200, 25),
    Leak("service.exe", "Queue::Push", 64, 60, since="2.9", until="2.10"),
    Leak("viewer.exe", "", 1368, 12, since="3.1"),
)
VERSIONS = {
    "app.exe": ("1.1", "1.2", "1.3"),
    "service.exe": ("2.8", "2.9", "2.10"),
    "viewer.exe": ("3.0", "3.1"),
    "healthy.exe": ("7.0", "7.1"),
}


def planted_fleet(
    machines: int = 12, dumps: int = 4, broken: int = 3, leaks: Sequence[Leak] = LEAKS
) -> Fleet:
    """Each program on each machine, in a version that depends on the machine."""
    lives = [
        Life(f"PC-{machine:04}", program, versions[machine % len(versions)], dumps, machine)
        for machine in range(machines)
        for program, versions in VERSIONS.items()
    ]
    return Fleet(lives, leaks, broken)


def module(life: Life, name: str, base: int, version: str) -> Module:
    """An image; its build depends on its version, its address on the life."""
    guid = uuid.uuid5(uuid.NAMESPACE_DNS, f"{name} {version}").hex.upper()
    stamp = int(guid[:7], 16)
    return Module(name, name, base, 0x200000, stamp, version, PdbIdentity(f"{name}.pdb", guid, 1))


def dump_of(
    life: Life, leaks: Sequence[Leak], taken: int
) -> tuple[Snapshot, list[tuple[Site, int, int]]]:
    """One dump, and its sites with their counts and sizes."""
    seed = blake2b(f"{life.computer} {life.program} {life.number}".encode(), digest_size=8)
    odds = np.random.default_rng(int(seed.hexdigest(), 16))
    slide = int(odds.integers(1 << 12)) << 16
    program = module(life, life.program, 0x7FF6_0000_0000 + slide, life.version)
    ntdll = module(life, "ntdll.dll", 0x7FFA_0000_0000 + slide, "10.0.19041.3324")
    sites = [*_healthy(life, program, ntdll, taken, odds)]
    for leak in leaks:
        if leak.program == life.program:
            grown = leak.per_dump * taken * leak.is_in(life.version)
            sites.append((_site(leak, program, ntdll), 7 + grown, leak.size))
    created = START + timedelta(hours=life.number)
    used = sum(count * size for _, count, size in sites)
    blocks = sum(count for _, count, _ in sites)
    committed = used + 0x10000
    heap = HeapRow(
        "heap 1", HEAP + slide, "nt", "x64", "", committed_bytes=committed, used_bytes=used,
        used_count=blocks, free_bytes=0x8000, free_count=1, overhead_bytes=0x8000,
    )  # fmt: skip
    source = SourceInfo(
        "made", "minidump", f"Windows 10.0.{BUILD} x64", "x64", BUILD,
        created + timedelta(hours=1 + taken), 1000 + life.number, life.program, created,
        program_base=program.base_address, computer=life.computer,
    )  # fmt: skip
    groups = {site.key: (site, Totals(n, n * size, n * size, size)) for site, n, size in sites}
    snapshot = Snapshot(
        source, "site", groups, Totals(blocks, used, used, 4096), {}, [heap],
        Coverage(committed, committed, committed, 1, 1), modules=(program, ntdll),
    )  # fmt: skip
    return snapshot, sites


def _healthy(
    life: Life, program: Module, ntdll: Module, taken: int, odds: np.random.Generator
) -> Iterator[tuple[Site, int, int]]:
    """Sites that nobody calls a leak."""
    for name, size in (("Config::Load", 48), ("Strings::Intern", 32), ("Window::Create", 520)):
        yield _stack(name, program, ntdll), 40, size
    # A cache that fills at the start, one block of noise, and what comes and goes.
    filled = int(odds.integers(4))
    yield _stack("Cache::Warm", program, ntdll), 90 * (1 + (taken >= filled)), 256
    yield _stack("Timer::Arm", program, ntdll), 30 + (taken > 1), 80
    yield _stack("Request::New", program, ntdll), 50 + int(odds.integers(-9, 10, 64)[taken]), 112
    yield Site(SiteKind.SHAPE, "shape|heap 1|nt|72|", "72 bytes in heap 1 (nt)"), 64, 72
    yield _type("Widget", life.program), 20 + int(odds.integers(3)), 144


def _site(leak: Leak, program: Module, ntdll: Module) -> Site:
    if leak.function:
        return _stack(leak.function, program, ntdll)
    key = f"shape|heap 1|nt|{leak.size}|"
    return Site(SiteKind.SHAPE, key, f"{leak.size} bytes in heap 1 (nt)")


def _type(name: str, program: str) -> Site:
    return Site(SiteKind.TYPE, f"type|{program}|.?AV{name}@@", name, type=name)


def place(function: str, image: Module, *, skipped: bool = False, named: bool = True) -> Place:
    """A place of a function: another one in each build of the image."""
    digest = blake2b(f"{image.identity}{function}".encode(), digest_size=2).hexdigest()
    shown = function if named else ""
    return Place(image.name, image.identity, 0x1000 + int(digest, 16) * 16, shown, skipped)


def stack_of(places: Sequence[Place], shown: int = 1) -> Site:
    """The site of a stack; the frame with this number names it."""
    frames = [
        f"{p.module}!{p.function}+0x12" if p.function else f"{p.module}+0x{p.rva:x}" for p in places
    ]
    key = stack_key(f"{p.image}+{p.rva:x}" for p in places)
    return Site(
        SiteKind.STACK,
        key,
        frames[shown].partition("+0x12")[0],
        tuple(frames),
        places=tuple(places),
    )


def _stack(function: str, program: Module, ntdll: Module) -> Site:
    return stack_of(
        (
            place("RtlAllocateHeap", ntdll, skipped=True),
            place(function, program),
            place("main", program),
            place("RtlUserThreadStart", ntdll),
        )
    )


def write(path: Path, snapshot: Snapshot, sites: Sequence[tuple[Site, int, int]]) -> None:
    """A snapshot file. The blocks of a site keep their addresses; new ones come behind them."""
    base = snapshot.heaps[0].address
    taken = int((snapshot.source.time or START).timestamp()) // 3600 % 64
    addresses, sizes, numbers = [], [], []
    for row, (site, count, size) in enumerate(sites):
        slot = int(blake2b(site.key.encode(), digest_size=3).hexdigest(), 16) << 24
        slot += taken << 18 if MOVING in site.name else 0
        addresses.append(base + slot + np.arange(count, dtype=np.uint64) * np.uint64(size + 16))
        sizes.append(np.full(count, size, np.int64))
        numbers.append(np.full(count, row, np.int32))
    address = np.concatenate(addresses)
    order = np.argsort(address, kind="stable")
    size = np.concatenate(sizes)[order]
    rows = len(order)
    columns = {
        "address": address[order],
        "size": size,
        "block_bytes": size,
        "kind": np.ones(rows, np.uint8),
        "heap": np.zeros(rows, np.uint16),
        "site": np.concatenate(numbers)[order],
        "detail": np.zeros(rows, np.int32),
        "shape": np.zeros(rows, np.uint16),
    }
    classes = {"site": list(range(len(sites)))}
    write_columns(path, Metadata(snapshot, classes=classes, block_count=rows), columns)


def datasets(fleet: Fleet, folder: Path, *, broken: int = 0, reverse: bool = False) -> list[Series]:
    """Writes `dumps.parquet`, `sites.parquet` and `growth.parquet` without any engine; gives the series."""
    rows, sites, growth = [], [], []
    for id_, taken in fleet.snapshots(folder):
        path = folder / "snapshots" / f"{id_}.dlsnap"
        snapshot = open_snapshot(path, Wanted())
        url = f"s3://crashes/{taken.source.computer}/{id_}.dlsnap"
        row = {"id": id_, "url": url, "status": "read", **described(snapshot, url)}
        rows.append(row)
        table = site_rows(snapshot)
        sites.append(table.append_column("id", pa.array([id_] * table.num_rows)))
    for number_ in range(broken):
        told = {"id": f"bad{number_}", "url": f"/d/bad{number_}.dmp", "status": "error"}
        rows.append(
            told | {"error_kind": "NotADumpError", "error": f"/d/bad{number_}.dmp: no dump"}
        )
    if reverse:
        rows.reverse()
    dumps = pa.Table.from_pylist(rows, schema=schema_of(DUMPS))
    parquet.write_table(dumps, folder / "dumps.parquet")
    every = pa.concat_tables(sites).select([column.name for column in SITES])
    parquet.write_table(every, folder / "sites.parquet")
    found = series(dumps.to_batches())
    growth = [grown(one, str(folder)) for one in (reversed(found) if reverse else found)]
    parquet.write_table(pa.concat_tables(growth), folder / "growth.parquet")
    return found
