"""Threads as members (`--of threads`): by the function they began with, with their stacks."""

from __future__ import annotations

import numpy as np

from dumpleak.model.account import NO_THREADS, THREADS_CUT
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.sites import Place, Site, SiteKind, image_identity, key_site
from dumpleak.process.session import Session
from dumpleak.survey.populations.members import Members, numbered, one_process
from windumps.arrays import I64
from windumps.dump import Thread
from windumps.images.modules import Module
from windumps.memory.regions import MEM_COMMIT, MEM_PRIVATE

UNKNOWN = "(start address not in the dump)"
NARROW_TEB = 0x2000  # of a WoW64 thread, behind its 64-bit TEB


def thread_members(session: Session, by: str = "start") -> Members:
    """All threads; what their stacks have committed only where the dump lists its regions, and all stacks.

    Raises:
        CannotAnswerError: the dump does not list its threads, or not all of them.
    """
    one_process(by)
    dump = session.dump
    if not dump.threads or not dump.threads_whole:
        raise CannotAnswerError(THREADS_CUT if dump.threads else NO_THREADS)
    sites, group = numbered(_site(session, thread) for thread in dump.threads)
    regions = dump.memory.regions
    known = len(regions) > 0 and regions.whole
    return Members(sites, group, _stacks(session) if known else None)


def _site(session: Session, thread: Thread) -> Site:
    """The site of a thread by its start function, keyed without addresses."""
    start = thread.start_address
    if not start:
        return key_site("thread|start", UNKNOWN)
    number = int(session.images.index_of(np.array([start], np.uint64))[0])
    if number < 0:
        return key_site("thread|start", "(code in no image)")
    image = session.images.modules[number]
    rva = start - image.base_address
    symbols = session.symbols
    found = symbols.data(image, rva) if symbols is not None else None
    return start_site(image, rva, found.function if found is not None else "")


def start_site(image: Module, rva: int, function: str) -> Site:
    """All threads that began with one function of an image; "" where its name is not known."""
    name = f"{image.name}!{function}" if function else f"{image.name}+0x{rva:x}"
    identity = image_identity(image)
    place = Place(image.name.lower(), identity, rva, function)
    return Site(SiteKind.GROUP, f"thread|start|{identity}+0x{rva:x}", name, places=(place,))


def _stacks(session: Session) -> I64 | None:
    """Committed bytes of the stack of each thread; a WoW64 thread has two. None where one is not found."""
    regions = session.dump.memory.regions
    rows = (regions.state == MEM_COMMIT) & (regions.type == MEM_PRIVATE)
    bases, inverse = np.unique(regions.allocation_base[rows], return_inverse=True)
    held = np.zeros(len(bases), np.int64)
    np.add.at(held, inverse, regions.region_size[rows].astype(np.int64))
    committed = dict(zip(bases.tolist(), held.tolist(), strict=True))
    seconds = {
        block.address - NARROW_TEB: block.stack[0]
        for view in session.views
        if view.is_secondary
        for block in view.thread_blocks
    }
    told = {
        block.address: block.stack[0]
        for view in session.views
        if not view.is_secondary
        for block in view.thread_blocks
    }
    sizes = []
    for thread in session.dump.threads:
        ends = thread.stack_start, told.get(thread.teb, 0), seconds.get(thread.teb, 0)
        stacks = [regions.row_of(address) for address in ends if address]
        mine = {int(regions.allocation_base[row]) for row in stacks if row >= 0}
        if not mine:
            return None
        sizes.append(sum(committed.get(base, 0) for base in mine))
    return np.array(sizes, np.int64)
