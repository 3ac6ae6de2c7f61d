"""What lies at some addresses of a system: blocks of its pools with tag and owner, drivers, or neither."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dumpleak.kernel.info import kernel_source
from dumpleak.kernel.pools import PoolReader
from dumpleak.model.block_page import BlockPage, Names
from dumpleak.model.explanation import Explained, Explanation, What
from dumpleak.model.pool_blocks import class_of
from dumpleak.model.pool_sites import site_name
from dumpleak.survey.explain import with_contents
from dumpleak.symbols.dump_symbols import DumpSymbols
from windumps.blocks import Blocks, Kind, State
from windumps.dumps.kernel.dump import KernelDump
from windumps.images.modules import ModuleMap
from windumps.memory import Presence
from windumps.pool_tags import Pool, tag_text
from windumps.symbols.provider import Symbols

WHO_HOLDS = "Who holds a pool block is not looked for; of a process: --process NAME."


def explain_pool(
    reader: PoolReader, addresses: Sequence[int], count: int, symbols: Symbols | None
) -> Explanation:
    """Walks the pools and says what lies at some addresses.

    Args:
        reader: The dump.
        addresses: Any numbers.
        count: Bytes of contents to show.
        symbols: Where names come from.
    """
    found: dict[int, Blocks] = {}
    header = 2 * reader.dump.kernel.pointer_size
    for piece in reader.walk():
        for address in addresses:
            block = _block_at(piece, address, header)
            if block is not None:
                found[address] = block
    told = [
        _block_told(reader, address, found[address])
        if address in found
        else _elsewhere(reader.dump, address, symbols)
        for address in addresses
    ]
    memory = reader.dump.memory
    return Explanation(
        kernel_source(reader.dump),
        tuple(with_contents(t, memory, count) for t in told),
        tuple(reader.diagnostics),
    )


def _block_at(blocks: Blocks, address: int, header: int) -> Blocks | None:
    """The block of a piece that an address lies in, or that has its header there."""
    if not len(blocks):
        return None
    before = np.where(blocks.kind == Kind.POOL_BLOCK, header, 0).astype(np.uint64)
    start = blocks.address - before
    room = np.maximum(blocks.block_bytes, 1).astype(np.uint64)
    inside = (start <= np.uint64(address)) & (np.uint64(address) - start < room)
    rows = np.flatnonzero(inside)
    if not len(rows):
        return None
    return blocks.select(np.arange(len(blocks)) == rows[0])


def _block_told(reader: PoolReader, address: int, block: Blocks) -> Explained:
    width, number = reader.dump.kernel.pointer_size, int(block.heap[0])
    pool = Pool(number).label if number < len(Pool) else Pool.UNKNOWN.label
    tag, size = int(block.tag[0]), int(block.counted_bytes[0])
    is_used = bool(block.state[0] == State.USED)
    start = int(block.address[0])
    if address < start:
        told = f"header of the pool block at 0x{start:x}, {pool}"
        return Explained(address, What.HEAP_STRUCTURE, told, width)
    name, told = "", f"free pool block, {int(block.block_bytes[0]):,} bytes in {pool}"
    if is_used:
        named = reader.owner(tag).named
        name = site_name(tag, class_of(number), named)
        owner = f" of {named}" if named else ", owner unknown"
        told = f"pool block {tag_text(tag)}{owner}, {size:,} bytes in {pool}"
    return Explained(
        address,
        What.POOL_BLOCK if is_used else What.FREE_BLOCK,
        told,
        width,
        offset=address - start,
        block=BlockPage(0, width, block, Names.of([name]), Names.of([""]), pool, pool),
        held_bytes=size,
        notes=(WHO_HOLDS,),
    )


def _elsewhere(dump: KernelDump, address: int, symbols: Symbols | None) -> Explained:
    width, presence = dump.kernel.pointer_size, dump.memory.presence(address)
    module = ModuleMap(dump.modules).at(address)
    if module is not None:
        rva = address - module.base_address
        found = DumpSymbols(symbols).data(module, rva) if symbols is not None else None
        told = f"{module.name}!{found}" if found else f"{module.name}+0x{rva:x}"
        lost = "" if presence is Presence.PRESENT else "; this memory is not in the dump"
        return Explained(address, What.IMAGE, f"driver {told}{lost}", width)
    for process in dump.processes:
        if process.address == address:
            return Explained(
                address,
                What.REGION,
                f"the object of {process.name} (pid {process.process_id})",
                width,
            )
    what, told = {
        Presence.PRESENT: (
            What.REGION,
            "kernel memory: no driver, and no pool block that was found",
        ),
        Presence.ABSENT: (What.ABSENT, "memory that is not in the dump"),
        Presence.NOT_MAPPED: (What.NOT_MAPPED, "not mapped: the system had no memory here"),
    }[presence]
    return Explained(address, what, told, width)
