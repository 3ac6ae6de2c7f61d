"""The pools of a kernel dump as a snapshot file keeps them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from dumpleak.files.checked_json import SnapshotFileError
from dumpleak.files.reader import SnapshotFile
from dumpleak.model.boots import Boot
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.owners import Ownership
from dumpleak.model.pool import TagRow, sited
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.pool_blocks import PoolBlocks
from dumpleak.model.pool_sites import SAID
from dumpleak.model.pool_source import OpenObjects
from dumpleak.model.snapshot import SourceInfo
from windumps.diagnostics import Diagnostic, DiagnosticLog, Severity
from windumps.errors import BETTER_KERNEL_DUMP


class StoredPools:
    """The pools of one snapshot file, a `PoolSource`.

    Counters, owners and the account are as they were found when the file was made. Handle tables are not
    in it, so holders of kernel objects are unknown.

    Args:
        path: The file.
        pooltag: A `pooltag.txt` that was asked for; it is not used, and that is said.

    Raises:
        CannotAnswerError: the snapshot is not of a kernel's pools.
        SnapshotFileError: the file cannot be used, or was written without counters of tags.
    """

    def __init__(self, path: Path, pooltag: Path | None = None) -> None:
        self._file = SnapshotFile(path)
        metadata = self._file.metadata
        self._snapshot = metadata.snapshot
        if not self._snapshot.is_pool:
            raise CannotAnswerError(
                f"{path}: a snapshot of one process; pools are in dumps of the kernel: "
                + BETTER_KERNEL_DUMP
            )
        if metadata.pool is None:
            raise SnapshotFileError(
                f"{path}: this snapshot keeps no counters of pool tags, as an older version wrote it; make "
                "it anew from the dump"
            )
        self._record = metadata.pool
        self._owners = {row.number: row.owner for row in self._record.rows}
        self.log = DiagnosticLog()
        if pooltag is not None:
            self.log.add(
                "pooltag-file",
                Severity.WARNING,
                "pooltag.txt",
                None,
                f"{pooltag} is not used: owners are as they were found when the snapshot was made",
            )
        found, kept = self._record.account.walked_count, metadata.block_count
        if found is not None and kept < found:
            self.log.add(
                "pool-blocks-not-kept",
                Severity.INFO,
                "snapshot",
                None,
                f"the snapshot keeps {kept} of {found} blocks that were found; the rest are of tags and "
                "pools that no tracker counts, and are not among sizes and addresses of new blocks",
            )

    @property
    def source(self) -> SourceInfo:
        """Where it comes from."""
        return self._snapshot.source

    @property
    def boot(self) -> Boot:
        """Which run of the system it is of."""
        return self._record.boot(self.source)

    @property
    def has_trackers(self) -> bool:
        """The kernel's own counters are known, at least for some tags."""
        return self._record.has_trackers

    @property
    def counter_bits(self) -> int:
        """Width of allocs and frees."""
        return self._record.counter_bits

    @property
    def absent_entries(self) -> int:
        """Entries of the tracker tables that are not in the dump."""
        return self._record.absent_entries

    @property
    def has_session_pool(self) -> bool:
        """The counters of session pool were found."""
        return self._record.has_session_pool

    @property
    def why_no_session_pool(self) -> str:
        """Why there is no session pool; "" where there is or may be."""
        return self._record.why_no_session_pool

    @cached_property
    def blocks(self) -> PoolBlocks:
        """Used blocks, of tags and pools that the snapshot has as sites."""
        columns = self._file.columns("address", "block_bytes", "kind", "site")
        keys = np.array([row.number << 2 | pool for row, pool in sited(self.rows())], np.uint64)
        site = columns["site"]
        key = keys[site] if len(site) else keys[:0]
        return PoolBlocks.of_columns(
            key, columns["address"], columns["block_bytes"], columns["kind"]
        )

    @property
    def handles(self) -> list[OpenObjects] | None:
        """None: a snapshot keeps no handle tables."""
        return None

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """Of the dump, and of the file; what `account` says as well is left out."""
        kept = [item for item in self._snapshot.diagnostics if item.code not in SAID]
        return kept + self.log.collect()

    def account(self, walk: bool) -> PoolAccount:
        """As it was found when the file was made, with a walk in any case."""
        return self._record.account

    def rows(self) -> list[TagRow]:
        """One row a tag."""
        return list(self._record.rows)

    def owner(self, tag: int) -> Ownership | None:
        """Whose tag it is; None for tags that the dump did not have."""
        return self._owners.get(tag)
