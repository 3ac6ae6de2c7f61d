"""Runs of a system: whether it was restarted between two dumps of its kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise


@dataclass(frozen=True)
class Boot:
    """Which run of a system a dump is of.

    Attributes:
        kernel_base: Where the kernel lies; 0 when unknown.
        time: When the dump was taken; None when unknown.
        up_time: Since the system started; None when unknown.
        file: Only puts dumps of one time in an order.
    """

    kernel_base: int
    time: datetime | None
    up_time: timedelta | None
    file: str


def is_same_boot(base: Boot | None, current: Boot | None) -> bool:
    """True when the system was not restarted between two dumps: addresses and counters go on.

    That is so when it was already up at the time of the earlier dump. Both dumps must say when they were
    taken and how long the system had been up, and have their kernel at one address.
    """
    if base is None or current is None or not base.kernel_base:
        return False
    return base.kernel_base == current.kernel_base and _was_up(base, current) is True


def was_restarted(base: Boot, current: Boot) -> bool:
    """True when the system surely was restarted between two dumps; False also where nothing tells."""
    if base.kernel_base and current.kernel_base and base.kernel_base != current.kernel_base:
        return True
    return _was_up(base, current) is False


def _was_up(base: Boot, current: Boot) -> bool | None:
    """Whether the system of the later dump was up at the time of the earlier one; None where unknown."""
    if base.time is None or current.time is None or base.up_time is None or current.up_time is None:
        return None
    earlier, later = sorted((base, current), key=lambda boot: (boot.time, boot.file))
    if earlier.time is None or later.time is None or later.up_time is None:
        return None
    return later.time - later.up_time < earlier.time


def runs_of(boots: Sequence[Boot | None]) -> list[range]:
    """The numbers of a series of dumps, split where the system was restarted; None is no kernel's."""
    breaks = [
        number
        for number, (before, after) in enumerate(pairwise(boots), start=1)
        if before is not None and after is not None and was_restarted(before, after)
    ]
    return [range(start, end) for start, end in pairwise((0, *breaks, len(boots)))]
