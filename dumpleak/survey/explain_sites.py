"""Why the blocks of some sites are alive: what most of them hang on."""

from __future__ import annotations

import numpy as np

from dumpleak.attribution import SiteFinder
from dumpleak.model.block_filter import BlockFilter
from dumpleak.model.errors import CannotAnswerError, Progress, no_progress
from dumpleak.model.explanation import SitesExplained
from dumpleak.pointers.arena_nodes import add_arenas
from dumpleak.pointers.holder_tree import FieldLog, HolderTrees, Namer
from dumpleak.pointers.holders import ROOT_NAMES, block_name
from dumpleak.pointers.paths import RANKS, REGISTER
from dumpleak.pointers.reachability import reachability_of, scan_pointers
from dumpleak.pointers.references import BlockIndexBuilder
from dumpleak.pointers.retained import Retention
from dumpleak.pointers.roots import RootKind, find_roots, require_roots
from dumpleak.process.coverage import coverage
from dumpleak.process.places import Places
from dumpleak.process.session import Session
from dumpleak.process.used_pieces import used_pieces
from dumpleak.survey.heaps import retained_notes, source_info


def explain_sites(
    session: Session, asked: BlockFilter, progress: Progress = no_progress
) -> SitesExplained:
    """Walks all heaps, scans all roots, and puts together what the blocks of some sites hang on.

    Args:
        session: The open dump.
        asked: Which sites.
        progress: Told of each heap.

    Raises:
        CannotAnswerError: no heap can be read, the roots are not in the dump, or there is no such site.
    """
    if not any(source.entry.heap for source in session.arenas):
        session.require_heaps()
    finder, builder = SiteFinder(session), BlockIndexBuilder()
    for source, used in used_pieces(session, progress):
        builder.add(used, finder.assign(source, used), source.view.pointer_size)
    sites = add_arenas(session, builder, finder.table.sites)
    index = builder.build()
    asked = asked.among({site.name for site in sites})
    wanted = np.array([asked.takes_site(site) for site in sites], np.bool_)
    told = " and ".join(f"{kind} {text!r}" for kind, text in asked.texts)
    if not wanted.any():
        raise CannotAnswerError(f"{session.dump.path}: no blocks of a site with {told}")
    memory, roots = session.dump.memory, find_roots(session)
    require_roots(session, roots.amounts(memory))
    notes = retained_notes(session)
    progress("scanning for pointers", 0, 1)
    log = FieldLog(index, np.zeros(len(index), np.bool_))
    graph = scan_pointers(memory, roots, index, log, session.dump.release)
    reachable = reachability_of(graph).reachable
    names = list(dict.fromkeys(block_name(site) for site in sites))
    numbers = np.array([names.index(block_name(site)) for site in sites], np.int64)
    namer = Namer(names, numbers[index.group], _RootNames(session))
    blocks = np.flatnonzero(wanted[index.group]).astype(np.int32)
    lost = blocks[~reachable[blocks]]
    retained = Retention(graph, reachable, index.size).of_blocks(blocks)
    return SitesExplained(
        source_info(session),
        told,
        tuple(
            dict.fromkeys(s.name for s, taken in zip(sites, wanted.tolist(), strict=True) if taken)
        ),
        count=len(blocks),
        bytes=int(index.size[blocks].sum()),
        unreferenced_count=len(lost),
        unreferenced_bytes=int(index.size[lost].sum()),
        retained_bytes=retained[0] if retained else None,
        retained_count=retained[1] if retained else None,
        holders=HolderTrees(graph, log, index.size, namer).tree(blocks),
        diagnostics=(*session.diagnostics, *notes),
        shortfall=coverage(session).shortfall,
    )


class _RootNames:
    """What roots are called that hold many blocks."""

    def __init__(self, session: Session) -> None:
        self._session, self._places = session, Places(session)

    def __call__(self, rank: int, low: int, high: int) -> str:
        """One place is told exactly, several by what they are of."""
        if rank == REGISTER:
            return "registers of threads"
        if low == high:
            return self._places.root_at(low)
        kind = RANKS[rank]
        if kind is not RootKind.GLOBALS:
            return ROOT_NAMES[kind]
        modules = [self._session.modules.at(place) for place in (low, high)]
        named = {module.name for module in modules if module is not None}
        return f"globals of {named.pop()}" if len(named) == 1 else "globals of several images"
