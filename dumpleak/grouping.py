"""Ways to put blocks together: by allocation site, or by another key (`--by`). One row each in
`GROUPINGS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution import SiteFinder, SiteTable
from dumpleak.attribution.shape import first_pointer_modules
from dumpleak.session import HeapSource, Session
from dumpleak.sites import Site, SiteKind
from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind


class Grouping(Protocol):
    """Numbers the group of each block; the groups themselves stand in `table`."""

    table: SiteTable

    def assign(self, source: HeapSource, blocks: Blocks) -> NDArray[np.int64]:
        """Indices into `table.sites` (int64, shape (n,))."""
        ...


class KeyGrouping:
    """Groups by one integer a block, given a name for each value.

    Args:
        session: The dump.
        label: Word in front of the group's key, "size".
        value: Gives int64, shape (n,).
        name: Gives the name of a value.
    """

    def __init__(
        self,
        session: Session,
        label: str,
        value: Callable[[Session, HeapSource, Blocks], NDArray[np.int64]],
        name: Callable[[Session, HeapSource, int], str],
    ) -> None:
        self.table = SiteTable()
        self._session = session
        self._label = label
        self._value = value
        self._name = name

    def assign(self, source: HeapSource, blocks: Blocks) -> NDArray[np.int64]:
        """See `Grouping`."""
        values, inverse = np.unique(self._value(self._session, source, blocks), return_inverse=True)
        groups = []
        for value in values.tolist():
            name = self._name(self._session, source, value)
            groups.append(
                self.table.index_of(Site(SiteKind.GROUP, f"{self._label}|{name}".lower(), name))
            )
        return np.array(groups, np.int64)[inverse]


class SiteFieldGrouping:
    """Groups by what the site of a block says: its type or its tag."""

    def __init__(self, session: Session, name: str, missing: str) -> None:
        self.table = SiteTable()
        self._finder = SiteFinder(session)
        self._field = name
        self._missing = missing

    def assign(self, source: HeapSource, blocks: Blocks) -> NDArray[np.int64]:
        """See `Grouping`."""
        values, inverse = np.unique(self._finder.assign(source, blocks), return_inverse=True)
        groups = []
        for value in values.tolist():
            site = self._finder.table.sites[value]
            text = getattr(site, self._field) or self._missing
            groups.append(
                self.table.index_of(
                    Site(
                        SiteKind.GROUP, f"{self._field}|{text}", text, type=site.type, tag=site.tag
                    )
                )
            )
        return np.array(groups, np.int64)[inverse]


def _by_key(
    label: str,
    value: Callable[[Session, HeapSource, Blocks], NDArray[np.int64]],
    name: Callable[[Session, HeapSource, int], str],
) -> Callable[[Session], Grouping]:
    return lambda session: KeyGrouping(session, label, value, name)


def _module_name(session: Session, source: HeapSource, module: int) -> str:
    return session.modules.modules[module].name if module >= 0 else "(none)"


def _zeros(session: Session, source: HeapSource, blocks: Blocks) -> NDArray[np.int64]:
    return np.zeros(len(blocks), np.int64)


GROUPINGS: dict[str, Callable[[Session], Grouping]] = {
    "site": SiteFinder,
    "size": _by_key(
        "size",
        lambda session, source, blocks: blocks.size,
        lambda session, source, size: "unknown" if size == SIZE_UNKNOWN else str(size),
    ),
    "heap": _by_key(
        "heap", _zeros, lambda session, source, value: f"{source.label} ({source.entry.kind})"
    ),
    "kind": _by_key(
        "kind",
        lambda session, source, blocks: blocks.kind.astype(np.int64),
        lambda session, source, kind: Kind(kind).label,
    ),
    "type": lambda session: SiteFieldGrouping(session, "type", "(no type known)"),
    "tag": lambda session: SiteFieldGrouping(session, "tag", "(no tag)"),
    "module": _by_key("module", first_pointer_modules, _module_name),
}
