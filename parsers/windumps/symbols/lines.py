"""Function and line tables out of PDBs, by the `symbolic` library, in a process of its own.

Native code that reads a damaged or hostile PDB can crash (`symbolic` 13.9 does), eat all memory or never end.
Here that costs one child process, and the module goes without lines. What the child hands back is a table of
the library's own making, not the PDB.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from windumps.symbols.errors import SymbolError

TIMEOUT_SECONDS = 600.0  # a browser's PDB of 3 GB takes a few minutes
_LEAST_MEMORY, _MEMORY_PER_BYTE = 4 << 30, 16  # address space the child may take
_MAX_REASON = 300

_CHILD = """
import sys
try:
    import resource
    limit = int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
import symbolic
try:
    objects = symbolic.Archive.open(sys.argv[1]).iter_objects()
    with open(sys.argv[2], "wb") as file:
        next(iter(objects)).make_symcache().dump_into(file)
except (symbolic.SymbolicError, StopIteration) as error:
    sys.exit((str(error).splitlines() or ["it has no contents"])[0])
"""


class LinesError(SymbolError):
    """The library cannot make its table of a PDB."""


def line_table(pdb: Path, library: Any) -> Any:
    """The library's table of a PDB.

    Args:
        pdb: The file.
        library: The `symbolic` package.

    Returns:
        A `symbolic.SymCache`.

    Raises:
        LinesError: the library refuses the file, crashes on it or takes too long.
        OSError: no process can be started, or the table not be kept.
    """
    limit = _LEAST_MEMORY + _MEMORY_PER_BYTE * pdb.stat().st_size
    with tempfile.TemporaryDirectory(prefix="windumps-lines-") as folder:
        table = Path(folder) / "table"
        # -P: a file called symbolic.py in the current folder is not the library.
        command = [sys.executable, "-P", "-c", _CHILD, str(pdb), str(table), str(limit)]
        try:
            done = subprocess.run(
                command, capture_output=True, check=False, timeout=TIMEOUT_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise LinesError(f"not done after {TIMEOUT_SECONDS:g} s") from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            crashed = f"the library crashed on it (exit code {done.returncode})"
            raise LinesError(said[-1][:_MAX_REASON] if said and done.returncode == 1 else crashed)
        try:
            return library.SymCache.from_bytes(table.read_bytes())
        except library.SymbolicError as error:
            raise LinesError(str(error).splitlines()[0]) from error
