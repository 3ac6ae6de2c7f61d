"""Sites by source line: debug C runtimes keep the file and line that asked for each block."""

from __future__ import annotations

import re
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.table import SiteTable
from dumpleak.model.sites import Site, SiteKind
from dumpleak.process.session import HeapSource, Session
from windumps.blocks import Blocks
from windumps.heaps.debug_crt import read_source_name
from windumps.memory import AddressSpace

DIGEST_BYTES = 16
SHOWN_COMPONENTS = 2  # of a path; enough to tell files of one name apart


class SourceAttributor:
    """Names blocks by the source line their runtime kept."""

    def __init__(self, session: Session, table: SiteTable) -> None:
        self._table = table
        self._names: dict[int, str] = {}  # by address; all views share one address space
        self._sites: dict[tuple[int, int], int] = {}

    def assign(self, source: HeapSource, blocks: Blocks) -> NDArray[np.int64]:
        """See `Attributor`; blocks without a readable file name are left to the next one."""
        sites = np.full(len(blocks), -1, np.int64)
        rows = np.flatnonzero(blocks.source_file != 0)
        if not len(rows):
            return sites
        places = np.empty(len(rows), [("file", "<u8"), ("line", "<u4")])
        places["file"] = blocks.source_file[rows]
        places["line"] = blocks.source_line[rows]
        distinct, inverse = np.unique(places, return_inverse=True)
        memory = source.view.memory
        numbers = [self._site(memory, file, line) for file, line in distinct.tolist()]
        sites[rows] = np.array(numbers, np.int64)[inverse]
        return sites

    def _site(self, memory: AddressSpace, file: int, line: int) -> int:
        if (file, line) not in self._sites:
            if file not in self._names:
                self._names[file] = read_source_name(memory, file)
            path = self._names[file]
            self._sites[file, line] = (
                self._table.index_of(
                    Site(
                        SiteKind.SOURCE,
                        source_key(path, line),
                        f"{shortened(path)}({line})",
                    )
                )
                if path
                else -1
            )
        return self._sites[file, line]


def source_key(path: str, line: int) -> str:
    """The key of a source site; of the path a digest, since it may hold the name of a user."""
    digest = blake2b(path.lower().encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES)
    return f"{SiteKind.SOURCE}|{digest.hexdigest()}|{line}"


def shortened(path: str) -> str:
    r"""The last components of a Windows or Unix path: `gfx\texture.cpp`."""
    parts = re.split(r"([\\/])", path)  # components and separators take turns
    return "".join(parts[-(2 * SHOWN_COMPONENTS - 1) :])
