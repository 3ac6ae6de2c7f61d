"""Which of two dumps is the earlier one: by their times, else by the processor time of their process."""

from __future__ import annotations

from collections.abc import Sequence

from dumpleak.model.account import AccountRow
from dumpleak.model.snapshot import Snapshot, SourceInfo
from dumpleak.model.subject import Subject
from windumps.diagnostics import Diagnostic, Severity

SWAPPED = (
    "the current dump was taken before the base: if the two are swapped, what shrank has grown"
)
ON_TRUST = (
    "the dumps do not tell which was taken first, so the order given is believed: if they are swapped, what "
    "shrank has grown"
)


CODES = "dumps-swapped", "order-unknown"  # of what is said of the order


def is_older(base: SourceInfo, current: SourceInfo) -> bool:
    """True when the current dump was taken before the base: the two are probably swapped."""
    if base.time is not None and current.time is not None and base.time != current.time:
        return current.time < base.time
    spent = _spent(base, current)
    return spent is not None and spent < 0


def order_told(
    base: Snapshot, current: Snapshot, rows: Sequence[AccountRow]
) -> tuple[Diagnostic, ...]:
    """Says so when two dumps stand in the wrong order, or when nothing tells and the order matters.

    Args:
        base: The one that is taken for the earlier.
        current: The one that is taken for the later.
        rows: The account of both.
    """
    if is_older(base.source, current.source):
        return (Diagnostic(CODES[0], Severity.WARNING, "comparison", None, SWAPPED),)
    if not _is_known(base, current) and _shrank(base, current, rows):
        return (Diagnostic(CODES[1], Severity.WARNING, "comparison", None, ON_TRUST),)
    return ()


def _is_known(before: Snapshot, after: Snapshot) -> bool:
    """Whether anything tells the order; of logs of pools their counters do, which only rise."""
    base, current = before.source, after.source
    if before.pool and after.pool and Subject.LOG in (base.subject, current.subject):
        return True
    if base.time is not None and current.time is not None and base.time != current.time:
        return True
    return bool(_spent(base, current))


def _spent(base: SourceInfo, current: SourceInfo) -> int | None:
    """Seconds of processor time from one dump to the other; None for two processes, or where unknown."""
    if base.process_created is None or base.process_created != current.process_created:
        return None
    if base.process_id != current.process_id:
        return None
    before, after = base.processor_seconds, current.processor_seconds
    # Tools that do not know it write 0.
    return after - before if before and after else None


def _shrank(base: Snapshot, current: Snapshot, rows: Sequence[AccountRow]) -> bool:
    """Whether more would have grown than is seen, were the two swapped."""
    if current.totals.bytes < base.totals.bytes or current.totals.count < base.totals.count:
        return True
    return any(0 < row.kind.threshold < -(row.delta or 0) for row in rows)
