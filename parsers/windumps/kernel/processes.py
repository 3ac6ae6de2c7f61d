"""Processes of a kernel: the list, and each one's address space."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from windumps.arrays import PAGE_SIZE
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.kernel.kdbg import Kdbg
from windumps.layouts.kernel import (
    DIRECTORY_TABLE_BASE,
    PROCESS_LAYOUTS,
    THREAD_LAYOUTS,
)
from windumps.layouts.process_figures import thread_starts
from windumps.layouts.rows import LayoutChoice, LayoutRow, candidates, choose_layout
from windumps.memory import AddressSpace, RunMemory
from windumps.memory.lists import list_nodes
from windumps.times import filetime

MAX_PROCESSES = 0x10000
MAX_THREADS = 0x10000
PROBED = 16  # processes looked at to judge a layout
MIN_SCORE = 0.85  # below that a layout is not the one
_MAX_ID = 1 << 26
_THREAD_OBJECT, _TYPE_BITS = 6, 0x7F  # DISPATCHER_HEADER.Type, the first byte
_CHECKS = 6  # that `_checks` makes when no field is absent


@dataclass(frozen=True)
class KernelProcess:
    """One process.

    Attributes:
        address: Of its `_EPROCESS`.
        process_id: Its id.
        parent_id: Of the process that created it (it may be gone, its id in use again).
        name: File name of its program, cut after 14 characters as the kernel keeps it.
        create_time: When it was created; None when unknown.
        directory_table_base: Root of its page tables.
        peb: Address of its PEB; 0 for processes without user memory.
        wow64_peb: Address of its 32-bit PEB; 0 when it is no WoW64 process.
        is_wow64: A 32-bit process on a 64-bit system.
        private_commit_bytes: What it has committed for itself; None when unknown.
        handle_count: Open handles; None until somebody reads them (`handles.py`).
        exit_time: When it ended; None while it runs, and until somebody reads it (`process_figures`), as the
            three below.
        thread_count: Threads that run.
        nonpaged_quota_bytes: Nonpaged pool charged to it.
        paged_quota_bytes: Paged pool charged to it.
        is_listed: It is in the kernel's list of processes.
    """

    address: int
    process_id: int
    parent_id: int
    name: str
    create_time: datetime | None
    directory_table_base: int
    peb: int
    wow64_peb: int = 0
    is_wow64: bool = False
    private_commit_bytes: int | None = None
    handle_count: int | None = None
    exit_time: datetime | None = None
    thread_count: int | None = None
    nonpaged_quota_bytes: int | None = None
    paged_quota_bytes: int | None = None
    is_listed: bool = True


@dataclass(frozen=True)
class KernelThread:
    """One thread of a process: its id, the addresses of its TEB, of what it began with (0: none), and of its
    `_ETHREAD`.
    """

    thread_id: int
    teb: int
    start_address: int = 0
    address: int = 0


ProcessLayout = LayoutChoice[tuple[int, ...]]


def choose_process_layout(
    memory: AddressSpace,
    architecture: str,
    build: int,
    head: int,
    kdbg: Kdbg | None,
    exact: LayoutRow | None = None,
) -> ProcessLayout | None:
    """The layout under which the list of processes makes sense; None when none does.

    Args:
        memory: Kernel memory.
        architecture: "x86", "x64" or "arm64".
        build: Windows build number; 0 when unknown.
        head: Address of PsActiveProcessHead.
        kdbg: What names two of the offsets; None when it was not found.
        exact: A layout out of the kernel's own symbols.
    """
    pointer = 4 if architecture == "x86" else 8
    nodes, _ = list_nodes(memory, head, pointer)

    def score(row: LayoutRow) -> tuple[float, tuple[int, ...]] | None:
        links = row.offset("_EPROCESS", "ActiveProcessLinks")
        found = [node - links for node in nodes[:PROBED] if node > links]
        checks = [check for address in found for check in _checks(memory, row, address)]
        if not checks:
            return None
        ids = {_field(memory, row, address, "UniqueProcessId") for address in found}
        checks += [len(ids) == len(found)]
        if kdbg is not None:
            checks += [told == own for told, own in _told_by(kdbg, row) if told]
        return sum(checks) / len(checks), tuple(found)

    choice = choose_layout(_possible_rows(kdbg), architecture, build, score, exact)
    return choice if choice is not None and choice.score >= MIN_SCORE else None


def _told_by(kdbg: Kdbg, row: LayoutRow) -> list[tuple[int, int]]:
    """Offsets of fields that KDBG names, as it says and as a row does."""
    return [
        (kdbg.value("OffsetEprocessPeb"), row.offset("_EPROCESS", "Peb")),
        (
            kdbg.value("OffsetEprocessParentCID"),
            row.offset("_EPROCESS", "InheritedFromUniqueProcessId"),
        ),
    ]


def _possible_rows(kdbg: Kdbg | None) -> list[LayoutRow]:
    """The table's rows, and each moved to where KDBG says that two of its fields are.

    An `_EPROCESS` begins with a `_KPROCESS`, whose size depends on the processor; what follows moves as a
    whole. Seen on ARM64 (22000): everything lies 0x48 lower than in the same build for x64.
    """
    rows: list[LayoutRow] = []
    for row in PROCESS_LAYOUTS:
        rows.append(row)
        distance = distance_told(kdbg, row)
        if distance:
            rows.append(_moved(row, distance))
    return rows


def distance_told(kdbg: Kdbg | None, row: LayoutRow) -> int:
    """Bytes by which, KDBG says, what follows the `_KPROCESS` is moved against a row; 0: not, or unclear."""
    moves = {told - own for told, own in _told_by(kdbg, row) if told} if kdbg else set()
    return moves.pop() if len(moves) == 1 else 0


def _moved(row: LayoutRow, distance: int) -> LayoutRow:
    fields = {
        name: (offset + distance, kind)
        for name, (offset, kind) in row.structures["_EPROCESS"].items()
    }
    if min(offset for offset, _ in fields.values()) < 0:
        return row
    return replace(
        row,
        component=f"{row.component}, moved by {distance:+#x} as KDBG says,",
        structures={"_EPROCESS": fields},
    )


def process_of_copy(
    raw: bytes, architecture: str, build: int, kdbg: Kdbg | None
) -> KernelProcess | None:
    """The process that a copy of its `_EPROCESS` is of, as small dumps have one; None when unclear."""
    data = np.frombuffer(raw, np.uint8)
    place = np.array([PAGE_SIZE], np.uint64)
    memory = RunMemory(data, place, np.array([len(raw)]), np.array([0]))
    for row in candidates(_possible_rows(kdbg), architecture, build):
        checks = _checks(memory, row, PAGE_SIZE)
        if len(checks) == _CHECKS and all(checks):
            return replace(from_record(memory, row, PAGE_SIZE), address=0)
    return None


def _checks(memory: AddressSpace, row: LayoutRow, address: int) -> list[bool]:
    """What holds for every process, exited ones included; nothing is said of absent fields."""
    process_id = _field(memory, row, address, "UniqueProcessId")
    parent = _field(memory, row, address, "InheritedFromUniqueProcessId")
    created = _field(memory, row, address, "CreateTime")
    peb = _field(memory, row, address, "Peb")
    name = _name(memory, row, address)
    checks = []
    if process_id is not None:
        checks.append(0 < process_id < _MAX_ID and process_id % 4 == 0)
    if parent is not None:
        checks.append(parent < _MAX_ID and parent % 4 == 0)
    if created is not None:
        checks.append(created == 0 or filetime(created) is not None)
    if peb is not None:
        checks.append(peb % PAGE_SIZE == 0 and peb < _highest_user(row))
    if name is not None:
        checks.append(bool(name) and name.isascii() and name.isprintable())
        checks.append((process_id == 4) == (name == "System"))
    return checks


def _highest_user(row: LayoutRow) -> int:
    return 1 << (32 if row.pointer_size == 4 else 47)


def processes(
    memory: AddressSpace, layout: ProcessLayout, head: int, log: DiagnosticLog
) -> list[KernelProcess]:
    """Walks PsActiveProcessHead; entries that cannot be processes are told and left out."""
    row = layout.row
    links = row.offset("_EPROCESS", "ActiveProcessLinks")
    nodes, trouble = list_nodes(memory, head, row.pointer_size)
    found = []
    for node in nodes[:MAX_PROCESSES]:
        process = _process(memory, row, node - links, trusted=layout.source != "probed")
        if process is None:
            log.add(
                "bad-process",
                Severity.WARNING,
                "_EPROCESS",
                max(node - links, 0),
                "an entry of the list of processes is not in the dump or cannot be one",
            )
        else:
            found.append(process)
    if trouble is not None or len(nodes) > MAX_PROCESSES:
        log.add(
            "process-list-broken",
            Severity.WARNING,
            "PsActiveProcessHead",
            head,
            f"the list of processes is not complete, {len(found)} were found: "
            f"{trouble or f'it has more than {MAX_PROCESSES} entries'}",
        )
    return found


def _field(memory: AddressSpace, row: LayoutRow, address: int, name: str) -> int | None:
    if not row.has("_EPROCESS", name):
        return None
    try:
        return row.read_field(memory, "_EPROCESS", name, address)
    except MemoryReadError:
        return None


def _name(memory: AddressSpace, row: LayoutRow, address: int) -> str | None:
    raw = memory.read_available(address + row.offset("_EPROCESS", "ImageFileName"), 15)
    return raw.split(b"\0", 1)[0].decode("latin-1") if len(raw) == 15 else None


def _process(
    memory: AddressSpace, row: LayoutRow, address: int, *, trusted: bool
) -> KernelProcess | None:
    """One process, None when it cannot be one; of a layout that is not trusted no numbers are taken."""
    process_id = _field(memory, row, address, "UniqueProcessId") if address > 0 else None
    if process_id is None or not process_id < _MAX_ID:
        return None
    commit = _field(memory, row, address, "CommitCharge")
    return replace(
        from_record(memory, row, address),
        process_id=process_id,
        private_commit_bytes=None if commit is None or not trusted else commit * PAGE_SIZE,
    )


def process_at(memory: AddressSpace, layout: ProcessLayout, address: int) -> KernelProcess | None:
    """The process whose `_EPROCESS` lies at an address; None unless everything there fits one."""
    checks = _checks(memory, layout.row, address)
    if len(checks) < _CHECKS or not all(checks):
        return None
    return _process(memory, layout.row, address, trusted=layout.source != "probed")


def from_record(memory: AddressSpace, row: LayoutRow, address: int) -> KernelProcess:
    """One `_EPROCESS` as it is; absent fields are 0."""
    kind = "x86" if row.architecture == "x86" else "x64"
    try:
        base = memory.read_uint(address + DIRECTORY_TABLE_BASE[kind], row.pointer_size)
    except MemoryReadError:
        base = 0
    wow = _field(memory, row, address, "WoW64Process") or 0
    return KernelProcess(
        address=address,
        process_id=_field(memory, row, address, "UniqueProcessId") or 0,
        parent_id=_field(memory, row, address, "InheritedFromUniqueProcessId") or 0,
        name=_name(memory, row, address) or "",
        create_time=filetime(_field(memory, row, address, "CreateTime") or 0),
        directory_table_base=base,
        peb=_field(memory, row, address, "Peb") or 0,
        wow64_peb=_wow64_peb(memory, wow),
        is_wow64=wow != 0,
    )


def _wow64_peb(memory: AddressSpace, value: int) -> int:
    """WoW64Process is the 32-bit PEB in Windows 7 to 10240, and points to it before and since."""
    if value < 1 << 32:
        return value
    try:
        return memory.read_uint(value, 8) & 0xFFFF_FFFF
    except MemoryReadError:
        return 0


def threads(
    memory: AddressSpace,
    layout: ProcessLayout,
    architecture: str,
    build: int,
    process: KernelProcess,
) -> list[KernelThread]:
    """The threads of a process; empty when their list is not in the dump or no layout fits."""
    row = layout.row
    head = process.address + row.offset("_EPROCESS", "ThreadListHead")
    nodes = list_nodes(memory, head, row.pointer_size)[0][:MAX_THREADS]

    def score(candidate: LayoutRow) -> tuple[float, list[KernelThread]] | None:
        # Revisions of one build differ by where all of it begins: an object of a thread says so itself.
        found, fitting, typed = [], 0, 0
        place = candidate.offset("_ETHREAD", "ThreadListEntry")
        starts = thread_starts(architecture, build, place)
        for node in nodes:
            address = node - place
            cid = address + candidate.offset("_ETHREAD", "Cid")
            try:
                owner = memory.read_uint(cid, candidate.pointer_size)
                number = memory.read_uint(cid + candidate.pointer_size, candidate.pointer_size)
                teb = candidate.read_field(memory, "_ETHREAD", "Teb", address)
            except MemoryReadError:
                continue
            if owner == process.process_id:
                fitting += 1
                head = memory.read_available(address, 1)
                typed += bool(head) and head[0] & _TYPE_BITS == _THREAD_OBJECT
                start = _start(memory, address, starts, candidate.pointer_size)
                found.append(KernelThread(number, teb, start, address))
        return ((fitting + typed) / (2 * len(nodes)), found) if nodes else None

    choice = choose_layout(THREAD_LAYOUTS, architecture, build, score)
    return choice.fit if choice is not None else []


def _start(memory: AddressSpace, thread: int, places: tuple[int, int] | None, pointer: int) -> int:
    """What a thread began with: the program's function, else the system's; 0 where that is not known."""
    if places is None:
        return 0
    try:
        first, of_program = (memory.read_uint(thread + place, pointer) for place in places)
    except MemoryReadError:
        return 0
    return of_program or first
