"""Answers made by hand, for tests of reports: their numbers are known because they stand here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np

from dumpleak.compare.answers import Comparison
from dumpleak.compare.diff import compare
from dumpleak.compare.trend import Trend, find_trend
from dumpleak.model.coverage import Coverage
from dumpleak.model.errors import BETTER_DUMP
from dumpleak.model.group_sums import SiteDetail
from dumpleak.model.info import Info
from dumpleak.model.memory import MemoryByUse, UseRow
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.model.totals import Totals
from dumpleak.pointers.roots import RootBytes, RootKind
from dumpleak.survey.leaks import LeakGroup, Leaks
from windumps.diagnostics import Diagnostic, Severity

# (site, (bytes, blocks) before, the same after)
Change = tuple[Site, tuple[int, int], tuple[int, int]]

HOSTILE_NAMES = (
    "<script>document.title='owned'</script>",
    "</script><script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "<a href='https://example.com/'>click</a><b>bold</b><br>",
    "' onmouseover='document.title=1",
    "a‮gnp.exe‏",
    "\x1b[31mred\x1b[0m\r\nnext line\x00",
    "%{x} {{ 7 * 7 }} ${7*7} $x^2$ <!-- -->",
    "--> <!-- <script>",
    "x" * 10_000,
    "lone surrogate \ud800 and a private one \ue000",
)


def stack(*frames: str) -> Site:
    """A site with a recorded stack, innermost first, named by its innermost frame."""
    return Site(SiteKind.STACK, "stack|" + "|".join(frames), frames[0], frames)


def shape(name: str) -> Site:
    return Site(SiteKind.SHAPE, f"shape|{name}", name)


def snapshot(
    name: str,
    groups: dict[str, tuple[Site, Totals]],
    hour: int,
    details: dict[str, SiteDetail] | None = None,
    program: str = "app.exe",
) -> Snapshot:
    """A snapshot of these groups, all in one heap that was walked whole."""
    used = sum(totals.bytes for _, totals in groups.values())
    count = sum(totals.count for _, totals in groups.values())
    committed = used + 0x1000
    source = SourceInfo(
        name, "minidump", "Windows 10.0.19041 x64", "x64", 19041,
        datetime(2026, 11, 25, hour, tzinfo=UTC), 42, program, None,
    )  # fmt: skip
    heap = HeapRow(
        "heap 0", 0x10000, "nt", "x64", "", committed_bytes=committed, used_bytes=used,
        used_count=count, free_bytes=0x800, free_count=1, overhead_bytes=0x800,
    )  # fmt: skip
    return Snapshot(
        source,
        "site",
        groups,
        Totals(count, used, used, max((t.largest for _, t in groups.values()), default=0)),
        {},
        [heap],
        Coverage(committed, committed, committed, 1, 1),
        details=details or {},
    )


def comparison(changes: Iterable[Change], program: str = "app.exe") -> Comparison:
    """Compares two made snapshots; sites with details show them in both."""
    sides: list[dict[str, tuple[Site, Totals]]] = [{}, {}]
    details: dict[str, SiteDetail] = {}
    for number, (site, *values) in enumerate(changes):
        for side, (size, count) in zip(sides, values, strict=True):
            if count:
                side[site.key] = site, Totals(count, size, size, size // count)
        address = 0x1000_0000 + 0x100 * number
        details[site.key] = SiteDetail(((64, 3), (128, 1)), (address, address + 0x40), 8)
    base = snapshot("before.dmp", sides[0], 8, details, program)
    return compare(base, snapshot("after.dmp", sides[1], 9, details, program))


def ten_thousand_sites() -> Comparison:
    """Stacks of 12 frames out of 3,000 functions, names as long as mangled ones get."""
    changes = []
    for number in range(10_000):
        frames = tuple(
            f"module{(number * 7 + depth) % 40}.dll!ns{depth}::Class{(number * 13 + depth * 5) % 3000}"
            f"<std::basic_string<char> >::method{number % 97}+0x{number % 251:x}"
            for depth in range(12)
        )
        site = Site(SiteKind.STACK, f"stack|{number}", frames[0], frames)
        before = 100 + number % 50
        after = before + (number % 11 - 3)
        changes.append((site, (before * 64, before), (after * 64, after)))
    return comparison(changes)


GROWING = stack(
    "app.exe!Cache::insert+0x41",
    "app.exe!Session::open+0x1f",
    "app.exe!Server::accept+0x88",
    "app.exe!main+0x12",
)
LONG_NAME = (
    "engine.dll!" + "std::vector<std::basic_string<char> >::" * 4 + "_Emplace_reallocate+0x9c"
)
CHANGES: tuple[Change, ...] = (
    (GROWING, (64 * 1024, 64), (512 * 1024, 512)),
    (shape("777 bytes in heap 0 (nt), ASCII text"), (0, 0), (77_700, 100)),
    (stack(LONG_NAME, "engine.dll!Engine::run+0x3"), (10_000, 10), (34_000, 34)),
    (shape("bell\x07 and right-to-left \u202e name"), (300, 3), (700, 7)),
    (shape("64 bytes in heap 0 (nt)"), (6_400, 100), (640, 10)),
)


def growth() -> Comparison:
    return comparison(CHANGES)


def no_growth() -> Comparison:
    return comparison([(GROWING, (5_000, 5), (5_000, 5)), (shape("shrinks"), (640, 10), (64, 1))])


def not_comparable() -> Comparison:
    return compare(
        snapshot("before.dmp", {}, 8, program="app.exe"),
        snapshot("after.dmp", {}, 9, program="b.exe"),
    )


def series(after_idle: bool) -> Trend:
    """Four dumps, an hour apart: one site grows by 1,000 blocks of 100 bytes, one once, one not."""
    dumps = []
    for hour in range(4):
        values = {
            GROWING: 1000 * (hour + 1),
            shape("steps"): 10 if hour < 2 else 50,
            shape("flat"): 7,
        }
        groups = {
            site.key: (site, Totals(count, 100 * count, 100 * count, 100))
            for site, count in values.items()
        }
        dumps.append(snapshot(f"dump{hour}.dmp", groups, 8 + hour))
    return find_trend(dumps[:3], dumps[3]) if after_idle else find_trend(dumps)


def unreferenced() -> Leaks:
    """Nothing points to 40 of the cache's 512 blocks, 8 of which hang on the others."""
    taken = growth().current
    group = LeakGroup(
        GROWING,
        taken.groups[GROWING.key][1],
        40,
        40 * 1024,
        32,
        np.arange(40, dtype=np.uint64) * np.uint64(0x400) + np.uint64(0x20000),
    )
    return Leaks(
        taken.source,
        "site",
        (group,),
        taken.totals,
        40,
        40 * 1024,
        32,
        {RootKind.GLOBALS: RootBytes(0x3000, 0x3000), RootKind.STACK: RootBytes(0x8000, 0x1000)},
        False,
        8,
        taken.coverage,
        (),
    )


def described(usable: bool) -> Info:
    """A process with one heap; without its memory when it is not usable."""
    taken = comparison(CHANGES).current
    rows = (UseRow("heaps", 0x98000, 0x98000, 3), UseRow("images", 0x200000, 0x1000, 40))
    advice = "yes: compare it with a later dump of the same program, dumpleak BASE CURRENT"
    if not usable:
        advice = f"no: a minidump without heap memory; {BETTER_DUMP}"
    return Info(
        source=taken.source,
        full_memory=usable,
        memory_bytes=0x99000 if usable else 0x1000,
        thread_count=3,
        comments=("written by a test",),
        nt_global_flag=0,
        heaps=tuple(taken.heaps) if usable else (),
        coverage=taken.coverage if usable else Coverage(0, 0, 0, 0, 0),
        memory=MemoryByUse(rows if usable else (), usable),
        modules=(),
        unloaded_modules=(),
        usable=usable,
        advice=advice,
        diagnostics=(
            Diagnostic("odd", Severity.WARNING, "_HEAP", 0x10000, "a made diagnostic", 4096),
        ),
    )
