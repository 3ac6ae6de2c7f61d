"""What the account of a system says beside its pools: memory that is gone, and how to see who took it."""

from __future__ import annotations

from collections.abc import Sequence

from dumpleak.model.account import AccountRow
from dumpleak.reports.answers.next_steps import Step, named_elsewhere

AVAILABLE, DRIVERS = "memory.available_bytes", "memory.driver_bytes"
_TAKERS = {"pool.bytes": "pool", DRIVERS: "drivers outside pool", "processes.bytes": "processes"}
WORTH_TELLING = 0.1  # share of available memory whose loss is told
# Documented for bug check 0xCB: the kernel then remembers who locked pages.
_TRACK_PAGES = Step(
    "Pages that drivers take for themselves are no pool, and no tag names them: a virtual machine's balloon "
    "driver does that. Let Windows remember who locks pages, then restart, and ask !lockedpages:",
    r'reg add "HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management" '
    "/v TrackLockedPages /t REG_DWORD /d 1",
)


def memory_facts(rows: Sequence[AccountRow]) -> list[tuple[str, str]]:
    """How much less memory is available, and how much of that pool and drivers explain."""
    known = {row.name: row for row in rows if row.delta is not None}
    row = known.get(AVAILABLE)
    if row is None or not (row.delta or 0) <= -WORTH_TELLING * (row.base or 0) < 0:
        return []
    text = f"{row.kind.label} fell from {row.told(row.base)} to {row.told(row.current)}"
    parts = [
        f"{who} {known[name].told(known[name].delta, True)}"
        for name, who in _TAKERS.items()
        if name in known
    ]
    return [("Memory", f"{text}: {', '.join(parts)}" if parts else text)]


def system_steps(rows: Sequence[AccountRow], of: str) -> tuple[Step, ...]:
    """What to do next about rows of a system that grew, the worst first.

    Args:
        rows: What grew.
        of: The population that was looked at.
    """
    drivers = any(row.name == DRIVERS for row in rows)
    return (*((_TRACK_PAGES,) if drivers else ()), *named_elsewhere(rows, of))
