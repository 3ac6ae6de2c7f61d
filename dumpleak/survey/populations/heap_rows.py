"""Heaps as members (`--of heaps`): how many there are of each kind, and what they have committed."""

from __future__ import annotations

import numpy as np

from dumpleak.model.account import NO_HEAPS
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.sites import key_site
from dumpleak.model.snapshot import Snapshot
from dumpleak.survey.populations.members import Members, numbered


def heap_members(process: Snapshot) -> Members:
    """All heaps of a process, or of a snapshot file of one.

    Raises:
        CannotAnswerError: there may be more, or what one has committed is not known.
    """
    if why := why_heaps_unknown(process):
        raise CannotAnswerError(why)
    sizes = [row.committed_bytes for row in process.heaps]
    sites, group = numbered(key_site("heap|kind", row.kind) for row in process.heaps)
    return Members(sites, group, np.array(sizes, np.int64))


def why_heaps_unknown(process: Snapshot) -> str:
    """Why there may be more heaps, or other memory of heaps, than is known; "" where all is known."""
    covered, heaps = process.coverage, process.heaps
    if not covered.heaps_listed:
        return NO_HEAPS
    if covered.list_cut or covered.heaps_listed > len(heaps):
        return f"only {covered.heaps_text} are known: the list of heaps is cut"
    unknown = [row.label for row in heaps if row.committed_bytes is None]
    if unknown:
        return (
            f"what {', '.join(unknown[:3])} has committed is not known: {len(unknown)} of {len(heaps)} heaps "
            "could not be read"
        )
    return ""
