"""Kernel dumps whose pools are known, and how answers about them are taken."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from kernel_truth import KernelTruthDump, genuine_kernel_dumps, kernel_dumps
from truth import TESTDATA

from dumpleak.kernel.pools import PoolReader
from dumpleak.model.coverage import PoolsCovered
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.pool import POOLS
from dumpleak.model.pool import TRACKERS as BY_TRACKERS
from dumpleak.model.pool_account import PoolAccount
from dumpleak.survey.pools import take_pool_snapshot
from fuzz.criteria import UNSAID, Answer, Found, Part, Total, Truth, overlaps, tag_key
from fuzz.damages import Page
from fuzz.dump_kinds import unpacked
from fuzz.kernel_commands import NO_ANSWER, by_commands, share_of
from fuzz.kernel_damages import LARGE, POOL, POOL_DAMAGES, TABLES
from fuzz.kernel_damages import TRACKERS as TRACKER_TABLES
from fuzz.kernel_frames import page_tables, without_frames
from fuzz.seeds import PAGE, Run, recorded_reads, runs_of
from fuzz.subject import Subject
from windumps.arrays import U64
from windumps.blocks import Blocks, Kind
from windumps.diagnostics import DiagnosticLog
from windumps.dumps.kernel.dump import KernelDump
from windumps.dumps.kernel.reader import open_kernel_dump
from windumps.errors import DumpError
from windumps.pool_tags import POOL_TAG, tag_number
from windumps.pools.large.search import BIG, find_big_table
from windumps.pools.pages.chain import FRAGMENT_TAG
from windumps.pools.trackers.balance import is_session
from windumps.pools.trackers.search import find_layout, processor_tables, tracker_table
from windumps.pools.trackers.table import TRACKER

POOLS_PART = 0
MOST_GAP = 17  # units in front of what a caller gets, header and gap of an aligned block
ALL_COMMANDS_IN = 16  # of so many trials one asks every command
# Not blocks of anyone: the pool's own tables, and what begins the tails of large blocks.
OWN_TAGS = frozenset({POOL_TAG, FRAGMENT_TAG})


class KernelSubject(Subject):
    """The pools of a kernel; blocks and counters of sessions are left out.

    Pages are frames of physical memory; their addresses are physical ones.
    """

    damages: ClassVar[dict[str, Any]] = POOL_DAMAGES
    is_slow = True

    def __init__(self, data: bytes, raw: dict[str, Any]) -> None:
        self.data = data
        dump = _open(data)
        self.physical = dump.physical
        self.runs: list[Run] = runs_of(self.physical)
        self.truth = read_pool_truth(raw)
        self.truth.optional |= {
            address
            for address in self.truth.used
            if not dump.kernel.memory.present_bytes(address, address + 1)
        }
        for address in self.truth.optional:
            self.truth.used.pop(address, None)
        with recorded_reads() as reads:
            clean = self.answer(data)
        small, gathered = (sorted(set(offsets)) for offsets in reads)
        self.leave_out(clean)
        if clean.totals is not None and UNSAID in clean.totals:
            self.truth.totals = {k: v for k, v in self.truth.totals.items() if k in clean.totals}
        self.places = self._places(dump, small + gathered)
        every = set().union(*self.places.values())
        self.pages = [Page(address, offset) for address, offset in self._offsets(every)]
        inside = {page.offset // PAGE for page in self.pages}
        headers = self._headers(dump)
        structures = [[o for o in places if o // PAGE in inside] for places in (small, gathered)]
        tables = (self.rows, self.slots, self.entries, headers)
        self.structures = [places for places in (*structures, *tables) if places]

    def _offsets(self, addresses: set[int]) -> list[tuple[int, int]]:
        """(physical address, file offset) of the pages that are in the file."""
        pages = np.array(sorted(addresses), np.uint64)
        offsets = self.physical.locate(pages, 1)
        return [(a, o) for a, o in zip(pages.tolist(), offsets.tolist(), strict=True) if o >= 0]

    def _physical(self, offsets: list[int]) -> set[int]:
        """Physical addresses of the pages of the file that hold some offsets."""
        first = np.array([offset for _, _, offset in self.runs], np.int64)
        order = np.argsort(first)
        pages = np.unique(np.array(offsets, np.int64) // PAGE * PAGE)
        row = order[np.searchsorted(first[order], pages, "right") - 1]
        base = np.array([address for address, _, _ in self.runs], np.uint64)
        inside = pages >= first[row]
        found = base[row] + (pages - first[row]).astype(np.uint64)
        return set(found[inside].tolist())

    def _places(self, dump: KernelDump, reads: list[int]) -> dict[str, set[int]]:
        """Pages by what they hold: what is read and is neither a table nor an image is pool."""
        self._memory, used = dump.kernel.memory, self._clean
        spans = zip(used.address.tolist(), used.block_bytes.tolist(), strict=True)
        pages = _pages(spans)
        self._find_tables(dump)
        images = _pages((driver.base_address, driver.size_bytes) for driver in dump.kernel.drivers)
        memory = self._memory
        frames, self.entries = page_tables(memory, pages)
        tables = {frame * PAGE for frame in frames}
        trackers, slots = self._physical(self.rows), self._physical(self.slots)
        pool = self._physical(reads + self._located(memory, pages, 1))
        pool -= self._physical(self._located(memory, images, 1)) | tables | trackers | slots
        return {POOL: pool, TRACKER_TABLES: trackers, LARGE: slots, TABLES: tables}

    def _find_tables(self, dump: KernelDump) -> None:
        """Where rows of trackers and slots of large allocations are in the file."""
        kernel, memory, pools = dump.kernel, dump.kernel.memory, self._reader.pools
        self.rows: list[int] = []
        self.slots: list[int] = []
        self.row_bytes = 0
        base = tracker_table(kernel, pools.words, DiagnosticLog())
        choice = find_layout(kernel, base) if base else None
        if not base or choice is None:
            return
        table_bytes = pools.big_pages.bytes_of_tag(POOL_TAG)
        tables = processor_tables(kernel, pools.words, base, choice, table_bytes)
        self.row_bytes = tables.row.size(TRACKER)
        step = np.arange(tables.entry_count, dtype=np.uint64) * np.uint64(self.row_bytes)
        rows = np.concatenate([np.uint64(table) + step for table in tables.addresses])
        keys, there = memory.gather(rows, "<u4")
        self.rows = self._located(memory, rows[there & (keys != 0)], self.row_bytes)
        variable = kernel.symbol("PoolTrackTable")
        large = find_big_table(kernel, pools.words, [variable] if variable else [])
        if large is not None:
            self.slots = self._located(memory, large.slots(), large.row.size(BIG))

    def frames_of(self, tag: str) -> set[int]:
        """Physical addresses of the pages that hold blocks of a tag, by its characters."""
        mine = self._clean.select(self._clean.tag == np.uint32(tag_number(tag)))
        spans = zip(mine.address.tolist(), mine.block_bytes.tolist(), strict=True)
        return self._physical(self._located(self._memory, _pages(spans), 1))

    @staticmethod
    def _located(memory: Any, addresses: U64, size: int) -> list[int]:
        offsets = memory.locate(addresses, size)
        return offsets[offsets >= 0].tolist()

    def _headers(self, dump: KernelDump) -> list[int]:
        small = self._clean.used
        small = small.select(small.kind == Kind.POOL_BLOCK)
        unit = np.uint64(2 * dump.kernel.pointer_size)
        return self._located(dump.kernel.memory, small.address - unit, int(unit))

    def without_pages(self, addresses: set[int]) -> bytes:
        """The file without these frames of physical memory."""
        return without_frames(self.data, {address // PAGE for address in addresses})

    def answer(self, data: bytes) -> Answer:
        reader = PoolReader(_open(data))
        blocks = Blocks.concatenate([piece.used for piece in reader.walk()])
        blocks = blocks.select(~is_session(blocks.heap) & (blocks.tag != POOL_TAG))
        account = reader.account(walk=True)
        self._reader, self._clean = reader, blocks
        shares = {"pool": _said(account)}
        try:
            shares["stat"] = share_of(take_pool_snapshot(reader).coverage)
        except CannotAnswerError:
            shares["stat"] = NO_ANSWER
        if zlib.crc32(data) % ALL_COMMANDS_IN == 0:
            shares |= by_commands(data)
        if account.shortfall and len(set(shares.values())) == 1:
            raise CannotAnswerError(account.shortfall)
        return _answer(reader, account, blocks, shares)


def _pages(spans: Iterable[tuple[int, int]]) -> U64:
    """All pages that (address, bytes) touch."""
    pages = [np.arange(a & -PAGE, a + size, PAGE, np.uint64) for a, size in spans]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *pages]))


def _open(data: bytes) -> KernelDump:
    dump = open_kernel_dump(Path("damaged.dmp"), np.frombuffer(data, np.uint8))
    if not isinstance(dump, KernelDump):
        raise DumpError("not a kernel dump any more")
    return dump


def _said(account: PoolAccount) -> str:
    covered = account.covered()
    return NO_ANSWER if account.shortfall or covered is None else share_of(covered)


def _answer(
    reader: PoolReader, account: PoolAccount, blocks: Blocks, shares: dict[str, str]
) -> Answer:
    columns = (blocks.address, blocks.block_bytes, blocks.kind)
    used: dict[int, Found] = {}
    twice: list[int] = []
    for address, size, kind in zip(*(column.tolist() for column in columns), strict=True):
        if address in used:
            twice.append(address)
        used[address] = Found(size, Kind(kind).label, POOLS_PART)
    by_blocks, shown = account.covered(by_trackers=False), account.covered()
    if by_blocks is None or shown is None:
        raise CannotAnswerError("blocks were not looked for")
    unwalked = by_blocks.committed_bytes - by_blocks.walked_bytes
    unread = account.shortfall or "there may be more" * by_blocks.unbounded
    gap = MOST_GAP * 2 * reader.dump.kernel.pointer_size
    is_small = blocks.kind == Kind.POOL_BLOCK
    taken = np.where(is_small, np.maximum(blocks.block_bytes - gap, 0), blocks.block_bytes)
    return Answer(
        used,
        twice,
        overlaps(blocks.address, taken),
        {POOLS_PART: Part(unread, unwalked)},
        len(POOLS),
        len(POOLS),
        "" if account.shortfall else shown.share_text,
        [item.message for item in reader.diagnostics if item.severity != "info"]
        + [account.reason, *account.notes],
        may_invent=len(reader.dump.memory.data) if unread else unwalked,
        totals=None if account.shortfall else _totals(reader, account, shown),
        shares=shares,
    )


def _totals(reader: PoolReader, account: PoolAccount, covered: PoolsCovered) -> dict[int, Total]:
    """What is said of each tag.

    Sure are counters that no block contradicts. What blocks are counted for, and where the answer tells
    itself that counters and blocks differ, may be off by what it says is not known.
    """
    totals: dict[int, Total] = {}
    hidden = None if covered.unbounded else covered.hidden_bytes
    unwalked = None if hidden is None else covered.committed_bytes - covered.walked_bytes
    differs = {(residual.tag, residual.pool) for residual in account.residuals}
    for row in reader.rows():
        by_blocks = row.source != BY_TRACKERS or account.ranking != BY_TRACKERS
        for pool in POOLS[:2]:
            held = row.pools.get(pool)
            if held is None:
                continue
            bound = hidden if by_blocks else unwalked if (row.tag, pool) in differs else 0
            if held.count is None or held.bytes is None or (by_blocks and row.number == POOL_TAG):
                bound = None  # it says that it does not know
            totals[tag_key(row.number, pool == "paged")] = Total(
                held.count or 0, held.bytes or 0, bound
            )
    for tag in OWN_TAGS:  # not named, they are in no total by blocks
        for paged in (False, True):
            totals.setdefault(tag_key(tag, paged), Total(0, 0, None))
    if account.ranking != BY_TRACKERS or reader.absent_entries or covered.unbounded:
        # Whole rows may be missing.
        totals[UNSAID] = Total(0, 0, None if reader.absent_entries else hidden)
    return totals


def read_pool_truth(raw: dict[str, Any]) -> Truth:
    """Used blocks, and counters of tags."""
    rows = raw.get("blocks") or [*raw["small_blocks"], *raw["big_allocations"]]
    used = {
        int(row["user"], 16): row["charged"]
        for row in rows
        if "session" not in row and row["tag"] not in ("Frag", "Pool")
    }
    truth = Truth(used, {})
    for row in rows:
        if row.get("absent"):
            truth.optional.add(int(row["user"], 16))
    for tag, entry in raw["tags"].items():
        for paged, pool in enumerate(POOLS[:2]):
            held = entry[pool]["allocs"] - entry[pool]["frees"], entry[pool]["bytes"]
            truth.totals[tag_key(tag_number(tag), bool(paged))] = held
    return truth


def kernel_of(source: KernelTruthDump) -> Subject:
    """A dump with a truth file."""
    return KernelSubject(unpacked(source.dump), source.read_truth())


def pools_with_truth() -> dict[str, Callable[[], Subject]]:
    """Later dumps of each pair, by name: "kernel/22621-x64/tiny-pair/after"."""
    found = {}
    for kind, dumps in (("kernel", kernel_dumps()), ("kernel-genuine", genuine_kernel_dumps())):
        for dump in dumps:
            if dump.is_truncated or not dump.dump.name.startswith("after"):
                continue
            place = "testdata/" if dump.dump.is_relative_to(TESTDATA) else ""
            found[f"{place}{kind}/{dump.name}"] = partial(kernel_of, dump)
    return found
