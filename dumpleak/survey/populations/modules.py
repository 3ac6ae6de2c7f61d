"""Loaded images as members (`--of modules`)."""

from __future__ import annotations

import numpy as np

from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.sites import key_site
from dumpleak.process.account import why_no_modules
from dumpleak.process.session import Session
from dumpleak.survey.populations.members import Members, numbered
from windumps.arrays import I64
from windumps.images.modules import Module
from windumps.memory import Regions
from windumps.memory.regions import MEM_COMMIT


def module_members(session: Session) -> Members:
    """All loaded images by name; their bytes only where the dump lists its regions.

    Raises:
        CannotAnswerError: the dump does not list its modules, or not all of them.
    """
    modules, regions = session.dump.modules, session.dump.memory.regions
    if why := why_no_modules(session.dump):
        raise CannotAnswerError(why)
    sites, group = numbered(key_site("module|name", module.name) for module in modules)
    known = len(regions) > 0 and regions.whole
    return Members(sites, group, _committed(modules, regions) if known else None)


def _committed(modules: list[Module], regions: Regions) -> I64:
    """Committed bytes between the bounds of each image."""
    rows = regions.state == MEM_COMMIT
    start = regions.base_address[rows]
    size = regions.region_size[rows]
    before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(size)])

    def below(addresses: list[int]) -> I64:
        at = np.array(addresses, np.uint64)
        row = np.searchsorted(start, at, "right")
        last = np.maximum(row - 1, 0)
        # Of the region an address lies in, what is above it does not count.
        over = np.where(row > 0, np.minimum(at - start[last], size[last]), 0) if len(start) else 0
        full = before[last] if len(start) else np.zeros(len(at), np.uint64)
        return np.asarray(full + over, np.uint64).astype(np.int64)

    bounds = [(m.base_address, m.base_address + m.size_bytes) for m in modules]
    return below([end for _, end in bounds]) - below([begin for begin, _ in bounds])
