"""What must hold for every answer, whatever the input was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dumpleak.model.coverage import Coverage
from dumpleak.model.snapshot import Snapshot
from dumpleak.process.coverage import coverage
from dumpleak.process.session import Session
from windumps.blocks import Blocks
from windumps.heaps.base import HeapAccount

ACCOUNT_COLUMNS = (
    *("reserved_bytes", "committed_bytes", "used_bytes", "used_block_bytes", "used_count"),
    *("free_block_bytes", "free_count", "overhead_bytes", "unwalked_bytes", "absent_bytes"),
)


class ViolationError(Exception):
    """An answer that cannot be true; the text before the first colon names the invariant."""


def require(holds: bool | np.bool_, invariant: str, about: str = "") -> None:
    """Raises unless it holds."""
    if not holds:
        raise ViolationError(f"{invariant}: {about}" if about else invariant)


def check_blocks(pieces: Sequence[Blocks]) -> None:
    """Every block once, in its own bytes."""
    blocks = Blocks.concatenate(pieces)
    used = blocks.used
    require((blocks.block_bytes >= 0).all(), "block bytes are not negative")
    order = np.argsort(used.address, kind="stable")
    address, size = used.address[order], np.maximum(used.size[order], 0)
    taken = np.minimum(size, used.block_bytes[order]).astype(np.uint64)
    twice = np.flatnonzero(address[1:] == address[:-1])
    require(not len(twice), "no address is two used blocks", _hex(address, twice))
    end = address + taken
    require((end >= address).all(), "no block ends beyond the last address")
    over = np.flatnonzero(end[:-1] > address[1:])
    require(not len(over), "used blocks do not overlap", _hex(address, over))


def check_account(account: HeapAccount, blocks: Sequence[Blocks] | None = None) -> None:
    """A heap's account adds up, and has nothing less than none."""
    for name in ACCOUNT_COLUMNS:
        require(getattr(account, name) >= 0, f"{name} is not negative", repr(account))
    require(account.residual_bytes == 0, "the account adds up", repr(account))
    require(
        account.used_block_bytes <= account.committed_bytes, "used is in committed", repr(account)
    )
    require(account.absent_bytes <= account.unwalked_bytes, "absent is unwalked", repr(account))
    if blocks is not None:
        count = sum(len(piece.used) for piece in blocks)
        require(account.used_count == count, "the account counts the blocks", f"{count}")


def check_coverage(covered: Coverage) -> None:
    """Nobody walks more than there is."""
    for part, whole in (
        ("walked_bytes", "committed_bytes"),
        ("present_bytes", "committed_bytes"),
        ("heaps_read", "heaps_listed"),
    ):
        low, high = getattr(covered, part), getattr(covered, whole)
        require(0 <= low <= high, f"{part} are in {whole}", repr(covered))
    require(0 <= covered.walked_share <= 1, "coverage is 100 % at most", repr(covered))


def check_session(session: Session) -> None:
    """Walks a process; all its heaps together, then each account."""
    pieces = [blocks for _, blocks in session.blocks()]
    check_blocks(pieces)
    for source in session.readable_heaps:
        if source.entry.heap is not None:
            check_account(source.entry.heap.account)
    check_coverage(coverage(session))
    for item in session.diagnostics:
        require(item.bytes_affected >= 0, "damage is not less than none", item.code)
        require("\n" not in item.message, "a message is one line", repr(item.message))


def check_snapshot(taken: Snapshot) -> None:
    """The groups are the whole."""
    check_coverage(taken.coverage)
    count = sum(totals.count for _, totals in taken.groups.values())
    size = sum(totals.bytes for _, totals in taken.groups.values())
    require(count == taken.totals.count, "groups add up to all blocks", f"{count}")
    require(size == taken.totals.bytes, "groups add up to all bytes", f"{size}")


def _hex(addresses: np.ndarray[tuple[int], np.dtype[np.uint64]], rows: np.ndarray) -> str:
    return ", ".join(f"0x{address:x}" for address in addresses[rows[:4]].tolist())
