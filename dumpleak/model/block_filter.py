"""Which blocks, and which groups of them, a reader wants to see."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.block_page import BlockPage, Names
from dumpleak.model.sites import Site
from dumpleak.model.units import parse_size
from windumps.pool_tags import tag_text

_HANDLE = re.compile("0x[0-9a-f]+")
_HEAP = "heap "  # what labels begin with


@dataclass(frozen=True)
class BlockFilter:
    """What blocks have to have; None, or False, where that is all one.

    Attributes:
        site: Pattern of the name of their site, see `pattern_of`.
        type: Pattern of their class.
        heap: Label of their heap, its number, its handle, or the name of a pool.
        sizes: Least and most bytes.
        tag: Pattern of their pool tag, in which case matters.
        unreferenced: No root leads to them.
        new_since: An earlier dump of the same process life that they were not in.
        exact: The name of their site is meant as it is; see `among`.
    """

    site: str | None = None
    type: str | None = None
    heap: str | None = None
    sizes: tuple[int, int] | None = None
    tag: str | None = None
    unreferenced: bool = False
    new_since: Path | None = None
    exact: bool = False

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) not in (None, False) for field in fields(self))

    @property
    def texts(self) -> list[tuple[str, str]]:
        """What is asked of names: (what of, pattern)."""
        asked = (("name", self.site), ("type", self.type))
        return [(kind, text) for kind, text in asked if text is not None]

    @cached_property
    def _wanted(self) -> dict[str, Callable[[str], bool]]:
        texts = {"site": self.site, "type": self.type}
        wanted = {name: pattern_of(text) for name, text in texts.items() if text is not None}
        return wanted | ({"site": self.site.__eq__} if self.exact and self.site else {})

    def among(self, names: Collection[str]) -> BlockFilter:
        """The same, to which a name that is asked for and that some site has means only itself."""
        if self.site is None or self.site not in names:
            return self
        return replace(self, exact=True)

    def takes_site(self, site: Site) -> bool:
        """Whether a group is wanted, by its name and its type."""
        texts = {"site": site.name, "type": site.type or ""}
        return all(takes(texts[name]) for name, takes in self._wanted.items())

    def takes_heap(self, label: str, address: int) -> bool:
        """Whether a heap is meant."""
        if self.heap is None:
            return True
        asked, own = self.heap.strip().lower(), label.lower()
        if _HANDLE.fullmatch(asked):
            return address > 0 and int(asked, 16) == address
        return asked in (own, own.removeprefix(_HEAP))

    def selected(self, page: BlockPage) -> BlockPage | None:
        """The rows of a page that are wanted, as far as a page tells; None where there are none."""
        if not self.takes_heap(page.heap_label, page.heap_address):
            return None
        blocks = page.blocks
        keep = np.ones(len(blocks), np.bool_)
        if self.sizes is not None:
            low, high = self.sizes
            keep &= (blocks.counted_bytes >= low) & (blocks.counted_bytes <= high)
        if self.tag is not None:
            tags = Names.of(tag_text(t) if t else "" for t in blocks.tag.tolist())
            keep &= _taken(tags, _cased(self.tag))
        for name, takes in self._wanted.items():
            keep &= _taken(page.sites if name == "site" else page.types, takes)
        return page.select(keep) if keep.any() else None


NO_FILTER = BlockFilter()


def _taken(names: Names, takes: Callable[[str], bool]) -> NDArray[np.bool_]:
    known = [bool(text) and takes(text) for text in names.texts]
    taken: NDArray[np.bool_] = np.array([*known, False], np.bool_)[names.number]
    return taken


def pattern_of(text: str) -> Callable[[str], bool]:
    """Tells which names a pattern means: with `*` or `?` the whole name, else any part; any case."""
    return _matcher(text, re.IGNORECASE)


def _cased(text: str) -> Callable[[str], bool]:
    """The same of tags, which are short and of which case matters: always the whole of one."""
    return _matcher(text, 0, whole=True)


def _matcher(text: str, flags: int, *, whole: bool = False) -> Callable[[str], bool]:
    # Names of templates have brackets, so these mean nothing but themselves.
    parts = ({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in text)
    found = re.compile("".join(parts), flags | re.DOTALL)
    if whole or "*" in text or "?" in text:
        return lambda name: (
            found.fullmatch(name) is not None
            or (whole and found.fullmatch(name.rstrip()) is not None)
        )
    return lambda name: found.search(name) is not None


def parse_sizes(text: str) -> tuple[int, int]:
    """Reads "48", "4K" or "64-128" as the least and the most bytes.

    Raises:
        ValueError: it is neither.
    """
    low, dash, high = text.partition("-")
    least = parse_size(low)
    most = parse_size(high) if dash else least
    if most < least:
        raise ValueError(f"{text!r} has the larger size first")
    return least, most
