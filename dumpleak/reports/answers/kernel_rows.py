"""Rows of the answers about kernel dumps that CSV and JSON share."""

from __future__ import annotations

from typing import Any

from dumpleak.model.units import format_address
from windumps.kernel.processes import KernelProcess

PROCESS_COLUMNS = (
    "pid",
    "parent_pid",
    "name",
    "create_time",
    "is_wow64",
    "private_commit_bytes",
    "handle_count",
    "eprocess",
    "directory_table_base",
    "peb",
)


def process_row(process: KernelProcess) -> dict[str, Any]:
    """One process, by `PROCESS_COLUMNS`; None for what is unknown."""
    return {
        "pid": process.process_id,
        "parent_pid": process.parent_id,
        "name": process.name,
        "create_time": process.create_time.isoformat() if process.create_time else None,
        "is_wow64": process.is_wow64,
        "private_commit_bytes": process.private_commit_bytes,
        "handle_count": process.handle_count,
        "eprocess": format_address(process.address),
        "directory_table_base": format_address(process.directory_table_base),
        "peb": format_address(process.peb) if process.peb else None,
    }
