"""Memory of others than Windows' heaps, as subjects: mimalloc and rpmalloc, and objects of .NET."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from builders.arena_builder import Made, Page, mimalloc2, mimalloc3, rpmalloc2
from builders.clr_heap_builder import ClrHeapBuilder
from builders.minidump_builder import MinidumpBuilder
from truth import SHARED

from dumpleak.process.arenas import arena_blocks, arenas_of
from dumpleak.process.session import Session
from dumpleak.survey.populations.arenas import arena_members
from dumpleak.survey.populations.managed import managed_objects
from fuzz.criteria import Answer, Found, Part, Truth, overlaps
from fuzz.dump_kinds import unpacked
from fuzz.process_subject import ProcessSubject, Walked
from fuzz.seeds import PAGE
from fuzz.subject import Subject
from windumps.arrays import I64, U64

COMMIT, PRIVATE, READ_WRITE = 0x1000, 0x20000, 4
ALL = 0  # the one part that an answer has


class Told(NamedTuple):
    """What is said of used blocks.

    Attributes:
        address: uint64.
        size: int64, bytes that are said.
        kind: What holds them.
        unwalked: Bytes that are said not to be known.
        shown: The share that is shown.
        messages: What was left out.
    """

    address: U64
    size: I64
    kind: str
    unwalked: int
    shown: str
    messages: list[str]


class OtherSubject(ProcessSubject):
    """Blocks that have one account for all."""

    def told(self, session: Session) -> Told:
        """All used blocks, and what is said of the rest."""
        raise NotImplementedError

    def answer(self, data: bytes) -> Answer:
        told = self.told(self._open(data))
        address, first, times = np.unique(told.address, return_index=True, return_counts=True)
        used = {
            place: Found(size, told.kind, ALL)
            for place, size in zip(address.tolist(), told.size[first].tolist(), strict=True)
        }
        return Answer(
            used,
            address[times > 1].tolist(),
            overlaps(told.address, told.size),
            {ALL: Part("", told.unwalked)},
            1,
            1,
            told.shown,
            told.messages,
        )


class ArenaSubject(OtherSubject):
    """What another allocator gave out."""

    def told(self, session: Session) -> Told:
        list(session.blocks())
        covered = arena_members(session, "size").coverage
        assert covered is not None
        found = list(arena_blocks(session))
        pieces = [blocks for _, blocks in found]
        kinds = [source.entry.kind for source, _ in found]
        return Told(
            np.concatenate([np.empty(0, np.uint64), *(blocks.address for blocks in pieces)]),
            np.concatenate([np.empty(0, np.int64), *(blocks.size for blocks in pieces)]),
            kinds[0] if kinds else "arena",
            covered.committed_bytes - covered.walked_bytes,
            covered.share_text,
            [item.message for item in session.diagnostics if item.severity != "info"],
        )

    def walked(self, session: Session) -> Walked:
        blocks = [blocks.address for _, blocks in arena_blocks(session)]
        ranges = [
            each
            for source in arenas_of(session)
            if source.entry.heap is not None
            for each in source.entry.heap.account.ranges
        ]
        return Walked(np.concatenate([np.empty(0, np.uint64), *blocks]), ranges)


class ManagedSubject(OtherSubject):
    """Objects of .NET. Nothing but the walk of the undamaged dump says where they are."""

    def __init__(self, data: bytes) -> None:
        whole = self.answer(data)
        super().__init__(data, Truth({at: found.size for at, found in whole.used.items()}, {}))

    def told(self, session: Session) -> Told:
        covered = managed_objects(session, "type").coverage
        heap = session.managed.heap
        assert covered is not None
        assert heap is not None
        pieces = list(heap.objects())
        return Told(
            np.concatenate([np.empty(0, np.uint64), *(piece.address for piece in pieces)]),
            np.concatenate([np.empty(0, np.int64), *(piece.size for piece in pieces)]),
            "managed",
            covered.committed_bytes - covered.walked_bytes,
            covered.share_text,
            [item.message for item in heap.log.collect()],
        )

    def walked(self, session: Session) -> Walked:
        heap = session.managed.heap
        assert heap is not None
        blocks = [piece.address for piece in heap.objects()]
        return Walked(np.concatenate(blocks), heap.account.ranges)


def _with_truth(dump: Path) -> Subject:
    truth = json.loads(lzma.decompress(_truth_of(dump).read_bytes()))
    return ArenaSubject(unpacked(dump), Truth({row[0]: row[2] for row in truth["blocks"]}, {}))


def _truth_of(dump: Path) -> Path:
    return dump.with_name(dump.name.replace(".dmp.xz", ".truth.json.xz"))


def _made_arena(make: Callable[[list[Page]], Made], pages: list[Page]) -> Subject:
    made, dump = make(pages), MinidumpBuilder()
    first = min(made.memory)  # all pages are of one arena
    for base, memory in sorted(made.memory.items()):
        for address, asked in made.used.items():
            if base <= address < base + len(memory):
                memory[address - base : address - base + asked] = b"\x5a" * asked
        size = -(-len(memory) // PAGE) * PAGE
        dump.region(base, size, COMMIT, READ_WRITE, PRIVATE, allocation_base=first)
        dump.memory(base, bytes(memory).ljust(size, b"\0"))
    return ArenaSubject(dump.build(), Truth(dict(made.used), {}))


def _managed(dump: Path) -> Subject:
    return ManagedSubject(unpacked(dump))


def _made_managed(width: int) -> Subject:
    made = ClrHeapBuilder(width)
    order = made.type("Shop", "Order", 6 * width)
    octets = made.array(made.type("System", "Byte", 3 * width), 1)
    for number in range(2000):
        made.put(order)
        made.put(octets, number % 50)
        if number % 100 == 0:
            made.free(64)
    return ManagedSubject(made.build().build())


_COMMON = [Page(64, 5, 3), Page(256, 7, 2), Page(32, 40), Page(1024, 9, 6)]
_OF_MIMALLOC = [Page(64, 5, 3, 2, 4), Page(256, 7, freed=3), Page(32, 40), Page(1024, 9, local=6)]
_MADE_ARENAS: dict[str, tuple[Callable[[list[Page]], Made], list[Page]]] = {
    "made/mimalloc-2/arena/dump": (mimalloc2, _OF_MIMALLOC * 12),
    "made/mimalloc-3/arena/dump": (mimalloc3, _OF_MIMALLOC * 12),
    "made/rpmalloc-2/arena/dump": (rpmalloc2, _COMMON * 12),
}


def _shared(folder: str) -> dict[str, Path]:
    """Dumps by name: "arenas/mimalloc-2.2.4/pair/after"."""
    found = sorted((SHARED / folder).glob("*.dmp.xz")) if SHARED.is_dir() else []
    stems = [(file.name.removesuffix(".dmp.xz").rpartition("-"), file) for file in found]
    return {f"{folder}/{build}/pair/{phase}": file for (build, _, phase), file in stems}


def arenas() -> dict[str, Callable[[], Subject]]:
    """Processes with other allocators, by name."""
    shared = _shared("arenas").items()
    made = {name: partial(_made_arena, *row) for name, row in _MADE_ARENAS.items()}
    return {
        **made,
        **{name: partial(_with_truth, dump) for name, dump in shared if _truth_of(dump).exists()},
    }


def managed() -> dict[str, Callable[[], Subject]]:
    """Processes of .NET, by name."""
    made = {f"made/clr-{8 * width}/managed/dump": partial(_made_managed, width) for width in (8, 4)}
    return {**made, **{name: partial(_managed, dump) for name, dump in _shared("managed").items()}}
