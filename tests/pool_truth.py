"""What the truth of a kernel dump says of its pools, in the terms of `windumps.pools`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from kernel_truth import KernelTruthDump

from windumps import open_dump
from windumps.blocks import Blocks, Kind
from windumps.dumps.kernel.dump import KernelDump
from windumps.kernel.variables import KernelSymbols
from windumps.memory.address_space import Presence
from windumps.pool_tags import Pool, tag_text
from windumps.pools.kernel_pools import KernelPools

COUNTERS = ("allocs", "frees", "bytes")
POOLS = ("nonpaged", "paged")
_KINDS = {
    "NonPaged": Pool.NONPAGED,
    "NonPagedNx": Pool.NONPAGED_NX,
    "Paged": Pool.PAGED,
    "PagedSession": Pool.PAGED_SESSION,
}
Row = tuple[int, int, str, str]  # address, bytes charged, tag, pool


def open_pools(dump: KernelDump) -> KernelPools:
    bases = [process.directory_table_base for process in dump.processes]
    return KernelPools(dump.kernel, None, dump.address_space, bases)


def without_names(dump: KernelDump) -> KernelDump:
    """The dump as if its kernel were in no table of symbols and had no KDBG."""
    kernel = dump.kernel
    size = kernel.image.size_bytes if kernel.image is not None else 0
    kernel.symbols = KernelSymbols(kernel.architecture, kernel.base, size, None, None)
    return dump


@dataclass
class PoolCase:
    """One dump, its pools and its truth."""

    source: KernelTruthDump
    named: bool

    def __post_init__(self) -> None:
        dump = open_dump(self.source.dump)
        assert isinstance(dump, KernelDump)
        self.dump = dump if self.named else without_names(dump)
        self.truth: dict[str, Any] = self.source.read_truth()
        self.pools = open_pools(self.dump)
        self.blocks = Blocks.concatenate(self.pools.blocks())

    @property
    def is_legacy(self) -> bool:
        return bool(self.dump.kernel.build < 18362)

    def is_here(self, address: int) -> bool:
        return self.dump.kernel.memory.presence(address) is Presence.PRESENT

    def totals(self) -> dict[str, tuple[int, ...]]:
        """Counters of every tag whose totals are known: nonpaged allocs, frees, bytes; paged ones."""
        found = self.pools.trackers
        columns = [getattr(found, f"{pool}_{name}") for pool in POOLS for name in COUNTERS]
        return {
            tag_text(tag): tuple(int(column[row]) for column in columns)
            for row, tag in enumerate(found.tag.tolist())
            if found.complete[row]
        }

    def expected_totals(self) -> dict[str, tuple[int, ...]]:
        return {
            tag: tuple(entry[pool][name] for pool in POOLS for name in COUNTERS)
            for tag, entry in self.truth["tags"].items()
        }

    def large(self) -> Counter[Row]:
        return _rows(self.blocks.select(self.blocks.kind == Kind.POOL_LARGE))

    def expected_large(self) -> Counter[Row]:
        return Counter(
            (int(b["address"], 16), b["charged"], b["tag"], _KINDS[b["kind"]].label)
            for b in self.truth["big_allocations"]
        )

    def small(self) -> Counter[Row]:
        return _rows(self.blocks.select(self.blocks.kind == Kind.POOL_BLOCK))

    def expected_small(self) -> Counter[Row]:
        """Used blocks whose header is in the dump.

        Headers tagged "Frag" are the pool's own: genuine kernels give them to no caller, and the call
        logs beside their dumps do not have them. The constructed dumps list them.
        """
        return Counter(
            self._expected(b)
            for b in self.truth["small_blocks"]
            if ("session" in b or self.is_here(int(b["address"], 16))) and b["tag"] != "Frag"
        )

    def lost_small(self) -> Counter[Row]:
        return Counter(
            self._expected(b)
            for b in self.truth["small_blocks"]
            if "session" not in b and not self.is_here(int(b["address"], 16))
        )

    def _expected(self, block: dict[str, Any]) -> Row:
        pool = _KINDS[block["kind"]]
        if self.is_legacy and pool is Pool.NONPAGED_NX:
            pool = Pool.NONPAGED  # headers before 1903 do not keep which
        return int(block["user"], 16), block["charged"], block["tag"], pool.label

    def freed(self) -> set[int]:
        """What callers had got for blocks that are free, or wait on a list of freed ones."""
        unit = 2 * self.dump.kernel.pointer_size
        return {
            int(b["user"], 16) if "user" in b else int(b["address"], 16) + unit
            for b in self.truth["cached_or_free_blocks"]
        }


def _rows(blocks: Blocks) -> Counter[Row]:
    used = blocks.used
    columns = (used.address, used.block_bytes, used.tag, used.heap)
    return Counter(
        (address, size, tag_text(tag), Pool(pool).label)
        for address, size, tag, pool in zip(*(c.tolist() for c in columns), strict=True)
    )
