"""Whether the pools of a dump can be told about: one answer for `pool`, `info` and all others."""

from __future__ import annotations

from dumpleak.kernel.pools import PoolReader
from dumpleak.model.errors import CannotAnswerError
from windumps.dumps.kernel.dump import KernelDump


def why_no_answer(dump: KernelDump) -> tuple[str, str]:
    """Why `dumpleak pool` cannot answer from this dump, and what to know when it can; "" for none.

    The pools are walked, unless their blocks are more than this machine has memory for.
    """
    if dump.why_no_pool:
        return f"this is {dump.why_no_pool}", ""
    try:
        reader = PoolReader(dump)
        too_many = reader.why_no_walk
        return reader.account(walk=not too_many).shortfall, too_many
    except CannotAnswerError as error:
        return str(error), ""
