"""Logs of a live machine as the tools write them, with numbers of the tests' own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple


class Tag(NamedTuple):
    """One row of PoolMon: tag, "Nonp" or "Paged", allocations, frees, bytes."""

    tag: str
    type: str
    allocs: int
    frees: int
    bytes: int
    driver: str = ""


def poolmon(
    tags: Iterable[Tag],
    nonpaged_kb: int = 0,
    paged_kb: int = 0,
    *,
    live: bool = False,
    title: str = "",
    commit_kb: tuple[int, int] = (4_100_436, 17_517_136),
) -> str:
    """What `poolmon /n` writes, or with `live` what its window shows; sizes grow to hold the tags.

    Args:
        tags: The rows.
        nonpaged_kb: The memory manager's total; 0 for a little more than the tags take.
        paged_kb: The same of paged pool.
        live: With changes in parentheses.
        title: "System pool information" or the like.
        commit_kb: Committed, and its limit.
    """
    rows = list(tags)
    held = {kind: sum(row.bytes for row in rows if row.type == kind) for kind in ("Nonp", "Paged")}
    nonpaged_kb = nonpaged_kb or held["Nonp"] // 1000 + 64
    paged_kb = paged_kb or held["Paged"] // 1000 + 64
    committed, limit = commit_kb
    lines = [
        " Memory:16468560K Avail:12072536K  PageFlts:468600648   InRam Krnl:56708K P:950888K",
        f" Commit:{committed}K Limit:{limit}K Peak:11685564K            Pool N:{nonpaged_kb}K P:{paged_kb}K",
        *([f" {title}"] if title else []),
        *([] if live else [""]),
        " Tag  Type     Allocs            Frees            Diff   Bytes       Per Alloc"
        + "  Mapped_Driver" * any(row.driver for row in rows),
        "",
    ]
    change = " (   0)" if live else ""
    for tag, kind, allocs, frees, size, driver in rows:
        count = allocs - frees
        each = size // count if count else 0
        line = f" {tag:4} {kind:5} {allocs % 2**32:9}{change} {frees % 2**32:9}{change} {count:8} "
        lines.append(f"{line}{size:9}{change} {each:6}{' ' * bool(driver)}{driver}")
    return "\n".join(lines) + "\n"


def counters(
    columns: dict[str, list[float | None]],
    *,
    minutes: int = 30,
    zone: str = " (Romance Standard Time)(-60)",
    host: str = "\\\\HOST",
    hour: int = 9,
) -> str:
    r"""What typeperf and Performance Monitor write: "\Process(app)\Private Bytes" and its samples each."""
    names = [f"(PDH-CSV 4.0){zone}", *(f"{host}{path}" for path in columns)]
    lines = [",".join(f'"{name}"' for name in names)]
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        past, minute = divmod(number * minutes, 60)
        day, past = divmod(hour + past, 24)
        texts = [f"11/{day + 1:02}/2026 {past:02}:{minute:02}:00.123"]
        texts += [" " if value is None else f"{value:.6f}" for value in values]
        lines.append(",".join(f'"{text}"' for text in texts))
    return "\r\n".join(lines) + "\r\n"


def handle_summary(counts: Iterable[tuple[str, int]], total: int | None = None) -> str:
    """What `handle -s` writes."""
    rows = list(counts)
    lines = [
        "",
        "Nthandle v5.0 - Handle viewer",
        "Copyright (C) 1997-2022 Mark Russinovich",
        "Sysinternals - www.sysinternals.com",
        "",
        "Handle type summary:",
        *(f"  {name:16}: {count}" for name, count in rows),
        f"Total handles: {sum(count for _, count in rows) if total is None else total}",
    ]
    return "\r\n".join(lines) + "\r\n"


def process_list(
    rows: Iterable[tuple[str, int, int, int]], *, typed: bool = True, delimiter: str = ","
) -> str:
    """What `Get-Process | Export-Csv` writes of (name, id, handles, private bytes)."""
    names = ("Name", "SI", "Handles", "VM", "WS", "PM", "NPM", "Path", "CPU", "Id", "Threads")
    lines = ["#TYPE System.Diagnostics.Process"] * typed
    lines.append(delimiter.join(f'"{name}"' for name in names))
    for name, number, handles, private in rows:
        path = f"C:\\Program Files\\{name}\\{name}.exe"
        values = (name, 1, handles, 2_203_595_001_856, private + 4096, private, 29504, path, "")
        fields = (*values, number, "System.Diagnostics.ProcessThreadCollection")
        lines.append(delimiter.join(f'"{value}"' for value in fields))
    return "\r\n".join(lines) + "\r\n"


def _machine_time(number: int, minutes: int, style: str) -> tuple[str, int]:
    """The time of a sample, as text and as a number of 100 ns."""
    time = datetime(2026, 11, 30, 9, tzinfo=UTC) + timedelta(minutes=number * minutes)
    ticks = int((time - datetime(1601, 1, 1, tzinfo=UTC)).total_seconds()) * 10**7
    hour = (time.hour + 11) % 12 + 1
    half = "PM" if time.hour > 11 else "AM"
    texts = {
        "us": f"{time.month}/{time.day}/{time.year} {hour}:{time:%M:%S} {half}",
        "gb": f"{time:%d/%m/%Y %H:%M:%S}",
        "de": f"{time:%d.%m.%Y %H:%M:%S}",
        "iso": f"{time:%Y-%m-%d %H:%M:%S}",
    }
    return texts[style], ticks


def counter_sets(
    columns: dict[str, list[float | None]],
    *,
    minutes: int = 30,
    style: str = "us",
    typed: bool = True,
    delimiter: str = ",",
) -> str:
    r"""What `Get-Counter … | Export-Csv` writes: the readings of a moment in one text of many lines."""
    names = ("Readings", "Timestamp", "CounterSamples")
    space = "Microsoft.PowerShell.Commands.GetCounter.PerformanceCounterSample"
    lines = [f"#TYPE {space}Set"] * typed
    lines.append(delimiter.join(f'"{name}"' for name in names))
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        readings = "".join(
            f"\\\\host{path.lower()} :\n{_plain(value, style)}\n\n"
            for path, value in zip(columns, values, strict=True)
            if value is not None
        )
        fields = (readings, _machine_time(number, minutes, style)[0], f"{space}[]")
        lines.append(delimiter.join(f'"{text}"' for text in fields))
    return "\r\n".join(lines) + "\r\n"


def counter_samples(
    columns: dict[str, list[float | None]],
    *,
    minutes: int = 30,
    style: str = "us",
    typed: bool = True,
    ticks: bool = True,
) -> str:
    r"""What `(Get-Counter …).CounterSamples | Export-Csv` writes: each sample in a row of its own."""
    names = ["Path", "InstanceName", "CookedValue", "RawValue", "SecondValue", "MultipleCount"]
    names += ["CounterType", "Timestamp", *["Timestamp100NSec"] * ticks, "Status", "DefaultScale"]
    space = "Microsoft.PowerShell.Commands.GetCounter.PerformanceCounterSample"
    lines = [f"#TYPE {space}"] * typed
    lines.append(",".join(f'"{name}"' for name in names))
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        text, count = _machine_time(number, minutes, style)
        for path, value in zip(columns, values, strict=True):
            plain = "0" if value is None else _plain(value, style)
            instance = path.partition("(")[2].partition(")")[0]
            row = [
                f"\\\\host{path.lower()}",
                instance,
                plain,
                "1",
                "2",
                "1",
                "NumberOfItems64",
                text,
            ]
            row += [*[str(count)] * ticks, "3221228472" if value is None else "0", "0"]
            lines.append(",".join(f'"{field}"' for field in row))
    return "\r\n".join(lines) + "\r\n"


def _plain(value: float, style: str) -> str:
    """A double as .NET writes it, with the user's mark before its fraction."""
    text = f"{value:.15g}"
    return text.replace(".", ",") if style == "de" else text
