"""Blocks of Microsoft's debug C runtimes: what the program got stands inside the heap's block.

A debug runtime (MSVC 6 to the UCRT) asks the heap for

    _CrtMemBlockHeader | data | four bytes FD

and gives the program the data. The header says which source line asked, and links all blocks of one
runtime. On x86 the runtimes before the UCRT have `nDataSize` before `nBlockUse`, since then it is the
other way round; on x64 it always was.

Facts: Microsoft's crtdbg.h and the UCRT's debug_heap.cpp, both part of the public SDK; the CRT debug heap
pages of Microsoft Learn; dumps of msvcr100d, msvcr110d, msvcr120d and ucrtbased.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.blocks import SIZE_UNKNOWN, Blocks, State
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.layout import Layout
from windumps.memory import AddressSpace

FENCE = 0xFDFDFDFD  # "no man's land" before and after the data
FENCE_BYTES = 4
NEW_FILL = 0xCD
ALIGN_FILL = 0xED
FREE_BLOCK, NORMAL_BLOCK, CRT_BLOCK, IGNORE_BLOCK, CLIENT_BLOCK = range(5)
IGNORE_LINE = 0xFEDCBABC  # of blocks made while tracking was off; they have no links
SOURCE_NAME_BYTES = 1024


@dataclass(frozen=True)
class _Form:
    """One form of the header.

    Attributes:
        layout: `_CrtMemBlockHeader`; its last field is the fence.
        paragraph: What this runtime may round sizes up to when it asks the heap; 1 for none.
    """

    layout: Layout
    paragraph: int = 1


def _form(pointer: str, middle: list[tuple[str, str]], paragraph: int = 1) -> _Form:
    links = [("block_header_next", pointer), ("block_header_prev", pointer)]
    source = [("file_name", pointer), ("line", "u4")]
    fields = [*links, *source, *middle, ("request", "u4"), ("gap", "u4")]
    return _Form(Layout("_CrtMemBlockHeader", 32 if pointer == "u4" else 48, fields), paragraph)


# By pointer size. No block fits both x86 forms with different numbers: data_size would have to be a
# block type in one of them, and the sizes of two such readings never give the same heap block.
_FORMS = {
    4: (
        _form("u4", [("data_size", "u4"), ("block_use", "u4")], paragraph=16),
        _form("u4", [("block_use", "u4"), ("data_size", "u4")]),
    ),
    8: (_form("u8", [("block_use", "u4"), ("data_size", "u8")]),),
}


class _Found(NamedTuple):
    """Blocks of a debug runtime: their rows, and what their headers say."""

    row: NDArray[np.int64]
    block_use: NDArray[np.uint32]
    data_size: NDArray[np.int64]
    file_name: NDArray[np.uint64]
    line: NDArray[np.uint32]


class DebugCrt:
    """Replaces the heap blocks of debug C runtimes by the blocks the program got.

    A block is taken for one only when the fences stand on both sides, the header's size is the one the
    heap was asked for, the block type is known, and a neighbour in the runtime's chain points back, or the
    header is that of a block made while tracking was off. All other blocks stay as they are.

    Args:
        memory: The process's memory.
        pointer_size: 4 or 8 bytes.
        log: Where diagnostics go.
    """

    def __init__(self, memory: AddressSpace, pointer_size: int, log: DiagnosticLog) -> None:
        self._memory = memory
        self._log = log
        self._forms = _FORMS[pointer_size]
        self._header_bytes = self._forms[0].layout.size
        self._word = np.dtype(f"<u{pointer_size}")
        # _AlignMemBlockHdr: where the block begins, and a gap as wide as a pointer.
        self._align_header = np.dtype([("head", self._word), ("gap", self._word)])

    def apply(self, blocks: Blocks) -> Blocks:
        """One piece of a heap walk, with the same rows in the same order.

        In the rows of debug runtimes `address` and `size` are the program's, `source_file` and
        `source_line` are those of the header. A block that the runtime keeps after it was freed becomes
        free. An aligned block begins where the program's pointer leads; its size is `SIZE_UNKNOWN`, for the
        runtime keeps the sum of size and alignment only. `block_bytes` stay those of the heap.
        """
        rows = self._fenced(blocks)
        if not len(rows):
            return blocks
        found = [piece for form in self._forms for piece in self._read(blocks, rows, form)]
        if not found:
            return blocks
        address, size = blocks.address.copy(), blocks.size.copy()
        state, trace = blocks.state.copy(), blocks.trace.copy()
        source_file, source_line = blocks.source_file.copy(), blocks.source_line.copy()
        for piece in found:
            row, kept = piece.row, piece.block_use == FREE_BLOCK
            data = blocks.address[row] + np.uint64(self._header_bytes)
            inner = self._behind_alignment(data, piece.data_size)
            named = ~kept & (piece.file_name != 0)
            address[row] = inner
            size[row] = np.where(kept | (inner != data), SIZE_UNKNOWN, piece.data_size)
            state[row[kept]] = State.FREE
            trace[row[kept]] = 0
            source_file[row] = np.where(named, piece.file_name, 0)
            source_line[row] = np.where(named, piece.line, 0)
        return replace(
            blocks,
            address=address,
            size=size,
            state=state,
            trace=trace,
            source_file=source_file,
            source_line=source_line,
        )

    def _fenced(self, blocks: Blocks) -> NDArray[np.int64]:
        """Rows of used blocks with a fence where a header ends; in most processes none."""
        roomy = blocks.size >= self._header_bytes + FENCE_BYTES
        rows = np.flatnonzero(roomy & (blocks.state == State.USED))
        before_data = np.uint64(self._header_bytes - FENCE_BYTES)
        word, _ = self._memory.gather(blocks.address[rows] + before_data, "<u4")
        fenced: NDArray[np.bool_] = word == FENCE
        return rows[fenced]

    def _read(self, blocks: Blocks, rows: NDArray[np.int64], form: _Form) -> list[_Found]:
        """The rows that are blocks with this form of the header; an empty list when there are none."""
        header, present = self._memory.gather(blocks.address[rows], form.layout.dtype)
        data_size, fits = self._asked(header, blocks.size[rows], form)
        keep = present & fits & _known_use(header["block_use"])
        rows, header, data_size = rows[keep], header[keep], data_size[keep]
        linked = self._linked(blocks.address[rows], header)
        keep = linked | _untracked(header)
        rows, header, data_size, linked = rows[keep], header[keep], data_size[keep], linked[keep]
        behind = blocks.address[rows] + (data_size + self._header_bytes).astype(np.uint64)
        fence, present = self._memory.gather(behind, "<u4")
        closed = fence == FENCE
        self._report_overruns(behind[linked & present & ~closed])
        if not closed.any():
            return []
        return [
            _Found(
                rows[closed],
                header["block_use"][closed],
                data_size[closed],
                header["file_name"][closed].astype(np.uint64),
                header["line"][closed],
            )
        ]

    def _asked(
        self, header: NDArray[Any], room: NDArray[np.int64], form: _Form
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The data size each header gives, and whether the heap was asked for just that."""
        overhead = self._header_bytes + FENCE_BYTES
        inside = header["data_size"] <= (room - overhead).astype(np.uint64)
        data_size = np.where(inside, header["data_size"], 0).astype(np.int64)
        unused = room - overhead - data_size
        rounded = (unused < form.paragraph) & (room % form.paragraph == 0)
        return data_size, inside & ((unused == 0) | rounded)

    def _linked(self, address: NDArray[np.uint64], header: NDArray[Any]) -> NDArray[np.bool_]:
        """Where at least one neighbour in the chain points back; the other one may be damaged or absent."""
        linked = np.zeros(len(address), np.bool_)
        for link, back in (("block_header_next", self._word.itemsize), ("block_header_prev", 0)):
            neighbour = header[link].astype(np.uint64)
            pointer, present = self._memory.gather(neighbour + np.uint64(back), self._word.str)
            elsewhere = (neighbour != 0) & (neighbour != address)
            linked |= elsewhere & present & (pointer == address)
        return linked

    def _behind_alignment(
        self, data: NDArray[np.uint64], data_size: NDArray[np.int64]
    ) -> NDArray[np.uint64]:
        """Where the program's pointers lead: into `_aligned_malloc` blocks, or to the data itself.

        Such a block has an `_AlignMemBlockHdr` before the first aligned address that leaves room for it: a
        pointer to the data's own beginning and a gap of ED. What lies before it was never written. The
        runtime keeps no alignment, so each one that fits into the block is looked at; up to that of the
        heap, two pointers, the header is at the very beginning.
        """
        width = self._word.itemsize
        pointer = data.copy()
        pending = np.flatnonzero(data_size >= 3 * width - 1)
        first, present = self._memory.gather(data[pending], self._align_header)
        adjacent = present & self._is_align_header(first, data[pending])
        pointer[pending[adjacent]] += np.uint64(2 * width)
        pending = pending[present & (first["head"] == _filled(NEW_FILL, width))]
        alignment = 4 * width
        while len(pending):
            pending = pending[data_size[pending] >= 2 * width + alignment - 1]
            start = data[pending]
            aligned = (start + np.uint64(2 * width + alignment - 1)) & ~np.uint64(alignment - 1)
            found, present = self._memory.gather(aligned - np.uint64(2 * width), self._align_header)
            hit = present & self._is_align_header(found, start)
            pointer[pending[hit]] = aligned[hit]
            pending = pending[~hit]
            alignment *= 2
        return pointer

    def _is_align_header(self, found: NDArray[Any], data: NDArray[np.uint64]) -> NDArray[np.bool_]:
        gap = _filled(ALIGN_FILL, self._word.itemsize)
        verdict: NDArray[np.bool_] = (found["head"] == data) & (found["gap"] == gap)
        return verdict

    def _report_overruns(self, fences: NDArray[np.uint64]) -> None:
        if not len(fences):
            return
        self._log.add(
            "debug-crt-fence",
            Severity.WARNING,
            "_CrtMemBlockHeader",
            int(fences[0]),
            f"the fence behind {len(fences)} block{'s' * (len(fences) != 1)} of a debug C runtime is "
            "overwritten, the first one here; shown as the heap has them, without source line",
        )


def _known_use(use: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Block types there are; only two of them carry a subtype of the program's in the upper half."""
    base = use & 0xFFFF
    plain = (use == FREE_BLOCK) | (use == NORMAL_BLOCK) | (use == IGNORE_BLOCK)
    known: NDArray[np.bool_] = plain | (base == CRT_BLOCK) | (base == CLIENT_BLOCK)
    return known


def _untracked(header: NDArray[Any]) -> NDArray[np.bool_]:
    """Blocks made while tracking was off: no links, no file, no request number, a line that marks them."""
    marked = (header["block_use"] == IGNORE_BLOCK) & (header["line"] == IGNORE_LINE)
    for field in ("block_header_next", "block_header_prev", "file_name", "request"):
        marked &= header[field] == 0
    untracked: NDArray[np.bool_] = marked
    return untracked


def _filled(byte: int, width: int) -> int:
    return int.from_bytes(bytes([byte]) * width, "little")


def read_source_name(memory: AddressSpace, address: int) -> str:
    """The name of a source file as the compiler put it into the program (`__FILE__`).

    Args:
        memory: The process's memory.
        address: As in `Blocks.source_file`.

    Returns:
        The name; "" when it is absent, longer than `SOURCE_NAME_BYTES`, or no text.
    """
    raw, end, _ = memory.read_available(address, SOURCE_NAME_BYTES).partition(b"\0")
    if not end:
        return ""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = raw.decode("cp1252", "replace")  # the compiler's usual code page
    return name if name.isprintable() else ""
