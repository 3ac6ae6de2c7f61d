"""Whether the pools of a dump can be told about: one answer for `pool`, `info` and all others."""

from __future__ import annotations

from typing import NamedTuple

from dumpleak.kernel.pools import PoolReader
from dumpleak.model.errors import CannotAnswerError, Progress, no_progress
from windumps.dumps.kernel.dump import KernelDump
from windumps.symbols.provider import Symbols


class Answerable(NamedTuple):
    """What can be told about the pools of a dump.

    Attributes:
        pools: Them; None where they cannot be told about.
        why_not: Why `dumpleak pool` cannot answer; "" when it can.
        note: What to know when it can; "" for nothing.
    """

    pools: PoolReader | None
    why_not: str = ""
    note: str = ""


def pools_of(
    dump: KernelDump, symbols: Symbols | None = None, progress: Progress = no_progress
) -> PoolReader | None:
    """The pools of a dump; None where it has none."""
    try:
        return PoolReader(dump, symbols, progress=progress)
    except CannotAnswerError:
        return None


def what_answers(dump: KernelDump, symbols: Symbols | None = None) -> Answerable:
    """Whether `dumpleak pool` can answer from a dump.

    The pools are walked, unless their blocks are more than this machine has memory for.
    """
    if dump.why_no_pool:
        return Answerable(None, f"this is {dump.why_no_pool}")
    try:
        reader = PoolReader(dump, symbols)
        too_many = reader.why_no_walk
        shortfall = reader.account(walk=not too_many).shortfall
    except CannotAnswerError as error:
        return Answerable(None, str(error))
    return Answerable(None if shortfall else reader, shortfall, too_many)
