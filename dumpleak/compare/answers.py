"""The answer of a comparison: what each site did, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from dumpleak.compare.life import Life, LifeAnswer
from dumpleak.compare.survivors import Fate, Survivors
from dumpleak.model.account import ROWS, AccountRow
from dumpleak.model.boots import runs_of
from dumpleak.model.containment import SiteContainers
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.together import Together, roots_first
from dumpleak.model.totals import Totals
from windumps.diagnostics import Diagnostic


class Verdict(StrEnum):
    """What a comparison comes to."""

    NO_GROWTH = "no-growth"
    GROWTH = "growth"
    NOT_COMPARABLE = "not-comparable"


class Ends(Protocol):
    """Something with totals in the first dump and in the last."""

    @property
    def base(self) -> Totals:
        """In the first."""

    @property
    def current(self) -> Totals:
        """In the last."""


class Weighed(Protocol):
    """Something that is ranked."""

    @property
    def weight(self) -> int | None:
        """As `Change` has it."""

    @property
    def delta_bytes(self) -> int:
        """By how much it grew."""


class Change:
    """What a site did between the first dump and the last.

    Attributes:
        weight: Bytes it is ranked by where that is not its own growth; see `held_types`.
    """

    weight: int | None = None

    @property
    def delta_bytes(self: Ends) -> int:
        """Last minus first."""
        return self.current.bytes - self.base.bytes

    @property
    def delta_count(self: Ends) -> int:
        """Last minus first."""
        return self.current.count - self.base.count

    @property
    def ranked_by(self: Weighed) -> int:
        """Bytes that decide where it stands."""
        return self.delta_bytes if self.weight is None else self.weight


def tag_number_of(site: Site, *snapshots: Snapshot) -> int | None:
    """The pool tag of a site of some snapshots; None where it is none of a tag."""
    pools = (snapshot.pool for snapshot in snapshots if snapshot.pool is not None)
    return next((side.tags[site.key][0] for side in pools if site.key in side.tags), None)


class AllEnds(Protocol):
    """An answer with totals over all its rows."""

    @property
    def base(self) -> Snapshot:
        """The first dump."""

    @property
    def current(self) -> Snapshot:
        """The last dump."""

    @property
    def base_totals(self) -> Totals:
        """In the first dump."""

    @property
    def current_totals(self) -> Totals:
        """In the last dump."""

    @property
    def verdict(self) -> Verdict:
        """What it comes to."""

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why it comes to nothing."""


class Compared:
    """What an answer about two dumps, and about many, tells as a whole."""

    def tag_of(self: AllEnds, site: Site) -> int | None:
        """The pool tag of a site; None where it is none of a tag."""
        return tag_number_of(site, self.base, self.current)

    @property
    def refused(self: AllEnds) -> bool:
        """Nothing was compared; the reasons say why."""
        return self.verdict is Verdict.NOT_COMPARABLE and not self.doubts

    @property
    def delta_bytes(self: AllEnds) -> int:
        """Growth over all rows, last minus first."""
        return self.current_totals.bytes - self.base_totals.bytes

    @property
    def delta_count(self: AllEnds) -> int:
        """Growth over all rows, last minus first."""
        return self.current_totals.count - self.base_totals.count


@dataclass(frozen=True)
class SiteDelta(Change):
    """One site in both dumps.

    Attributes:
        site: Who allocated.
        base: Totals before; zeros when the site was not there.
        current: Totals after.
        evidence: Why this deserves attention, one clause each.
        fate: What became of its blocks; None where the dumps are not of one process life.
        notes: Those clauses of the evidence that a table shows under the site's name.
        parts: Shapes that were put together to this, since they have one cause; see `causes`.
        cause: What they are, in plain words; "" where nothing was put together.
        weight: See `Change`.
        held: Of that, what is others' and held by this alone.
        contained: The containers that hold its blocks; None where none do, or nobody looked.
    """

    site: Site
    base: Totals
    current: Totals
    evidence: tuple[str, ...] = ()
    fate: Fate | None = None
    notes: tuple[str, ...] = ()
    parts: tuple[SiteDelta, ...] = ()
    cause: str = ""
    weight: int | None = None
    held: tuple[SiteDelta, ...] = ()
    contained: SiteContainers | None = None

    @property
    def grew(self) -> bool:
        """There is more of it; blocks of no bytes take memory, too."""
        return self.delta_bytes > 0 or (self.delta_bytes == 0 and self.delta_count > 0)

    @property
    def confidence(self) -> str:
        """The word for what two dumps can show."""
        return "growth"


@dataclass(frozen=True)
class Proof:
    """Blocks that nothing points to, which a cache would hold.

    Attributes:
        unreferenced: How many.
        blocks: Of how many blocks.
        bytes: Bytes of the unreferenced ones.
        new: All of these came since the base; else they are all that the sites that grew have now.
    """

    unreferenced: int
    blocks: int
    bytes: int
    new: bool


@dataclass(frozen=True)
class Comparison(Compared):
    """Two dumps compared.

    Attributes:
        base: The earlier dump.
        current: The later dump.
        verdict: See `Verdict`.
        reasons: Why they are not comparable; also given when that was overruled.
        sites: Sites whose bytes or count changed, largest growth first.
        private: Private memory outside heaps that changed; empty where one dump does not tell of it.
        base_totals: Over all that `sites` and `private` are of.
        current_totals: Over all that `sites` and `private` are of.
        diagnostics: Of both dumps; messages begin with the dump they concern.
        life: Whether both dumps are of one process life.
        survivors: What became of the blocks; None where that cannot be told.
        doubts: Why a comparison that was made comes to no verdict: a dump may hide what it would need.
        account: Everything that can grow, in figures.
        private_unknown: Why private memory outside heaps is not compared; "" when it is.
        proof: What references say of the new blocks; None where that was not looked for.
        together: Tags of the kernel's pools that grew alike; `sites` has the root of each first.
    """

    base: Snapshot
    current: Snapshot
    verdict: Verdict
    reasons: tuple[str, ...]
    sites: tuple[SiteDelta, ...]
    private: tuple[SiteDelta, ...]
    base_totals: Totals
    current_totals: Totals
    diagnostics: tuple[Diagnostic, ...]
    life: LifeAnswer
    survivors: Survivors | None = None
    doubts: tuple[str, ...] = ()
    account: tuple[AccountRow, ...] = ()
    private_unknown: str = ""
    proof: Proof | None = None
    together: tuple[Together, ...] = ()

    @property
    def hours(self) -> float | None:
        """Hours between the dumps; None where they do not tell, or nothing went on from one to the other."""
        before, after = self.base.source.time, self.current.source.time
        if before is None or after is None or after <= before or self.life.life is Life.OTHER:
            return None
        if len(runs_of((self.base.boot, self.current.boot))) > 1:
            return None
        return (after - before).total_seconds() / 3600

    def per_hour(self, change: int | None) -> float | None:
        """A change as a rate; None where there is none to tell."""
        return None if change is None or self.hours is None else round(change / self.hours, 3)

    @property
    def grown(self) -> list[SiteDelta]:
        """Sites that grew, private memory outside heaps included, the worst first."""
        grown = sites_that_grew((*self.sites, *self.private), has_bytes=self.base.has_bytes)
        return roots_first(grown, lambda delta: self.tag_of(delta.site), self.together)


def sites_that_grew(sites: Sequence[SiteDelta], *, has_bytes: bool) -> list[SiteDelta]:
    """What grew, the worst first; of what is only counted, by more than a healthy process shows."""
    if has_bytes:
        grown = [delta for delta in sites if delta.grew]
        return sorted(grown, key=lambda delta: (-delta.ranked_by, -delta.delta_count))
    usual = ROWS["handles.count"].threshold
    return [delta for delta in sites if delta.delta_count > usual]
