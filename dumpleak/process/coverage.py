"""How much of the heaps' memory a session walked."""

from __future__ import annotations

from dumpleak.model.coverage import Coverage, is_list_cut
from dumpleak.process.session import Session
from dumpleak.process.unread_heaps import unread_amounts


def coverage(session: Session) -> Coverage:
    """How much of the heaps' memory was walked; complete once the blocks were walked."""
    accounts = [source.entry.heap.account for source in session.heaps if source.entry.heap]
    unread, unread_present = unread_amounts(session)
    present = session.dump.memory.present_in
    return Coverage(
        # What is walked twice, or walked and not committed, is misread: as much of the rest is as well.
        walked_bytes=sum(
            max(account.walked_bytes - 2 * max(-account.residual_bytes, 0), 0)
            for account in accounts
        ),
        # A block can be known from its neighbours and yet not be in the dump itself.
        present_bytes=unread_present
        + sum(
            min(present(account.ranges), account.committed_bytes - account.absent_bytes)
            for account in accounts
        ),
        committed_bytes=unread + sum(account.committed_bytes for account in accounts),
        heaps_listed=len(session.heaps) + sum(view.unlisted_heaps for view in session.views),
        heaps_read=len(accounts),
        unread_bytes=unread,
        list_cut=is_list_cut(session.diagnostics),
    )
