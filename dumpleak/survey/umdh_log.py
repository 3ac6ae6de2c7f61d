r"""UMDH's text forms, written: the log of one dump and the comparison of two.

UMDH is Microsoft's tool that lists the blocks of a live process by recorded stack; scripts and eyes made for
it shall keep working. Forms as in public samples (Microsoft's documentation of UMDH, blog posts) and as
HeapStat, which is free software, writes them:

    30 bytes + 30 at 206EDDA8BA0 by BackTraceEDD4EEA6      bytes asked for, overhead, address, stack
    \t7FFE82352933                                         the stack, where it comes for the first time

    +  154944 ( 154944 -      0)      1 allocs\tBackTrace9933FD81              a comparison
    +       1 (      1 -      0)\tBackTrace9933FD81\tallocations

Numbers of a log are hexadecimal; its stacks bear the address (on XP the number) of their record. A log
knows images by file name only, so ours say in comments who each image is. Nor does a log tell where it ends,
only where the data of each heap does: the last line of ours counts the heaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import IO

import numpy as np

from dumpleak.attribution.stack import module_stem
from dumpleak.compare.answers import Comparison, SiteDelta
from dumpleak.files.umdh_lines import COUNTED, HEAPS_IN_ALL
from dumpleak.model.errors import Progress, no_progress
from dumpleak.process.session import HeapSource, Session
from windumps.blocks import Blocks
from windumps.images.modules import file_name
from windumps.process.stack_traces import CodeMap, StackTraces

RULE = "- - - - - - - - - -"


def write_log(session: Session, stream: IO[str], progress: Progress = no_progress) -> int:
    """Writes the used blocks that have a recorded stack as UMDH would.

    Args:
        session: The dump.
        stream: Where to.
        progress: Told of each heap.

    Returns:
        The number of blocks written; with none, nothing at all was.

    Raises:
        CannotAnswerError: no heap can be read.
    """
    session.require_heaps()
    code = CodeMap(session.dump.modules, session.dump.unloaded_modules)
    writer = _LogWriter(code, stream, "".join(f"{line}\n" for line in _log_head(session)))
    for source, blocks in session.blocks(progress):
        writer.add(source, blocks.used)
    writer.finish()
    return writer.count


def _log_head(session: Session) -> Iterator[str]:
    dump = session.dump
    yield f"// Blocks with recorded stacks, from {file_name(str(dump.path))}"
    yield f"// {session.describe_system()}, process {dump.process_id or 'unknown'}"
    if dump.time is not None:
        yield f"// taken {dump.time.isoformat()}"
    yield COUNTED
    yield "//"
    yield "// Loaded modules:"
    yield "//     Base Size Module"
    for module in dump.modules:
        path = _one_line(module.path or module.name)
        yield f"//    {module.base_address:16X} {module.size_bytes:8X} {path}"
    yield "//"
    # What UMDH does not keep: who each image is, unloaded ones too.
    for word, modules in (("image", dump.modules), ("unloaded", dump.unloaded_modules)):
        for module in modules:
            guid, age = (module.pdb.guid, module.pdb.age) if module.pdb else ("-", 0)
            numbers = f"{module.base_address:X} {module.size_bytes:X} {module.timestamp:X}"
            # A file name on Windows has no "|" in it.
            names = f"{_one_line(module.name)}|{_one_line(module.pdb.name) if module.pdb else ''}"
            yield f"// {word} {numbers} {guid} {age} {names}"


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "?"


class _LogWriter:
    """Writes heaps and blocks as they come; a stack the first time it is met.

    What stands before the first block is held back until there is one.
    """

    def __init__(self, code: CodeMap, stream: IO[str], head: str) -> None:
        self.count = 0
        self._heap_count = 0
        self._held = head
        self._code = code
        self._stream = stream
        self._heap: HeapSource | None = None
        self._readers: dict[str, StackTraces] = {}
        self._known: dict[tuple[str, int], bool] = {}

    def add(self, source: HeapSource, used: Blocks) -> None:
        if source is not self._heap:
            self._finish_heap()
            self._heap = source
            self._heap_count += 1
            address = source.entry.address
            self._put(
                f"\n*{RULE} Start of data for heap @ {address:X} {RULE}\n\n"
                "REQUESTED bytes + OVERHEAD at ADDRESS by BackTraceID\n"
                "     STACK if not already dumped.\n\n"
                f"*{RULE} Heap {address:X} Hogs {RULE}\n\n"
            )
        traced = used.select(used.trace != 0)
        new = self._new_stacks(source, traced)
        overhead = np.maximum(traced.block_bytes - traced.counted_bytes, 0)
        columns = (traced.counted_bytes, overhead, traced.address, traced.trace)
        for size, more, address, trace in zip(*(c.tolist() for c in columns), strict=True):
            if not self._known[source.view.architecture, trace]:
                continue
            if not self.count:
                self._stream.write(self._held)
            self._stream.write(f"{size:X} bytes + {more:X} at {address:X} by BackTrace{trace:X}\n")
            self._stream.writelines(f"\t{frame:X}\n" for frame in new.pop(trace, ()))
            self.count += 1

    def finish(self) -> None:
        self._finish_heap()
        self._put(f"// {self._heap_count} {HEAPS_IN_ALL}\n")

    def _finish_heap(self) -> None:
        if self._heap is not None:
            address = self._heap.entry.address
            self._put(f"\n*{RULE} End of data for heap @ {address:X} {RULE}\n")

    def _put(self, text: str) -> None:
        if self.count:
            self._stream.write(text)
        else:
            self._held += text

    def _new_stacks(self, source: HeapSource, blocks: Blocks) -> dict[int, tuple[int, ...]]:
        view = source.view
        key = view.architecture
        if key not in self._readers:
            self._readers[key] = StackTraces(
                view.memory,
                key,
                view.build,
                view.ntdll(),
                self._code,
                view.log,
                view.exact_layouts.get("stack traces"),
            )
        traces = [t for t in np.unique(blocks.trace).tolist() if (key, t) not in self._known]
        stacks = self._readers[key].frames(np.array(traces, np.uint64))
        self._known |= {(key, t): bool(s) for t, s in zip(traces, stacks, strict=True)}
        return dict(zip(traces, stacks, strict=True))


def write_comparison(
    comparison: Comparison, stream: IO[str], top: int | None = None, *, decimal: bool = False
) -> None:
    """Writes a comparison as UMDH does; largest growth first.

    A stack is numbered by its key, so that the same one has the same number in every comparison. What has
    no stack shows its name in place of frames. Private memory outside heaps is left out: UMDH knows none.

    Args:
        comparison: What to write.
        stream: Where to.
        decimal: Decimal numbers, as `umdh -d`; else hexadecimal ones.
        top: Write only so many sites; the total is of all of them.
    """
    kind = "d" if decimal else "x"
    stream.write(
        f"// {_one_line(f'{comparison.current.source.file} against {comparison.base.source.file}')}\n"
        "//\n"
        "// + BYTES_DELTA ( NEW_BYTES - OLD_BYTES) NEW_COUNT allocs BackTraceID\n"
        "// + COUNT_DELTA ( NEW_COUNT - OLD_COUNT) BackTraceID allocations\n"
        "//     the stack, innermost frame first\n"
        "//\n"
        f"// Numbers are {'decimal' if decimal else 'hexadecimal'}.\n"
    )
    stream.writelines(f"// not comparable: {_one_line(reason)}\n" for reason in comparison.reasons)
    stream.write("\n")
    if comparison.refused:
        return
    for delta in comparison.sites[:top]:
        stream.writelines(f"{line}\n" for line in _delta_lines(delta, kind))
    new, old = comparison.current.totals, comparison.base.totals
    requested = new.bytes - old.bytes
    total = new.block_bytes - old.block_bytes
    sign, word = (-1, "decrease") if total < 0 else (1, "increase")
    overhead = total - requested
    stream.write(
        f"Total {word} == {sign * requested:{kind}} requested + {sign * overhead:6{kind}} overhead "
        f"= {sign * total:{kind}}\n"
    )


def _delta_lines(delta: SiteDelta, kind: str) -> Iterator[str]:
    site, new, old = delta.site, delta.current, delta.base
    trace = f"BackTrace{_number(site.key)}"
    amount, count = delta.delta_bytes, delta.delta_count
    yield (
        f"{_sign(amount)}{abs(amount):8{kind}} ( {new.bytes:6{kind}} - {old.bytes:6{kind}}) "
        f"{new.count:6{kind}} allocs\t{trace}"
    )
    yield (
        f"{_sign(count)}{abs(count):8{kind}} ( {new.count:6{kind}} - {old.count:6{kind}})"
        f"\t{trace}\tallocations"
    )
    yield ""
    for shown in [_umdh_frame(frame) for frame in site.frames] or [site.name]:
        yield f"\t{_one_line(shown)}"
    yield ""


def _number(key: str) -> str:
    """16 hexadecimal digits for a key, the same everywhere."""
    return blake2b(key.encode(), digest_size=8).hexdigest().upper()


def _sign(value: int) -> str:
    return "-" if value < 0 else "+"


def _umdh_frame(frame: str) -> str:
    """`app.exe!Cache::insert+0x41` as `app!Cache::insert+41`; `???` where there is no symbol."""
    module, mark, symbol = frame.partition("!")
    if not mark:
        module, _, offset = frame.rpartition("+0x")
        return f"{module_stem(module)}!???+{offset.upper()}" if module else frame
    function, plus, offset = symbol.rpartition("+0x")
    shown = f"{function}+{offset.upper()}" if plus else symbol
    return f"{module_stem(module)}!{shown}"
