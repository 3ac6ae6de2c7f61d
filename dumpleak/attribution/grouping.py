"""Ways to put blocks together: by allocation site, or by another key (`--by`). One row each in
`GROUPINGS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution import Attributor, SiteFinder, SiteTable
from dumpleak.attribution.shape import first_pointer_modules
from dumpleak.attribution.source import SourceAttributor
from dumpleak.attribution.stack import StackAttributor
from dumpleak.attribution.type import TypeAttributor
from dumpleak.model.sites import Site, SiteKind, heap_name, key_site, size_name
from dumpleak.process.session import HeapSource, Session
from windumps.blocks import Blocks, Kind


class Grouping(Protocol):
    """Numbers the group of each block; the groups themselves stand in `table`."""

    table: SiteTable

    def assign(self, source: HeapSource, blocks: Blocks) -> NDArray[np.int64]:
        """Indices into `table.sites` (int64, shape (n,)); arguments as `Attributor.assign` has."""
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
            groups.append(self.table.index_of(key_site(self._label, name)))
        return np.array(groups, np.int64)[inverse]


class EvidenceGrouping:
    """Groups by one kind of evidence, also where better evidence names the block's site.

    Args:
        make: The attributor.
        session: The dump.
        label: Word in front of the key of blocks without this evidence.
        missing: Their name.
    """

    def __init__(
        self,
        make: Callable[[Session, SiteTable], Attributor],
        session: Session,
        label: str,
        missing: str,
    ) -> None:
        self.table = SiteTable()
        self._attributor = make(session, self.table)
        self._missing = Site(SiteKind.GROUP, f"{label}|", missing)

    def assign(self, source: HeapSource, blocks: Blocks) -> NDArray[np.int64]:
        """See `Grouping`."""
        groups = self._attributor.assign(source, blocks)
        missing = groups < 0
        if missing.any():
            groups = np.where(missing, self.table.index_of(self._missing), groups)
        return groups


class SiteFieldGrouping:
    """Groups by one thing that the site of a block says: its tag."""

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
            said = getattr(self._finder.table.sites[value], self._field)
            text = said or self._missing
            # Nothing else that one of its sites says is said of the whole group.
            tag = said if self._field == "tag" else None
            group = Site(SiteKind.GROUP, f"{self._field}|{text}", text, tag=tag)
            groups.append(self.table.index_of(group))
        return np.array(groups, np.int64)[inverse]


def _by_key(
    label: str,
    value: Callable[[Session, HeapSource, Blocks], NDArray[np.int64]],
    name: Callable[[Session, HeapSource, int], str],
) -> Callable[[Session], Grouping]:
    return lambda session: KeyGrouping(session, label, value, name)


def _by_evidence(
    make: Callable[[Session, SiteTable], Attributor], label: str, missing: str
) -> Callable[[Session], Grouping]:
    return lambda session: EvidenceGrouping(make, session, label, missing)


def _cut_stacks(session: Session, table: SiteTable) -> Attributor:
    return StackAttributor(session, table, cut=True)


def _module_name(session: Session, source: HeapSource, module: int) -> str:
    return session.images.modules[module].name if module >= 0 else "(none)"


def _heap_name(session: Session, source: HeapSource, ordinal: int) -> str:
    heap = session.heap_of[source.view.architecture, ordinal]
    return heap_name(heap.label, heap.entry.kind)


GROUPINGS: dict[str, Callable[[Session], Grouping]] = {
    "site": SiteFinder,
    "size": _by_key(
        "size",
        lambda session, source, blocks: blocks.size,
        lambda session, source, size: size_name(size),
    ),
    "heap": _by_key(
        "heap", lambda session, source, blocks: blocks.heap.astype(np.int64), _heap_name
    ),
    "kind": _by_key(
        "kind",
        lambda session, source, blocks: blocks.kind.astype(np.int64),
        lambda session, source, kind: Kind(kind).label,
    ),
    "stack": _by_evidence(_cut_stacks, "stack", "(no recorded stack)"),
    "source": _by_evidence(SourceAttributor, "source", "(no source line known)"),
    "type": _by_evidence(TypeAttributor, "type", "(no type known)"),
    "tag": lambda session: SiteFieldGrouping(session, "tag", "(no tag)"),
    "driver": lambda session: SiteFieldGrouping(session, "driver", "(no driver)"),
    "module": _by_key("module", first_pointer_modules, _module_name),
}
