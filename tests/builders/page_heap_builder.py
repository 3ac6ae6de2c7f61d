"""Lays out a page heap of XP, of Vista's types or of verifier.dll (Windows 7 and later).

With its own numbers: offsets are those seen on x86 heaps and of the public ntdll types, by natural alignment
on x64. What goes in comes out again:

    heap = PageHeapBuilder("verifier", x64=True)
    heap.full_block(100, trace=0x1234)      # at the end of pages of its own
    heap.light_block(40)                    # in the normal heap, with a stamped header
    heap.freed_block(100)
    heap.freed_light_block(40)
    memory = heap.build()                   # heap.used: address -> size that must be found
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from builders.nt_heap_builder import NtHeapBuilder
from builders.xp_heap_builder import XpHeapBuilder, memory_of
from windumps.memory import RunMemory

PAGE = 0x1000
REGION = 0x100000
POOL_PAGES = 4  # root and nodes

# Places in a root and in a node, x86 and x64.
_ROOT = {
    "xp": {
        "ranges": (0x10, 0x18),
        "range count": (0x18, 0x28),
        "busy": (0x20, 0x38),
        "busy count": (0x28, 0x48),
        "committed": (0x2C, 0x50),
        "free": (0x30, 0x58),
        "free count": (0x38, 0x68),
        "available": (0x40, 0x78),
        "available count": (0x48, 0x88),
        "accessible": (0x5C, 0xB0),
        "pools": (0x60, 0xB8),
        "pool count": (0x68, 0xC8),
        "next": (0x70, 0xD8),
        "normal": (0x88, 0xF8),
        "size": (0x94, 0x110),
    },
    "vista": {
        "ranges": (0x10, 0x18),
        "range count": (0x18, 0x28),
        "table": (0x20, 0x38),
        "busy count": (0x5C, 0xA8),
        "committed": (0x60, 0xB0),
        "free": (0x64, 0xB8),
        "free count": (0x6C, 0xC8),
        "accessible": (0x90, 0x110),
        "pool bytes": (0xA0, 0x130),
        "next": (0xA4, 0x138),
        "normal": (0xB4, 0x150),
        "size": (0xC0, 0x168),
    },
    "verifier": {
        "ranges": (0x10, 0x18),
        "range count": (0x18, 0x28),
        "pool reserve": (0x1C, 0x30),
        "table": (0x20, 0x38),
        "busy count": (0x5C, 0xA8),
        "committed": (0x60, 0xB0),
        "free count": (0x74, 0xD8),
        "accessible": (0x90, 0x110),
        "pool commit": (0xA0, 0x130),
        "next": (0xA4, 0x138),
        "normal": (0xB4, 0x150),
        "size": (0xC0, 0x168),
    },
}
_NODE = {
    "xp": {
        "block": (4, 8),
        "size": (8, 0x10),
        "access": (0xC, 0x18),
        "user": (0x10, 0x20),
        "requested": (0x14, 0x28),
        "trace": (0x24, 0x48),
        "sizeof": (0x28, 0x50),
    },
    "vista": {
        "user": (0x10, 0x20),
        "block": (0x14, 0x28),
        "size": (0x18, 0x30),
        "access": (0x1C, 0x38),
        "requested": (0x20, 0x40),
        "trace": (0x30, 0x60),
        "sizeof": (0x40, 0x80),
    },
    "verifier": {
        "flags": (4, 8),
        "user": (0x10, 0x20),
        "block": (0x14, 0x28),
        "size": (0x18, 0x30),
        "state": (0x1C, 0x38),
        "requested": (0x20, 0x40),
        "neighbours": (0x24, 0x48),
        "trace": (0x30, 0x60),
        "sizeof": (0x34, 0x68),
    },
}
BUSY, FREE, REGION_STATE, REST = 0x20, 4, 1, 0x10
_WIDE = {"ranges", "committed", "accessible", "next", "normal"}
_FOUR = {"flags", "state"}  # of a node


def linked(heaps: list[PageHeapBuilder], head: int) -> dict[int, bytes]:
    """Memory of page heaps whose roots are on one list; XP's has no head, the other's is in verifier.dll."""
    pieces: dict[int, bytes] = {}
    for heap in heaps:
        pieces |= heap.pieces()
    pointer = heaps[0].pointer
    if heaps[0].form == "xp":
        roots = [0, *(heap.root for heap in heaps), 0]
        pairs = [(h.next_root, roots[n], roots[n + 2]) for n, h in enumerate(heaps)]
        pairs = [(at, after, before) for at, before, after in pairs]
    else:
        pieces[head & ~0xFFF] = bytes(PAGE)
        ring = [head, *(heap.next_root for heap in heaps)]
        pairs = [(at, ring[(n + 1) % len(ring)], ring[n - 1]) for n, at in enumerate(ring)]
    for at, following, before in pairs:
        raw = following.to_bytes(pointer, "little") + before.to_bytes(pointer, "little")
        for start, content in pieces.items():
            if start <= at < start + len(content):
                offset = at - start
                pieces[start] = content[:offset] + raw + content[offset + len(raw) :]
                break
    return pieces


@dataclass
class _Node:
    address: int
    block: int
    size: int
    access: int = 0
    user: int = 0
    requested: int = 0
    trace: int = 0
    state: int = 0


class PageHeapBuilder:
    """See the module.

    Args:
        form: "xp", "vista" or "verifier".
        x64: Else x86.
        address: The heap's handle.
    """

    def __init__(self, form: str, x64: bool = False, address: int = 0x400000) -> None:
        self.form, self.x64, self.address = form, x64, address
        self.pointer, self.header = (8, 0x40) if x64 else (4, 0x20)
        self.root = address + PAGE
        self.used: dict[int, int] = {}
        self.traces: dict[int, int] = {}
        self.freed: list[int] = []
        self.nodes: dict[int, int] = {}  # user address of a full block -> its node
        self.block_pages: dict[int, tuple[int, int]] = {}  # the same -> first page, bytes
        self.committed = (1 + POOL_PAGES) * PAGE
        self.normal_address = address + 0x800000
        self.normal: XpHeapBuilder | NtHeapBuilder
        if form == "xp":
            self.normal = XpHeapBuilder(x64, self.normal_address)
            self.committed += PAGE  # that of the lock
        else:
            self.normal = NtHeapBuilder(
                "vista" if form == "vista" else "8", x64, self.normal_address
            )
        self._memory: dict[int, bytearray] = {
            address: bytearray(b"\xee" * PAGE),
            self.root: bytearray(POOL_PAGES * PAGE),
        }
        size = self._node("sizeof")
        # On XP nodes follow the root at once, in verifier.dll they lie at multiples of their size.
        root_size = self._root("size")
        self._slot = self.root + (root_size if form == "xp" else -(-root_size // size) * size)
        self._at = self.root + POOL_PAGES * PAGE + (PAGE if form == "xp" else 0)
        self._regions = [self._new_node(address, REGION)]
        self._busy: list[_Node] = []
        self._free: list[_Node] = []

    # -- what goes in

    def full_block(self, requested: int, trace: int = 0) -> int:
        """A block on pages of its own; returns its address."""
        node = self._pages(requested, trace, BUSY)
        self._busy.append(node)
        self.used[node.user], self.traces[node.user] = requested, trace
        raw = bytearray(node.access)
        at = node.user - node.block
        raw[at - self.header : at] = self.information(
            0xABCDBBBB, self.root, requested, node.access, trace
        )
        self._memory[node.block] = raw
        self.committed += node.size if self.form == "xp" else node.access
        return node.user

    def freed_block(self, requested: int) -> int:
        """A freed block; its pages are not in the dump."""
        node = self._pages(requested, 0, FREE)
        self._free.append(node)
        self.freed.append(node.user)
        self.committed += node.size if self.form == "xp" else 0
        return node.user

    def light_block(self, requested: int, trace: int = 0) -> int:
        """A block in the normal heap; returns its address."""
        user = self._light(requested, trace, 0xABCDAAAA)
        self.used[user], self.traces[user] = requested, trace
        return user

    def freed_light_block(self, requested: int) -> int:
        """A freed block that is kept from reuse: used, to the normal heap."""
        self.freed.append(self._light(requested, 0x77777000, 0xABCDAAA9))
        return self.freed[-1]

    # -- what comes out

    def pieces(self) -> dict[int, bytes]:
        """Memory by address."""
        p, root = self.pointer, self.root
        busy_bytes = sum(node.size for node in self._busy)
        accessible = sum(node.access for node in self._busy)
        self._put(root, struct.pack("<II", 0xFFEEDDCC, 2))
        for name, value in (
            ("range count", len(self._regions)),
            ("busy count", len(self._busy)),
            ("committed", busy_bytes),
            ("accessible", accessible),
            ("free count", len(self._free)),
            ("normal", self.normal_address),
        ):
            self._root_field(name, value)
        if self.form == "xp":
            self._finish_xp()
        else:
            self._tree()
            self._put(self.next_root, self.next_root.to_bytes(p, "little") * 2)
        if self.form == "vista":
            self._root_field("pool bytes", (1 + POOL_PAGES) * PAGE)  # and the handle's page
            self._chain("ranges", self._regions)
            self._chain("free", self._free)
        if self.form == "verifier":
            self._finish_verifier()
        for node in (*self._regions, *self._busy, *self._free):
            self._write_node(node)
        found = {at: bytes(raw) for at, raw in self._memory.items()}
        if self.form == "xp":
            # XP keeps heap flags in the handle's page.
            page = bytearray(found[self.address])
            page[0xC:0x14] = struct.pack("<II", 0x1000002, 0)
            found[self.address] = bytes(page)
        normal = self.normal
        inside = normal.pieces() if isinstance(normal, XpHeapBuilder) else normal.build()
        return found | inside

    def build(self) -> RunMemory:
        """The memory of both heaps."""
        return memory_of(self.pieces())

    @property
    def next_root(self) -> int:
        """Where in the root the next one of the process is named: itself, until `linked`."""
        return self.root + self._root("next")

    @property
    def normal_bytes(self) -> int:
        """Committed bytes of the normal heap."""
        if isinstance(self.normal, XpHeapBuilder):
            return sum(len(memory) for _, memory in self.normal.segments)
        return len(self.normal.memory)

    # -- inside

    def _root(self, name: str) -> int:
        return _ROOT[self.form][name][self.x64]

    def _node(self, name: str) -> int:
        return _NODE[self.form][name][self.x64]

    def _root_field(self, name: str, value: int) -> None:
        wide = name in _WIDE or (name.startswith("pool") and name != "pool count")
        self._put(
            self.root + self._root(name), value.to_bytes(self.pointer if wide else 4, "little")
        )

    def _new_node(self, block: int, size: int) -> _Node:
        node = _Node(self._slot, block, size, state=REGION_STATE)
        self._slot += self._node("sizeof")
        assert self._slot <= self.root + POOL_PAGES * PAGE, "no room for nodes"
        return node

    def _pages(self, requested: int, trace: int, state: int) -> _Node:
        rounded = -(-requested // (2 * self.pointer)) * 2 * self.pointer
        access = max(-(-(rounded + self.header) // PAGE), 1) * PAGE
        region = self._regions[-1]
        if self._at + access + PAGE > region.block + region.size:
            if self.form == "xp":
                raise AssertionError("one region only")
            self._rest(region)
            self._at = self.address + REGION * len(self._regions) * 2
            self._regions.append(self._new_node(self._at, REGION))
        node = self._new_node(self._at, access + PAGE)
        node.access, node.user = access, self._at + access - rounded
        node.requested, node.trace, node.state = requested, trace, state
        self._at += node.size
        self.nodes[node.user] = node.address
        self.block_pages[node.user] = (node.block, node.size)
        return node

    def _rest(self, region: _Node) -> None:
        """Covers what is left of a region."""
        left = region.block + region.size - self._at
        if left and self.form == "verifier":
            node = self._new_node(self._at, left)
            node.state = REST
            self._rests = [*getattr(self, "_rests", []), node]

    def _light(self, requested: int, trace: int, start: int) -> int:
        asked = self.header + requested + 2 * self.pointer
        biased = self.root ^ (1 << (8 * self.pointer - 1))
        raw = self.information(start, biased, requested, asked, trace)
        filled = raw + bytes(requested) + b"\xa0" * (2 * self.pointer)
        return self.normal.used_block(asked, filled) + self.header

    def information(self, start: int, heap: int, requested: int, actual: int, trace: int) -> bytes:
        """A `_DPH_BLOCK_INFORMATION`."""
        # The end stamp has the low half of the start stamp and another high half.
        end = 0xDCBA0000 | start & 0xFFFF
        if self.x64:
            return struct.pack(
                "<IIQQQQQQII", start, 0, heap, requested, actual, 0, 0, trace, 0, end
            )
        return struct.pack("<IIIIIIII", start, heap, requested, actual, 0, 0, trace, end)

    def _finish_xp(self) -> None:
        lock = self.root + POOL_PAGES * PAGE
        self._memory[lock] = bytearray(PAGE)
        pool = self._new_node(self.root, POOL_PAGES * PAGE)
        region = self._regions[0]
        available = self._new_node(self._at, region.block + region.size - self._at)
        self.committed += available.size
        self._root_field("pool count", 1)
        self._root_field("available count", 1)
        for name, nodes in (
            ("ranges", self._regions),
            ("busy", self._busy),
            ("free", self._free),
            ("available", [available]),
            ("pools", [pool]),
        ):
            self._chain(name, nodes)
        self._write_node(pool)
        self._write_node(available)

    def _finish_verifier(self) -> None:
        self._rest(self._regions[-1])
        rests = getattr(self, "_rests", [])
        everything = [*self._busy, *self._free, *rests]
        for node in rests:
            self._write_node(node)
        self._ring(
            [self.root + self._root("ranges"), *(node.address for node in self._regions[::-1])]
        )
        link = self._node("neighbours")
        for region in self._regions:
            inside = sorted(
                (n for n in everything if region.block <= n.block < region.block + region.size),
                key=lambda n: n.block,
            )
            self._ring([region.address + link, *(n.address + link for n in inside)])
        for name in ("pool commit", "pool reserve"):
            self._root_field(name, self.root + POOL_PAGES * PAGE)

    def _chain(self, name: str, nodes: list[_Node]) -> None:
        first = nodes[0].address if nodes else 0
        self._put(self.root + self._root(name), first.to_bytes(self.pointer, "little"))
        for node, following in zip(nodes, [*nodes, None][1:], strict=True):
            behind = following.address if following else 0
            self._put(node.address, behind.to_bytes(self.pointer, "little"))

    def _ring(self, entries: list[int]) -> None:
        for index, entry in enumerate(entries):
            pair = entries[(index + 1) % len(entries)], entries[index - 1]
            self._put(entry, b"".join(x.to_bytes(self.pointer, "little") for x in pair))

    def _tree(self) -> None:
        """The AVL tree of busy blocks; its head stands for a node whose right child is the first."""
        table = self.root + self._root("table")
        count = table + (0x2C if self.x64 else 0x18)
        self._put(count, struct.pack("<I", len(self._busy)))

        def grow(nodes: list[int], parent: int) -> int:
            if not nodes:
                return 0
            middle = len(nodes) // 2
            node = nodes[middle]
            links = parent, grow(nodes[:middle], node), grow(nodes[middle + 1 :], node)
            self._put(node, b"".join(x.to_bytes(self.pointer, "little") for x in links))
            return node

        first = grow([node.address for node in self._busy], table)
        self._put(table, b"".join(x.to_bytes(self.pointer, "little") for x in (table, 0, first)))

    def _write_node(self, node: _Node) -> None:
        values = {
            "block": node.block,
            "size": node.size,
            "access": node.access or node.size,
            "user": node.user,
            "requested": node.requested,
            "trace": node.trace,
            "state": node.state,
        }
        for name, value in values.items():
            if name in _NODE[self.form]:
                width = 4 if name in _FOUR else self.pointer
                self._put(node.address + self._node(name), value.to_bytes(width, "little"))

    def _put(self, address: int, raw: bytes) -> None:
        for at, memory in self._memory.items():
            if at <= address < at + len(memory):
                memory[address - at : address - at + len(raw)] = raw
                return
        raise AssertionError(f"0x{address:x} is nowhere")
