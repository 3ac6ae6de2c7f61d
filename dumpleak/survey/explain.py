"""What lies at some addresses of a process, who holds it, and what it keeps alive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from dumpleak.attribution import SiteFinder
from dumpleak.model.block_page import BlockPage
from dumpleak.model.errors import Progress, no_progress
from dumpleak.model.explanation import Explained, Explanation, Pointer, What
from dumpleak.model.sites import Site
from dumpleak.pointers.arena_nodes import ArenaNodes
from dumpleak.pointers.references import BlockIndexBuilder
from dumpleak.process.arenas import arena_pieces
from dumpleak.process.coverage import coverage
from dumpleak.process.places import Places
from dumpleak.process.session import HeapSource, Session
from dumpleak.survey.explain_holders import BlockNames, Holding
from dumpleak.survey.heaps import source_info
from windumps.blocks import Blocks, Kind, State
from windumps.heaps.slabs import SlabArena
from windumps.later import later

_with_objects: Callable[..., list[Explained]] = later(
    "dumpleak.survey.explain_objects", "with_objects"
)
# Allocators that have no header in front of a block's bytes.
_BARE = (
    *(Kind.SEGMENT_LFH, Kind.SEGMENT_PAGES, Kind.SEGMENT_LARGE, Kind.PAGE_HEAP),
    *(Kind.MIMALLOC, Kind.RPMALLOC),
)


class _Found(NamedTuple):
    """A block, the heap it came with, and its site where it is used."""

    source: HeapSource
    block: Blocks
    site: Site | None


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
    grouped: dict[int, tuple[_Found, int]] = {}
    for source, blocks in session.blocks(progress):
        grouped |= _look(source, blocks, addresses, finder, builder)
    nodes = ArenaNodes(session, finder.table.sites)
    for source, blocks in arena_pieces(session):
        grouped |= _look(source, blocks, addresses, nodes, builder)
    index, sites, places = builder.build(), nodes.sites, Places(session)
    found = {
        address: one._replace(site=sites[group] if group >= 0 else None)
        for address, (one, group) in grouped.items()
    }
    told = [_told(session, places, address, found.get(address)) for address in addresses]
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
        tuple(replace(t, contents=memory.read_available(t.address, count)) for t in told),
        tuple(session.diagnostics),
        coverage(session).shortfall if session.readable_heaps else "",
    )


def _look(
    source: HeapSource,
    blocks: Blocks,
    addresses: Sequence[int],
    finder: SiteFinder | ArenaNodes,
    builder: BlockIndexBuilder,
) -> dict[int, tuple[_Found, int]]:
    """Takes the used blocks of a piece into an index.

    Returns:
        Of the addresses that lie in its blocks, which that is, and its group; -1 for a free one.
    """
    used, found = blocks.used, {}
    groups = finder.assign(source, used) if len(used) else np.empty(0, np.int64)
    builder.add(used, groups, source.view.pointer_size)
    for address in addresses:
        block = _block_at(source, blocks, address)
        if block is not None:
            same = np.flatnonzero(used.address == block.address[0])
            is_used = block.state[0] == State.USED and len(same)
            group = int(groups[same[0]]) if is_used else -1
            found[address] = _Found(source, block, None), group
    return found


def _pointer_at(session: Session, names: BlockNames, told: Explained) -> Pointer | None:
    """Where the word at an address leads, if that is a used block."""
    width = told.pointer_size
    raw = b"" if told.address % width else session.dump.memory.read_available(told.address, width)
    value = int.from_bytes(raw, "little")
    block = int(names.index.find(np.array([value], np.uint64))[0]) if len(raw) == width else -1
    if block < 0:
        return None
    return Pointer(value, value - int(names.index.address[block]), names.of(block))


def _block_at(source: HeapSource, blocks: Blocks, address: int) -> Blocks | None:
    """The block of a piece that an address lies in; None where it lies in none."""
    if not 0 <= address < 1 << 64 or not len(blocks):
        return None
    header = np.where(np.isin(blocks.kind, _BARE), 0, 2 * source.view.pointer_size)
    free = np.maximum(blocks.block_bytes - header, 1)
    room = np.where(blocks.state == State.USED, np.maximum(blocks.counted_bytes, 1), free)
    inside = np.uint64(address) - blocks.address < room.astype(np.uint64)
    inside &= blocks.address <= np.uint64(address)
    if not inside.any():
        return None
    return blocks.select(np.arange(len(blocks)) == int(inside.argmax()))


def _told(session: Session, places: Places, address: int, found: _Found | None) -> Explained:
    """What is known without a look at pointers."""
    width = 8 if any(view.pointer_size == 8 for view in session.views) else 4
    region = places.region(address)
    if found is None:
        what, told = places.at(address)
        return Explained(address, what, told, width, region=region)
    source, block, site = found
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
        [site.name if site else ""],
        [(site.type or "") if site else ""],
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
