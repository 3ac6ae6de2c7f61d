"""Heaps as members (`--of heaps`): how many there are of each kind, and what they have committed."""

from __future__ import annotations

import numpy as np

from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.sites import key_site
from dumpleak.model.snapshot import Snapshot
from dumpleak.survey.populations.members import Members, numbered


def heap_members(process: Snapshot) -> Members:
    """All heaps of a process, or of a snapshot file of one.

    Raises:
        CannotAnswerError: there may be more, or what one has committed is not known.
    """
    covered = process.coverage
    if covered.list_cut or covered.heaps_listed > len(process.heaps):
        raise CannotAnswerError(f"only {covered.heaps_text} are known: the list of heaps is cut")
    sizes = [row.committed_bytes for row in process.heaps]
    unknown = [row.label for row in process.heaps if row.committed_bytes is None]
    if unknown:
        raise CannotAnswerError(
            f"what {', '.join(unknown[:3])} has committed is not known: {len(unknown)} of {len(sizes)} heaps "
            "could not be read"
        )
    sites, group = numbered(key_site("heap|kind", row.kind) for row in process.heaps)
    return Members(sites, group, np.array(sizes, np.int64))
