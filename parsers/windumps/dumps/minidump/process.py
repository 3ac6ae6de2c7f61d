"""What a minidump says of its process as a whole: open handles, and what Windows counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from windumps.dump import VmCounters
from windumps.dumps.minidump import structures as c
from windumps.dumps.minidump.streams import Streams
from windumps.process.handles import Handles, Texts

_NO_ROWS = np.empty(0, np.int64)


def read_handles(streams: Streams) -> Handles | None:
    """All open handles; None when the dump has no list of them."""
    nothing = Texts(("",), _NO_ROWS)
    damaged = Handles(nothing, nothing, whole=False)
    stream = streams.find(c.StreamType.HANDLE_DATA, c.HANDLE_DATA.size)
    if stream is None:
        listed = any(s.kind == c.StreamType.HANDLE_DATA and s.claimed for s in streams.all)
        return damaged if listed else None
    head = c.HANDLE_DATA.record(streams.data, stream.offset)
    if (
        head.SizeOfDescriptor < c.HANDLE_DESCRIPTOR.size
        or head.SizeOfHeader < c.HANDLE_DATA.size
        or stream.offset + head.SizeOfHeader > stream.end
    ):
        streams.say(
            "bad-entry-size",
            c.HANDLE_DATA.name,
            stream.offset,
            f"a header of {head.SizeOfHeader} and entries of {head.SizeOfDescriptor} bytes cannot be; "
            "the stream is ignored",
        )
        return damaged
    rows = streams.rows(
        c.HANDLE_DESCRIPTOR,
        stream.offset + head.SizeOfHeader,
        stream.end,
        head.NumberOfDescriptors,
        head.SizeOfDescriptor,
    )
    types = _texts(streams, "MINIDUMP_HANDLE_DESCRIPTOR.TypeNameRva", rows["TypeNameRva"])
    names = _texts(streams, "MINIDUMP_HANDLE_DESCRIPTOR.ObjectNameRva", rows["ObjectNameRva"])
    return Handles(
        types.texts,
        names.texts,
        len(rows) == head.NumberOfDescriptors,
        not names.left_out,
        rows["Handle"].astype(np.uint64),
    )


def read_thread_starts(streams: Streams) -> dict[int, int]:
    """Address of the function that each thread began with, by thread id; threads without one are absent."""
    stream = streams.find(c.StreamType.THREAD_INFO_LIST, c.THREAD_INFO_LIST.size)
    if stream is None:
        return {}
    head = c.THREAD_INFO_LIST.record(streams.data, stream.offset)
    sizes = (c.THREAD_INFO_LIST.size, head.SizeOfHeader), (c.THREAD_INFO.size, head.SizeOfEntry)
    if not all(least <= size <= c.MAX_THREAD_INFO_BYTES for least, size in sizes):
        streams.say(
            "bad-entry-size",
            c.THREAD_INFO_LIST.name,
            stream.offset,
            f"a header of {head.SizeOfHeader} and entries of {head.SizeOfEntry} bytes cannot be; the stream "
            "is ignored",
        )
        return {}
    rows = streams.rows(
        c.THREAD_INFO,
        stream.offset + head.SizeOfHeader,
        stream.end,
        head.NumberOfEntries,
        head.SizeOfEntry,
    )
    told = rows["StartAddress"] != 0
    return dict(
        zip(rows["ThreadId"][told].tolist(), rows["StartAddress"][told].tolist(), strict=True)
    )


def read_vm_counters(streams: Streams) -> VmCounters | None:
    """What Windows counted of the process; None when the dump does not say."""
    stream = streams.find(c.StreamType.PROCESS_VM_COUNTERS, c.PROCESS_VM_COUNTERS_1.size)
    if stream is None:
        return None
    revision = streams.integer(stream.offset, 2)
    layout = c.PROCESS_VM_COUNTERS.get(revision)
    if layout is None or stream.size < layout.size:
        streams.say(
            "bad-vm-counters",
            c.STREAM_NAMES[c.StreamType.PROCESS_VM_COUNTERS],
            stream.offset,
            f"revision {revision} in {stream.size} bytes is not known; the stream is ignored",
        )
        return None
    record = layout.record(streams.data, stream.offset)
    # Some writers leave the flags 0: then a counter that is not 0 was filled in.
    flags = record.Flags if layout is c.PROCESS_VM_COUNTERS_2 else 0

    def counter(name: str) -> int | None:
        value = int(record.get(name, 0))
        if value > c.MAX_COUNTER:
            streams.say(
                "bad-vm-counters",
                f"{layout.name}.{name}",
                stream.offset,
                f"0x{value:x} bytes are more than an address space (MAX_COUNTER); it is ignored",
            )
            return None
        return value if value and (not flags or flags & c.VM_COUNTER_FLAGS[name]) else None

    return VmCounters(counter("PrivateUsage"), counter("VirtualSize"), counter("WorkingSetSize"))


@dataclass(frozen=True)
class _Read:
    """Texts, and how many rows' texts are damaged or were left out."""

    texts: Texts
    left_out: int


def _texts(streams: Streams, structure: str, rvas: NDArray[np.uint32]) -> _Read:
    """The MINIDUMP_STRING of each row (file offset 0: none); damaged ones are "", which is said.

    Writers may give each row a string of its own, so equal ones are put together. All strings of one
    length are read at once.
    """
    data = streams.data
    places, back = np.unique(rvas.astype(np.int64), return_inverse=True)
    inside = places + 4 <= len(data)
    length = np.zeros(len(places), np.int64)
    found = data[places[inside, None] + np.arange(4)].astype(np.int64)
    length[inside] = (found << np.array([0, 8, 16, 24])).sum(axis=1)
    inside &= (length <= c.MAX_PATH_BYTES) & (places + 4 + length <= len(data))
    # Strings that share bytes of the file could make any amount of text out of a small one.
    order = np.argsort(length, kind="stable")
    total = np.cumsum(np.where(inside, length, 0)[order])
    inside[order] &= total <= c.MAX_TEXT_BYTES
    named = places != 0
    left_out = int(np.count_nonzero((named & ~inside)[back]))
    if left_out:
        streams.say(
            "bad-string",
            structure,
            None,
            f"the names of {left_out} handles lie outside the file, or are longer than MAX_PATH_BYTES "
            "or, all together, than MAX_TEXT_BYTES",
        )
    numbers = {"": 0}
    number = np.zeros(len(places), np.int64)
    good = named & inside & (length > 0)
    for size in np.unique(length[good]).tolist():
        mine = np.flatnonzero(good & (length == size))
        raw = sliding_window_view(data, size)[places[mine] + 4]
        rows, which = np.unique(raw.view(f"V{size}").ravel(), return_inverse=True)
        texts = [row.tobytes().decode("utf-16-le", "replace").rstrip("\0") for row in rows]
        known = np.array([numbers.setdefault(text, len(numbers)) for text in texts])
        number[mine] = known[which]
    return _Read(Texts(tuple(numbers), number[back]), left_out)
