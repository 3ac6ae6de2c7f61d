"""Small blocks before Windows 10 1903, put right by what the trackers and the free lists say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from windumps.arrays import I64, U64
from windumps.blocks import Blocks
from windumps.pool_tags import plain_tags
from windumps.pools.coverage import absent_pages
from windumps.pools.large.blocks import BigPages
from windumps.pools.pages.pool import Chunk, PagePool
from windumps.pools.pages.stale import FreeLinks, free_links, lists_are_kept, uncounted_pages
from windumps.pools.pool_types import QUOTA_BIT
from windumps.pools.trackers.balance import Balance, is_paged, pool_keys
from windumps.pools.trackers.totals import TagTotals

_SAMPLE = 1 << 16  # blocks asked for the cookie
_MIN_MARKS = 4  # blocks that give the same cookie; by chance not even two would


class PageSurvey:
    """Walks one scope twice or three times: to count, to find pages given back, to give blocks out.

    Args:
        pool: The walk.
        trackers: What should be there.
        big_pages: What of it is large.
        pointer_size: 4 or 8.
    """

    def __init__(
        self, pool: PagePool, trackers: TagTotals, big_pages: BigPages, pointer_size: int
    ) -> None:
        self.pool = pool
        self.trackers = trackers
        self.big_pages = big_pages
        self.pointer_size = pointer_size

    def blocks(self) -> Iterator[Blocks]:
        """All blocks; those of pages given back are free."""
        if not self.pool.cookie:
            self.pool.cookie = self._cookie()
        given_back, unproven = self._given_back()
        if len(given_back):
            self.pool.coverage.notes.append(
                f"{len(given_back)} pages of pool were given back and still lie in memory as they were: no "
                "free list and no tracker knows their blocks, which are taken as free"
            )
        yield from self.pool.blocks(given_back, unproven)

    def _cookie(self) -> int:
        """ExpPoolQuotaCookie by the marks of freed blocks, which all give it; 0 when there are none."""
        if not self.pool.has_marks:
            return 0
        marks = [np.empty(0, np.uint64)]
        for chunk in self.pool.chunks():
            plain = self.pool.rule.is_used(chunk.blocks.type)
            plain &= chunk.blocks.type & QUOTA_BIT == 0
            marks.append(self.pool.marks(chunk)[plain])
            if sum(map(len, marks)) >= _SAMPLE:
                break
        values, counts = np.unique(np.concatenate(marks), return_counts=True)
        best = int(counts.argmax()) if len(counts) else 0
        if not len(counts) or int(counts[best]) < _MIN_MARKS:
            return 0
        return int(values[best])

    def _given_back(self) -> tuple[U64, U64]:
        """Pages given back, and those of them that no counter proves to be.

        Where pages are missing from the dump, the trackers count blocks in them too, so that being on no
        list must do.
        """
        nothing = np.empty(0, np.uint64)
        balance, loose, is_whole = self._count()
        is_whole &= self.trackers.is_found and bool(self.trackers.complete.all())
        excess = self._excess(balance)
        pages, keys, counts = nothing, nothing.astype(np.int64), nothing.astype(np.int64)
        if any(blocks > 0 for blocks in excess.values()):
            pages, keys, counts = self._candidates(excess)
        sure = uncounted_pages(pages, keys, counts, loose, excess)
        unproven = set() if is_whole else loose - sure
        return np.array(sorted(sure | unproven), np.uint64), np.array(sorted(unproven), np.uint64)

    def _count(self) -> tuple[Balance, set[int], bool]:
        """Used blocks by key, the pages whose free blocks are on no list, and whether none is missing."""
        balance = Balance()
        nothing = np.empty(0, np.uint64)
        loose, pages = [nothing], [nothing]
        linked = unlinked = 0
        for chunk in self.pool.chunks():
            used = self.pool.used(chunk)
            balance.count(self._keys(chunk)[used], chunk.blocks.size[used])
            links = self._links(chunk)
            linked += int(links.linked.sum())
            unlinked += int(links.loose.sum())
            loose.append(chunk.page[(links.loose > 0) & (links.linked == 0)])
            pages.append(chunk.page[chunk.ours])
        absent = absent_pages(self.pool.scope.memory, np.concatenate(pages))
        is_whole = bool(self.pool.others.holds(absent).all())
        kept = lists_are_kept(linked, unlinked)
        return balance, set(np.concatenate(loose).tolist()) if kept else set(), is_whole

    def _links(self, chunk: Chunk) -> FreeLinks:
        found, unit = chunk.blocks, self.pool.form.unit
        room = unit + 2 * self.pointer_size
        free = np.flatnonzero((found.type == 0) & (found.size >= room))
        body = chunk.header[free] + np.uint64(unit)
        return free_links(
            self.pool.scope.memory, len(chunk.page), found.page[free], body, self.pointer_size
        )

    def _keys(self, chunk: Chunk) -> I64:
        pools = self.pool.pools(chunk.blocks.type)
        return pool_keys(plain_tags(chunk.blocks.tag), is_paged(pools))

    def _excess(self, balance: Balance) -> dict[int, int]:
        """Blocks walked less blocks counted, where the trackers are complete and not in doubt."""
        balance.add(self.big_pages.blocks())
        missing = balance.missing(self.trackers)
        doubtful = set(self.trackers.tag[self.trackers.is_doubtful].tolist())
        return {
            key: -blocks
            for key, (blocks, _) in missing.items()
            if key in balance.walked and key >> 1 not in doubtful
        }

    def _candidates(self, excess: dict[int, int]) -> tuple[U64, I64, I64]:
        """Pages that hold nothing but tags with blocks too many: page, key and used blocks, in rows."""
        over = np.array(sorted(key for key, count in excess.items() if count > 0), np.int64)
        nothing = np.empty(0, np.int64)
        rows = [(nothing.astype(np.uint64), nothing, nothing)]
        for chunk in self.pool.chunks():
            used = self.pool.used(chunk)
            keys, page = self._keys(chunk)[used], chunk.blocks.page[used]
            fits = np.isin(keys, over)
            clean = np.ones(len(chunk.page), np.bool_)
            clean[page[~fits]] = False
            keys, page = keys[clean[page]], page[clean[page]]
            pairs, counts = np.unique(np.stack((page, keys)), axis=1, return_counts=True)
            rows.append((chunk.page[pairs[0]], pairs[1], counts.astype(np.int64)))
        pages, keys, counts = (np.concatenate(column) for column in zip(*rows, strict=True))
        return pages, keys, counts
