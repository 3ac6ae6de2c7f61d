"""Who points to the blocks of a site: the class of blocks, or the globals, that hold most of them.

That is evidence for people, never part of a key: what holds a block changes while a program runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.text_finder import Held, find_texts
from dumpleak.model.containment import Contained
from dumpleak.model.holding import Holding
from dumpleak.model.sites import PRIVATE_KEY, Site, SiteKind
from dumpleak.pointers.patterns.naming import ContainerFinder
from dumpleak.pointers.patterns.pointer_table import PointerCollector, Watchers
from dumpleak.pointers.pointer_fields import FieldFinder
from dumpleak.pointers.reachability import reachability_of, scan_pointers
from dumpleak.pointers.references import BlockIndex, Edges
from dumpleak.pointers.region_owners import (
    RegionOwners,
    find_region_owners,
    private_holdings,
    why_owners_unknown,
)
from dumpleak.pointers.retained import Retention
from dumpleak.pointers.roots import Root, RootKind, find_roots, unreferenced_can_be_told
from dumpleak.process.session import Session
from windumps.arrays import U64

MOST_FIELDS = 200  # groups whose fields are looked at, the largest
SAME_OFFSET = 0.9  # share of pointers that must stand at one offset before it is told

ROOT_NAMES = {
    RootKind.STACK: "stacks of threads",
    RootKind.THREAD: "the process's TEBs and PEB",
    RootKind.PRIVATE: "private memory outside heaps",
    RootKind.MAPPED: "mapped memory",
    RootKind.HEAP: "headers of heaps",
}
_HOLDER_WORDS = {
    SiteKind.SHAPE: "blocks of",
    SiteKind.STACK: "blocks from",
    SiteKind.SOURCE: "blocks from",
    SiteKind.GROUP: "blocks",
}


class HolderFinder:
    """Looks for the holders of groups of blocks, when asked.

    Args:
        session: The dump, walked.
        index: Its used blocks; groups number `sites`.
        sites: The groups.
        retained: Also tell what groups retain.
        contents: Also give samples of the text in blocks.
        own: How many of the groups, the first ones, are of blocks that are asked about; all without. Others
            only hold.

    Attributes:
        unreferenced: bool, one row a block of the index that is asked about: no root leads to it. None
            before anything was looked for, and where too little of the roots is in the dump to tell.
    """

    def __init__(
        self,
        session: Session,
        index: BlockIndex,
        sites: Sequence[Site],
        *,
        retained: bool = False,
        contents: bool = False,
        own: int | None = None,
    ) -> None:
        self._session = session
        self._index = index
        self._sites = sites
        self._retained = retained
        self._contents = contents
        self._own = len(sites) if own is None else own
        self._retention: Retention | None = None
        self.unreferenced: NDArray[np.bool_] | None = None
        self._scanned: tuple[PointerCollector, NDArray[np.bool_]] | None = None

    @cached_property
    def region_owners(self) -> RegionOwners:
        """Whose memory outside heaps is."""
        return find_region_owners(self._session, self._index, self._sites)

    @cached_property
    def contained(self) -> Contained | None:
        """Which containers hold the blocks; None before anything was looked for."""
        if self._scanned is None:
            return None
        collector, unreferenced = self._scanned
        finder = ContainerFinder(self._session, collector, self._block_called)
        return finder.contained(unreferenced, self._index.group < self._own)

    def __call__(self, keys: Collection[str]) -> dict[str, Holding]:
        """Who holds the blocks of the groups with these keys; reads all memory that may hold some.

        Keys of private memory outside heaps may be among them.
        """
        wanted = np.array([site.key in keys for site in self._sites], np.bool_)
        found = self._of_blocks(wanted) if wanted.any() else {}
        private = {key for key in keys if key.startswith(PRIVATE_KEY)}
        if private and not why_owners_unknown(self._session):
            found |= private_holdings(self._session, self.region_owners, private)
        return found

    def _of_blocks(self, wanted: NDArray[np.bool_]) -> dict[str, Holding]:
        session, index = self._session, self._index
        names = [block_name(site) for site in self._sites]
        votes = _Votes(session, index, names, wanted[index.group])
        memory, roots = session.dump.memory, find_roots(session)
        amounts = roots.amounts(memory)
        collector = PointerCollector(index)
        graph = scan_pointers(
            memory, roots, index, Watchers(votes, collector), session.dump.release
        )
        reachable = reachability_of(graph).reachable
        self._scanned = collector, ~reachable
        self.__dict__.pop("contained", None)  # of another scan
        kept: Mapping[int, tuple[int, int] | None] = {}
        if self._retained:
            groups = np.flatnonzero(wanted).tolist()
            self._retention = Retention(graph, reachable, index.size)
            kept = self._retention.of_groups(index.group, groups)
        self.unreferenced = ~reachable[index.group < self._own]
        if not unreferenced_can_be_told(session, amounts):
            reachable[:] = True
            self.unreferenced = None
        found = votes.result(~reachable)
        chosen = np.flatnonzero(wanted).tolist()
        held = Held(index.address, index.size, index.group, index.width)
        texts = find_texts(memory, held, chosen, samples=self._contents)
        look = FieldFinder(session, index, names)
        largest = np.argsort(-np.bincount(index.group, index.size, len(names)), kind="stable")
        looked_at = set(largest[wanted[largest]][:MOST_FIELDS].tolist())
        holdings = {}
        for row in chosen:
            site = self._sites[row]
            fields: tuple[str, ...] = ()
            if row in looked_at:
                fields = look.fields(row, skip_first=site.type is not None)
            bytes_, count = kept.get(row) or (None, None)
            holdings[site.key] = replace(
                found[row],
                fields=fields,
                retained_bytes=bytes_,
                retained_count=count,
                texts=texts[row] if texts[row].texts else None,
            )
        return holdings

    def _block_called(self, block: int) -> str:
        site = self._sites[int(self._index.group[block])]
        if site.type or site.kind is SiteKind.SHAPE:
            return site.type or f"block of {site.name}"
        return f"block of {int(self._index.size[block]):,} bytes from {site.name}"

    def retained_of(self, keys: Collection[str]) -> tuple[int, int] | None:
        """What groups keep alive together, once it was looked for; None where that is not known."""
        if self._retention is None:
            return None
        wanted = np.array([site.key in keys for site in self._sites], np.bool_)
        blocks = np.flatnonzero(wanted[self._index.group]).astype(np.int32)
        return self._retention.of_blocks(blocks)


def block_name(site: Site) -> str:
    """What to call the blocks of a site: their class, if it is known, wherever they came from."""
    return site.type or f"{_HOLDER_WORDS.get(site.kind, '')} {site.name}".strip()


class _Votes:
    """One row for each pointer to a block that is wanted; see `PointerWatcher`."""

    def __init__(
        self,
        session: Session,
        index: BlockIndex,
        names: Sequence[str],
        wanted: NDArray[np.bool_],
    ) -> None:
        self._session = session
        self._index = index
        self._count = len(names)
        self._wanted = wanted
        self._labels: list[str] = []
        self._numbers: dict[str, int] = {}
        # Groups of one name, a class say, count as one holder.
        self._label_of_group = np.array([self._label(name) for name in names], np.int32)
        self._block_labels = len(self._labels)
        self._images: dict[int, Root] = {}  # by label
        self._objects: set[int] = set()  # labels of .NET types
        # Target, label, and where in the holder the pointer stands.
        self._rows: list[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]] = []

    def _label(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self._labels))
        if number == len(self._labels):
            self._labels.append(name)
        return number

    def add_blocks(self, edges: Edges) -> None:
        """Pointers in other blocks."""
        kept = self._wanted[edges.target] & (edges.source != edges.target)
        source = edges.source[kept]
        offset = (edges.place[kept] - self._index.address[source]).astype(np.int64)
        labels = self._label_of_group[self._index.group[source]]
        self._rows.append((edges.target[kept], labels, offset))

    def add_root(self, root: Root, edges: Edges) -> None:
        """Pointers in a root."""
        kept = self._wanted[edges.target]
        target, place = edges.target[kept], edges.place[kept]
        if root.module is None:
            if root.kind is RootKind.PRIVATE and len(target):
                target = self._without_managed(target, place)
            self._add(target, ROOT_NAMES[root.kind], np.zeros(len(target), np.int64))
        elif len(target):
            offset = (place - np.uint64(root.module.base_address)).astype(np.int64)
            self._images[self._add(target, f"globals of {root.module.name}", offset)] = root

    def _without_managed(self, target: NDArray[np.int64], place: U64) -> NDArray[np.int64]:
        """Takes in what objects of .NET hold, by their type; gives the rest."""
        managed = self._session.managed
        if managed.heap is None:
            return target
        number = managed.at(place)
        mine = np.flatnonzero(number >= 0)
        if not len(mine) or managed.index is None:
            return target
        objects = managed.index.objects
        tables = objects.table[number[mine]]
        first_of = dict(zip(tables.tolist(), number[mine].tolist(), strict=True))
        offset = (place[mine] - objects.address[number[mine]]).astype(np.int64)
        for table in np.unique(tables).tolist():
            rows = tables == table
            # Numbered like blocks of a class: where in them the pointer stands says something.
            label = self._label(f".NET objects {managed.name_of(first_of[table])}")
            self._objects.add(label)
            self._rows.append(
                (
                    target[mine[rows]],
                    np.full(np.count_nonzero(rows), label, np.int32),
                    offset[rows],
                )
            )
        return target[number < 0]

    def add_registers(self, targets: NDArray[np.int64]) -> None:
        """Pointers in registers."""
        kept = targets[self._wanted[targets]]
        self._add(kept, "registers of threads", np.zeros(len(kept), np.int64))

    def _add(self, target: NDArray[np.int64], name: str, offset: NDArray[np.int64]) -> int:
        label = self._label(name)
        self._rows.append((target, np.full(len(target), label, np.int32), offset))
        return label

    def result(self, unreferenced_blocks: NDArray[np.bool_]) -> list[Holding]:
        """Counts the votes; one row for each group."""
        index = self._index
        target, labels, offset = (np.concatenate(c) for c in zip(*self._rows, strict=True))
        unreferenced = np.bincount(index.group[unreferenced_blocks], minlength=self._count)
        blocks = np.bincount(index.group, minlength=self._count)
        found = [Holding(int(n), int(u)) for n, u in zip(blocks, unreferenced, strict=True)]
        # Rows in order of group and holder. A block counts once for each of its holders.
        many = np.int64(len(self._labels))
        codes = index.group[target] * many + labels
        order = np.lexsort((target, codes))
        codes, target, offset = codes[order], target[order], offset[order]
        first = np.flatnonzero(np.diff(codes, prepend=-1))
        counted = (np.diff(codes, prepend=-1) != 0) | (np.diff(target, prepend=-1) != 0)
        held = np.add.reduceat(counted.astype(np.int64), first) if len(first) else first
        ends = np.append(first[1:], len(codes))
        for row in _largest(codes[first] // many, held).tolist():
            group, label = divmod(int(codes[first[row]]), int(many))
            holder = self._told(label, offset[first[row] : ends[row]])
            found[group] = Holding(
                found[group].blocks, found[group].unreferenced, holder, int(held[row])
            )
        return found

    def _told(self, label: int, offsets: NDArray[np.int64]) -> str:
        """The holder's name, with the place in it where nearly all of its pointers stand."""
        if label in self._images:
            return self._global_told(self._images[label], np.unique(offsets))
        name = self._labels[label]
        values, counts = np.unique(offsets, return_counts=True)
        most = int(counts.argmax())
        is_type = label < self._block_labels or label in self._objects
        if not is_type or counts[most] < SAME_OFFSET * len(offsets):
            return name
        return f"{name} at +0x{int(values[most]):x}"

    def _global_told(self, root: Root, offsets: NDArray[np.int64]) -> str:
        module = root.module
        if module is None:
            return root.kind
        symbols, first = self._session.symbols, int(offsets[0])
        found = symbols.data(module, first) if symbols is not None else None
        place = f"{module.name}!{found}" if found else f"{module.name}+0x{first:x}"
        if len(offsets) == 1:
            return f"the global at {place}"
        return f"{len(offsets)} globals of {module.name}, the first at {place}"


def _largest(group: NDArray[np.int64], value: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of the largest value in each group; of equal ones the first."""
    order = np.lexsort((np.arange(len(value)), -value, group))
    return order[np.flatnonzero(np.diff(group[order], prepend=-1))]
