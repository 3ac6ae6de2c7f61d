"""Pages that hold one repeated word: what tools write where they could not read memory.

WinDbg's `.dump /f` writes 0xdeadfeed into pages it could not read, other tools write other words. Such
a page says nothing of memory and counts as absent. A page of zeros may be one, too, and may as well be
memory that nobody wrote to: it is not told apart here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U8, U64
from windumps.memory.address_space import AddressSpace, values_at

# Words that only such tools write; any other may as well be what a program filled its memory with.
KNOWN_FILLERS = (0xDEADFEED,)  # WinDbg
_WORDS = PAGE_SIZE // 4
_PROBED = np.arange(0, _WORDS, _WORDS // 8, dtype=np.int64) * 4


def are_fillers(
    data: U8, offset: I64, known: tuple[int, ...] | None = KNOWN_FILLERS
) -> NDArray[np.bool_]:
    """Which pages of a file hold one repeated word other than zero.

    Args:
        data: The file's bytes.
        offset: int64, file offset of each page; negative for pages that are not in the file.
        known: Words that count; None for any, where no page of what is read can be so.
    """
    filler = np.zeros(len(offset), np.bool_)
    rows = np.flatnonzero((offset >= 0) & (offset <= len(data) - PAGE_SIZE))
    first = values_at(data, offset[rows], "<u4")
    rows = rows[first != 0 if known is None else np.isin(first, np.array(known, np.uint32))]
    probe = values_at(data, offset[rows, None] + _PROBED, "<u4")
    rows = rows[(probe == probe[:, :1]).all(axis=1)]
    for row in rows.tolist():
        words = np.frombuffer(data[offset[row] : offset[row] + PAGE_SIZE], "<u4")
        filler[row] = bool((words == words[0]).all())
    return filler


def on_fillers(memory: AddressSpace, address: U64, size: int) -> NDArray[np.bool_]:
    """Which of many records of a table lie, with their first or last byte, on a page of one repeated word.

    Args:
        memory: Where they are.
        address: uint64, of the records.
        size: Bytes of each, a page at most.
    """
    first = address // np.uint64(PAGE_SIZE)
    last = (address + np.uint64(size - 1)) // np.uint64(PAGE_SIZE)
    pages = np.union1d(first, last) * np.uint64(PAGE_SIZE)
    bad = pages[are_fillers(memory.data, memory.locate(pages, PAGE_SIZE), None)] // np.uint64(
        PAGE_SIZE
    )
    return np.asarray(np.isin(first, bad) | np.isin(last, bad))
