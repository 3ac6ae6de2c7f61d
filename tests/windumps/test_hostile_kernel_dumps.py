"""Cut and altered kernel dumps of every kind: typed errors or diagnostics, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from builders.kernel_builder import (
    PAGE,
    System,
    bitmap,
    elf_core,
    full,
    header,
    ranges,
    raw_image,
    summary,
    triage,
    xen_core,
)

from windumps.dump import Dump
from windumps.dumps.image.reader import open_elf, open_raw
from windumps.dumps.kernel.dump import KernelDump
from windumps.dumps.kernel.process import find_process, open_process
from windumps.dumps.kernel.reader import open_kernel_dump
from windumps.errors import DumpError, MemoryReadError
from windumps.memory import PageTableMemory

KINDS: dict[str, tuple[str, Callable[[System], bytes]]] = {
    "full-x64": ("x64", full),
    "full-pae": ("pae", full),
    "full-x86": ("x86", full),
    "full-arm64": ("arm64", full),
    "full-la57": ("la57", full),
    "bitmap-x64": ("x64", bitmap),
    "bitmap-pae": ("pae", bitmap),
    "summary-x64": ("x64", summary),
    "summary-x86": ("x86", summary),
    "ranges-8": ("x64", lambda system: ranges(system, 8)),
    "ranges-10": ("x64", lambda system: ranges(system, 10)),
    "triage-x64": ("x64", triage),
    "triage-x86": ("pae", triage),
    "header": ("x64", lambda system: bytes(header(system, 3))),
    "elf": ("x64", elf_core),
    "xen": ("x64", xen_core),
    "raw": ("x64", raw_image),
}
ELF = ("elf", "xen")
FLIPS = 80


def _open(name: str, raw: bytes | bytearray) -> Dump | None:
    data = np.frombuffer(bytes(raw), np.uint8)
    if name in ELF:
        return open_elf(Path("made"), data)
    if name == "raw":
        return open_raw(Path("made"), data)
    return open_kernel_dump(Path("made"), data)


def _use(dump: KernelDump) -> None:
    """Asks a dump for everything, without a walk over all memory."""
    assert len(dump.modules) <= 16
    assert len(dump.counters) > 5
    assert isinstance(dump.why_no_pool, str)
    assert isinstance(dump.kernel.build_lab, str)
    for process in dump.processes[:4]:
        try:
            opened = open_process(dump, find_process(dump, str(process.process_id)))
        except DumpError:
            continue  # two of one id
        opened.memory.read_available(0x30000, 64)
    for name in ("PoolTrackTable", "PsActiveProcessHead", "MiState"):
        dump.kernel.value(name)
    assert all(item.message for item in dump.diagnostics)


def _try(name: str, raw: bytes | bytearray) -> KernelDump | None:
    """Opens and uses a dump; anything but a typed error is a failure."""
    try:
        dump = _open(name, raw)
        if dump is not None:
            assert isinstance(dump, KernelDump)
            _use(dump)
    except (DumpError, MemoryReadError):
        return None
    return dump


def _prefixes(size: int, first: int) -> Iterator[int]:
    """Every length up to a little behind the header, then odd ones."""
    yield from range(0, min(first + 0x100, size), 1 if first <= PAGE else 2)
    yield from range(first + 0x100, size, max((size - first) // 80, 1) | 1)


@pytest.fixture(scope="module")
def dumps() -> dict[str, bytes]:
    return {name: make(System(kind)) for name, (kind, make) in KINDS.items()}


@pytest.mark.parametrize("name", KINDS)
def test_every_prefix_gives_a_dump_or_a_typed_error(dumps: dict[str, bytes], name: str) -> None:
    raw = dumps[name]
    first = {"elf": 0x200, "xen": 0x200, "raw": 0}.get(
        name, 0x2000 if raw[:8] == b"PAGEDU64" else 0x1000
    )
    opened = 0
    for length in _prefixes(len(raw), first):
        if name in (*ELF, "raw") and length == 0:
            continue  # an empty file is refused before
        if name in ELF and length < 0x34:
            continue  # not detected without its first bytes
        opened += _try(name, raw[:length]) is not None
    assert _try(name, raw) is not None
    if name not in ("raw", "header", "xen"):  # the headers of Xen's stand at the end
        assert opened  # what is only cut in its memory still opens


@pytest.mark.parametrize("name", KINDS)
def test_altered_bytes_give_a_dump_or_a_typed_error(dumps: dict[str, bytes], name: str) -> None:
    raw = dumps[name]
    random = np.random.default_rng(len(raw))
    used = np.flatnonzero(np.frombuffer(raw, np.uint8))
    head = used[used < 0x2400] if name != "raw" else used[:2000]
    opened = 0
    # A search of the whole memory takes longer than a header that says where everything is.
    rounds = FLIPS // 2 if name in (*ELF, "raw") else FLIPS
    for number in range(rounds):
        altered = bytearray(raw)
        places = head if number % 2 else used  # as much in the header as in all the rest
        for place in random.choice(places, 1 + number % 3).tolist():
            altered[place] ^= 1 << int(random.integers(8))
        if name in ELF and altered[:6] != raw[:6]:
            continue
        opened += _try(name, altered) is not None
    assert opened > rounds // 4


@pytest.mark.parametrize("name", ["full-x64", "full-pae", "bitmap-x64", "triage-x64"])
def test_numbers_at_their_limits_give_a_dump_or_a_typed_error(
    dumps: dict[str, bytes], name: str
) -> None:
    raw = dumps[name]
    end = 0x2400 if raw[:8] == b"PAGEDU64" else 0x1400
    for value in (b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f"):
        for place in range(8, end, 4):
            if raw[place : place + 4] in (b"PAGE", bytes(4)) and place % 256:
                continue  # filler and zeros: a sample is enough
            _try(name, raw[:place] + value + raw[place + 4 :])


@pytest.mark.parametrize("kind", ["x64", "arm64", "pae", "x86"])
def test_altered_page_tables_end(kind: str) -> None:
    system = System(kind)
    roots = [system.root // PAGE]
    random = np.random.default_rng(7)
    frames = sorted(system.pages)
    for _ in range(12):
        changed = {number: bytearray(page) for number, page in system.pages.items()}
        for _ in range(8):
            page = changed[int(random.choice(frames))]
            index = int(random.integers(PAGE // system.n.entry)) * system.n.entry
            target = int(random.choice([*frames, *roots])) * PAGE
            flags = system.n.table_flags if random.integers(2) else system.n.large_flags
            page[index : index + system.n.entry] = (target | flags).to_bytes(
                system.n.entry, "little"
            )
        altered = System(kind)
        altered.pages = changed
        dump = _try(f"full-{kind}", full(altered))
        if dump is not None:
            assert isinstance(dump.memory, PageTableMemory)
            pages = 0
            for piece in dump.memory.pieces(0, 1 << 64):
                pages += len(piece.address)
                if pages > 1 << 20:
                    break
