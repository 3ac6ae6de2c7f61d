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
from windumps.file_structure import Layout
from windumps.memory import AddressSpace

FENCE = 0xFDFDFDFD  # "no man's land" before and after the data
FENCE_BYTES = 4
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


class _Evidence(NamedTuple):
    """What speaks for a row being a block of a debug runtime, as columns.

    Attributes:
        row: Index among the heap's blocks.
        header: What would be the header.
        data_size: Bytes of data it gives; where it is not what the heap was asked for, what is left of that.
        front: The fence stands before the data.
        fits: The header's size is the one the heap was asked for.
        use: The block type is one there is.
        linked: A neighbour in the chain points back, or the block is marked as made while tracking was off.
        back: The fence stands behind the data.
        whole: Header and fence are in the dump.
    """

    row: NDArray[np.int64]
    header: NDArray[Any]
    data_size: NDArray[np.int64]
    front: NDArray[np.bool_]
    fits: NDArray[np.bool_]
    use: NDArray[np.bool_]
    linked: NDArray[np.bool_]
    back: NDArray[np.bool_]
    whole: NDArray[np.bool_]

    @property
    def certain(self) -> NDArray[np.int8]:
        """How much holds, where it is all or all but one: a single damage hides no block; else 0."""
        count = self.front.astype(np.int8) + self.fits + self.linked + self.back
        verdict: NDArray[np.int8] = np.where(self.use & (count >= 3), count, 0).astype(np.int8)
        return verdict

    @property
    def doubtful(self) -> NDArray[np.bool_]:
        """Too much holds for a block of another allocator."""
        count = self.front.astype(np.int8) + self.fits + self.use + self.linked + self.back
        fenced = self.linked & (self.front | self.back)
        verdict: NDArray[np.bool_] = (count >= 3) | fenced
        return verdict


class _Found(NamedTuple):
    """Blocks of a debug runtime: their rows, and what their headers say."""

    row: NDArray[np.int64]
    block_use: NDArray[np.uint32]
    data_size: NDArray[np.int64]
    file_name: NDArray[np.uint64]
    line: NDArray[np.uint32]


class DebugCrt:
    """Replaces the heap blocks of debug C runtimes by the blocks the program got.

    Five things speak for such a block: the fences on both sides, a size that is the one the heap was asked
    for, a known block type, and a neighbour in the runtime's chain that points back (or the mark of a block
    made while tracking was off). With one of them missing it is one all the same; an unknown type says
    nothing of its state. With more missing, what the program got is not known: it is left out. All other
    blocks stay as they are.

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
        self._seen = False  # there is a debug runtime in this heap

    def apply(self, blocks: Blocks) -> Blocks:
        """One piece of a heap walk, with the same rows in the same order, but for those left out.

        What is left out is used, but nobody knows which address and size the program has: its bytes are not
        walked.

        In the rows of debug runtimes `address` and `size` are the program's, `source_file` and
        `source_line` are those of the header. A block that the runtime keeps after it was freed becomes
        free. An aligned block begins where the program's pointer leads; its size is `SIZE_UNKNOWN`, for the
        runtime keeps the sum of size and alignment only. `block_bytes` stay those of the heap.
        """
        rows = self._candidates(blocks)
        if not len(rows):
            return blocks
        pieces = [self._evidence(blocks, rows, form) for form in self._forms]
        scores = np.stack([piece.certain for piece in pieces])
        # Of two forms that fit the better one is meant; of equal ones none, but where they read the same.
        best, meant = scores.max(axis=0), scores.argmax(axis=0)
        doubtful = np.zeros(len(rows), np.bool_)
        for piece, score in zip(pieces, scores, strict=True):
            same = piece.header["block_use"] == np.choose(
                meant, [p.header["block_use"] for p in pieces]
            )
            doubtful |= (best > 0) & (score == best) & ~same
        certain = (best > 0) & ~doubtful
        for piece in pieces:
            doubtful |= ~certain & (piece.doubtful | (~piece.whole if self._seen else False))
        self._seen |= bool(certain.any())
        if not certain.any() and not doubtful.any():
            return blocks
        chosen = [certain & (meant == number) for number in range(len(pieces))]
        found = [_read(piece, sure) for piece, sure in zip(pieces, chosen, strict=True)]
        lost = np.zeros(len(blocks), np.bool_)
        lost[rows[doubtful]] = True
        address, size = blocks.address.copy(), blocks.size.copy()
        state, trace = blocks.state.copy(), blocks.trace.copy()
        source_file, source_line = blocks.source_file.copy(), blocks.source_line.copy()
        for blocks_of_form in found:
            row, kept = blocks_of_form.row, blocks_of_form.block_use == FREE_BLOCK
            data = blocks.address[row] + np.uint64(self._header_bytes)
            inner, unknown = self._behind_alignment(data, blocks_of_form.data_size)
            lost[row[unknown]] = True
            named = ~kept & (blocks_of_form.file_name != 0)
            address[row] = inner
            unclear = kept | (inner != data)
            size[row] = np.where(unclear, SIZE_UNKNOWN, blocks_of_form.data_size)
            state[row[kept]] = State.FREE
            trace[row[kept]] = 0
            source_file[row] = np.where(named, blocks_of_form.file_name, 0)
            source_line[row] = np.where(named, blocks_of_form.line, 0)
        replaced = replace(
            blocks,
            address=address,
            size=size,
            state=state,
            trace=trace,
            source_file=source_file,
            source_line=source_line,
        )
        self._report(blocks, pieces, chosen, np.flatnonzero(lost))
        return replaced.select(~lost)

    def _candidates(self, blocks: Blocks) -> NDArray[np.int64]:
        """Rows of used blocks with a fence where a header ends; in most processes none.

        Once there is a debug runtime those, too, that end with a fence, or whose header is not in the dump.
        """
        roomy = blocks.size >= self._header_bytes + FENCE_BYTES
        rows = np.flatnonzero(roomy & (blocks.state == State.USED))
        start = blocks.address[rows]
        before_data = np.uint64(self._header_bytes - FENCE_BYTES)
        word, present = self._memory.gather(start + before_data, "<u4")
        fenced: NDArray[np.bool_] = word == FENCE
        self._seen |= bool(fenced.any())
        if self._seen:
            last = (blocks.size[rows] - FENCE_BYTES).astype(np.uint64)
            _, begun = self._memory.gather(start, "u1")
            word, _ = self._memory.gather(start + last, "<u4")
            fenced |= (word == FENCE) | ~present | ~begun
        return rows[fenced]

    def _evidence(self, blocks: Blocks, rows: NDArray[np.int64], form: _Form) -> _Evidence:
        """What speaks for each row under one form of the header."""
        start, room = blocks.address[rows], blocks.size[rows]
        header, present = self._memory.gather(start, form.layout.dtype)
        data_size, fits = self._asked(header, room, form)
        left = room - self._header_bytes - FENCE_BYTES
        data_size = np.where(fits, data_size, left)
        behind = start + (data_size + self._header_bytes).astype(np.uint64)
        fence, there = self._memory.gather(behind, "<u4")
        linked = self._linked(start, header) | _untracked(header)
        return _Evidence(
            rows,
            header,
            data_size,
            present & (header["gap"] == FENCE),
            present & fits,
            # Zeros are no proof of a block that was freed: its size must be right as well.
            present
            & _known_use(header["block_use"])
            & ((header["block_use"] != FREE_BLOCK) | fits),
            present & linked,
            there & (fence == FENCE),
            present & there,
        )

    def _report(
        self,
        blocks: Blocks,
        pieces: list[_Evidence],
        chosen: list[NDArray[np.bool_]],
        left_out: NDArray[np.int64],
    ) -> None:
        """Says which fences are overwritten, and which blocks are left out."""
        for piece, sure in zip(pieces, chosen, strict=True):
            broken = sure & piece.whole & ~(piece.front & piece.back)
            if broken.any():
                index = int(np.flatnonzero(broken)[0])
                count = int(broken.sum())
                data = int(blocks.address[piece.row[index]]) + self._header_bytes
                behind = data + int(piece.data_size[index])
                self._log.add(
                    "debug-crt-fence",
                    Severity.WARNING,
                    "_CrtMemBlockHeader",
                    behind if piece.front[index] else data - FENCE_BYTES,
                    f"a fence of {count} block{'s' * (count != 1)} of a debug C runtime is overwritten, "
                    "the first one here",
                )
        if len(left_out):
            self._log.add(
                "debug-crt-header-damaged",
                Severity.WARNING,
                "_CrtMemBlockHeader",
                int(blocks.address[left_out[0]]),
                f"the headers of {len(left_out)} used blocks of a debug C runtime are damaged or not in the "
                "dump, the first one here; where their data begins is not known, they are left out",
                int(blocks.block_bytes[left_out].sum()),
            )

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
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Where the program's pointers lead, and of which rows that is not known.

        They lead to the data itself, or into `_aligned_malloc` blocks. Such a block has an
        `_AlignMemBlockHdr` before the first aligned address that leaves room for it: a pointer to the data's
        own beginning and a gap of ED, which nothing else is filled with. The runtime keeps no alignment, so
        each one that fits into the block is looked at; up to that of the heap, two pointers, the header is at
        the very beginning. A gap whose pointer is another one is a header that is overwritten.
        """
        width = self._word.itemsize
        gap = _filled(ALIGN_FILL, width)
        pointer, damaged = data.copy(), np.zeros(len(data), np.bool_)
        pending = np.flatnonzero(data_size >= 3 * width - 1)
        at, alignment = data[pending], 2 * width
        while len(pending):
            found, present = self._memory.gather(at, self._align_header)
            marked = present & (found["gap"] == gap)
            hit = marked & (found["head"] == data[pending])
            pointer[pending[hit]] = at[hit] + np.uint64(2 * width)
            damaged[pending[marked]] = True
            pending = pending[~hit]
            alignment *= 2
            pending = pending[data_size[pending] >= 2 * width + alignment - 1]
            aligned = data[pending] + np.uint64(2 * width + alignment - 1)
            at = (aligned & ~np.uint64(alignment - 1)) - np.uint64(2 * width)
        return pointer, damaged & (pointer == data)


def _read(evidence: _Evidence, sure: NDArray[np.bool_]) -> _Found:
    """What the headers of rows say that are blocks of a debug runtime."""
    header = evidence.header[sure]
    return _Found(
        evidence.row[sure],
        header["block_use"],
        evidence.data_size[sure],
        header["file_name"].astype(np.uint64),
        header["line"],
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
