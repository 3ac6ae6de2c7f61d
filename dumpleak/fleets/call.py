"""The function of the Python API."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dumpleak.fleets.asked import TIMEOUT_SECONDS, Asked, Told
from dumpleak.fleets.known import read_known
from dumpleak.model.optional_libraries import missing_extra

if TYPE_CHECKING:
    from dumpleak.fleets.run import FleetRun


def fleet(
    inputs: str | Path | Iterable[str | Path],
    folder: str | Path,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    timeout: float | None = TIMEOUT_SECONDS,
    memory_limit: int | None = None,
    by: str = "site",
    symbols: Iterable[str] = (),
    retry_errors: bool = False,
    known: str | Path | None = None,
    machine_from: str = "",
) -> FleetRun:
    """Reads thousands of dumps, snapshots and logs on many workers, and tells which leaks are out there.

    Workers on this machine are processes that import the program anew: in a script call this under
    `if __name__ == "__main__":`.

    Args:
        inputs: Files, folders, globs, archives with many dumps, URLs of fsspec.
        folder: Where the datasets go; with the same folder only new inputs are read.
        scheduler: Address of a Dask cluster's scheduler; None for workers of our own.
        workers: How many of these; None for as many as cores and memory allow.
        timeout: Seconds that one input may take; None for no limit.
        memory_limit: Bytes of memory that one input may take; None for a worker's share.
        by: What a leak is told by, a grouping of blocks.
        symbols: Where PDBs are, as in `_NT_SYMBOL_PATH`.
        retry_errors: Read again what could not be read before.
        known: A TOML file of leaks that have a name.
        machine_from: A pattern; what its first group matches in the place of an input names the machine,
            where the dump does not.

    Returns:
        What the run came to; `dumps`, `sites`, `growth` and `clusters` of it are Arrow tables, `summary` is
        the fleet at a glance. `report.html` is written by the command alone.

    Raises:
        WindumpsError: there is nothing to read, or the folder or the cluster cannot be used.
        ValueError: the file of known leaks was not understood.
        MissingExtraError: Dask, fsspec or pyarrow is not installed.
    """
    try:
        from dumpleak.fleets.run import run, words_of  # takes a second, and libraries of an extra
    except ImportError as error:
        raise missing_extra("fleets", error.name or "dask", "fleet") from error
    asked = Asked(
        words_of(inputs),
        Path(folder),
        scheduler,
        workers,
        timeout,
        memory_limit,
        by,
        tuple(symbols),
        retry_errors,
        read_known(known) if known is not None else None,
        machine_from,
    )
    return run(asked, Told())
