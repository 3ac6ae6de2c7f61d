"""Page tables read by level: many entries at once, from the root to file offsets of pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_BITS, PAGE_SIZE, U64
from windumps.memory.address_space import AddressSpace
from windumps.memory.paging import ABSENT, NOT_MAPPED, Paging

CHUNK_TABLES = 256  # leaf tables handled together: a MiB of entries

# What an entry above the last level leads to: a table, memory itself (a large page), nothing, or
# something that is not in the dump.
_TABLE, _MEMORY, _UNMAPPED, _LOST = range(4)

# Entries at kernel addresses, and which of them are in the dump.
ReadEntries = Callable[[U64], tuple[U64, NDArray[np.bool_]]]


class Leaves:
    """What regions of addresses (a leaf table each) lead to, as columns.

    Attributes:
        base: Physical address of the leaf table, or of the memory where a large page maps it.
        kind: Which of them, or that there is nothing.
        first: First address of each region.
    """

    def __init__(self, base: U64, kind: NDArray[np.int8], first: U64) -> None:
        self.base, self.kind, self.first = base, kind, first

    def __len__(self) -> int:
        return len(self.base)


class PageTables:
    """The tables below one root.

    Args:
        physical: Physical memory.
        paging: How to translate.
        root: Physical address of the root, without flag bits.
        physical_limit: First physical address above the machine's memory; 0 when unknown.
        read_prototypes: Reads prototype PTEs; None leaves shared pages that are not valid unread.

    Attributes:
        region_bits: Address bits within what one leaf table maps.
        pages_per_region: Pages one leaf table maps.
    """

    def __init__(
        self,
        physical: AddressSpace,
        paging: Paging,
        root: int,
        physical_limit: int,
        read_prototypes: ReadEntries | None,
    ) -> None:
        self.physical = physical
        self.paging = paging
        self.root = root
        self.physical_limit = physical_limit
        self.entry_type = f"<u{paging.entry_size}"
        self._read_prototypes = read_prototypes
        self._leaf_level = len(paging.index_bits) - 1
        self.region_bits = paging.shift(self._leaf_level - 1)
        self.pages_per_region = 1 << paging.index_bits[-1]

    def resolve(self, starts: U64) -> Leaves:
        """Goes down from the root to the leaf table of each region, given by its first address."""
        paging = self.paging
        base = np.full(starts.shape, self.root, np.uint64)
        kind = np.where(self._is_canonical(starts), _TABLE, _UNMAPPED).astype(np.int8)
        for level in range(self._leaf_level):
            here = np.flatnonzero(kind == _TABLE)
            index = (starts[here] >> np.uint64(paging.shift(level))) & np.uint64(
                (1 << paging.index_bits[level]) - 1
            )
            entries, there = self.entries(base[here] + index * np.uint64(paging.entry_size))
            base[here], kind[here] = self._follow(entries, there, starts[here], level)
        return Leaves(base, kind, starts)

    def _follow(
        self, entries: U64, there: NDArray[np.bool_], starts: U64, level: int
    ) -> tuple[U64, NDArray[np.int8]]:
        """What upper-level entries lead to: the next table, a large page, or nothing."""
        paging = self.paging
        valid = there & paging.is_valid(entries)
        large = valid & paging.is_large(entries, level)
        # Page tables of the kernel are never paged; those of a process are.
        user = there & ~valid & (starts < np.uint64(self.half))
        moving = user & paging.is_transition(entries)
        base = paging.frames(entries)
        if moving.any():
            base[moving] = paging.transition_frames(entries[moving], self.physical_limit)
        if large.any():
            span = np.uint64((1 << paging.shift(level)) - 1)
            base[large] = paging.large_frames(entries[large], level) + (starts[large] & span)
        kind = np.full(entries.shape, _UNMAPPED, np.int8)
        kind[valid | moving] = _TABLE
        kind[large] = _MEMORY
        kind[~there | (user & ~moving & ~paging.is_untouched(entries))] = _LOST
        return base, kind

    @property
    def half(self) -> int:
        """First address of the kernel's half; on 32-bit systems 2 GiB, whatever the boot option."""
        return 1 << (31 if self.paging.is_32bit else 63)

    def upper_tables(self) -> tuple[U64, bool]:
        """All tables above the last level; and whether one of the kernel's is not there or leads nowhere."""
        halves = [self._upper_tables(is_kernel) for is_kernel in (False, True)]
        return np.concatenate([tables for tables, _ in halves]), halves[1][1]

    def _upper_tables(self, is_kernel: bool) -> tuple[U64, bool]:
        paging = self.paging
        root = np.array([self.root], np.uint64)
        tables, found, is_lost = root, [root], False
        for level in range(self._leaf_level):
            count = 1 << paging.index_bits[level]
            places = np.arange(count, dtype=np.uint64) * np.uint64(paging.entry_size)
            if level == 0:
                places = places[count // 2 :] if is_kernel else places[: count // 2]
            below = [np.empty(0, np.uint64)]
            for at in range(0, len(tables), CHUNK_TABLES):
                entries, there = self.entries(tables[at : at + CHUNK_TABLES, None] + places)
                valid = there & paging.is_valid(entries)
                is_lost |= level > 0 and not valid.any(axis=1).all()
                below.append(paging.frames(entries[valid & ~paging.is_large(entries, level)]))
            # Windows maps its tables through an entry of the root that leads to the root.
            tables = np.setdiff1d(np.concatenate(below), np.concatenate(found))
            found.append(tables)
        return np.concatenate(found[: self._leaf_level]), is_lost

    def _is_canonical(self, addresses: U64) -> NDArray[np.bool_]:
        if self.paging.is_32bit:
            return addresses < np.uint64(1 << 32)
        high = addresses >> np.uint64(self.paging.address_bits - 1)
        ones = np.uint64((1 << (65 - self.paging.address_bits)) - 1)
        canonical: NDArray[np.bool_] = (high == 0) | (high == ones)
        return canonical

    def entries(self, addresses: U64) -> tuple[U64, NDArray[np.bool_]]:
        """Entries at physical addresses, and which are in the dump."""
        values, there = self.physical.gather(addresses, self.entry_type)
        return values.astype(np.uint64), there

    def frames(self, leaves: Leaves) -> tuple[U64, I64]:
        """Physical address of each page of each region, and 0 or a state, as matrices."""
        shape = (len(leaves), self.pages_per_region)
        frames = np.zeros(shape, np.uint64)
        states = np.full(shape, NOT_MAPPED, np.int64)
        states[leaves.kind == _LOST] = ABSENT
        large = leaves.kind == _MEMORY
        if large.any():
            page = np.arange(self.pages_per_region, dtype=np.uint64) << np.uint64(PAGE_BITS)
            frames[large] = leaves.base[large, None] + page
            states[large] = 0
        tables = np.flatnonzero(leaves.kind == _TABLE)
        entries, there = self._read_tables(leaves.base[tables])
        states[tables[~there]] = ABSENT
        tables = tables[there]
        if len(tables):
            frames[tables], states[tables] = self._decode(entries)
        return frames, states

    def offsets(self, leaves: Leaves) -> I64:
        """File offset of each page of each region, or `ABSENT` or `NOT_MAPPED`, as a matrix."""
        frames, states = self.frames(leaves)
        there = states == 0
        states[there] = self.physical.locate(frames[there], PAGE_SIZE)  # -1 is ABSENT
        return states

    def _read_tables(self, tables: U64) -> tuple[U64, NDArray[np.bool_]]:
        """Leaf tables that are in the dump as rows of entries, and which are."""
        offsets = self.physical.locate(tables, PAGE_SIZE)
        there = offsets >= 0
        if not there.any():
            return np.empty((0, self.pages_per_region), np.uint64), there
        window = np.ndarray(
            (len(self.physical.data) - PAGE_SIZE + 1,),
            f"V{PAGE_SIZE}",
            buffer=self.physical.data,
            strides=(1,),
        )
        raw = window[offsets[there]].view(self.entry_type)
        entries = raw.reshape(-1, self.pages_per_region).astype(np.uint64)
        # All leading to one page: a filler in place of a table that could not be read.
        filled = (entries == entries[:, :1]).all(axis=1) & self.paging.is_valid(entries[:, 0])
        there[there] = ~filled
        return entries[~filled], there

    def _decode(self, entries: U64, follow: bool = True) -> tuple[U64, I64]:
        """Leaf entries to physical addresses, and 0 or a state; prototypes if `follow`."""
        paging = self.paging
        valid = paging.is_valid(entries)
        frames = paging.frames(entries)
        states = np.where(valid, 0, ABSENT).astype(np.int64)
        other = ~valid
        if other.any():
            moving = other & paging.is_transition(entries)
            frames[moving] = paging.transition_frames(entries[moving], self.physical_limit)
            states[moving] = 0
            states[other & paging.is_untouched(entries)] = NOT_MAPPED
            shared = other & paging.is_prototype(entries)
            if follow and shared.any():
                frames[shared], states[shared] = self._prototypes(entries[shared])
        return frames, states

    def _prototypes(self, entries: U64) -> tuple[U64, I64]:
        """As `_decode`, for entries that name a prototype PTE; those name no further one."""
        frames = np.zeros(entries.shape, np.uint64)
        states = np.full(entries.shape, ABSENT, np.int64)
        addresses = self.paging.prototype_addresses(entries)
        if self._read_prototypes is not None:
            values, there = self._read_prototypes(addresses)
            there &= addresses != 0
            frames[there], states[there] = self._decode(values[there], follow=False)
        return frames, states

    def walk(self, start: int, end: int) -> Iterator[Leaves]:
        """All regions of [start, end) that have any table, ascending, `CHUNK_TABLES` at a time."""
        root = np.array([self.root], np.uint64)
        return self._descend(0, root, np.zeros(1, np.uint64), start, end)

    def _descend(
        self, level: int, tables: U64, firsts: U64, start: int, end: int
    ) -> Iterator[Leaves]:
        """Regions below tables of one level."""
        paging = self.paging
        count = 1 << paging.index_bits[level]
        shift = paging.shift(level)
        step: U64 = np.arange(count, dtype=np.uint64)
        if level == 0 and not paging.is_32bit:
            # The upper half of the root maps the top of the address space.
            step += np.uint64((1 << (64 - shift)) - count) * (step >= np.uint64(count // 2))
        step <<= np.uint64(shift)
        places = np.arange(count, dtype=np.uint64) * np.uint64(paging.entry_size)
        for at in range(0, len(tables), CHUNK_TABLES):
            slots = tables[at : at + CHUNK_TABLES, None] + places
            entries, there = self.entries(slots)
            addresses = firsts[at : at + CHUNK_TABLES, None] + step
            # A table that is not in the dump says nothing of what it maps: its range is skipped.
            wanted = there & (addresses <= np.uint64(end - 1))
            wanted &= addresses + np.uint64((1 << shift) - 1) >= np.uint64(start)
            below = addresses[wanted]
            base, kind = self._follow(entries[wanted], there[wanted], below, level)
            keep = kind != _UNMAPPED
            yield from self._below(level, base[keep], kind[keep], below[keep], start, end)

    def _below(
        self, level: int, base: U64, kind: NDArray[np.int8], firsts: U64, start: int, end: int
    ) -> Iterator[Leaves]:
        """What `_descend` yields for entries of one level that lead somewhere."""
        if level == self._leaf_level - 1:
            for at in range(0, len(base), CHUNK_TABLES):
                part = slice(at, at + CHUNK_TABLES)
                yield Leaves(base[part], kind[part], firsts[part])
            return
        turns = np.flatnonzero(np.diff(kind, prepend=-1)).tolist()
        if not turns:
            return
        for low, high in zip(turns, [*turns[1:], len(kind)], strict=True):
            if kind[low] == _TABLE:
                yield from self._descend(level + 1, base[low:high], firsts[low:high], start, end)
                continue
            for number in range(low, high):
                if kind[number] == _MEMORY:
                    yield from self._spread(
                        level, int(base[number]), int(firsts[number]), start, end
                    )

    def _spread(self, level: int, base: int, first: int, start: int, end: int) -> Iterator[Leaves]:
        """Regions of one page of a GiB or more."""
        span = 1 << self.paging.shift(level)
        low = max(first, start >> self.region_bits << self.region_bits)
        high = min(first + span, end)
        step = CHUNK_TABLES << self.region_bits
        for at in range(low, high, step):
            region = 1 << self.region_bits
            starts = np.array(range(at, min(at + step, high), region), np.uint64)
            bases = starts - np.uint64(first) + np.uint64(base)
            yield Leaves(bases, np.full(len(starts), _MEMORY, np.int8), starts)
