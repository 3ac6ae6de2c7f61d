r"""Paths of registry keys: `\REGISTRY\MACHINE\SOFTWARE\…`, from the objects that handles lead to.

A key object names its `_CM_KEY_CONTROL_BLOCK`; that has, one behind the other, the control block of the
key above it and the block of its own name, at a place that differs by build. The place is searched for and
proved: a name's block keeps a hash of the name.

Sources: `_CM_KEY_BODY`, `_CM_KEY_CONTROL_BLOCK` and `_CM_NAME_CONTROL_BLOCK` of public kernel symbols; the
hash is CmpGetNameControlBlock's (Windows Research Kernel): times 37, plus the capital letter, without
backslashes.
"""

from __future__ import annotations

import numpy as np

from windumps.arrays import U64
from windumps.kernel.kernel import Kernel
from windumps.memory import AddressSpace

CUT = "…"
_BODY = 0x6B793032  # "ky02"
_FIRST, _LAST = 4, 18  # pointers into a control block, where the name's may stand
_SAMPLE = 64
_MOST_DEPTH = 64
_MOST_NAME = 512  # bytes; a key's name has 255 characters at most


def key_paths(kernel: Kernel, bodies: U64) -> list[str | None]:
    """The path of each key object; None where it is not in the dump, or not proved."""
    width = kernel.pointer_size
    kind, there = kernel.memory.gather(bodies, "<u4")
    blocks, present = kernel.memory.gather(bodies + np.uint64(width), f"<u{width}")
    fits = there & present & (kind == _BODY)
    control = np.where(fits, blocks.astype(np.uint64), np.uint64(0))
    keys = _Keys(kernel.memory, width, [block for block in np.unique(control).tolist() if block])
    return [keys.path(block) if block else None for block in control.tolist()]


class _Keys:
    """Control blocks of keys, each read once."""

    def __init__(self, memory: AddressSpace, width: int, blocks: list[int]) -> None:
        self._memory, self._width = memory, width
        self._names: dict[int, str | None] = {}
        self._paths: dict[int, str | None] = {}
        sample = blocks[:: max(len(blocks) // _SAMPLE, 1)]
        places = [place * width for place in range(_FIRST, _LAST)]
        proved = {place: sum(self._name(b + place) is not None for b in sample) for place in places}
        best = max(places, key=lambda place: proved[place])
        self._place = best if proved[best] else 0

    def path(self, block: int) -> str | None:
        """The path of the key with a control block."""
        if not self._place:
            return None
        names: list[str] = []
        at = block
        for _ in range(_MOST_DEPTH):
            name = self._name(at + self._place)
            if name is None:
                return "\\".join([CUT, *reversed(names)]) if names else None
            names.append(name.lstrip("\\"))
            parent = self._word(at + self._place - self._width)
            if parent == 0:
                return "\\" + "\\".join(reversed(names))
            if parent is None:
                break
            at = parent
        return "\\".join([CUT, *reversed(names)])

    def _name(self, pointer: int) -> str | None:
        """The name whose block is pointed to from an address; None unless its hash proves it."""
        block = self._word(pointer)
        if not block or block < 1 << (8 * self._width - 1):
            return None
        if block not in self._names:
            self._names[block] = self._proved(block)
        return self._names[block]

    def _proved(self, block: int) -> str | None:
        width = self._width
        head = self._memory.read_available(block, 3 * width + 2)
        if len(head) < 3 * width + 2:
            return None
        size = int.from_bytes(head[-2:], "little")
        raw = self._memory.read_available(block + len(head), size) if size <= _MOST_NAME else b""
        if not size or len(raw) < size:
            return None
        # The first bit tells whether each character takes one byte.
        name = raw.decode("latin-1" if head[0] & 1 else "utf-16-le", "replace")
        told = int.from_bytes(head[width : width + 4], "little")
        return name if hash_of(name) == told and name.isprintable() else None

    def _word(self, address: int) -> int | None:
        raw = self._memory.read_available(address, self._width)
        return int.from_bytes(raw, "little") if len(raw) == self._width else None


def hash_of(name: str) -> int:
    """The hash that a name's block keeps."""
    found = 0
    for letter in name:
        if letter != "\\":
            capital = letter.upper()
            found = (found * 37 + ord(capital if len(capital) == 1 else letter)) & 0xFFFF_FFFF
    return found
