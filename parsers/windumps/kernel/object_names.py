r"""Names of kernel objects: `\BaseNamedObjects\x` of what has a name of its own, paths of files and keys.

An object with a name has an `_OBJECT_HEADER_NAME_INFO` in front of its header: the directory that it is in,
and its name there; directories are objects, too. A file's name is its own and that of its device. Nothing is
told that does not hold in every part: a name is text, its directory leads to the root or the path begins
with "…".

Sources: `_OBJECT_HEADER` and the headers in front of it as in `object_headers.py`; `_OBJECT_HEADER_NAME_INFO`
of public kernel symbols; FILE_OBJECT of wdm.h, the same in all builds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64
from windumps.builds import OBJECT_INFO_MASK
from windumps.kernel.kernel import Kernel
from windumps.kernel.key_names import key_paths
from windumps.kernel.object_headers import HEADER_BYTES, header_counts

FILE_TAG, KEY_TAG = (int.from_bytes(tag, "little") for tag in (b"File", b"Key "))
CUT = "…"
_MASK_AT = {4: 0xE, 8: 0x1A}
_OLD_OFFSET_AT = {4: 0xC, 8: 0x18}  # NameInfoOffset, before there was a mask
_CREATOR, _NAME = 1, 2  # bits of the mask; creator's information is nearer to the header
_INFO_BYTES = {4: 0x10, 8: 0x20}  # of each of the two
_MOST_IN_FRONT = 0x60
_FILE_TYPE = 5  # IO_TYPE_FILE
_FILE_SIZES = {4: (0x70, 0x90), 8: (0xB8, 0x120)}
_FILE_NAME = {4: 0x30, 8: 0x58}
_MOST_DEPTH = 32
_Mask = NDArray[np.bool_]


class ObjectNames:
    """Reads names; directories and devices are looked at once.

    Args:
        kernel: The kernel.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._memory, self._width = kernel.memory, kernel.pointer_size
        self._has_mask = kernel.build in OBJECT_INFO_MASK
        self._kernel = kernel
        self._paths: dict[int, str | None] = {}

    def of(self, headers: U64, tags: I64) -> list[str | None]:
        """The name of each object; "" where it has none, None where that is not in the dump.

        Args:
            headers: Addresses of `_OBJECT_HEADER`s.
            tags: Pool tags of the blocks they lie in.
        """
        found = self._own_names(headers)
        bodies = headers + np.uint64(HEADER_BYTES[self._width])
        files = np.flatnonzero(tags == FILE_TAG)
        for row, name in zip(files.tolist(), self._files(bodies[files]), strict=True):
            found[row] = name
        keys = np.flatnonzero(tags == KEY_TAG)
        for row, name in zip(keys.tolist(), key_paths(self._kernel, bodies[keys]), strict=True):
            found[row] = name
        return found

    def _own_names(self, headers: U64) -> list[str | None]:
        """Names by the information in front of headers."""
        info, known = self._infos(headers)
        named = np.flatnonzero(info)
        directory, has_directory = self._words(info[named])
        leaves = self._strings(info[named] + np.uint64(self._width))
        found: list[str | None] = ["" if each else None for each in known.tolist()]
        for row, parent, there, leaf in zip(
            named.tolist(), directory.tolist(), has_directory.tolist(), leaves, strict=True
        ):
            found[row] = self._below(parent, leaf, 0) if there and leaf is not None else None
        return found

    def _infos(self, headers: U64) -> tuple[U64, _Mask]:
        """Where information on the name lies, 0 where there is none; and whether that is known."""
        width = self._width
        _, known = header_counts(self._kernel, headers)
        place = (_MASK_AT if self._has_mask else _OLD_OFFSET_AT)[width]
        value, present = self._memory.gather(headers + np.uint64(place), "<u1")
        known = known & present
        value = value.astype(np.uint64)
        if self._has_mask:
            size = np.uint64(_INFO_BYTES[width])
            distance = np.where(value & np.uint64(_CREATOR), 2 * size, size)
            distance[(value & np.uint64(_NAME)) == 0] = 0
        else:
            distance = value
            known &= (value <= _MOST_IN_FRONT) & (value % np.uint64(width) == 0)
        has = known & (distance > 0)
        return np.where(has, headers - distance, np.uint64(0)), known

    def _files(self, bodies: U64) -> list[str | None]:
        """Names of file objects, with that of their device."""
        width = self._width
        kind, there = self._memory.gather(bodies, "<u2")
        size, _ = self._memory.gather(bodies + np.uint64(2), "<u2")
        low, high = _FILE_SIZES[width]
        fits = there & (kind == _FILE_TYPE) & (size >= low) & (size <= high)
        device, _ = self._words(bodies + np.uint64(width))
        names = self._strings(bodies + np.uint64(_FILE_NAME[width]))
        found: list[str | None] = []
        for fit, place, name in zip(fits.tolist(), device.tolist(), names, strict=True):
            if not fit or name is None:
                found.append(None)
                continue
            volume = self._path(place, 0) if place else ""
            found.append(f"{CUT if volume is None else volume}{name}")
        return found

    def _path(self, body: int, depth: int) -> str | None:
        """The path of a directory or a device, by its address; None where that is not in the dump."""
        if body not in self._paths:
            self._paths[body] = None  # of one that leads back to itself
            header = np.array([max(body - HEADER_BYTES[self._width], 0)], np.uint64)
            info, known = self._infos(header)
            if known[0] and not info[0]:
                self._paths[body] = ""
            elif known[0]:
                (leaf,) = self._strings(info + np.uint64(self._width))
                parent, there = self._words(info)
                if leaf is not None and there[0]:
                    self._paths[body] = self._below(int(parent[0]), leaf, depth + 1)
        return self._paths[body]

    def _below(self, directory: int, leaf: str, depth: int) -> str:
        """A name in a directory; the root's own is the backslash."""
        if not directory or not leaf:
            return leaf
        above = self._path(directory, depth) if depth < _MOST_DEPTH else None
        # A directory without a name is in none.
        return f"{above.rstrip(chr(92)) if above else CUT}\\{leaf}"

    def _words(self, addresses: U64) -> tuple[U64, _Mask]:
        values, present = self._memory.gather(addresses, f"<u{self._width}")
        return values.astype(np.uint64), present

    def _strings(self, places: U64) -> list[str | None]:
        """The texts of UNICODE_STRINGs; None where one is not in the dump, or is none."""
        width = self._width
        length, there = self._memory.gather(places, "<u2")
        most, _ = self._memory.gather(places + np.uint64(2), "<u2")
        buffer, whole = self._words(places + np.uint64(width))
        lowest = 1 << (8 * width - 1)
        fits = there & whole & (length % 2 == 0) & (length <= most)
        fits &= (length == 0) | (buffer >= np.uint64(lowest))
        found: dict[tuple[int, int], str | None] = {}
        texts = []
        for fit, at, size in zip(fits.tolist(), buffer.tolist(), length.tolist(), strict=True):
            if fit and (at, size) not in found:
                found[at, size] = _text(self._memory.read_available(at, size), size)
            texts.append(found[at, size] if fit else None)
        return texts


def _text(raw: bytes, size: int) -> str | None:
    if len(raw) < size:
        return None
    try:
        text = raw.decode("utf-16-le")
    except UnicodeDecodeError:
        return None
    return text if not text or text.isprintable() else None
