"""Who owns a pool tag: candidates with their evidence, ranked.

Nothing in the pool says who allocated a block. What speaks for a driver, by falling weight: Driver Verifier
recorded it as the caller; its code gives the tag to a pool routine, or to an import that cannot be named; a
published table names it; the four bytes occur in its data. Pieces of evidence add up as independent ones do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.owners import MEDIUM, STRONG, Owner, Ownership
from dumpleak.owners.by_table import BUILT_IN_WEIGHT, WILDCARD_SHARE, WRITTEN_WEIGHT
from dumpleak.owners.on_behalf import ON_BEHALF
from dumpleak.owners.tag_calls import Call, CallFinder, Symbolize
from dumpleak.owners.tag_scan import Place, TagHits, scan_images
from dumpleak.owners.tag_table import BUILT_IN, KERNEL, TagNote, TagTable, built_in_table
from windumps.images.modules import Module, ModuleMap
from windumps.images.sections import MEM_DISCARDABLE, read_sections
from windumps.kernel.kernel import Kernel
from windumps.pool_tags import tag_text

MAX_OWNERS = 5
MAX_PLACES = 3  # places in code named for one driver
NEGLIGIBLE = 0.15  # candidates below it are named only where there is no better one

# Copies of storage drivers that write a dump or the hibernation file; they come and go.
_DUMP_COPIES = ("dump_", "hiber_")

_VERIFIER = 0.99
_CALLS = {
    Call.POOL: (0.9, "gives it to"),
    Call.IMPORT: (0.8, "gives it to an imported function"),
    Call.DIRECT: (0.65, "gives it to a function"),
    Call.NONE: (0.55, "loads it as an argument"),
    Call.OTHER: (0.3, "loads it before a call of"),
}
_PLACES = {
    Place.OPERAND: (0.45, "its code has the tag as a constant"),
    Place.DATA: (0.25, "its data hold the tag"),
    Place.CODE: (0.12, "the four bytes stand among its code"),
    Place.BYTES: (0.05, "the four bytes occur in its image"),
}


@dataclass(frozen=True)
class VerifiedCaller:
    """Blocks that Driver Verifier saw a driver allocate.

    Attributes:
        tag: Of the blocks.
        address: The call's return address.
        count: Blocks.
        bytes: Their bytes.
    """

    tag: int
    address: int
    count: int
    bytes: int


@dataclass(frozen=True)
class _Evidence:
    weight: float
    text: str


class TagOwners:
    """Finds the owners of tags of one kernel.

    Args:
        kernel: The kernel.
        tags: uint32, the tags that will be asked for: all images are searched for all of them at once.
        written: The user's `pooltag.txt`, if any; it goes before the built-in table.
        verified: What Driver Verifier recorded.
        symbolize: Names of functions by symbols.
    """

    def __init__(
        self,
        kernel: Kernel,
        tags: NDArray[np.uint32],
        written: TagTable | None = None,
        verified: Iterable[VerifiedCaller] = (),
        symbolize: Symbolize | None = None,
    ) -> None:
        self._kernel = kernel
        self._drivers = kernel.drivers
        self._map = ModuleMap(kernel.drivers)
        self._gone = ModuleMap(kernel.unloaded)
        self._symbolize = symbolize
        self._written = written
        self._verified: dict[int, list[VerifiedCaller]] = {}
        for caller in verified:
            self._verified.setdefault(caller.tag, []).append(caller)
        self._wanted = frozenset(tags.tolist())
        self.hits = scan_images(kernel.memory, kernel.drivers, tags, kernel.architecture)
        self._rank_hits(self.hits)
        self._shares: dict[int, str] = {}
        self._known: dict[int, Ownership] = {}

    def of(self, tag: int) -> Ownership:
        """The candidates for one tag."""
        if tag not in self._known:
            self._known[tag] = self._find(tag)
        return self._known[tag]

    @cached_property
    def absent(self) -> list[tuple[str, int]]:
        """(name, pages that are not in the dump) of each image that is not there as a whole."""
        rows = []
        for driver, present in zip(self._drivers, self.hits.present_pages.tolist(), strict=True):
            missing = -(-driver.size_bytes // 0x1000) - present
            if missing > 0 and self._lost(driver):
                rows.append((driver.name, missing))
        return rows

    def _rank_hits(self, hits: TagHits) -> None:
        """Orders the finds by tag and image, the best first in each."""
        operands = np.flatnonzero(hits.place >= Place.OPERAND)
        finder = CallFinder(
            self._kernel.memory, self._drivers, self._kernel.pointer_size, self._symbolize
        )
        calls, names = finder.find(hits, operands)
        self._call = np.full(len(hits.tag), Call.NONE, np.int64)
        self._call[operands] = calls
        self._called = dict(zip(operands.tolist(), names, strict=True))
        self._weight = np.zeros(len(hits.tag))
        for place, (weight, _) in _PLACES.items():
            self._weight[hits.place == place] = weight
        argument = hits.place == Place.ARGUMENT
        for call, (weight, _) in _CALLS.items():
            self._weight[argument & (self._call == call)] = weight
        order = np.lexsort((hits.address, -self._weight, hits.module, hits.tag))
        keys = hits.tag[order].astype(np.uint64) << np.uint64(20) | hits.module[order].astype(
            np.uint64
        )
        starts = (
            np.flatnonzero(np.diff(keys, prepend=~keys[:1])) if len(keys) else keys.astype(np.int64)
        )
        ends = np.append(starts[1:], len(order))
        self._rows: dict[int, list[tuple[int, NDArray[np.int64]]]] = {}
        for start, end in zip(starts.tolist(), ends.tolist(), strict=False):
            rows = order[start:end]
            self._rows.setdefault(int(hits.tag[rows[0]]), []).append(
                (int(hits.module[rows[0]]), rows)
            )

    def _find(self, tag: int) -> Ownership:
        text = tag_text(tag)
        found: dict[str, list[_Evidence]] = {}
        proven: set[str] = set()
        for caller in self._verified.get(tag, []):
            gone = None if self._map.at(caller.address) else self._gone.at(caller.address)
            image = gone or self._map.at(caller.address)
            if image is not None:
                blocks = f"{caller.count} block{'s' * (caller.count != 1)}, {caller.bytes} bytes"
                said = f"Driver Verifier saw it allocate {blocks} at {self._place(image, caller.address)}"
                said += "; it was unloaded before the dump" * (gone is not None)
                found.setdefault(image.name, []).append(_Evidence(_VERIFIER, said))
                proven.add(image.name)
        for module, rows in self._rows.get(tag, []):
            found.setdefault(self._drivers[module].name, []).extend(self._of_image(module, rows))
        description = ""
        for table, weight in ((self._written, WRITTEN_WEIGHT), (built_in_table(), BUILT_IN_WEIGHT)):
            note = table.find(text) if table is not None else None
            if note is not None:
                description = description or note.description
                for name, evidence in self._of_note(note, weight):
                    found.setdefault(name, []).append(evidence)
        owners = [
            self._owner(name, evidence, is_proven=name in proven)
            for name, evidence in found.items()
        ]
        owners.sort(key=lambda owner: (-owner.score, owner.driver.lower()))
        good = [owner for owner in owners if owner.score >= NEGLIGIBLE] or owners
        is_known = bool(owners) and owners[0].score >= MEDIUM
        behalf = ON_BEHALF.get(text)
        if (
            behalf is not None
            and is_known
            and owners[0].driver not in self._names(behalf.allocator)
        ):
            behalf = None  # somebody else's code allocates with this tag
        if behalf is not None:
            limits = behalf.note
        elif tag in self._wanted:
            limits = self._note(owners)
        else:
            limits = "images were not searched for this tag"
        return Ownership(
            text,
            tuple(good[:MAX_OWNERS]),
            description,
            limits,
            behalf.routine if behalf is not None else "",
            () if is_known or behalf is not None else tuple(self._unloaded),
        )

    def _names(self, image: str) -> set[str]:
        """What an image is called here: the kernel has several names."""
        loaded = self._kernel.image.name if image == KERNEL and self._kernel.image else image
        return {image, loaded}

    @cached_property
    def _unloaded(self) -> list[str]:
        """Drivers that are gone; none of those that only ever write crash dumps."""
        loaded = {driver.name.lower() for driver in self._drivers}
        names = dict.fromkeys(driver.name for driver in self._kernel.unloaded)
        return [
            name
            for name in names
            if name.lower() not in loaded and not name.lower().startswith(_DUMP_COPIES)
        ]

    def _owner(self, name: str, evidence: list[_Evidence], *, is_proven: bool) -> Owner:
        evidence = sorted(evidence, key=lambda item: -item.weight)
        doubt = 1.0
        for item in evidence:
            doubt *= 1 - item.weight
        score = 1 - doubt
        word = "strong" if score >= STRONG else "medium" if score >= MEDIUM else "weak"
        texts = [item.text for item in evidence]
        image = next((i for i, driver in enumerate(self._drivers) if driver.name == name), None)
        if image is not None and self._share(image):
            texts.append(self._share(image))
        return Owner(name, round(score, 4), "proven" if is_proven else word, tuple(texts))

    def _of_image(self, module: int, rows: NDArray[np.int64]) -> list[_Evidence]:
        """What one image says: its best find, and how many there are."""
        best = int(rows[0])
        weight = float(self._weight[best])
        same = rows[self._weight[rows] == weight]
        image = self._drivers[module]
        places = [
            self._place(image, int(self.hits.address[row])) for row in same[:MAX_PLACES].tolist()
        ]
        more = f" and {len(same) - MAX_PLACES} more" if len(same) > MAX_PLACES else ""
        where = f"{', '.join(places)}{more}"
        if self.hits.place[best] == Place.ARGUMENT:
            call = Call(int(self._call[best]))
            said = f"its code {_CALLS[call][1]}"
            if call in (Call.POOL, Call.OTHER):
                said += f" {self._called[best]}"
            elif call == Call.DIRECT:
                said += " of its own or the kernel's"
        else:
            said = _PLACES[Place(int(self.hits.place[best]))][1]
        return [_Evidence(weight, f"{said} ({where})")]

    def _of_note(self, note: TagNote, weight: float) -> list[tuple[str, _Evidence]]:
        if not note.is_exact:
            weight *= WILDCARD_SHARE
        source = f"the {note.source}" if note.source == BUILT_IN else note.source
        loaded = {driver.name.lower(): driver.name for driver in self._drivers}
        unloaded = {driver.name.lower() for driver in self._kernel.unloaded}
        rows = []
        for driver in note.drivers:
            name = driver
            if driver == KERNEL and self._kernel.image is not None:
                name = self._kernel.image.name
            said = f"{source} names it"
            if note.component:
                said += f" (nt!{note.component})"
            if not note.is_exact:
                said += f" for {note.tag.rstrip()}"
            lower = name.lower()
            if lower in loaded or not loaded or driver == KERNEL:
                rows.append((loaded.get(lower, name), _Evidence(weight, said)))
            elif lower in unloaded:
                rows.append((name, _Evidence(weight, f"{said}; it was unloaded before the dump")))
            else:
                rows.append((name, _Evidence(weight / 2, f"{said}; it is not loaded")))
        return rows

    def _note(self, owners: list[Owner]) -> str:
        if owners and owners[0].score >= MEDIUM:
            return ""
        if not self._drivers:
            return "the list of drivers is not in the dump, so no image could be searched"
        said = "no image in the dump gives this tag to the pool"
        absent = self.absent
        if absent:
            names = ", ".join(name for name, _ in absent[:3])
            more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
            said += f"; parts of {names}{more} are not in the dump"
        if self._unloaded:
            names = ", ".join(self._unloaded[:3])
            more = f" and {len(self._unloaded) - 3} more" if len(self._unloaded) > 3 else ""
            said += f"; unloaded before the dump: {names}{more}"
        return said

    def _place(self, image: Module, address: int) -> str:
        rva = address - image.base_address
        symbol = self._symbolize(image, rva) if self._symbolize is not None else None
        return f"{image.name}!{symbol}" if symbol else f"{image.name}+0x{rva:x}"

    def _share(self, number: int) -> str:
        """Which part of an image was not there to be searched; "" when nothing is missing that counts."""
        if number not in self._shares:
            driver = self._drivers[number]
            lost = self._lost(driver)
            self._shares[number] = (
                f"not searched, since not in the dump: {', '.join(lost)} of {driver.name}"
                if lost
                else ""
            )
        return self._shares[number]

    def _lost(self, driver: Module) -> list[str]:
        """Sections with absent pages; those that are thrown away after start are not missed."""
        memory = self._kernel.memory
        sections = read_sections(memory, driver)
        if not sections:
            end = driver.end_address
            return [] if memory.present_bytes(driver.base_address, end) else ["all"]
        lost = []
        for section in sections:
            absent = section.size - memory.present_bytes(
                section.start, section.start + section.size
            )
            if absent > 0 and not section.flags & MEM_DISCARDABLE:
                lost.append(section.name or "a section without a name")
        return lost
