"""User-mode minidumps.

Decisions:
- One bounded stream at a time. A stream that is damaged, duplicated or unknown costs itself only;
  the `minidump` package, which parses whole files, gives up on 22 of 150 public dumps. Its decoders
  of single records (modules, threads, misc info) are used, each on a buffer of exactly that record.
- Memory descriptors and memory-info rows come as numpy columns and are never objects
  (`windumps.dumps.minidump.memory`).
- A count from the file is compared with the bytes that are there, and with a limit, before anything
  is allocated (`windumps.dumps.minidump.streams`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from minidump.streams.MiscInfoStream import MINIDUMP_MISC_INFO
from minidump.streams.ModuleListStream import MINIDUMP_MODULE
from minidump.streams.ThreadListStream import MINIDUMP_THREAD
from minidump.streams.UnloadedModuleListStream import MINIDUMP_UNLOADED_MODULE

from windumps.arrays import U8
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.dump import Dump, Thread
from windumps.dumps import kinds
from windumps.dumps.minidump import structures as c
from windumps.dumps.minidump.memory import read_memory
from windumps.dumps.minidump.process import read_handles, read_thread_starts, read_vm_counters
from windumps.dumps.minidump.streams import Streams
from windumps.images.modules import Module, file_name, parse_codeview
from windumps.images.search import completed, unlisted_images
from windumps.memory import AddressSpace

# Bytes of one record, as the decoders of the `minidump` package consume them.
MODULE_SIZE = 108
THREAD_SIZE = 48
UNLOADED_MODULE_SIZE = 24
MISC_INFO_SIZE = 24


def open_minidump(path: Path, data: U8) -> Dump:
    """Opens a minidump.

    Args:
        path: The name to report.
        data: The file's bytes; stays referenced by the result.

    Raises:
        TruncatedDumpError: the file ends before its header or stream directory.
        CorruptDumpError: the header's version is not a minidump's.
    """
    log = DiagnosticLog()
    streams = Streams(data, log)
    architecture, platform, version = _system_info(streams)
    process_id, process_times = _misc_info(streams)
    listed = streams.counted(c.StreamType.THREAD_LIST, THREAD_SIZE)
    threads = list(_threads(streams, architecture, listed)) if listed is not None else []
    listing = streams.find(c.StreamType.THREAD_LIST, 4) if listed is not None else None
    threads_whole = (
        listed is not None
        and listing is not None
        and len(threads) == listed[2]
        and streams.lists_all(listing, listed[0], listed[2], THREAD_SIZE)
    )
    memory = read_memory(streams)
    place = streams.counted(c.StreamType.MODULE_LIST, MODULE_SIZE)
    listed_modules = list(_modules(streams, place)) if place is not None else []
    return Dump(
        path=path,
        kind=kinds.MINIDUMP,
        architecture=architecture,
        platform=platform,
        os_version=version,
        time=_time(streams.header.TimeDateStamp),
        process_id=process_id,
        process_times=process_times,
        full_memory=bool(streams.header.Flags & c.FULL_MEMORY_FLAG)
        or any(stream.kind == c.StreamType.MEMORY64_LIST for stream in streams.all),
        memory=memory,
        modules=_images(streams, memory, listed_modules),
        modules_whole=place is not None and len(listed_modules) == place[2],
        unloaded_modules=list(_unloaded_modules(streams)),
        threads=threads,
        threads_whole=threads_whole,
        comments=_comments(streams),
        streams=[(stream.kind, stream.size) for stream in streams.all],
        log=log,
        commit=_commit(streams),
        handles=read_handles(streams),
        vm_counters=read_vm_counters(streams),
    )


def _system_info(streams: Streams) -> tuple[str, str, tuple[int, int, int]]:
    stream = streams.find(c.StreamType.SYSTEM_INFO, c.SYSTEM_INFO.size)
    if stream is None:
        streams.say(
            "no-system-info",
            c.SYSTEM_INFO.name,
            None,
            "the dump does not say on which system and processor it was taken",
        )
        return "", "Windows", (0, 0, 0)
    info = c.SYSTEM_INFO.record(streams.data, stream.offset)
    architecture = c.ARCHITECTURES.get(info.ProcessorArchitecture, "")
    if not architecture:
        streams.say(
            "unknown-architecture",
            c.SYSTEM_INFO.name,
            stream.offset,
            f"ProcessorArchitecture {info.ProcessorArchitecture} is not known",
        )
    platform = c.OTHER_PLATFORMS.get(info.PlatformId, "Windows")
    if platform == "Windows" and info.PlatformId not in c.WINDOWS_PLATFORMS:
        streams.say(
            "unknown-platform",
            c.SYSTEM_INFO.name,
            stream.offset,
            f"PlatformId 0x{info.PlatformId:x} is not known; taken for Windows",
        )
    return architecture, platform, (info.MajorVersion, info.MinorVersion, info.BuildNumber)


def _misc_info(streams: Streams) -> tuple[int | None, tuple[datetime, int, int] | None]:
    stream = streams.find(c.StreamType.MISC_INFO, MISC_INFO_SIZE)
    if stream is None:
        return None, None
    raw = streams.data[stream.offset : stream.offset + MISC_INFO_SIZE].tobytes()
    info = MINIDUMP_MISC_INFO.parse(io.BytesIO(raw))
    created = _time(info.ProcessCreateTime or 0)
    times = None
    if created is not None:
        times = (created, int(info.ProcessUserTime), int(info.ProcessKernelTime))
    return info.ProcessId, times


def _commit(streams: Streams) -> tuple[int, int] | None:
    """Committed bytes of the system, and its limit."""
    layout = c.SYSTEM_MEMORY_INFO
    stream = streams.find(c.StreamType.SYSTEM_MEMORY_INFO, layout.size)
    if stream is None:
        return None
    info = layout.record(streams.data, stream.offset)
    if not info.Flags & c.BASIC_PERF_INFO_FLAG or not 0 < info.CommittedPages <= info.CommitLimit:
        return None
    return info.CommittedPages * info.PageSize, info.CommitLimit * info.PageSize


def _comments(streams: Streams) -> list[str]:
    comments = []
    for kind, encoding in (
        (c.StreamType.COMMENT_A, "cp1252"),
        (c.StreamType.COMMENT_W, "utf-16-le"),
    ):
        stream = streams.find(kind, 1)
        if stream is not None:
            end = stream.offset + min(stream.size, c.MAX_PATH_BYTES)
            raw = streams.data[stream.offset : end].tobytes()
            comments.append(raw.decode(encoding, "replace").split("\0", 1)[0])
    return comments


def _modules(streams: Streams, place: tuple[int, int, int]) -> Iterator[Module]:
    for _, buffer in streams.buffers("MINIDUMP_MODULE", *place, MODULE_SIZE, MODULE_SIZE):
        raw = MINIDUMP_MODULE.parse(buffer)
        path = streams.string("MINIDUMP_MODULE.ModuleNameRva", raw.ModuleNameRva)
        codeview = b""
        if raw.CvRecord.DataSize:
            codeview = streams.text(
                "MINIDUMP_MODULE.CvRecord", raw.CvRecord.Rva, raw.CvRecord.DataSize
            )
        yield Module(
            name=file_name(path) or f"module_{raw.BaseOfImage:x}",
            path=path,
            base_address=raw.BaseOfImage,
            size_bytes=raw.SizeOfImage,
            timestamp=raw.TimeDateStamp,
            version=_version(raw.VersionInfo),
            pdb=parse_codeview(codeview),
            checksum=raw.CheckSum,
        )


def _images(streams: Streams, memory: AddressSpace, listed: list[Module]) -> list[Module]:
    """The listed modules, completed out of memory, and images there that the list lacks."""
    modules = completed(memory, listed)
    unlisted = unlisted_images(memory, modules)
    if unlisted:
        streams.log.add(
            "modules-by-headers",
            Severity.INFO,
            c.STREAM_NAMES[c.StreamType.MODULE_LIST],
            None,
            f"{len(unlisted)} images that the list of modules lacks were found by their headers",
        )
    return modules + unlisted


def _unloaded_modules(streams: Streams) -> Iterator[Module]:
    head_size = c.UNLOADED_MODULE_LIST.size
    stream = streams.find(c.StreamType.UNLOADED_MODULE_LIST, head_size)
    if stream is None:
        return
    head = c.UNLOADED_MODULE_LIST.record(streams.data, stream.offset)
    if head.SizeOfEntry < UNLOADED_MODULE_SIZE or head.SizeOfHeader < head_size:
        streams.say(
            "bad-entry-size",
            c.UNLOADED_MODULE_LIST.name,
            stream.offset,
            f"a header of {head.SizeOfHeader} and entries of {head.SizeOfEntry} bytes cannot be; "
            "the stream is ignored",
        )
        return
    for _, buffer in streams.buffers(
        "MINIDUMP_UNLOADED_MODULE",
        stream.offset + head.SizeOfHeader,
        stream.end,
        head.NumberOfEntries,
        UNLOADED_MODULE_SIZE,
        head.SizeOfEntry,
    ):
        raw = MINIDUMP_UNLOADED_MODULE.parse(buffer)
        path = streams.string("MINIDUMP_UNLOADED_MODULE.ModuleNameRva", raw.ModuleNameRva)
        yield Module(
            name=file_name(path) or f"module_{raw.BaseOfImage:x}",
            path=path,
            base_address=raw.BaseOfImage,
            size_bytes=raw.SizeOfImage,
            timestamp=raw.TimeDateStamp,
            checksum=raw.CheckSum,
        )


def _threads(streams: Streams, architecture: str, place: tuple[int, int, int]) -> Iterator[Thread]:
    starts = read_thread_starts(streams)
    for offset, buffer in streams.buffers("MINIDUMP_THREAD", *place, THREAD_SIZE, THREAD_SIZE):
        raw = MINIDUMP_THREAD.parse(buffer)
        context = raw.ThreadContext
        if context.Rva + context.DataSize > len(streams.data):
            streams.say(
                "bad-thread-context",
                "MINIDUMP_THREAD.ThreadContext",
                offset,
                f"the registers of thread {raw.ThreadId} lie outside the file",
            )
        yield Thread(
            thread_id=raw.ThreadId,
            teb=raw.Teb,
            stack_start=raw.Stack.StartOfMemoryRange,
            stack_size=raw.Stack.DataSize,
            registers=_registers(streams, architecture, context.Rva, context.DataSize),
            start_address=starts.get(raw.ThreadId, 0),
        )


def _registers(streams: Streams, architecture: str, rva: int, size: int) -> dict[str, int]:
    if architecture not in c.CONTEXT_REGISTERS:
        return {}
    first, width, names = c.CONTEXT_REGISTERS[architecture]
    if size < first + width * len(names) or rva + size > len(streams.data):
        return {}
    return {
        name: streams.integer(rva + first + index * width, width)
        for index, name in enumerate(names)
    }


def _time(stamp: int) -> datetime | None:
    return datetime.fromtimestamp(stamp, UTC) if stamp else None


def _version(info: Any) -> str:
    """The file version of VS_FIXEDFILEINFO; empty when its signature is missing."""
    if info.dwSignature != 0xFEEF04BD:
        return ""
    parts = (info.dwFileVersionMS, info.dwFileVersionLS)
    return ".".join(str(part) for word in parts for part in (word >> 16, word & 0xFFFF))
