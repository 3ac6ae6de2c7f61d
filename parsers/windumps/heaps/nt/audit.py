"""Holds what was walked of an NT heap against the counters that the heap keeps.

Memory that the heap counts and the walk did not find is the heap's all the same: it counts as
committed and not walked, so that every answer knows that something is missing.
"""

from __future__ import annotations

from typing import NamedTuple

from windumps.arrays import PAGE_SIZE
from windumps.diagnostics import Severity
from windumps.heaps.base import HeapAccount, HeapContext
from windumps.heaps.nt.scan import committed_span, private_bytes
from windumps.heaps.nt.virtual import VirtualBlocks

COUNTERS = (
    "TotalMemoryReserved",
    "TotalMemoryCommitted",
    "TotalSizeInVirtualBlocks",
    "TotalSegments",
    "TotalFreeSize",
)
FRONT_END_BYTES = 0x20000  # at most; 1A000h (x64) and E000h (x86) reserved were seen


class Found(NamedTuple):
    """What of a heap was found.

    Attributes:
        segments: How many segments.
        cut: Their list is damaged.
        whole: Which of their pages are committed is sure.
        large: Large blocks.
        front_end: Address of the front end's own object; 0 when unknown.
    """

    segments: int
    cut: bool
    whole: bool
    large: VirtualBlocks
    front_end: int


def audit(context: HeapContext, account: HeapAccount, found: Found) -> None:
    """Counts what the heap has and the walk has not; `account` holds the segments so far."""
    counters = account.counters
    committed, reserved = counters["TotalMemoryCommitted"], counters["TotalMemoryReserved"]
    rest = committed - account.committed_bytes
    rest -= _front_end_beside(context, account, found, rest)
    if rest < 0 and not found.whole:
        # Pages that no list says are uncommitted were taken for absent ones.
        surplus = min(-rest, account.absent_bytes)
        account.committed_bytes -= surplus
        account.unwalked_bytes -= surplus
        account.absent_bytes -= surplus
        rest += surplus
    missing = 0
    if rest:
        possible = _possible(context, committed) and committed <= reserved
        missing = _missing(context, account, rest, possible)
        _say(
            context,
            account,
            "heap-counters-differ",
            f"the heap counts {abs(rest)} bytes {'more' if rest > 0 else 'less'} committed than "
            "its segments add up to" + ("; they were not found" if rest > 0 else ""),
            missing if rest > 0 else -rest,
        )
    if counters["TotalSegments"] > found.segments:
        _say(
            context,
            account,
            "heap-counters-differ",
            f"the heap counts {counters['TotalSegments']} segments, {found.segments} were found",
            0,
        )
    large_rest, large_missing = _audit_large(context, account, found)
    missing += large_missing
    if (found.cut and rest < 0) or (found.large.cut and large_rest < 0):
        # The counters do not say what a damaged list hides.
        unknown = max(private_bytes(context, sorted(account.ranges)) or 0, PAGE_SIZE)
        missing += unknown
        _say(
            context,
            account,
            "heap-extent-unknown",
            "a list of this heap's memory is damaged and its counters do not tell how much is missing; "
            "all private memory that it could be counts as not walked",
            unknown,
        )
    account.committed_bytes += missing
    account.unwalked_bytes += missing


def _audit_large(context: HeapContext, account: HeapAccount, found: Found) -> tuple[int, int]:
    """Bytes that the heap counts in large blocks beyond those found, and how many of them are missing."""
    size = account.counters["TotalSizeInVirtualBlocks"]
    rest = size - int(found.large.commit.sum())
    if not rest:
        return 0, 0
    missing = _missing(context, account, rest, _possible(context, size))
    _say(
        context,
        account,
        "large-blocks-differ",
        f"the heap counts {abs(rest)} bytes {'more' if rest > 0 else 'less'} in large "
        "blocks than were found",
        missing,
    )
    return rest, missing


def _front_end_beside(context: HeapContext, account: HeapAccount, found: Found, rest: int) -> int:
    """Bytes of the front end's object, which from Windows 8 on is an allocation beside the segments
    that the counters include.
    """
    front_end = found.front_end
    beside = front_end and not any(a <= front_end < a + s for a, s in account.ranges)
    if not beside or (rest <= 0 and found.whole):
        return 0
    span = committed_span(context, front_end)
    if span is None:
        span = context.memory.bytes_from(front_end, FRONT_END_BYTES)
    own = min(span, FRONT_END_BYTES)
    if found.whole:
        own = min(own, rest)
    reserved = account.counters["TotalMemoryReserved"] - account.reserved_bytes
    reserved = max(own, min(reserved, FRONT_END_BYTES))
    account.committed_bytes += own
    account.overhead_bytes += own
    account.reserved_bytes += reserved
    account.ranges.append((front_end, reserved))
    return own


def _possible(context: HeapContext, counter: int) -> bool:
    limit = 1 << (32 if context.pointer_size == 4 else 47)
    return counter % PAGE_SIZE == 0 and counter < limit


def _missing(context: HeapContext, account: HeapAccount, rest: int, possible: bool) -> int:
    """Bytes that were not found; of a counter that cannot be right, no more than there is."""
    if rest <= 0 or possible:
        return max(rest, 0)
    there = private_bytes(context, sorted(account.ranges))
    if there is None:
        there = context.memory.total_bytes
    return max(min(rest, there), PAGE_SIZE)


def _say(context: HeapContext, account: HeapAccount, code: str, message: str, lost: int) -> None:
    heap = account.ranges[0][0] if account.ranges else None
    context.log.add(code, Severity.WARNING, "_HEAP.Counters", heap, message, lost)
