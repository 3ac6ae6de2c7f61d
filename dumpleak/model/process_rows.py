"""The processes of a system one by one, with what each holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from dumpleak.model.account import BYTES, COUNT, RowKind
from dumpleak.model.snapshot import Snapshot

RUNNING, ENDED, UNLISTED = "running", "ended", "unlisted"
# What is told of each, and how much more of it is usual; thresholds as those of one process's account.
FIGURES: dict[str, RowKind] = {
    "private_commit_bytes": RowKind(BYTES, "private commit", 4 << 20),
    "handle_count": RowKind(COUNT, "handles", 64),
    "thread_count": RowKind(COUNT, "threads", 8),
    "nonpaged_quota_bytes": RowKind(BYTES, "nonpaged pool charged", 1 << 18),
    "paged_quota_bytes": RowKind(BYTES, "paged pool charged", 1 << 18),
}


@dataclass(frozen=True)
class ProcessRow:
    """One process.

    Attributes:
        name: Of its program, as the dump or the log gives it.
        process_id: None when unknown.
        created: When it was started; None when unknown.
        state: `RUNNING`, `ENDED` (something keeps it alive) or `UNLISTED`.
        private_commit_bytes: What it has committed for itself; None when unknown, as all below.
        handle_count: Open handles.
        thread_count: Threads.
        nonpaged_quota_bytes: Nonpaged pool charged to it.
        paged_quota_bytes: Paged pool charged to it.
        held_by: Clauses on who keeps it alive, of an ended one.
    """

    name: str
    process_id: int | None
    created: datetime | None
    state: str = RUNNING
    private_commit_bytes: int | None = None
    handle_count: int | None = None
    thread_count: int | None = None
    nonpaged_quota_bytes: int | None = None
    paged_quota_bytes: int | None = None
    held_by: tuple[str, ...] = ()

    def figures(self) -> Iterator[int | None]:
        """What it holds, in the order of `FIGURES`."""
        yield self.private_commit_bytes
        yield self.handle_count
        yield self.thread_count
        yield self.nonpaged_quota_bytes
        yield self.paged_quota_bytes


@dataclass(frozen=True)
class ProcessTable:
    """All processes of one dump or log.

    Attributes:
        snapshot: The population `processes` by name, with the account of the system.
        rows: The processes.
    """

    snapshot: Snapshot
    rows: tuple[ProcessRow, ...]
