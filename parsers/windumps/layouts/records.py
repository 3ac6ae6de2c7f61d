"""Structures of public source code as numpy record types, declared as field → (offset, type)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

Fields = Mapping[str, tuple[int, str]]


def record(size: int, fields: Fields) -> np.dtype[np.void]:
    """A structure of so many bytes, of which the named fields are read."""
    return np.dtype(
        {
            "names": list(fields),
            "formats": [kind for _, kind in fields.values()],
            "offsets": [offset for offset, _ in fields.values()],
            "itemsize": size,
        }
    )


def moved(fields: Fields, names: Collection[str], by: int) -> dict[str, tuple[int, str]]:
    """The fields of another build, which has more in front of some of them."""
    return {
        name: (offset + by if name in names else offset, kind)
        for name, (offset, kind) in fields.items()
    }
