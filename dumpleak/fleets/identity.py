"""Who an input is of: machine, program, version, process life, boot; told by the snapshot alone."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from dumpleak.files.columns import arrow
from dumpleak.fleets.fingerprints import Fingerprints
from dumpleak.fleets.tables import SITES, schema_of
from dumpleak.model.account_rows import account_of
from dumpleak.model.holding import Finder
from dumpleak.model.snapshot import Snapshot, SourceInfo
from dumpleak.model.subject import Subject
from windumps.builds import RANDOM_ADDRESSES
from windumps.images.modules import Module

if TYPE_CHECKING:
    import pyarrow as pa

ENVIRONMENT, PATH, BOOT = "environment", "path", "boot"
_BYTES = 12
# Whose addresses Windows chooses once a boot, for all processes.
_OF_BOOT = ("ntdll.dll", "kernel32.dll")


def described(snapshot: Snapshot, url: str, machine_from: str = "") -> dict[str, object]:
    """The columns of a dump's row that its snapshot tells.

    Args:
        snapshot: The snapshot.
        url: Where the input was found.
        machine_from: A pattern; what its first group matches in the URL is the machine's name.

    Raises:
        re.error: the pattern is none.
    """
    source, covered = snapshot.source, snapshot.coverage
    program = program_of(snapshot)
    boot = boot_of(snapshot)
    computer, computer_from = _computer(source, url, machine_from, boot)
    of_process = source.subject is not Subject.SYSTEM
    walks = not covered.never and snapshot.is_walked
    account = {figure.name: figure.value for figure in account_of(snapshot)}
    return {
        "subject": str(Subject.SYSTEM if not of_process else _subject(snapshot)),
        "kind": source.kind,
        "computer": computer,
        "computer_from": computer_from,
        "machine": source.machine or None,
        "architecture": source.architecture or None,
        "build": source.build or None,
        "time": _utc(source.time),
        "program": (source.program or None) if of_process else None,
        "version": (program.version or None) if program is not None and of_process else None,
        "program_id": (program.pdb_key or None) if program is not None and of_process else None,
        "process_id": source.process_id,
        "process_created": _utc(source.process_created),
        "life": life_of(snapshot, computer or "") if of_process else None,
        "boot": boot or None,
        "walked_bytes": covered.walked_bytes if walks else None,
        "present_bytes": covered.present_bytes if walks else None,
        "committed_bytes": covered.committed_bytes if walks else None,
        "used_bytes": snapshot.totals.bytes if snapshot.has_bytes else None,
        "used_count": snapshot.totals.count,
        "account": json.dumps(account, separators=(",", ":")),
    }


def _subject(snapshot: Snapshot) -> Subject:
    """A log is of processes, or of a system when it tells of pools."""
    if snapshot.is_pool:
        return Subject.SYSTEM
    return Subject.PROCESS


def program_of(snapshot: Snapshot) -> Module | None:
    """The image of the executable; None where it is not listed."""
    source = snapshot.source
    by_base = (m for m in snapshot.modules if m.base_address == source.program_base is not None)
    wanted = source.program.lower()
    by_name = (m for m in snapshot.modules if wanted and m.name.lower() == wanted)
    return next(by_base, None) or next(by_name, None)


def _computer(
    source: SourceInfo, url: str, machine_from: str, boot: str
) -> tuple[str | None, str | None]:
    found = re.search(machine_from, url) if machine_from else None
    if source.computer:
        return source.computer, ENVIRONMENT
    if found is not None and found.lastindex and found[1]:
        return found[1], PATH
    return (f"boot-{_digest(boot)}", BOOT) if boot else (None, None)


def life_of(snapshot: Snapshot, computer: str) -> str | None:
    """One value for all dumps of one life of a process; None where that cannot be told.

    As `same_life` tells it: on systems with random addresses by these, on older ones by the start time.
    """
    source = snapshot.source
    if source.process_id is None:
        return None
    parts = [computer.lower(), source.program.lower(), str(source.process_id)]
    parts.append(f"{source.nt_global_flag or 0:x}")  # set when it starts
    created = source.process_created
    if snapshot.heaps and source.program_base is not None and source.build in RANDOM_ADDRESSES:
        parts += [f"{source.program_base:x}", f"{snapshot.heaps[0].address:x}"]
    elif created is not None:
        parts.append(created.isoformat())
    else:
        return None
    return _digest("|".join(parts))


def boot_of(snapshot: Snapshot) -> str:
    """One value for all dumps of one run of a system; "" where that cannot be told."""
    source, boot = snapshot.source, snapshot.boot
    if boot is not None and boot.kernel_base:
        since = ""
        if boot.time is not None and boot.up_time is not None:
            since = _minute(boot.time - boot.up_time).isoformat()
        return f"{boot.kernel_base:x} {since}".strip()
    bases = {m.name.lower(): m.base_address for m in reversed(snapshot.modules)}
    found = [bases[name] for name in _OF_BOOT if bases.get(name)]
    if not found or source.build not in RANDOM_ADDRESSES:
        return ""
    return f"{source.build} {source.architecture} " + " ".join(f"{base:x}" for base in found)


def _minute(time: datetime) -> datetime:
    """The nearest minute: clocks are set while a system runs."""
    return (time + timedelta(seconds=30)).replace(second=0, microsecond=0)


def _utc(time: datetime | None) -> datetime | None:
    if time is None:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_BYTES).hexdigest()


def site_rows(snapshot: Snapshot) -> pa.Table:
    """The rows of a snapshot's sites, which add up to what is used; not private memory outside heaps."""
    prints = Fingerprints(snapshot)
    unreferenced = unreferenced_of(snapshot)
    columns: dict[str, list[Any]] = {c.name: [] for c in SITES if c.name != "id"}
    for site, totals in snapshot.groups.values():
        lost = unreferenced.get(site.key, (0, 0) if unreferenced and totals.count else None)
        values = (
            prints.of(site, totals),
            site.key,
            str(site.kind),
            site.name.encode("utf-8", "backslashreplace").decode(),
            totals.bytes if snapshot.has_bytes else None,
            totals.count,
            lost[0] if lost else None,
            lost[1] if lost else None,
        )
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    schema = schema_of(tuple(c for c in SITES if c.name != "id"))
    table: pa.Table = arrow().table(columns, schema=schema)
    return table


def unreferenced_of(snapshot: Snapshot) -> dict[str, tuple[int, int]]:
    """By key (bytes, count) of what nothing leads to; empty where that was not looked for."""
    find = snapshot.holders
    flags = find.unreferenced if isinstance(find, Finder) else None
    if flags is None or snapshot.blocks is None:
        return {}
    table = snapshot.blocks()
    if len(table) != len(flags):
        return {}
    group, size = table.group[flags], np.maximum(table.size[flags], 0)
    counts = np.bincount(group, minlength=len(table.keys))
    sums = np.bincount(group, size, len(table.keys))
    return {key: (int(sums[number]), int(counts[number])) for number, key in enumerate(table.keys)}
