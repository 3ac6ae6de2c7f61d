"""The lines of a UMDH log, added up, and whether they are all there.

The data of a heap has a beginning and an end in a log; logs that we wrote count their heaps too. One that was
cut is known by that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from dumpleak.files.live_text import decoded
from windumps.images.modules import Module, PdbIdentity, file_name

COUNTED = "// The last line counts the heaps."
HEAPS_IN_ALL = "heaps in all"
MAX_FRAMES = 0x100
HEAD_BYTES = 0x10000

HEX = "[0-9A-Fa-f]{1,16}"
ADDRESS = re.compile(rf"(?:0x)?({HEX})")
_MODULES = re.compile(r"//\s*Base\s+Size\s+Module")
_MODULE = re.compile(rf"//\s+({HEX})\s+({HEX})\s+(\S.*)")
_IMAGE = re.compile(
    rf"// (image|unloaded) ({HEX}) ({HEX}) ({HEX}) ([0-9A-F]+|-) (\d{{1,10}}) (\S.*)"
)
_TAKEN = re.compile(r"// taken (\S+)")
_HEAP = re.compile(rf"\*[- ]+Start of data for heap @ (?:0x)?({HEX})")
_HEAP_END = re.compile(rf"\*[- ]+End of data for heap @ (?:0x)?({HEX})")
_IN_ALL = re.compile(rf"// (\d{{1,10}}) {HEAPS_IN_ALL}")
_HOGS = re.compile(rf"\*[- ]+Heap (?:0x)?{HEX} Hogs")
_RULE = "*- "
_BLOCK = re.compile(rf"({HEX}) bytes \+ ({HEX}) at ({HEX}) by BackTrace({HEX})")
_GROUP = re.compile(
    rf"(?:0x)?({HEX}) bytes in (?:0x)?({HEX}) allocations \(@ (?:0x)?({HEX})[^)]*\) by:? BackTrace({HEX})"
)
_DELTA = re.compile(r"[+-]\s+[0-9A-Fa-f]+ \(\s*[0-9A-Fa-f]+ -\s*[0-9A-Fa-f]+\).*BackTrace")


@dataclass
class Backtrace:
    """One BackTrace of a log: its frames as written, and its blocks added up."""

    frames: list[str] = field(default_factory=list)
    count: int = 0
    bytes: int = 0
    block_bytes: int = 0
    largest: int = 0

    def add(self, count: int, size: int, overhead: int) -> None:
        """Takes blocks of one size in."""
        self.count += count
        self.bytes += count * size
        self.block_bytes += count * (size + overhead)
        self.largest = max(self.largest, size)


@dataclass
class Log:
    """What was read so far.

    Attributes:
        modules: Loaded ones, as UMDH lists them.
        images: Loaded ones with their identities, in logs that we wrote.
        unloaded: Unloaded ones with their identities, in logs that we wrote.
        stacks: By number.
        heaps: By address, in order.
        highest: The highest address of a block.
        taken: When.
        is_comparison: It has lines of a comparison of two logs.
        open_heap: The heap whose data have not ended yet.
        ended: Heaps whose data ended.
        stray: Some data have no beginning, or no end.
        repeated: A heap that is there twice.
        heads: Lists of modules, of which a log has one.
        is_counted: The log says that its last line counts the heaps.
        in_all: What that line says.
    """

    modules: list[Module] = field(default_factory=list)
    images: list[Module] = field(default_factory=list)
    unloaded: list[Module] = field(default_factory=list)
    stacks: dict[int, Backtrace] = field(default_factory=dict)
    heaps: dict[int, Backtrace] = field(default_factory=dict)
    highest: int = 0
    taken: datetime | None = None
    is_comparison: bool = False
    open_heap: int | None = None
    ended: int = 0
    stray: bool = False
    repeated: int | None = None
    heads: int = 0
    is_counted: bool = False
    in_all: int | None = None

    @property
    def why_not_whole(self) -> str:
        """Why this is less, or more, than one log; "" when it is one."""
        if self.repeated is not None:
            return f"it has the heap at {self.repeated:X} twice: two logs in one file"
        if self.heads > 1:
            return f"it has {self.heads} lists of modules: several logs in one file"
        cut = "the log is cut, and what it lacks would look freed, or new"
        if self.open_heap is not None:
            return f"it ends inside the data of the heap at {self.open_heap:X}: {cut}"
        if self.stray:
            return f"the data of a heap lack their beginning or their end: {cut}"
        if self.is_counted and self.in_all != self.ended:
            return f"its last line, which counts the heaps, is not there or not right: {cut}"
        return ""


def is_log(head: bytes) -> bool:
    """True when the beginning of a file (some KiB) looks like a UMDH log or comparison."""
    lines = decoded(head[:HEAD_BYTES], "utf-8-sig").splitlines()
    patterns = (_HEAP, _BLOCK, _GROUP, _DELTA, _MODULES)
    return any(pattern.match(line.strip()) for line in lines for pattern in patterns)


def parse(lines: Iterable[str]) -> Log:
    """Reads a log line by line; what is no line of one is passed over."""
    log = Log()
    heap: Backtrace | None = None
    open_stack: Backtrace | None = None  # takes the frames that follow
    in_modules = False
    for raw in lines:
        line = raw.strip()
        if line.startswith("//"):
            in_modules = _read_comment(log, line, in_modules=in_modules)
        elif match := _BLOCK.match(line):
            size, overhead, address, trace = (int(text, 16) for text in match.groups())
            log.highest = max(log.highest, address)
            log.stray |= log.open_heap is None
            open_stack = _count(log, heap, trace, (1, size, overhead))
        elif match := _GROUP.match(line):
            _, count, size, trace = (int(text, 16) for text in match.groups())
            log.stray |= log.open_heap is None
            open_stack = _count(log, heap, trace, (count, size, 0))
        elif match := _HEAP.match(line):
            address = int(match[1], 16)
            if address in log.heaps:
                log.repeated = address
            heap = log.heaps.setdefault(address, Backtrace())
            # A heap that begins before the last one has ended leaves that one open for good.
            log.stray |= log.open_heap is not None
            log.open_heap = address
            open_stack = None
        elif match := _HEAP_END.match(line):
            log.stray |= log.open_heap != int(match[1], 16)
            log.ended += log.open_heap is not None
            log.open_heap = open_stack = None
        elif line.startswith(("*", "+", "-")):
            log.is_comparison |= _DELTA.match(line) is not None
            # A marker of which only a part is there.
            log.stray |= line.startswith(_RULE) and _HOGS.match(line) is None
            open_stack = None
        elif (
            open_stack is not None
            and len(open_stack.frames) < MAX_FRAMES
            and ("!" in line or ADDRESS.fullmatch(line))
        ):
            open_stack.frames.append(line)
    return log


def _read_comment(log: Log, line: str, *, in_modules: bool) -> bool:
    """Reads a comment line; tells whether the lines that follow are modules."""
    if match := _IMAGE.fullmatch(line):
        base, size, stamp = (int(match[n], 16) for n in (2, 3, 4))
        name, _, pdb_name = match[7].partition("|")
        pdb = None if match[5] == "-" else PdbIdentity(pdb_name, match[5], int(match[6]))
        image = Module(name, name, base, size, stamp, pdb=pdb)
        (log.images if match[1] == "image" else log.unloaded).append(image)
    elif match := _TAKEN.fullmatch(line):
        log.taken = _time(match[1])
    elif line == COUNTED:
        log.is_counted = True
    elif match := _IN_ALL.fullmatch(line):
        log.in_all = int(match[1])
    elif in_modules and (match := _MODULE.fullmatch(line)):
        base, size = int(match[1], 16), int(match[2], 16)
        log.modules.append(Module(file_name(match[3]), match[3], base, size, 0))
        return True
    begins = _MODULES.match(line) is not None
    log.heads += begins
    return begins


def _time(text: str) -> datetime | None:
    """An ISO time with its zone; None for anything else."""
    try:
        taken = datetime.fromisoformat(text)
    except ValueError:
        return None
    return taken if taken.tzinfo is not None else None


def _count(
    log: Log, heap: Backtrace | None, trace: int, amount: tuple[int, int, int]
) -> Backtrace | None:
    """Counts blocks; gives the stack if its frames are still to come."""
    stack = log.stacks.setdefault(trace, Backtrace())
    stack.add(*amount)
    (heap or log.heaps.setdefault(0, Backtrace())).add(*amount)
    return None if stack.frames else stack
