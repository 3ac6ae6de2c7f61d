"""Open handles as members (`--of handles`); they have no bytes."""

from __future__ import annotations

import numpy as np

from dumpleak.model.account import CUT_HANDLES, NO_HANDLES
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.sites import Site, SiteKind
from dumpleak.process.session import Session
from dumpleak.survey.populations.members import Members, one_process

BY_TYPE = "type"


def handle_members(session: Session, by: str) -> Members:
    """All open handles of a process.

    Args:
        session: The open dump.
        by: "type" or "name".

    Raises:
        CannotAnswerError: the dump does not list its handles, or not all of them.
    """
    one_process(by)
    handles = session.dump.handles
    if handles is None:
        raise CannotAnswerError(NO_HANDLES)
    if not handles.whole:
        raise CannotAnswerError(CUT_HANDLES)
    texts = handles.types if by == BY_TYPE else handles.names
    sites = [handle_site(by, text) for text in texts.texts]
    return Members(sites, texts.index.astype(np.int64), None)


def handle_site(by: str, text: str) -> Site:
    """All handles of one type, or of one name; "" where the dump does not say."""
    named = text if by == BY_TYPE and text else None
    name = text or f"(no {by} in the dump)"
    return Site(SiteKind.GROUP, f"handle|{by}|{text}", name, type=named)
