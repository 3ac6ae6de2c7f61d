"""Makes small machines that run Windows, and dumps of them in every container.

Page tables, images, lists and headers are written with numbers of their own (Intel SDM, Arm ARM, the
public headers); nothing comes from the package.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

PAGE = 0x1000
GUID = bytes.fromhex("00112233445566778899aabbccddeeff")
GUID_TEXT = "33221100554477668899AABBCCDDEEFF"
FILETIME = 133_280_993_472_495_616  # 2023-05-09 09:49:07 UTC
KERNEL_SIZE = 0x8000


@dataclass(frozen=True)
class Numbers:
    """What differs by processor: tables, and the offsets of one build's structures."""

    machine: int
    build: int
    pointer: int
    entry: int
    shifts: tuple[int, ...]
    bits: tuple[int, ...]
    table_flags: int
    page_flags: int
    large_flags: int
    kernel: int
    shared: int
    pid: int
    parent: int
    peb: int
    name: int
    created: int
    root: int
    dll_base: int
    image_size: int
    full_name: int
    base_name: int


_LISTS64 = (0x30, 0x40, 0x48, 0x58)
_LISTS32 = (0x18, 0x20, 0x24, 0x2C)
_TEN = (0x440, 0x540, 0x550, 0x5A8, 0x468, 0x28)  # _EPROCESS of 19041, 64 bits
# Of 22000 on ARM64, where everything behind the _KPROCESS lies 0x48 lower: read off a public dump.
_TEN_ARM64 = (0x3F8, 0x4F8, 0x508, 0x560, 0x420, 0x28)
_SEVEN = (0xB4, 0x140, 0x1A8, 0x16C, 0xA0, 0x18)  # of 7601, 32 bits
_HIGH, _SHARED64 = 0xFFFFF80312340000, 0xFFFFF78000000000
NUMBERS = {
    "x64": Numbers(
        0x8664, 19041, 8, 8, (39, 30, 21, 12), (9, 9, 9, 9), 0x63, 0x63, 0xE3, _HIGH, _SHARED64,
        *_TEN, *_LISTS64,
    ),
    "la57": Numbers(
        0x8664, 19041, 8, 8, (48, 39, 30, 21, 12), (9,) * 5, 0x63, 0x63, 0xE3, _HIGH, _SHARED64,
        *_TEN, *_LISTS64,
    ),
    "arm64": Numbers(
        0xAA64, 22000, 8, 8, (39, 30, 21, 12), (9, 9, 9, 9), 0x3, 0x703, 0x701, _HIGH, _SHARED64,
        *_TEN_ARM64, *_LISTS64,
    ),
    "pae": Numbers(
        0x14C, 7601, 4, 8, (30, 21, 12), (2, 9, 9), 0x63, 0x63, 0xE3, 0x82840000, 0xFFDF0000,
        *_SEVEN, *_LISTS32,
    ),
    "x86": Numbers(
        0x14C, 7601, 4, 4, (22, 12), (10, 10), 0x63, 0x63, 0xE3, 0x82840000, 0xFFDF0000,
        *_SEVEN, *_LISTS32,
    ),
}  # fmt: skip
ARCHITECTURE = {"x64": "x64", "la57": "x64", "arm64": "arm64", "pae": "x86", "x86": "x86"}


@dataclass
class Machine:
    """Physical memory with page tables in it.

    Args:
        kind: A key of `NUMBERS`.
        first_frame: The first page frame used, so that a test can put the machine anywhere.
    """

    kind: str = "x64"
    first_frame: int = 0x100
    pages: dict[int, bytearray] = field(default_factory=dict)
    root: int = 0

    def __post_init__(self) -> None:
        self.n = NUMBERS[self.kind]
        self._next = self.first_frame
        self.root = self.new_root()

    def frame(self) -> int:
        """A new page of zeros."""
        number = self._next
        self._next += 1
        self.pages[number] = bytearray(PAGE)
        return number

    def new_root(self) -> int:
        """A new root with the entries by which Windows maps page tables into themselves."""
        root = self.frame() * PAGE
        if self.kind == "pae":
            directories = [self.frame() for _ in range(4)]
            for number, directory in enumerate(directories):
                self.poke(root + 8 * number, directory * PAGE | 1, 8)
                self.poke(directories[3] * PAGE + 8 * number, directory * PAGE | 0x63, 8)
        else:
            index = 0x300 if self.kind == "x86" else 0x1ED
            self.poke(root + index * self.n.entry, root | self.n.table_flags, self.n.entry)
        return root

    def share_kernel(self, root: int) -> None:
        """Gives another root the kernel's half of the first one."""
        if self.kind == "pae":
            for number in (2, 3):
                self.poke(root + 8 * number, self.peek(self.root + 8 * number, 8), 8)
            return
        count = PAGE // self.n.entry
        own = 0x300 if self.kind == "x86" else 0x1ED
        for index in range(count // 2, count):
            if index != own:
                at = index * self.n.entry
                self.poke(root + at, self.peek(self.root + at, self.n.entry), self.n.entry)

    def poke(self, physical: int, value: int, size: int) -> None:
        """Writes an integer at a physical address, within one page."""
        page, at = divmod(physical, PAGE)
        self.pages[page][at : at + size] = value.to_bytes(size, "little")

    def peek(self, physical: int, size: int) -> int:
        """Reads an integer at a physical address, within one page."""
        page, at = divmod(physical, PAGE)
        return int.from_bytes(self.pages[page][at : at + size], "little")

    def entry_at(self, address: int, level: int = -1, root: int | None = None) -> int:
        """Physical address of the entry for an address, the last level's by default."""
        table = self.root if root is None else root
        last = len(self.n.shifts) - 1 if level == -1 else level
        for number in range(last + 1):
            index = address >> self.n.shifts[number] & (1 << self.n.bits[number]) - 1
            place = table + index * self.n.entry
            if number == last:
                return place
            value = self.peek(place, self.n.entry)
            if not value & 1:
                flags = 1 if self.kind == "pae" and number == 0 else self.n.table_flags
                value = self.frame() * PAGE | flags
                self.poke(place, value, self.n.entry)
            table = value & 0xFFFFFFFFF000
        raise AssertionError("no level")

    def map(self, address: int, frame: int, root: int | None = None) -> None:
        """Maps one page."""
        place = self.entry_at(address, root=root)
        self.poke(place, frame * PAGE | self.n.page_flags, self.n.entry)

    def write(self, address: int, data: bytes, root: int | None = None) -> None:
        """Writes virtual memory; pages that are not mapped get new frames."""
        at = 0
        while at < len(data):
            place = self.entry_at(address + at, root=root)
            value = self.peek(place, self.n.entry)
            if not value & 1:
                self.map(address + at, self.frame(), root)
                value = self.peek(place, self.n.entry)
            into = (address + at) % PAGE
            part = data[at : at + PAGE - into]
            page = self.pages[(value & 0xFFFFFFFFF000) // PAGE]
            page[into : into + len(part)] = part
            at += len(part)

    def pointer(self, address: int, value: int, root: int | None = None) -> None:
        """Writes a pointer in virtual memory."""
        self.write(address, value.to_bytes(self.n.pointer, "little"), root)

    def string(self, address: int, text: str, buffer: int) -> None:
        """Writes a UNICODE_STRING and its text."""
        raw = text.encode("utf-16-le")
        head = struct.pack("<HH", len(raw), len(raw) + 2).ljust(self.n.pointer, b"\0")
        self.write(address, head + buffer.to_bytes(self.n.pointer, "little"))
        self.write(buffer, raw + b"\0\0")

    def ring(self, head: int, nodes: list[int], root: int | None = None) -> None:
        """Links LIST_ENTRYs to a circle."""
        circle = [head, *nodes]
        for number, node in enumerate(circle):
            self.pointer(node, circle[(number + 1) % len(circle)], root)
            self.pointer(node + self.n.pointer, circle[number - 1], root)


def image(machine: int, size: int, pdb: bytes, export: bytes = b"") -> bytes:
    """The first two pages of an image: headers, debug directory, export name."""
    wide = machine != 0x14C
    raw = bytearray(2 * PAGE)
    raw[:2] = b"MZ"
    struct.pack_into("<I", raw, 0x3C, 0x80)
    raw[0x80:0x84] = b"PE\0\0"
    struct.pack_into("<HHI", raw, 0x84, machine, 0, 0x5EADBEEF)
    optional = 0x98
    struct.pack_into("<H", raw, optional, 0x20B if wide else 0x10B)
    struct.pack_into("<I", raw, optional + 56, size)
    directories = optional + (112 if wide else 96)
    if export:
        struct.pack_into("<II", raw, directories, 0x1100, 40)
        struct.pack_into("<I", raw, 0x1100 + 12, 0x1140)
        raw[0x1140 : 0x1140 + len(export)] = export
    record = b"RSDS" + GUID + struct.pack("<I", 1) + pdb + b"\0"
    struct.pack_into("<II", raw, directories + 48, 0x1000, 28)
    struct.pack_into("<III", raw, 0x100C, 2, len(record), 0x1040)
    raw[0x1040 : 0x1040 + len(record)] = record
    return bytes(raw)


@dataclass
class System(Machine):
    """A machine with a kernel, drivers and processes.

    Attributes:
        kdbg: Address of KDBG.
        modules: (name, base, size) as they are listed.
        processes: (pid, parent, name, root) as they are listed.
        variables: Address of each variable that KDBG names.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        n = self.n
        base = self.kernel = n.kernel
        self.kdbg = base + 0x3010
        self.module_list, self.process_list = base + 0x4000, base + 0x4040
        self.variables = {0x1B8: base + 0x4100, 0x228: base + 0x4110, 0x220: base + 0x4118}
        self.write(base, image(n.machine, KERNEL_SIZE, b"ntkrnlmp.pdb", b"ntoskrnl.exe"))
        self.write(base + 2 * PAGE, bytes(KERNEL_SIZE - 2 * PAGE))
        self._shared()
        self.write(base + 0x4200, f"{n.build}.1.fre.test\0".encode())
        self.write(self.kdbg, self.kdbg_bytes())
        self._drivers()
        self._processes()

    def kdbg_bytes(self) -> bytes:
        """KDBG, as it is when it is not encoded."""
        raw = bytearray(0x380)
        raw[0x10:0x14] = b"KDBG"
        struct.pack_into("<I", raw, 0x14, len(raw))
        sign = 0xFFFFFFFF00000000 if self.n.pointer == 4 else 0  # 32-bit values are extended
        for at, value in (
            (0x18, self.kernel),
            (0x48, self.module_list),
            (0x50, self.process_list),
            (0x208, self.kernel + 0x4200),
            *self.variables.items(),
        ):
            struct.pack_into("<Q", raw, at, value | sign)
        struct.pack_into("<HH", raw, 0x2AA, self.n.peb, self.n.parent)
        return bytes(raw)

    def process_bytes(self) -> bytes:
        """An _EPROCESS as a small dump copies it: the one of acmesvc.exe."""
        n, raw = self.n, bytearray(0xA00)
        for at, value in ((n.pid, 2244), (n.parent, 312), (n.peb, 0x7FFD0000)):
            raw[at : at + n.pointer] = value.to_bytes(n.pointer, "little")
        raw[n.name : n.name + 11] = b"acmesvc.exe"
        struct.pack_into("<Q", raw, n.created, FILETIME)
        return bytes(raw)

    def _shared(self) -> None:
        raw = bytearray(0x400)
        struct.pack_into("<Q", raw, 0x8, 3600 * 10**7)
        struct.pack_into("<Q", raw, 0x14, FILETIME)
        ten = self.n.build >= 10240
        struct.pack_into("<I", raw, 0x260, self.n.build if ten else 0)
        struct.pack_into("<III", raw, 0x264, 3, 0, 10 if ten else 6)
        struct.pack_into("<I", raw, 0x270, 0 if ten else 1)
        struct.pack_into("<I", raw, 0x3C0, 4)
        self.write(self.n.shared, bytes(raw))

    def _drivers(self) -> None:
        n, step = self.n, 0x10000
        names = ("ntoskrnl.exe", "hal.dll", "acmenet.sys", "acmegpu.sys")
        pool = self.kernel + 0x40 * step
        self.modules, self.entries = [], []
        for number, name in enumerate(names):
            base = self.kernel + number * step
            size = KERNEL_SIZE if number == 0 else 2 * PAGE
            if number:
                stem = name.partition(".")[0]
                self.write(base, image(n.machine, size, f"{stem}.pdb".encode()))
            # Entries in pages of their own, so that a test can take one away.
            entry = pool + number * step
            self.write(entry, bytes(0x100))
            self.pointer(entry + n.dll_base, base)
            self.write(entry + n.image_size, struct.pack("<I", size))
            self.string(entry + n.full_name, rf"\SystemRoot\system32\{name}", entry + 0x200)
            self.string(entry + n.base_name, name, entry + 0x300)
            self.modules.append((name, base, size))
            self.entries.append(entry)
        self.ring(self.module_list, self.entries)

    def _processes(self) -> None:
        n = self.n
        links = n.pid + n.pointer
        pool = self.kernel + 0x80 * 0x10000
        self.processes, nodes = [], []
        for number, (pid, parent, name) in enumerate(
            ((4, 0, "System"), (312, 4, "smss.exe"), (2244, 312, "acmesvc.exe"))
        ):
            process = pool + number * 0x1000
            self.write(process, bytes(0x800))
            root = self.root if pid == 4 else self.new_root()
            self.pointer(process + n.pid, pid)
            self.pointer(process + n.parent, parent)
            self.pointer(process + n.peb, 0 if pid == 4 else 0x7FFD0000)
            self.pointer(process + n.root, root)
            self.write(process + n.name, name.encode().ljust(15, b"\0")[:15])
            self.write(process + n.created, struct.pack("<Q", FILETIME + number))
            nodes.append(process + links)
            self.processes.append((pid, parent, name, root))
        self.ring(self.process_list, nodes)
        for pid, _, name, root in self.processes[1:]:
            self.share_kernel(root)
            self.write(0x7FFD0000, bytes(PAGE), root)
            self.write(0x30000, f"user memory of {name} {pid}".encode(), root)


# --- containers -------------------------------------------------------------------------------------


def header(system: System, dump_type: int, **fields: int) -> bytearray:
    """The header of a crash dump, painted with PAGE as the kernel does.

    Args:
        system: What it is of.
        dump_type: DumpType.
        fields: kdbg, root, module_list, process_list, pae: values other than the true ones.
    """
    n = system.n
    wide = n.pointer == 8
    raw = bytearray(b"PAGE" * (0x800 if wide else 0x400))
    kdbg = fields.get("kdbg", system.kdbg)
    root = fields.get("root", system.root)
    modules = fields.get("module_list", system.module_list)
    processes = fields.get("process_list", system.process_list)
    raw[:8] = b"PAGEDU64" if wide else b"PAGEDUMP"
    struct.pack_into("<II", raw, 8, 15, n.build)
    if wide:
        struct.pack_into("<QQQQ", raw, 0x10, root, 0, modules, processes)
        struct.pack_into("<IIII", raw, 0x30, n.machine, 4, 0xD1, 0)
        struct.pack_into("<QQQQ", raw, 0x40, 1, 2, 3, 4)
        struct.pack_into("<Q", raw, 0x80, kdbg)
        struct.pack_into("<I", raw, 0xF98, dump_type)
        struct.pack_into("<QQ", raw, 0xFA0, 1 << 30, FILETIME)
        struct.pack_into("<Q", raw, 0x1030, 3600 * 10**7)
    else:
        struct.pack_into("<IIII", raw, 0x10, root, 0, modules, processes)
        struct.pack_into("<III", raw, 0x20, n.machine, 2, 0xD1)
        struct.pack_into("<IIII", raw, 0x2C, 1, 2, 3, 4)
        raw[0x5C] = fields.get("pae", int(system.kind == "pae"))
        struct.pack_into("<I", raw, 0x60, kdbg)
        struct.pack_into("<I", raw, 0xF88, dump_type)
        struct.pack_into("<Q", raw, 0xFA0, 1 << 30)
        struct.pack_into("<QQ", raw, 0xFB8, 3600 * 10**7, FILETIME)
    return raw


def runs(system: Machine) -> list[tuple[int, int]]:
    """(first frame, frames) of the memory that is there."""
    found: list[list[int]] = []
    for number in sorted(system.pages):
        if found and number == sum(found[-1]):
            found[-1][1] += 1
        else:
            found.append([number, 1])
    return [(first, count) for first, count in found]


def page_bytes(system: Machine) -> bytes:
    """All pages, by frame."""
    return b"".join(bytes(system.pages[number]) for number in sorted(system.pages))


def full(system: System, **fields: int) -> bytes:
    """A complete dump, type 1."""
    raw = header(system, 1, **fields)
    places = runs(system)
    pages = sum(count for _, count in places)
    if system.n.pointer == 8:
        struct.pack_into("<IIQ", raw, 0x88, len(places), 0, pages)
        for number, run in enumerate(places):
            struct.pack_into("<QQ", raw, 0x98 + 16 * number, *run)
    else:
        struct.pack_into("<II", raw, 0x64, len(places), pages)
        for number, run in enumerate(places):
            struct.pack_into("<II", raw, 0x6C + 8 * number, *run)
    return bytes(raw) + page_bytes(system)


def _bits(system: Machine) -> tuple[bytes, int]:
    count = max(system.pages) + 1
    raw = bytearray((count + 7) // 8)
    for number in system.pages:
        raw[number // 8] |= 1 << number % 8
    return bytes(raw), count


def bitmap(system: System, dump_type: int = 6, **fields: int) -> bytes:
    """A bitmap dump, types 5 to 7."""
    raw = header(system, dump_type, **fields)
    bits, count = _bits(system)
    first = -(-(len(raw) + 0x38 + len(bits)) // PAGE) * PAGE
    head = b"SDMPDUMP" + bytes(24) + struct.pack("<QQQ", first, len(system.pages), count)
    return (bytes(raw) + head + bits).ljust(first, b"\0") + page_bytes(system)


def summary(system: System, **fields: int) -> bytes:
    """A kernel dump of Windows 7 and before, type 2."""
    raw = header(system, 2, **fields)
    bits, count = _bits(system)
    wide = system.n.pointer == 8
    first = -(-(len(raw) + 0x28 + len(bits)) // PAGE) * PAGE
    head = b"SDMPDUMP" + struct.pack("<IIII", 0, first, count, len(system.pages))
    head += struct.pack("<QQ" if wide else "<II", count, 0xDEADBEEF)
    return (bytes(raw) + head + bits).ljust(first, b"\0") + page_bytes(system)


def ranges(system: System, dump_type: int) -> bytes:
    """A dump of a debugger, types 8 to 10."""
    raw = header(system, dump_type)
    places = b"".join(struct.pack("<QQ", *run) for run in runs(system))
    inner = (
        struct.pack("<IHHQ", len(places) // 16, 0, 0, len(system.pages))
        if dump_type == 10
        else bytes(16)
    ) + places
    padded = -(-(len(raw) + 0x20 + len(inner) + 16) // PAGE) * PAGE
    metadata = padded - len(raw) - 0x20
    head = struct.pack("<I8sIQQ", 0x40, b"RDMPDUMP", 0, metadata, padded)
    return (bytes(raw) + head + inner).ljust(padded, b"\0") + page_bytes(system)


def raw_image(system: Machine) -> bytes:
    """Physical memory from address 0 on, with zeros where nothing is."""
    data = bytearray((max(system.pages) + 1) * PAGE)
    for number, page in system.pages.items():
        data[number * PAGE : (number + 1) * PAGE] = page
    return bytes(data)


def elf_core(system: System, cr3: int = 0) -> bytes:
    """What a hypervisor writes: a segment for each run of memory, and a note with CR3."""
    machine = {0x8664: 62, 0xAA64: 183, 0x14C: 3}[system.n.machine]
    state = bytearray(440)
    struct.pack_into("<Q", state, 416, cr3)
    note = struct.pack("<III", 5, len(state), 0) + b"QEMU\0\0\0\0" + bytes(state)
    places = runs(system)
    table = 64 + 56 * (len(places) + 1)
    at = table + len(note)
    segments = struct.pack("<IIQQQQQQ", 4, 0, table, 0, 0, len(note), len(note), 0)
    for first, count in places:
        size = count * PAGE
        segments += struct.pack("<IIQQQQQQ", 1, 7, at, 0, first * PAGE, size, size, 0)
        at += size
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack(
        "<HHIQQQIHHHHHH", 4, machine, 1, 0, 64, 0, 0, 64, 56, len(places) + 1, 0, 0, 0
    )
    return head + segments + note + page_bytes(system)


def xen_core(system: Machine, *, with_machine_pages: bool = False, shuffled: bool = False) -> bytes:
    """What `xl dump-core` writes: no segments; pages in one section, their numbers in another.

    Args:
        system: Whose memory it is.
        with_machine_pages: `.xen_p2m` with pairs in place of `.xen_pfn`.
        shuffled: Pages in another order than that of their numbers, one of them not valid.
    """
    numbers = sorted(system.pages)
    if shuffled:
        numbers = numbers[::2] + numbers[1::2]
    pages = b"".join(bytes(system.pages[number]) for number in numbers)
    if shuffled:
        numbers.append((1 << 64) - 1)
        pages += b"\x5a" * PAGE
    each = [(number, number ^ 0x1234) if with_machine_pages else (number,) for number in numbers]
    table = b"".join(struct.pack(f"<{len(row)}Q", *row) for row in each)
    name = b".xen_p2m" if with_machine_pages else b".xen_pfn"
    names = b"\0.shstrtab\0.xen_pages\0" + name + b"\0"
    parts = [(b".xen_pages", pages), (name, table), (b".shstrtab", names)]
    content = b"".join(part for _, part in parts)
    content = content.ljust(-(-len(content) // 8) * 8, b"\0")
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack(
        "<HHIQQQIHHHHHH", 4, 62, 1, 0, 0, PAGE + len(content), 0, 64, 56, 0, 64, len(parts) + 1, 3
    )
    sections, at = bytes(64), PAGE
    for title, part in parts:
        sections += struct.pack(
            "<IIQQQQIIQQ", names.index(title), 1, 0, 0, at, len(part), 0, 0, 8, 0
        )
        at += len(part)
    return head.ljust(PAGE, b"\0") + content + sections


def triage(system: System) -> bytes:
    """A small dump, type 4: drivers, one unloaded, KDBG, a stack and a data block."""
    wide = system.n.pointer == 8
    raw = header(system, 4)
    start = len(raw)
    at = start + 0x80
    parts = bytearray()

    def add(data: bytes) -> int:
        nonlocal parts
        place = at + len(parts)
        parts += data.ljust(-(-len(data) // 8) * 8, b"\0")
        return place

    names = []
    for name, _, _ in system.modules:
        text = name.encode("utf-16-le")
        names.append(add(struct.pack("<I", len(name)) + text + b"\0\0"))
    drivers = b""
    for (_, base, size), name_at in zip(system.modules, names, strict=True):
        entry = bytearray(0x90 if wide else 0x4C)
        struct.pack_into("<I", entry, 0, name_at)
        if wide:
            struct.pack_into("<Q", entry, 8 + 0x30, base)
            struct.pack_into("<I", entry, 8 + 0x40, size)
        else:
            struct.pack_into("<I", entry, 4 + 0x18, base)
            struct.pack_into("<I", entry, 4 + 0x20, size)
        drivers += bytes(entry)
    driver_list = add(drivers)
    old = "old.sys".encode("utf-16-le")
    gone = struct.pack("<HH", len(old), len(old)).ljust(16 if wide else 8, b"\0")
    gone += old.ljust(24, b"\0") + struct.pack("<QQ" if wide else "<II", 0x1000, 0x3000)
    unloaded = add((1).to_bytes(8 if wide else 4, "little") + gone)
    kdbg = add(system.kdbg_bytes())
    stack = add(b"stack".ljust(64, b"\xaa"))
    block = add(b"data block".ljust(64, b"\xbb"))
    blocks = add(struct.pack("<QII" if wide else "<III", system.kernel + 0x5000, block, 64))
    process = add(bytes(system.process_bytes()))
    thread = add(b"")
    end = at + len(parts) + 4
    fields = [
        *(0, end, end - 4, 0x348, 0xF00, 0, unloaded, 0, process, thread, stack, 64),
        *(driver_list, len(system.modules), 0, 0, 0, 0),
    ]
    top = system.kernel + 0x6000
    tail = [0, 0, kdbg, len(system.kdbg_bytes()), blocks, 1]
    if wide:
        inner = struct.pack("<18IQ16xQ6I", *fields, top, 0, *tail)
    else:
        inner = struct.pack("<18III6I", *fields, top, 0, *tail)
    return bytes(raw) + inner.ljust(0x80, b"\0") + bytes(parts) + b"TRGD"
