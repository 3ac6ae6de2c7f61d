"""Allocation sites: who allocated, keyed so that the same site in two dumps is one.

A key and a name hold no absolute address: code is module + RVA keyed on the module's PDB identity,
a heap is
its position in the process's list. Two machines, two boots and two load addresses give the same
keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SiteKind(StrEnum):
    """What names a site, best evidence first."""

    STACK = "stack"
    SOURCE = "source"
    TYPE = "type"
    TAG = "tag"
    SHAPE = "shape"
    GROUP = "group"  # not a site: blocks put together by another key (`--by size`)


@dataclass(frozen=True)
class Site:
    """One allocation site, or another group of blocks.

    Attributes:
        kind: What names it.
        key: Identity across dumps.
        name: For people.
        frames: Call stack, innermost first, for kind `stack`.
        type: Class name, where one is known.
        tag: Pool tag, where there is one.
        driver: Driver that owns the tag.
    """

    kind: SiteKind
    key: str
    name: str
    frames: tuple[str, ...] = ()
    type: str | None = None
    tag: str | None = None
    driver: str | None = None
