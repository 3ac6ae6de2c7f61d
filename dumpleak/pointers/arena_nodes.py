"""Blocks of other allocators among the blocks of heaps, where it is looked for who holds what.

They are nodes, no roots: what only a block holds that nothing points to is as lost as that block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dumpleak.attribution import SiteFinder
from dumpleak.attribution.arena_sites import ArenaSites
from dumpleak.model.sites import Site
from dumpleak.pointers.references import BlockIndexBuilder
from dumpleak.process.arenas import arena_blocks
from dumpleak.process.session import HeapSource, Session
from windumps.arrays import I64
from windumps.blocks import Blocks

KEY = "arenas|"  # in front of the keys of their groups: no group of blocks of heaps has it


class ArenaNodes:
    """Numbers the groups of such blocks behind those of blocks of heaps.

    Args:
        session: The dump, its heaps walked.
        sites: The groups of blocks of heaps; all of them.
    """

    def __init__(self, session: Session, sites: Sequence[Site]) -> None:
        self._native = list(sites)
        self._finder = SiteFinder(session)
        self._groups = ArenaSites(session, "site", self._finder)

    @property
    def sites(self) -> list[Site]:
        """All groups; those of heaps first."""
        return [*self._native, *(replace(s, key=f"{KEY}{s.key}") for s in self._finder.table.sites)]

    def assign(self, source: HeapSource, used: Blocks) -> I64:
        """Indices into `sites` (int64, shape (n,))."""
        return self._groups.assign(source, used) + np.int64(len(self._native))


def add_arenas(session: Session, index: BlockIndexBuilder, sites: Sequence[Site]) -> list[Site]:
    """Takes all used blocks of other allocators into an index of those of heaps.

    Returns:
        Groups of both, those of heaps first.
    """
    nodes = ArenaNodes(session, sites)
    for source, used in arena_blocks(session):
        index.add(used, nodes.assign(source, used), source.view.pointer_size)
    return nodes.sites
