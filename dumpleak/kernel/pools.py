"""What one kernel dump says of its pools: counters, blocks, owners; each read once and when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dumpleak.kernel.audit import account_for
from dumpleak.kernel.held_objects import ObjectHolders
from dumpleak.kernel.info import kernel_source
from dumpleak.kernel.machine import why_no_walk
from dumpleak.kernel.unloaded_with_pool import left_pool
from dumpleak.model.boots import Boot
from dumpleak.model.errors import CannotAnswerError, Progress, no_progress
from dumpleak.model.left_pool import LeftPool
from dumpleak.model.owners import Ownership
from dumpleak.model.pool import NONE, POOLS, TRACKERS, UNKNOWN, WALK, Counters, TagRow
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.pool_blocks import PoolBlocks
from dumpleak.model.pool_sites import Refuted
from dumpleak.model.pools import OpenObjects, Pools
from dumpleak.model.snapshot import SourceInfo
from dumpleak.owners.contents import drivers_in, words_in
from dumpleak.owners.on_behalf import with_callers
from dumpleak.owners.owners import TagOwners, VerifiedCaller
from dumpleak.owners.pointed import pointed_to
from dumpleak.owners.tag_table import pooltag_for
from dumpleak.symbols.dump_symbols import DumpSymbols
from dumpleak.symbols.kernel import use_symbols
from windumps import Dump
from windumps.blocks import Blocks
from windumps.builds import WITHOUT_SESSION_POOL
from windumps.diagnostics import Diagnostic, DiagnosticLog
from windumps.dumps.kinds import is_system
from windumps.errors import BETTER_KERNEL_DUMP
from windumps.images.modules import Module
from windumps.kernel.handles import read_handles
from windumps.pool_tags import OVERFLOW_TAG, tag_text
from windumps.pools.kernel_pools import KernelPools
from windumps.pools.trackers.audit import Source
from windumps.symbols.functions import Location
from windumps.symbols.provider import Symbols

_QUANTITIES = ("allocs", "frees", "count", "bytes")
POSSIBLE = 1 << 56  # blocks or bytes: counters beyond are of a damaged dump


class PoolReader:
    """The pools of one kernel dump.

    Args:
        dump: The open dump.
        symbols: Where names come from; None for none.
        pooltag: A `pooltag.txt`; one that lies beside the dump is found without.
        progress: Told of the walk.

    Raises:
        CannotAnswerError: the dump is not a kernel's, or has no pool.
        PoolTagFileError: `pooltag` says nothing.
    """

    def __init__(
        self,
        dump: Dump,
        symbols: Symbols | None = None,
        pooltag: Path | None = None,
        progress: Progress = no_progress,
    ) -> None:
        if not is_system(dump):
            raise CannotAnswerError(
                f"{dump.path}: a {dump.kind} of one process; pools are in dumps of the kernel: "
                + BETTER_KERNEL_DUMP
            )
        if dump.why_no_pool:
            raise CannotAnswerError(f"{dump.path}: {dump.why_no_pool}")
        self.dump = dump
        self.log = DiagnosticLog()
        self._progress = progress
        self._said = list(use_symbols(dump, symbols))
        self._symbols = DumpSymbols(symbols) if symbols is not None else None
        self.written = pooltag_for(dump.path.parent, pooltag, self.log, "pooltag.txt")
        self.pools = KernelPools(
            dump.kernel,
            self.log,
            dump.address_space,
            [process.directory_table_base for process in dump.processes],
        )

    @property
    def source(self) -> SourceInfo:
        """Where it comes from."""
        return kernel_source(self.dump)

    @property
    def boot(self) -> Boot:
        """Which run of the system it is of."""
        dump = self.dump
        return Boot(dump.kernel_base or 0, dump.time, dump.up_time, str(dump.path))

    @property
    def counter_bits(self) -> int:
        """Width of allocs and frees."""
        return self.pools.trackers.counter_bits

    @property
    def absent_entries(self) -> int:
        """Entries of the tracker tables that are not in the dump."""
        return self.pools.trackers.absent_entries

    @property
    def has_session_pool(self) -> bool:
        """The counters of session pool were found."""
        return bool(self.pools.sessions)

    @property
    def why_no_session_pool(self) -> str:
        """Why there is no session pool; "" where there is or may be."""
        dump = self.dump
        if self.has_session_pool:
            return ""
        if dump.build in WITHOUT_SESSION_POOL:
            return f"build {dump.build} has no session pool"
        if dump.processes and not self.pools.session_spaces:
            return "no process of the dump has session space of its own"
        return ""

    def read(self, *, walk: bool = True) -> Pools:
        """All that is told of the pools by tag.

        Args:
            walk: Look for blocks also where the trackers do without.

        Raises:
            CannotAnswerError: as `blocks`.
        """
        account = self.account(
            walk=walk
        )  # the walk comes first: it may know tags that no tracker has
        return Pools(
            tuple(self.rows()),
            account,
            self.has_trackers,
            self.counter_bits,
            self.absent_entries,
            self.has_session_pool,
            self.why_no_session_pool,
            tuple(self.refuted()) if account.walked_bytes is not None else (),
            blocks=lambda: self.blocks,
            handles=lambda: self.handles,
            find_owner=self.owner,
            look_into=lambda address, size: pointed_to(
                self.dump.kernel, self.blocks, address, size
            ),
            left=self.left,
            held=ObjectHolders(self.dump, self).of,
            words=lambda addresses, sizes: words_in(self.dump.kernel, addresses, sizes),
        )

    @cached_property
    def left(self) -> LeftPool | None:
        """The pool that an unloaded driver left, where the system stopped for it."""
        return left_pool(self.dump, self.pools.verifier)

    def account(self, *, walk: bool) -> PoolAccount:
        """Trackers and blocks held against each other; `walk` looks for blocks in any case."""
        return account_for(self, walk=walk)

    @cached_property
    def blocks(self) -> PoolBlocks:
        """Used blocks; the walk over all pools happens here.

        Raises:
            CannotAnswerError: they are more than this machine has memory for.
        """
        too_many = self.why_no_walk
        if too_many:
            raise CannotAnswerError(f"{self.dump.path}: {too_many}")
        return PoolBlocks(self.walk())

    @property
    def why_no_walk(self) -> str:
        """Why the blocks cannot be looked at on this machine; "" when they can, or nothing tells."""
        return why_no_walk(self.dump, self.pools.trackers) if self.has_trackers else ""

    def walk(self) -> Iterator[Blocks]:
        """All blocks, used and free, in pieces."""
        for number, piece in enumerate(self.pools.blocks()):
            self._progress("walking the pools", number, 0)
            yield piece

    @property
    def has_trackers(self) -> bool:
        """The kernel's own counters are in the dump, at least for some tags."""
        totals = self.pools.trackers
        return totals.is_found and bool(totals.complete.any())

    @cached_property
    def owners(self) -> TagOwners:
        """Whose tags they are; all images are searched here, once."""
        tags = [self.pools.trackers.tag, *(s.totals.tag for s in self.pools.sessions)]
        if "blocks" in self.__dict__ or not self.has_trackers:
            tags.append(self.blocks.tags)
        self._progress("searching the drivers for tags", 0, 0)
        wanted: NDArray[np.uint32] = np.unique(np.concatenate(tags)).astype(np.uint32)
        return TagOwners(
            self.dump.kernel,
            wanted,
            self.written,
            self._verified(),
            self._symbolize if self._symbols else None,
        )

    def owner(self, tag: int) -> Ownership:
        """Whose tag it is; of a kernel without tags, whose quota blocks with a process for a tag count."""
        if self.pools.keeps_no_tags and tag_text(tag) == tag.to_bytes(4, "little").hex():
            return Ownership(tag_text(tag), description=f"no tag: charged to {self._process(tag)}")
        known = self.owners.of(tag)
        if known.on_behalf and self.pools.is_walked:
            found, looked_at = drivers_in(self.dump.kernel, *self.blocks.of(tag))
            return with_callers(known, found, looked_at)
        return known

    def _process(self, address: int) -> str:
        """A process by its object, for people."""
        named = (p for p in self.dump.processes if p.address == address)
        found = next((f"the quota of {p.name} (pid {p.process_id})" for p in named), "")
        return found or f"the quota of a process that is not in the dump (0x{address:x})"

    @cached_property
    def handles(self) -> list[OpenObjects]:
        """Open handles of all processes; empty when they cannot be read for certain."""
        tables = read_handles(self.dump.kernel, self.dump.processes, self.log)
        return [
            OpenObjects(
                *(table.process.process_id, table.process.name, table.objects),
                *(table.absent_pages, table.blank_pages),
            )
            for table in tables
        ]

    def rows(self) -> list[TagRow]:
        """One row a tag: by the trackers, and by the walk where they say nothing or it refutes them."""
        rows: dict[int, TagRow] = {}
        if self.has_trackers:
            sources = self._sources()
            counted = self._counted()
            for tag in sorted(counted.keys() | {tag for tag, _ in sources}):
                pools, source = {}, TRACKERS
                for pool in POOLS[:2]:
                    which, found = sources.get((tag, pool), (Source.COUNTED, NONE))
                    pools[pool] = counted.get(tag, {}).get(pool, NONE)
                    if which == Source.WALKED:
                        pools[pool], source = found, WALK
                    elif which == Source.UNKNOWN:
                        pools[pool] = UNKNOWN
                rows[tag] = TagRow(tag, tag_text(tag), pools, source, self.owner(tag))
        else:
            for tag in self.blocks.tags.tolist():
                rows[tag] = TagRow(tag, tag_text(tag), self._walked(tag), WALK, self.owner(tag))
        self._add_sessions(rows)
        return [rows[tag] for tag in sorted(rows)]

    def refuted(self) -> list[Refuted]:
        """What the trackers say where the blocks refute them: (tag, number in `POOLS`, blocks, bytes)."""
        if not self.has_trackers:
            return []
        audit = self.pools.audit
        rows = audit.is_counted & (audit.source != Source.COUNTED)
        columns = (audit.tag, audit.paged, audit.counted_count, audit.counted_bytes)
        found = zip(*(column[rows].tolist() for column in columns), strict=True)
        return [
            (tag, int(paged), count, held)
            for tag, paged, count, held in found
            if 0 <= count <= POSSIBLE and 0 <= held <= POSSIBLE
        ]

    def _counted(self) -> dict[int, dict[str, Counters]]:
        """What the trackers say, by tag and pool."""
        totals = self.pools.trackers
        columns = [
            getattr(totals, f"{pool}_{name}").tolist() for pool in POOLS[:2] for name in _QUANTITIES
        ]
        counted = {}
        for tag, complete, *values in zip(
            totals.tag.tolist(), totals.complete.tolist(), *columns, strict=True
        ):
            counted[tag] = {
                "nonpaged": Counters(*values[:4]) if complete else UNKNOWN,
                "paged": Counters(*values[4:]) if complete else UNKNOWN,
            }
        if self.pools.is_walked and OVERFLOW_TAG in counted:
            self._split_overflow(counted[OVERFLOW_TAG])
        return counted

    def _split_overflow(self, pools: dict[str, Counters]) -> None:
        """Takes the blocks of tags without a slot of their own off the row that counts them together."""
        audit = self.pools.audit
        for paged, pool in enumerate(POOLS[:2]):
            mine = ~audit.is_counted & (audit.paged == bool(paged))
            held = pools[pool]
            if held.count is not None and held.bytes is not None:
                pools[pool] = replace(
                    held,
                    count=max(held.count - int(audit.walked_count[mine].sum()), 0),
                    bytes=max(held.bytes - int(audit.walked_bytes[mine].sum()), 0),
                )

    def _sources(self) -> dict[tuple[int, str], tuple[Source, Counters]]:
        """Which numbers of each tag and pool are believed, where blocks were looked for; and those found."""
        if not self.pools.is_walked:
            return {}
        audit = self.pools.audit
        columns = (audit.tag, audit.paged, audit.source, audit.walked_count, audit.walked_bytes)
        return {
            (tag, POOLS[paged]): (Source(source), Counters(None, None, count, held))
            for tag, paged, source, count, held in zip(
                *(column.tolist() for column in columns), strict=True
            )
        }

    def _walked(self, tag: int) -> dict[str, Counters]:
        pools = {}
        for number, pool in enumerate(POOLS):
            count, held = self.blocks.totals(tag, number)
            if count or pool != "session":
                pools[pool] = Counters(None, None, count, held)
        return pools

    def _add_sessions(self, rows: dict[int, TagRow]) -> None:
        """Session pool has trackers of its own, one set a session; they are added up."""
        sums: dict[int, Counters] = {}
        for session in self.pools.sessions:
            totals = session.totals
            columns = (
                getattr(totals, f"nonpaged_{name}") + getattr(totals, f"paged_{name}")
                for name in _QUANTITIES
            )
            for tag, complete, *values in zip(
                *(column.tolist() for column in (totals.tag, totals.complete, *columns)),
                strict=True,
            ):
                more = Counters(*values) if complete else UNKNOWN
                sums[tag] = sums.get(tag, NONE) + more
        for tag, counters in sums.items():
            row = rows.get(tag)
            if row is None:
                rows[tag] = TagRow(
                    tag, tag_text(tag), {"session": counters}, TRACKERS, self.owner(tag)
                )
            elif not counters.is_empty:
                rows[tag] = TagRow(
                    tag, row.tag, row.pools | {"session": counters}, row.source, row.owner
                )

    def _verified(self) -> list[VerifiedCaller]:
        """Driver Verifier's records, put together by tag and caller."""
        data = self.pools.verifier
        if data is None or not len(data):
            return []
        order = np.lexsort((data.caller, data.tag))
        tag, caller, size = (column[order] for column in (data.tag, data.caller, data.size))
        new = np.ones(len(order), np.bool_)
        new[1:] = (tag[1:] != tag[:-1]) | (caller[1:] != caller[:-1])
        starts = np.flatnonzero(new)
        counts = np.diff(np.append(starts, len(order)))
        held = np.add.reduceat(size, starts)
        return [
            VerifiedCaller(*row)
            for row in zip(
                tag[starts].tolist(),
                caller[starts].tolist(),
                counts.tolist(),
                held.tolist(),
                strict=True,
            )
        ]

    @property
    def frame_symbols(self) -> Callable[[Module, int], Location | None] | None:
        """Names return addresses; None without symbols."""
        return self._symbols.frame if self._symbols is not None else None

    def _symbolize(self, module: Module, rva: int) -> str | None:
        found = self._symbols.data(module, rva) if self._symbols is not None else None
        return str(found) if found is not None else None

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """What was left out so far, and how things were found."""
        found = self.dump.diagnostics + self._said + self.log.collect()
        return found + (self._symbols.diagnostics if self._symbols is not None else [])
