"""Used memory added up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dumpleak.model.sites import Site


@dataclass(frozen=True)
class Totals:
    """Used blocks added up.

    Attributes:
        count: Blocks.
        bytes: Asked for by the program where known, else block bytes.
        block_bytes: With header and padding.
        largest: Bytes of the largest block.
    """

    count: int = 0
    bytes: int = 0
    block_bytes: int = 0
    largest: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.count + other.count,
            self.bytes + other.bytes,
            self.block_bytes + other.block_bytes,
            max(self.largest, other.largest),
        )


def sum_of(totals: Iterable[Totals]) -> Totals:
    """All of them together."""
    return sum(totals, Totals())


Group = tuple[Site, Totals]
Groups = dict[str, Group]


def by_key(groups: Iterable[Group]) -> Groups:
    """Groups by the keys of their sites."""
    return {site.key: (site, totals) for site, totals in groups}


def add_to(groups: Groups, site: Site, more: Totals) -> None:
    """Adds blocks of a site; of several sites with one key the last is kept."""
    known = groups.get(site.key)
    groups[site.key] = site, known[1] + more if known else more
