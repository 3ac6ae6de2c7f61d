"""Names of types: from a MethodTable to its module, to the metadata of that module's image.

Which word of a `Module` leads to its image, and which bits of a MethodTable are its row in the metadata,
differs between versions. Both are voted on: with the right ones, what a type extends by the metadata is what
its MethodTable has as parent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import U64
from windumps.errors import MemoryReadError
from windumps.heaps.clr.metadata import Metadata, metadata_root
from windumps.heaps.clr.method_tables import HAS_COMPONENTS, MethodTables
from windumps.memory import AddressSpace

MODULE_WORDS = 64  # of a Module, where its image is looked for
VOTERS = 2000  # MethodTables that vote, at most
MAX_DEPTH = 8  # of type arguments in type arguments
MAX_ARGUMENTS = 32
MAX_MODULES = 1 << 14
_ARRAY, _ONE_DIMENSION = 0x80000, 0x20000  # flags of arrays, where bits 16 to 19 are a category
_GENERIC = 0x30  # flags of generics, where there are no components
_TYPE_DESC = 2  # tag of a TypeDesc in a type handle
_PARAMETERS = {0x0F: "*", 0x10: "&", 0x14: "[]", 0x1D: "[]"}  # CorElementType of a TypeDesc
# Of the low word at 8 before 9: which optional slots there are, and that of the module, the last.
_SLOTS, _OVERRIDE = 0x1F, 0x10
_VIRTUALS = 8  # of a chunk of virtual methods, each chunk a word between the slots
# Bits of the word at 8 that are the row: before 9, and since.
_ROWS = (16, 8)


@dataclass(frozen=True)
class TypeName:
    """A type's name.

    Attributes:
        name: Full name, "Space.Outer+Inner"; "" when it is not known.
        assembly: Where it is defined; "" when that is not known.
    """

    name: str
    assembly: str = ""


UNKNOWN = TypeName("")


class TypeNames:
    """Names types, each once.

    Args:
        tables: The MethodTables that were met.
    """

    def __init__(self, tables: MethodTables) -> None:
        self._tables = tables
        self._memory = tables.memory
        self._width = tables.pointer_size
        self._images = _Images(tables.memory)
        self._names: dict[int, TypeName] = {}
        self._heads = tables.heads()
        self._row_shift, self._metadata = self._vote()

    @cached_property
    def all(self) -> list[TypeName]:
        """Of all MethodTables, in the order they were met."""
        return [self.of(address) for address in self._tables.address.tolist()]

    def of(self, address: int, depth: int = 0) -> TypeName:
        """The name of one MethodTable."""
        known = self._names.get(address)
        if known is None:
            known = self._name(address, depth)
            if depth == 0 or known.name:
                self._names[address] = known
        return known

    def _name(self, address: int, depth: int) -> TypeName:
        checked = self._tables.check(np.array([address], np.uint64))
        if not checked.good[0] or depth > MAX_DEPTH:
            return UNKNOWN
        head = self._head(address)
        flags = int(head["flags"])
        if flags & HAS_COMPONENTS and flags & _ARRAY:
            return self._array(head, flags, depth)
        generic = not flags & HAS_COMPONENTS and bool(flags & _GENERIC)
        info = int(head["element"])
        parameters = self._word(info - 2, 2) if generic else 0
        for module in self._modules(address, head, generic=generic):
            metadata = self._metadata.get(module)
            row = int(head["token"]) >> self._row_shift
            if metadata is None:
                continue
            name = metadata.type_name(row)
            # One of another module with this number has other type parameters, or extends another type.
            if name and _parameters(name) == parameters and self._extends(metadata, row, head):
                full = self._generic(name, info, parameters, depth) if generic else name
                return TypeName(full, metadata.assembly)
        return UNKNOWN

    def _modules(self, address: int, head: Any, *, generic: bool) -> Iterator[int]:
        """Where a type may be defined; of generic ones, `head` may tell only where it was loaded.

        Before 9 the module of a generic type stands in an optional slot of its canonical MethodTable, where
        it is not the one it was loaded for.
        """
        if generic:
            address = int(self._tables.check(np.array([address], np.uint64)).canonical[0])
            head = self._head(address)
            optional = int(head["token"]) & _SLOTS
            if optional & _OVERRIDE:
                before = (optional & (_OVERRIDE - 1)).bit_count()
                virtuals = -(-int(head["virtuals"]) // _VIRTUALS) if before > 1 else 0
                place = address + 0x10 + (4 + before + virtuals) * self._width
                value = self._word(place)
                yield value
                yield (value + place) & ((1 << (8 * self._width)) - 1)
        yield self._module(address, head)

    def _extends(self, metadata: Metadata, row: int, head: Any) -> bool:
        """Whether the metadata agrees with the parent of a MethodTable, as far as that is known."""
        parent = int(head["parent"])
        base, base_name = metadata.base_of(row)
        expected = metadata.type_name(base) if base else base_name
        other = self.of(parent, MAX_DEPTH).name if parent else ""
        return not expected or not other or _plain(expected) == _plain(other)

    def _array(self, head: NDArray[np.void], flags: int, depth: int) -> TypeName:
        element = self._handle(int(head["element"]), depth + 1)
        if not element.name:
            return UNKNOWN
        # Those of more dimensions go under one name, however many these are.
        bounds = "" if flags & _ONE_DIMENSION else ","
        return TypeName(f"{element.name}[{bounds}]", element.assembly)

    def _handle(self, handle: int, depth: int) -> TypeName:
        """The name of what a type handle names: a MethodTable, or a description of an array or a pointer."""
        if not handle & _TYPE_DESC:
            return self.of(handle, depth)
        at = handle & ~3
        kind = self._word(at, 4) & 0xFF
        if kind not in _PARAMETERS or depth > MAX_DEPTH:
            return UNKNOWN
        for word in (2, 1):  # with a MethodTable of its own before it, and without
            inner = self._handle(self._word(at + word * self._width), depth + 1)
            if inner.name:
                return TypeName(inner.name + _PARAMETERS[kind], inner.assembly)
        return UNKNOWN

    def _generic(self, name: str, info: int, count: int, depth: int) -> str:
        """A name with its type arguments, without the numbers of them: "List<System.Int32>"."""
        dictionaries = self._word(info - 4, 2)
        if not 0 < dictionaries <= MAX_ARGUMENTS or not 0 < count <= MAX_ARGUMENTS:
            return name
        last = self._word(info + (dictionaries - 1) * self._width)
        arguments = []
        for number in range(count):
            handle = self._word(last + number * self._width)
            arguments.append(self._handle(handle, depth + 1).name)
        return f"{_plain(name)}<{', '.join(arguments)}>" if all(arguments) else name

    def _head(self, address: int) -> Any:
        number = int(self._tables.known(np.array([address], np.uint64))[0])
        if 0 <= number < len(self._heads):
            return self._heads[number]
        return self._memory.gather(np.array([address], np.uint64), self._heads.dtype)[0][0]

    def _module(self, address: int, head: Any) -> int:
        value = int(head["module"])
        if self._relative:
            value += address + 0x10 + self._width
        return value & ((1 << (8 * self._width)) - 1)

    @cached_property
    def _relative(self) -> bool:
        """Modules are given relative to the word that names them: in 2.1 on x86."""
        plain = self._heads["module"].astype(np.uint64)
        places = self._tables.address + np.uint64(0x10 + self._width)
        moved = (plain + places) & np.uint64((1 << (8 * self._width)) - 1)
        there, instead = (
            np.count_nonzero(self._memory.locate(np.unique(column), 8) >= 0)
            / max(len(np.unique(column)), 1)
            for column in (plain, moved)
        )
        return bool(instead > there)

    def _word(self, address: int, size: int = 0) -> int:
        try:
            return self._memory.read_uint(address, size or self._width)
        except MemoryReadError:
            return 0

    def _vote(self) -> tuple[int, dict[int, Metadata]]:
        """How rows are stored, and the metadata of each module."""
        kept = np.flatnonzero(~self._tables.free)
        modules = np.unique(
            [self._module(int(self._tables.address[n]), self._heads[n]) for n in kept.tolist()]
        )[:MAX_MODULES]
        best: tuple[int, int, dict[int, Metadata]] = (
            0,
            _ROWS[0],
            {},
        )  # nothing is named without a vote
        words = self._module_words(modules.astype(np.uint64))
        found = [
            {
                module: metadata
                for module, value in zip(modules.tolist(), words[:, number].tolist(), strict=True)
                if (metadata := self._images.metadata(value)) is not None
            }
            for number in range(MODULE_WORDS)
        ]
        most = max((len(set(map(id, each.values()))) for each in found), default=0)
        for each in found:
            if not most or len(set(map(id, each.values()))) < most:
                continue
            for shift in _ROWS:
                votes = self._votes(each, shift, kept)
                if votes > best[0]:
                    best = votes, shift, each
        return best[1], best[2]

    def _module_words(self, modules: U64) -> U64:
        places = modules[:, None] + np.arange(MODULE_WORDS, dtype=np.uint64) * np.uint64(
            self._width
        )
        words, _ = self._memory.gather(places, f"<u{self._width}")
        return words.astype(np.uint64)

    def _votes(self, metadata: dict[int, Metadata], shift: int, kept: NDArray[np.int64]) -> int:
        """How many types extend what their MethodTable has as parent."""
        votes = 0
        for number in kept[:VOTERS].tolist():
            head, address = self._heads[number], int(self._tables.address[number])
            module = self._module(address, head)
            mine, parent = metadata.get(module), int(head["parent"])
            if mine is None or not parent or int(head["flags"]) & _ARRAY:
                continue
            base, base_name = mine.base_of(int(head["token"]) >> shift)
            other = self._head(parent)
            row = int(other["token"]) >> shift
            its = metadata.get(self._module(parent, other))
            if its is None:
                continue
            if base:
                votes += its is mine and base == row
            else:
                votes += bool(base_name) and base_name == its.type_name(row)
        return votes


def _plain(name: str) -> str:
    """A type's name without type arguments and without their numbers."""
    return "+".join(part.split("`")[0] for part in name.split("<")[0].split("+"))


def _parameters(name: str) -> int:
    """How many type parameters a type has, by its name in the metadata: "Outer`1+Inner`2" has three."""
    numbers = [part.partition("`")[2] for part in name.split("+")]
    return sum(int(number) for number in numbers if number.isdecimal())


class _Images:
    """Metadata by a pointer to an image, or to what lies in one."""

    def __init__(self, memory: AddressSpace) -> None:
        self._memory = memory
        self._found: dict[int, Metadata | None] = {}

    def metadata(self, address: int) -> Metadata | None:
        """The metadata of the image that begins at an address, or has it; None without."""
        regions = self._memory.regions
        row = regions.row_of(address)
        if address < 0x10000 or (len(regions) and row < 0):
            return None
        if self._memory.read_available(address, 2) == b"MZ":
            return self._of(address)
        return self._of(int(regions.allocation_base[row])) if row >= 0 else None

    def _of(self, base: int) -> Metadata | None:
        if base not in self._found:
            self._found[base] = None
            root = metadata_root(self._memory, base)
            if root:
                with suppress(ValueError):
                    self._found[base] = Metadata(self._memory, root)
        return self._found[base]
