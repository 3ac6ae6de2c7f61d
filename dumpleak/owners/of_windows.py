"""Whether a driver comes with Windows, as far as the tags tell that Windows' own drivers are known by."""

from __future__ import annotations

from functools import lru_cache

from dumpleak.model.object_tags import OBJECT_TAGS
from dumpleak.model.owners import Ownership
from dumpleak.owners.tag_table import KERNEL, built_in_table

# The built-in table has tags of these, which others wrote.
_OTHERS = frozenset(("nvlddmkm.sys",))
_KERNELS = frozenset((KERNEL, "ntkrnlmp.exe", "ntkrnlpa.exe", "ntkrpamp.exe"))


@lru_cache(maxsize=1)
def _known_drivers() -> frozenset[str]:
    return frozenset(built_in_table().drivers) - _OTHERS | _KERNELS


def is_of_windows(owner: Ownership) -> bool | None:
    """True for a tag of Windows' own, False for one of a driver that is none of these; None when unknown.

    Where nobody is known to own a tag, it is Windows' own when the built-in table has it, or when it is that
    of a kernel object.
    """
    drivers = [name.lower() for name in owner.drivers]
    if drivers:
        known = [name in _known_drivers() for name in drivers]
        return known[0] if len(set(known)) == 1 else None
    note = built_in_table().find(owner.tag)
    known_tag = owner.tag in OBJECT_TAGS or (note is not None and note.is_exact)
    return True if known_tag else None
