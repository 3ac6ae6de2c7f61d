"""What lies at an address of a process, besides the blocks of its heaps."""

from __future__ import annotations

import numpy as np

from dumpleak.model.explanation import RegionTold, What
from dumpleak.model.memory import USES
from dumpleak.process.arenas import arenas_of
from dumpleak.process.memory_use import PEB_BYTES, SHARED_USER_DATA, region_uses
from dumpleak.process.session import HeapSource, Session
from windumps.arrays import PAGE_SIZE
from windumps.images.modules import Module
from windumps.images.sections import MEM_EXECUTE, read_sections
from windumps.memory import Presence
from windumps.memory.regions import MEM_COMMIT, MEM_FREE, MEM_IMAGE, MEM_MAPPED, MEM_PRIVATE

_STACK_POINTERS = ("rsp", "esp", "sp")
_STATES = {MEM_COMMIT: "committed", MEM_FREE: "free"}
_TYPES = {MEM_PRIVATE: "private", MEM_MAPPED: "mapped", MEM_IMAGE: "image"}
# winnt.h: PAGE_*; the low eight bits exclude each other.
_PROTECTIONS = {
    0x01: "no access",
    0x02: "read",
    0x04: "read and write",
    0x08: "read, copied on write",
    0x10: "execute",
    0x20: "execute and read",
    0x40: "execute, read and write",
    0x80: "execute and read, copied on write",
}
_GUARD = 0x100
# Windows maps nothing of a process below; beyond it an address is more likely meant than a handle.
LOWEST_ADDRESS = 0x10000
NEAR_BYTES = 0x400  # up a stack in which the next code address is told
_USES = {
    "heaps": "memory of a heap that was not read",
    "stacks": "memory of a stack",
    "teb-peb": "memory of TEBs and the PEB",
    "images": "memory of an image",
    "mapped": "mapped memory",
    "other-private": "private memory outside heaps",
}


class Places:
    """Looks addresses up; the heaps have to be walked first.

    Args:
        session: The process.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._regions = session.dump.memory.regions
        self._uses = region_uses(session, self._regions) if len(self._regions) else None
        self._heaps = [
            (start, start + size, source)
            for source in (*session.heaps, *arenas_of(session))
            if source.entry.heap is not None
            for start, size in source.entry.heap.account.ranges
        ]

    def at(self, address: int) -> tuple[What, str]:
        """What an address is of that is in no block, and the same for people."""
        presence = self._session.dump.memory.presence(address)
        told = (
            self._stack(address)
            or self._thread_block(address)
            or self._heap(address)
            or self._object(address)
            or self._image(address)
        )
        if told is None and presence is not Presence.PRESENT:
            told = self._handle(address)
            if told is not None:
                return told
        if told is None and presence is Presence.NOT_MAPPED:
            return What.NOT_MAPPED, self._unmapped(address)
        if told is None:
            told = What.REGION, self._region(address)
        what, text = told
        if presence is Presence.PRESENT:
            return what, text
        if what is What.REGION:
            what = What.ABSENT
        return what, f"{text}; this memory is not in the dump"

    def region(self, address: int) -> RegionTold | None:
        """The region of an address; None where the dump lists none."""
        row = self._regions.row_of(address)
        if row < 0 or self._uses is None:
            return None
        regions = self._regions
        state, kind = int(regions.state[row]), int(regions.type[row])
        protect = int(regions.protect[row])
        protection = _PROTECTIONS.get(protect & 0xFF, "") if state == MEM_COMMIT else ""
        if protection and protect & _GUARD:
            protection = f"guard page, {protection}"
        return RegionTold(
            int(regions.base_address[row]),
            int(regions.region_size[row]),
            int(regions.allocation_base[row]),
            _STATES.get(state, "reserved"),
            _TYPES.get(kind, ""),
            protection,
            USES[int(self._uses[row])] if state != MEM_FREE else "",
        )

    def global_at(self, module: Module, address: int) -> str:
        """A place in an image: "app.exe!g_cache+0x8", or "app.exe+0xd1a8"."""
        rva, symbols = address - module.base_address, self._session.symbols
        found = symbols.data(module, rva) if symbols is not None else None
        return f"{module.name}!{found}" if found else f"{module.name}+0x{rva:x}"

    def registers_with(self, values: range) -> list[str]:
        """Registers that hold one of some addresses: "rbx of thread 12"."""
        return [
            f"{name} of thread {thread.thread_id}"
            for thread in self._session.dump.threads
            for name, value in thread.registers.items()
            if value in values
        ]

    def root_at(self, address: int) -> str:
        """What a root is called that a pointer at an address is in."""
        what, told = self.at(address)
        module = self._session.modules.at(address)
        if what is What.IMAGE and module is not None:
            return f"global {self.global_at(module, address)}"
        return told

    def _stack(self, address: int) -> tuple[What, str] | None:
        for thread in self._session.dump.threads:
            start, end = self._stack_span(thread.stack_start, thread.stack_size)
            if not start <= address < end:
                continue
            text = f"stack of thread {thread.thread_id}"
            names = [name for name in _STACK_POINTERS if name in thread.registers]
            pointer = thread.registers[names[0]] if names else 0
            if names and start <= pointer < end:  # a damaged stack may span address 0
                far = address - pointer
                text += f", {names[0]}{'+' if far >= 0 else '-'}0x{abs(far):x}"
                text += "" if far >= 0 else " (below what is in use)"
                if far >= 0:
                    text += self._near(address, end)
            return What.STACK, text
        for view in self._session.views:
            for block in view.thread_blocks:
                if block.stack[0] <= address < block.stack[1]:
                    return What.STACK, f"stack of the thread whose TEB is at 0x{block.address:x}"
        return None

    def _near(self, address: int, end: int) -> str:
        """The code that the next word up the stack leads to: a return address, most likely."""
        width = 8 if any(view.pointer_size == 8 for view in self._session.views) else 4
        start = -(-address // width) * width
        raw = self._session.dump.memory.read_available(start, min(NEAR_BYTES, end - start))
        for at in range(0, len(raw) - width + 1, width):
            value = int.from_bytes(raw[at : at + width], "little")
            module = self._session.modules.at(value)
            if module is not None and self._is_code(module, value):
                return f", near {self.global_at(module, value)}"
        return ""

    def _is_code(self, module: Module, address: int) -> bool:
        sections = read_sections(self._session.dump.memory, module)
        return any(
            s.flags & MEM_EXECUTE and s.start <= address < s.start + s.size for s in sections
        )

    def _stack_span(self, start: int, size: int) -> tuple[int, int]:
        """The whole allocation of a stack, of which the writer may have kept a part."""
        regions, end = self._regions, start + size
        row = regions.row_of(start) if start else -1
        if row < 0:
            return start, end
        mine = regions.allocation_base == regions.allocation_base[row]
        low = int(regions.base_address[mine].min())
        high = int((regions.base_address[mine] + regions.region_size[mine]).max())
        return min(start, low), max(end, high)

    def _thread_block(self, address: int) -> tuple[What, str] | None:
        session = self._session
        known = {thread.teb: f"thread {thread.thread_id}" for thread in session.dump.threads}
        for view in session.views:
            if view.peb and view.peb <= address < view.peb + PEB_BYTES:
                return What.REGION, f"the PEB, +0x{address - view.peb:x}"
            for block in view.thread_blocks:
                if block.address <= address < block.address + block.size:
                    whose = known.get(block.address, "a thread that is not listed")
                    return What.REGION, f"TEB of {whose}, +0x{address - block.address:x}"
        if 0 <= address - SHARED_USER_DATA[0] < SHARED_USER_DATA[1]:
            return What.REGION, f"KUSER_SHARED_DATA, +0x{address - SHARED_USER_DATA[0]:x}"
        return None

    def _handle(self, address: int) -> tuple[What, str] | None:
        """An open handle with this value, where no memory is."""
        handles = self._session.dump.handles
        if handles is None or handles.values is None or not 0 < address < LOWEST_ADDRESS:
            return None
        rows = np.flatnonzero(handles.values == np.uint64(address))
        if not len(rows):
            return None
        kind, name = (
            texts.texts[int(texts.index[rows[0]])] for texts in (handles.types, handles.names)
        )
        named = f" {name}" if name else ""
        return What.HANDLE, f"handle of type {kind or 'unknown'}{named}"

    def _heap(self, address: int) -> tuple[What, str] | None:
        for start, end, source in self._heaps:
            if start <= address < end:
                return What.HEAP_STRUCTURE, _heap_told(source, address)
        return None

    def _object(self, address: int) -> tuple[What, str] | None:
        """A .NET object, or what lies between them."""
        managed = self._session.managed
        if managed.heap is None:
            return None
        inside = [s for s in managed.heap.segments if s.start <= address < s.committed]
        if not inside:
            return None
        number = int(managed.at(np.array([address], np.uint64))[0])
        if number < 0 or managed.index is None:
            return What.REGION, f"memory of the .NET heap ({inside[0].kind} objects), in no object"
        far = address - int(managed.index.objects.address[number])
        return What.OBJECT, f".NET object {managed.name_of(number)}" + f" +0x{far:x}" * bool(far)

    def _image(self, address: int) -> tuple[What, str] | None:
        session = self._session
        module = session.modules.at(address)
        if module is None:
            return None
        text = self.global_at(module, address)
        sections = read_sections(session.dump.memory, module)
        inside = [s.name for s in sections if s.start <= address < s.start + s.size]
        return What.IMAGE, f"{text}, section {inside[0]}" if inside and inside[0] else text

    def _region(self, address: int) -> str:
        region = self.region(address)
        if region is None:
            return "memory of which the dump does not say what it is"
        told = _USES.get(region.use, "memory")
        if region.state != "committed":
            told = f"{told}, only {region.state}"
        return f"{told}, +0x{address - region.allocation_base:x} in 0x{region.allocation_base:x}"

    def _unmapped(self, address: int) -> str:
        region = self.region(address)
        if region is None or region.state == "free":
            return "not mapped: the process had no memory here"
        return f"not mapped: {self._region(address)}"


def _heap_told(source: HeapSource, address: int) -> str:
    far = address - source.entry.address
    place = f" (+0x{far:x} from its handle)" if 0 <= far < PAGE_SIZE else ""
    heap = source.entry.heap
    lost = heap.account.unwalked_bytes if heap is not None else 0
    if lost:
        unknown = f", or one of {lost:,} bytes that could not be walked"
        return f"{source.label}{place}: no known block; a header, padding, the heap's own{unknown}"
    return f"{source.label}{place}: no block; a header, padding or the heap's own"
