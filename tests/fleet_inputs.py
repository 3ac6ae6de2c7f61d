"""Many different inputs of few dumps: the same dump, compressed again, is another file."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from truth import TESTDATA

TINY = sorted(TESTDATA.glob("*/tiny/dump.dmp.gz"))
LOG = r"""//
// Loaded modules:
//     Base Size Module
//        7FF600000000    20000 C:\work\app.exe
//        7FFE82200000   1F0000 C:\WINDOWS\SYSTEM32\ntdll.dll
//
*- - - - - - - - - - Start of data for heap @ 206EDD00000 - - - - - - - - - -

*- - - - - - - - - - Heap 206EDD00000 Hogs - - - - - - - - - -

30 bytes + 30 at {address:X} by BackTraceEDD4EEA6
	7FFE82352933
	7FF600001A74
	7FF600001058

*- - - - - - - - - - End of data for heap @ 206EDD00000 - - - - - - - - - -
"""


def dump(number: int) -> bytes:
    """A dump that no other number gives."""
    content = gzip.decompress(TINY[number % len(TINY)].read_bytes())
    return gzip.compress(content, 1, mtime=number)


def log(number: int) -> bytes:
    """A UMDH log that no other number gives."""
    return LOG.format(address=0x206EDDA8BA0 + 0x100 * number).encode()


def some_of_all(folder: Path, count: int) -> None:
    """Dumps and logs, a tenth of the dumps broken; and files that are no inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        kind = number % 4
        if kind == 3:
            (folder / f"{number:04}.dmp.gz").write_bytes(dump(number))
        elif kind == 2:
            (folder / f"{number:04}.dmp").write_bytes(b"MDMP" + number.to_bytes(4, "little") * 15)
        else:
            (folder / f"{number:04}.log").write_bytes(log(number))
    (folder / "README.txt").write_text("These are dumps.\n")


def rows(table: Any) -> list[dict[str, Any]]:
    """Rows without what differs from run to run."""
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "attempts")}
        for row in table.to_pylist()
    ]
