"""Classes of objects, from the vftables that their first words point to.

Two kinds of run-time type information stand in front of a vftable:

* MSVC (and clang-cl): `vftable[-1]` points to a `_RTTICompleteObjectLocator`, which names a
  `TypeDescriptor`. Its members are addresses on x86 and RVAs on x64 and ARM64, where the locator
  also holds its own RVA. Layout: the runtime's rttidata.h, as public tools read it (openrce.org,
  article 23).
* Itanium C++ ABI (MinGW, clang): `vtable[-1]` points to a `std::type_info`, `vtable[-2]` is the
  offset to the top of the complete object. Layout: the ABI's sections 2.5.2 and 2.9.5.

An object with several bases has several vftables; only the one for offset 0 stands at its start, so
only that one names a block. A vftable without type information is still known by module and RVA: it
is read-only data whose first entry leads into executable code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64, ColumnCache
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.images.modules import Module, ModuleMap
from windumps.images.sections import MEM_EXECUTE, MEM_READ, SectionMap
from windumps.images.type_names import MSVC_PREFIXES
from windumps.memory import AddressSpace

Mask = NDArray[np.bool_]

MAX_NAME_BYTES = 4096  # MSVC hashes decorated names that are longer
MAX_VFTABLES = 1 << 16  # distinct ones; a large browser has a few thousand in use
_VISIBLE = re.compile(rb"[^\x00-\x20\x7f]+")

_LOCATOR = np.dtype(
    [
        ("signature", "<u4"),
        ("offset", "<u4"),
        ("cdOffset", "<u4"),
        ("pTypeDescriptor", "<u4"),
        ("pClassDescriptor", "<u4"),
    ]
)
_LOCATOR64 = np.dtype(
    [*((name, _LOCATOR[name]) for name in _LOCATOR.names or ()), ("pSelf", "<u4")]
)
_SIGNATURES = {4: 0, 8: 1}  # COL_SIG_REV0, COL_SIG_REV1
# Classes that describe classes: __class_type_info, __si_class_type_info, __vmi_class_type_info.
_ABI_NAMESPACE = b"N10__cxxabiv1"

_UNDECIDED, _NOT_THE_START = -2, -1


@dataclass(frozen=True)
class Vftable:
    """The vftable of a complete object.

    Attributes:
        module: Image that holds it.
        rva: Its address relative to the image.
        class_name: The mangled name (see `type_names`), or None without type information.
    """

    module: Module
    rva: int
    class_name: str | None


class VftableResolver:
    """Tells vftables from other pointers and reads their classes; each distinct pointer once.

    Args:
        memory: The process's memory.
        modules: Its images.
        pointer_size: 4 or 8, of the objects.
        log: Where diagnostics go.
    """

    def __init__(
        self, memory: AddressSpace, modules: ModuleMap, pointer_size: int, log: DiagnosticLog
    ) -> None:
        self.vftables: list[Vftable] = []
        self._memory = memory
        self._modules = modules
        self._width = pointer_size
        self._log = log
        self._cache = ColumnCache(self._resolve)
        self._sections: SectionMap | None = None
        self._base = np.array([m.base_address for m in modules.modules], np.uint64)

    def numbers(self, pointers: U64) -> I64:
        """For each pointer the index of its vftable in `vftables` (int64, shape (n,)).

        -1 where it is none, or belongs to a base class that is not at the object's start.
        """
        numbers = np.full(len(pointers), -1, np.int64)
        rows = np.flatnonzero(self._modules.index_of(pointers) >= 0)
        numbers[rows] = self._cache(pointers[rows])
        return numbers

    def _resolve(self, pointers: U64) -> I64:
        """`numbers` for pointers that lead into images, ascending and distinct."""
        numbers = np.full(len(pointers), _UNDECIDED, np.int64)
        images = self._modules.index_of(pointers)
        numbers[pointers % np.uint64(self._width) != 0] = _NOT_THE_START
        for read in (self._read_msvc, self._read_itanium):
            rows = np.flatnonzero(numbers == _UNDECIDED)
            names, elsewhere = read(pointers[rows])
            numbers[rows[elsewhere]] = _NOT_THE_START
            for row, name in zip(rows[names > 0], names[names > 0].tolist(), strict=True):
                text = self._class_name(name)
                if text is not None:
                    numbers[row] = self._add(int(images[row]), int(pointers[row]), text)
        rows = np.flatnonzero(numbers == _UNDECIDED)
        numbers[rows] = _NOT_THE_START
        for row in rows[self._looks_like_vftable(pointers[rows])]:
            numbers[row] = self._add(int(images[row]), int(pointers[row]), None)
        return numbers

    def _add(self, image: int, address: int, name: str | None) -> int:
        if len(self.vftables) == MAX_VFTABLES:
            self._log.add(
                "too-many-classes",
                Severity.WARNING,
                "vftable",
                address,
                f"objects of more than {MAX_VFTABLES} classes; those of the others get no class",
            )
            return -1
        module = self._modules.modules[image]
        self.vftables.append(Vftable(module, address - module.base_address, name))
        return len(self.vftables) - 1

    def _read_msvc(self, pointers: U64) -> tuple[U64, Mask]:
        """Addresses of class names (0 where there is none), and which vftables are not at the
        object's start.
        """
        images = self._modules.index_of(pointers)
        locators, valid = self._pointers_at(pointers - np.uint64(self._width))
        valid &= (locators % np.uint64(4) == 0) & (self._modules.index_of(locators) == images)
        columns, present = self._memory.gather(
            locators, _LOCATOR64 if self._width == 8 else _LOCATOR
        )
        valid &= present & (columns["signature"] == _SIGNATURES[self._width])
        # On x64 the members count from the image's base, which the locator's own RVA confirms.
        base = self._base[images] if self._width == 8 else np.zeros(len(pointers), np.uint64)
        if self._width == 8:
            valid &= locators - base == columns["pSelf"]
        descriptors = base + columns["pTypeDescriptor"]
        for target in (descriptors, base + columns["pClassDescriptor"]):
            valid &= self._modules.index_of(target) == images
        # TypeDescriptor: pVFTable, spare, name.
        names = descriptors + np.uint64(2 * self._width)
        prefix, present = self._memory.gather(names, "S4")
        named = present & np.isin(prefix, [p.encode() for p in MSVC_PREFIXES])
        at_start = columns["offset"] == 0
        return np.where(valid & named & at_start, names, np.uint64(0)), valid & ~at_start

    def _read_itanium(self, pointers: U64) -> tuple[U64, Mask]:
        """As `_read_msvc`."""
        width = np.uint64(self._width)
        infos, valid = self._pointers_at(pointers - width)
        # The class of the type_info itself is one of the runtime's own: nothing else looks so.
        kinds, present = self._pointers_at(infos)
        valid &= present
        kind_infos, present = self._pointers_at(kinds - width)
        valid &= present
        kind_names, present = self._pointers_at(kind_infos + width)
        namespace, named = self._memory.gather(kind_names, f"S{len(_ABI_NAMESPACE)}")
        valid &= present & named & (namespace == _ABI_NAMESPACE)
        names, present = self._pointers_at(infos + width)
        valid &= present
        tops, present = self._memory.gather(pointers - width * np.uint64(2), f"<u{self._width}")
        valid &= present
        return np.where(valid & (tops == 0), names, np.uint64(0)), valid & (tops != 0)

    def _pointers_at(self, addresses: U64) -> tuple[U64, Mask]:
        """The words at addresses, and which of them are present and lead into an image."""
        words, present = self._memory.gather(addresses, f"<u{self._width}")
        pointers = words.astype(np.uint64)
        return pointers, present & (self._modules.index_of(pointers) >= 0)

    def _class_name(self, address: int) -> str | None:
        """A mangled name; None when it does not end in time or is not made of visible characters."""
        raw, end, _ = self._memory.read_available(address, MAX_NAME_BYTES).partition(b"\0")
        # GCC marks names that are compared by address, not by text, with an asterisk.
        raw = raw.removeprefix(b"*")
        return raw.decode("utf-8", "backslashreplace") if end and _VISIBLE.fullmatch(raw) else None

    def _looks_like_vftable(self, pointers: U64) -> Mask:
        if self._sections is None:
            self._sections = SectionMap(self._memory, self._modules.modules)
        entries, present = self._pointers_at(pointers)
        code = self._sections.access(entries) & np.uint32(MEM_EXECUTE)
        found: Mask = present & (self._sections.access(pointers) == MEM_READ) & (code != 0)
        return found
