"""Dump formats: one file each, one row each in `DUMP_FORMATS`."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from windumps.arrays import U8
from windumps.dump import Dump
from windumps.dumps import foreign, kinds
from windumps.dumps.image import structures as memory_image
from windumps.dumps.kernel import structures as kernel_dump
from windumps.dumps.minidump import structures as minidump
from windumps.errors import (
    ContainerError,
    CorruptDumpError,
    NotADumpError,
    TruncatedDumpError,
    UnsupportedDumpError,
)
from windumps.later import later
from windumps.memory.mapped import give_back
from windumps.unpack.containers import unpacked


class DumpFormat(NamedTuple):
    """One format.

    Attributes:
        name: Shown to people and in JSON.
        detect: Cheap test on the first bytes of the file.
        open: Opens the mapped file.
    """

    name: str
    detect: Callable[[bytes], bool]
    open: Callable[[Path, U8], Dump]


# Order does not matter: the signatures differ.
DUMP_FORMATS: tuple[DumpFormat, ...] = (
    DumpFormat(
        kinds.MINIDUMP, minidump.detect, later("windumps.dumps.minidump.reader", "open_minidump")
    ),
    DumpFormat(
        kinds.KERNEL, kernel_dump.detect, later("windumps.dumps.kernel.reader", "open_kernel_dump")
    ),
    DumpFormat(
        kinds.ELF, memory_image.detect_elf, later("windumps.dumps.image.reader", "open_elf")
    ),
)
open_raw: Callable[[Path, U8], Dump | None] = later("windumps.dumps.image.reader", "open_raw")

HEAD_BYTES = 0x1000


def open_dump(path: Path | str) -> Dump:
    """Opens a dump file of any known format, compressed or not.

    The file is memory-mapped; a compressed one is unpacked to a temporary file first.

    Raises:
        NotADumpError: no known format.
        UnsupportedDumpError: a known kind of file that is no dump this package reads; says what it is
            and how to get a dump from it.
        DumpError: as the format's reader and `windumps.unpack.containers` say; its text
            names the file.
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        return _open(path)
    except ContainerError as error:
        if what := foreign.by_name(path):  # AFF4 is a zip archive
            raise UnsupportedDumpError(f"{path}: {what}") from error
        raise


def _open(path: Path) -> Dump:
    with unpacked(path) as file:
        head = file.read(HEAD_BYTES)
        if not head:
            raise NotADumpError(f"{path}: the file is empty; copy it again")
        row = next((row for row in DUMP_FORMATS if row.detect(head)), None)
        if row is None and (what := foreign.by_content(path, head)):
            raise UnsupportedDumpError(f"{path}: {what}")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        data = np.frombuffer(mapped, np.uint8)
        try:
            # A raw image has no signature: what nothing else claims is searched for a kernel.
            dump = row.open(path, data) if row is not None else open_raw(path, data)
        except (CorruptDumpError, TruncatedDumpError) as error:
            error.args = (f"{path}: {error}",)  # readers know offsets, not names
            raise
    if dump is None:
        if what := foreign.by_name(path):
            raise UnsupportedDumpError(f"{path}: {what}")
        raise NotADumpError(
            f"{path}: not a Windows dump (it begins with {head[:4].hex(' ')}), nor physical memory with a "
            "Windows kernel in it; take one with: procdump -ma PID app.dmp"
        )
    dump.release = partial(give_back, data)
    return dump


__all__ = ["DUMP_FORMATS", "DumpFormat", "TruncatedDumpError", "open_dump"]
