"""What is asked of a run, and who is told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dumpleak.fleets.known import Known
from dumpleak.model.errors import Progress, no_progress

TIMEOUT_SECONDS = 3600.0


def _silence(line: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class Asked:
    """What is asked of a run.

    Attributes:
        words: Paths, globs and URLs of inputs.
        folder: Where the datasets go.
        scheduler: Address of a Dask scheduler; None for workers of our own.
        workers: How many of these; None for as many as cores and memory allow.
        timeout: Seconds that one input may take.
        memory_limit: Bytes of memory that one input may take; None for a worker's share.
        by: Grouping of sites.
        symbols: Where names come from, values of `--symbols`.
        retry_errors: Inputs that could not be read are read again.
        known: Leaks that have a name; None for none.
        machine_from: A pattern; what its first group matches in a place names the machine, where the dump
            does not.
        debug: Messages of the cluster come through.
    """

    words: tuple[str, ...]
    folder: Path
    scheduler: str | None = None
    workers: int | None = None
    timeout: float | None = TIMEOUT_SECONDS
    memory_limit: int | None = None
    by: str = "site"
    symbols: tuple[str, ...] = ()
    retry_errors: bool = False
    known: Known | None = None
    machine_from: str = ""
    debug: bool = False


@dataclass(frozen=True)
class Told:
    """Who is told of the work.

    Attributes:
        progress: Of each phase, how far it is.
        say: Lines for people.
    """

    progress: Progress = no_progress
    say: Callable[[str], None] = _silence
