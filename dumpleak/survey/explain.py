"""What lies at some addresses of a process, who holds it, and what it keeps alive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from dumpleak.attribution import SiteFinder
from dumpleak.model.block_page import BlockPage, Names
from dumpleak.model.errors import Progress, no_progress
from dumpleak.model.explanation import Explained, Explanation, Pointer, What
from dumpleak.model.sites import Site
from dumpleak.pointers.arena_nodes import ArenaNodes
from dumpleak.pointers.references import BlockIndexBuilder
from dumpleak.process.arenas import arena_pieces
from dumpleak.process.coverage import coverage
from dumpleak.process.places import Places
from dumpleak.process.session import HeapSource, Session
from dumpleak.process.used_pieces import joined_used
from dumpleak.survey.explain_holders import BlockNames, Holding
from dumpleak.survey.heaps import source_info
from windumps.blocks import Blocks, Kind, State
from windumps.heaps.slabs import SlabArena
from windumps.later import later
from windumps.memory import AddressSpace

_with_objects: Callable[..., list[Explained]] = later(
    "dumpleak.survey.explain_objects", "with_objects"
)
# Allocators that have no header in front of a block's bytes.
_BARE = (
    *(Kind.SEGMENT_LFH, Kind.SEGMENT_PAGES, Kind.SEGMENT_LARGE, Kind.PAGE_HEAP),
    *(Kind.MIMALLOC, Kind.RPMALLOC),
)


class _Found(NamedTuple):
    """A block, and the heap it came with."""

    source: HeapSource
    block: Blocks


def explain(
    session: Session, addresses: Sequence[int], count: int = 0, progress: Progress = no_progress
) -> Explanation:
    """Walks all heaps, scans all roots, and says what lies at some addresses.

    Args:
        session: The open dump.
        addresses: Any numbers.
        count: Bytes of contents to show.
        progress: Told of each heap.
    """
    finder, builder = SiteFinder(session), BlockIndexBuilder()
    asked = _Asked(addresses)
    for source, used in joined_used(asked.seen(session.blocks(progress))):
        builder.add(used, finder.assign(source, used), source.view.pointer_size)
    nodes = ArenaNodes(session, finder.table.sites)
    for source, blocks in asked.seen(arena_pieces(session)):
        used = blocks.used
        if len(used):
            builder.add(used, nodes.assign(source, used), source.view.pointer_size)
    index, sites, places = builder.build(), nodes.sites, Places(session)
    found = asked.found
    told = []
    for address in addresses:
        block, site = found.get(address), None
        if block is not None and block.block.state[0] == State.USED:
            site = sites[int(index.group[index.find(block.block.address)[0]])]
        told.append(_told(session, places, address, block, site))
    if any(item.what is What.BLOCK for item in told):
        progress("scanning for pointers", 0, 1)
        starts = [int(found[t.address].block.address[0]) for t in told if t.what is What.BLOCK]
        holding = Holding(session, index, sites, places, starts)
        told = [holding.explained(t) if t.what is What.BLOCK else t for t in told]
    if any(item.what is What.OBJECT for item in told):
        told = _with_objects(session, places, told)
    names = BlockNames(index, sites)
    told = [replace(t, points_to=_pointer_at(session, names, t)) for t in told]
    memory = session.dump.memory
    return Explanation(
        source_info(session),
        tuple(with_contents(t, memory, count) for t in told),
        tuple(session.diagnostics),
        coverage(session).shortfall if session.readable_heaps else "",
    )


def with_contents(told: Explained, memory: AddressSpace, count: int) -> Explained:
    """The same with so many bytes of contents, and a word on those that are not in the dump."""
    contents = memory.read_available(told.address, count)
    notes = told.notes
    if len(contents) < count:
        lacking = f"only {len(contents):,}" if contents else "none"
        notes = (*notes, f"Of the {count:,} bytes asked for, {lacking} can be read here.")
    return replace(told, contents=contents, notes=notes)


def _pointer_at(session: Session, names: BlockNames, told: Explained) -> Pointer | None:
    """Where the word at an address leads, if that is a used block."""
    width = told.pointer_size
    raw = b"" if told.address % width else session.dump.memory.read_available(told.address, width)
    value = int.from_bytes(raw, "little")
    block = int(names.index.find(np.array([value], np.uint64))[0]) if len(raw) == width else -1
    if block < 0:
        return None
    return Pointer(value, value - int(names.index.address[block]), names.of(block))


class _Asked:
    """The blocks that some addresses lie in.

    Args:
        addresses: Any numbers.

    Attributes:
        found: By address; of several blocks that one lies in, the one that begins last.
    """

    def __init__(self, addresses: Sequence[int]) -> None:
        valid = sorted({address for address in addresses if 0 <= address < 1 << 64})
        self._wanted = np.array(valid, np.uint64)
        self.found: dict[int, _Found] = {}

    def seen(
        self, walk: Iterable[tuple[HeapSource, Blocks]]
    ) -> Iterator[tuple[HeapSource, Blocks]]:
        """A walk, looked at as it goes by."""
        for source, blocks in walk:
            if len(blocks) and len(self._wanted):
                self._look(source, blocks)
            yield source, blocks

    def _look(self, source: HeapSource, blocks: Blocks) -> None:
        header = np.where(np.isin(blocks.kind, _BARE), 0, 2 * source.view.pointer_size)
        free = np.maximum(blocks.block_bytes - header, 1)
        room = np.where(blocks.state == State.USED, np.maximum(blocks.counted_bytes, 1), free)
        order = np.argsort(blocks.address, kind="stable")
        last = np.searchsorted(blocks.address[order], self._wanted, "right") - 1
        row = order[np.maximum(last, 0)]
        far = self._wanted - blocks.address[row]
        inside = (last >= 0) & (far < room[row].astype(np.uint64))
        for number in np.flatnonzero(inside).tolist():
            address, at = int(self._wanted[number]), int(row[number])
            known = self.found.get(address)
            if known is None or known.block.address[0] < blocks.address[at]:
                self.found[address] = _Found(source, blocks.select(np.arange(len(blocks)) == at))


def _told(
    session: Session, places: Places, address: int, found: _Found | None, site: Site | None
) -> Explained:
    """What is known without a look at pointers."""
    width = 8 if any(view.pointer_size == 8 for view in session.views) else 4
    region = places.region(address)
    if found is None:
        what, told = places.at(address)
        return Explained(address, what, told, width, region=region)
    source, block = found
    heap = source
    if not isinstance(source.entry.heap, SlabArena):
        heap = session.heap_of[source.view.architecture, int(block.heap[0])]
    start, size = int(block.address[0]), int(block.counted_bytes[0])
    is_used = site is not None
    kind = Kind(int(block.kind[0])).label
    name = (site.type if site else None) or ("block" if is_used else "free block")
    taken = size if is_used else int(block.block_bytes[0])
    page = BlockPage(
        heap.entry.address,
        source.view.pointer_size,
        block,
        Names.of([site.name if site else ""]),
        Names.of([(site.type or "") if site else ""]),
        heap_label=heap.label,
    )
    return Explained(
        address,
        What.BLOCK if is_used else What.FREE_BLOCK,
        f"{name}, {taken:,} bytes in {heap.label}{f' ({kind})' * (kind != heap.label)}",
        source.view.pointer_size,
        offset=address - start,
        region=region,
        block=page,
        frames=site.frames if site else (),
        held_bytes=taken,
    )
