"""The container of a PDB: MSF 7.00, a file of blocks that holds numbered streams.

Layout: LLVM's "The MSF File Format" and Microsoft's published microsoft-pdb repository. The file is
memory-mapped; a stream is read when it is asked for, without a copy where its blocks follow each
other.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from windumps.files import open_file
from windumps.symbols.errors import (
    CorruptSymbolsError,
    NotSymbolsError,
    UnsupportedSymbolsError,
)

MAGIC = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"
_SUPERBLOCK_BYTES = 56
_NIL_SIZE = 0xFFFFFFFF  # a stream that was deleted
_MIN_BLOCK, _MAX_BLOCK = 0x200, 0x10000

# What other files called .pdb begin with, and what to do about them.
_OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"Microsoft C/C++ program database 2.00", "a PDB 2.0 of Visual C++ 6 and older is not read"),
    (b"Microsoft MSFZ Container", "a compressed PDB (MSFZ) is not read; convert it to MSF first"),
    (b"BSJB", "a portable PDB of .NET holds no native symbols"),
    (b"MSCF", "a cabinet; name it .pd_ so that it is unpacked"),
)


class MsfFile:
    """An MSF file.

    Args:
        data: The file's bytes, uint8.
        name: The file's name, for messages.

    Raises:
        NotSymbolsError: no MSF file.
        UnsupportedSymbolsError: a symbol file of another kind.
        CorruptSymbolsError: its header or directory is damaged.
    """

    def __init__(self, data: NDArray[np.uint8], name: str) -> None:
        self.name = name
        head = data[:64].tobytes()
        if not head.startswith(MAGIC):
            for magic, advice in _OTHER_KINDS:
                if head.startswith(magic):
                    raise UnsupportedSymbolsError(f"{name}: {advice}")
            raise NotSymbolsError(f"{name}: not a PDB file")
        if len(head) < _SUPERBLOCK_BYTES:
            raise self.corrupt("the superblock", "the file ends inside it")
        block_size, _, block_count, directory_bytes, _, map_block = (
            int(word) for word in np.frombuffer(head, "<u4", 6, len(MAGIC))
        )
        if not _MIN_BLOCK <= block_size <= _MAX_BLOCK or block_size & (block_size - 1):
            raise self.corrupt("the superblock", f"a block size of {block_size} bytes")
        # What the file claims to hold and does not is noticed at the stream that lies there.
        present = min(len(data) // block_size, block_count)
        self._blocks = data[: present * block_size].reshape(present, block_size)
        self.block_size = block_size
        self._read_directory(directory_bytes, map_block)

    def _read_directory(self, directory_bytes: int, map_block: int) -> None:
        blocks = -(-directory_bytes // self.block_size)
        map_blocks = -(-blocks * 4 // self.block_size)
        present = len(self._blocks)
        if not 0 < blocks <= present or not 0 < map_block <= present - map_blocks:
            raise self.corrupt("the stream directory", "it lies outside the file")
        block_map = self._blocks[map_block : map_block + map_blocks].reshape(-1).view("<u4")
        directory = self._gather(block_map[:blocks], directory_bytes, "the stream directory")
        words = directory[: directory_bytes // 4 * 4].view("<u4")
        count = int(words[0]) if len(words) else 0
        if count > len(words) - 1:
            raise self.corrupt("the stream directory", f"{count} streams do not fit in it")
        sizes = words[1 : 1 + count].astype(np.int64)
        sizes[sizes == _NIL_SIZE] = 0
        ends = np.cumsum(-(-sizes // self.block_size)) + 1 + count
        self._words, self._sizes, self._ends = words, sizes, ends

    def corrupt(self, structure: str, reason: str) -> CorruptSymbolsError:
        """The error for a damaged part of this file."""
        return CorruptSymbolsError(self.name, structure, reason)

    def stream(self, index: int) -> NDArray[np.uint8]:
        """All bytes of a stream, uint8; empty for one that does not exist.

        Raises:
            CorruptSymbolsError: the directory says it is where the file is not.
        """
        if not 0 <= index < len(self._sizes):
            return np.empty(0, np.uint8)
        size, end = int(self._sizes[index]), int(self._ends[index])
        blocks = -(-size // self.block_size)
        structure = f"stream {index}"
        # No block belongs to two streams, so a stream larger than the file is damage (or a trap).
        if end > len(self._words) or blocks > len(self._blocks):
            raise self.corrupt(structure, f"its {size} bytes do not fit in the file")
        return self._gather(self._words[end - blocks : end], size, structure)

    def _gather(self, blocks: NDArray[np.uint32], size: int, structure: str) -> NDArray[np.uint8]:
        if not size:
            return np.empty(0, np.uint8)
        if int(blocks.max()) >= len(self._blocks):
            raise self.corrupt(structure, "it lies outside the file")
        first = int(blocks[0])
        run = np.arange(first, first + len(blocks))
        if np.array_equal(blocks, run):
            return self._blocks[first : first + len(blocks)].reshape(-1)[:size]
        return self._blocks[blocks].reshape(-1)[:size]


def map_file(path: Path) -> NDArray[np.uint8]:
    """A file's bytes, memory-mapped; raises `NotSymbolsError` for an empty one, `OSError` else."""
    with open_file(path) as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # what mmap says of an empty file
            raise NotSymbolsError(f"{path}: the file is empty") from error
    return np.frombuffer(mapped, np.uint8)
