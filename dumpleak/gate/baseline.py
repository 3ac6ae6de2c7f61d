"""Baselines: growth that was looked at and accepted, so that a gate fails on what is worse only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from dumpleak.compare.answers import SiteDelta
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.files.checked_json import Absent, Decoder, Signed, WrongMemberError, load_json
from dumpleak.model.populations import BLOCKS, POOL
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.stripping import hashed_key
from dumpleak.model.totals import Totals
from windumps.errors import DumpError
from windumps.files import read_head

MAX_FILE_BYTES = 1 << 28


class BaselineError(DumpError):
    """A baseline file cannot be used; the message says why."""


@dataclass
class _Part:
    key: str
    delta_bytes: Signed | None  # of members without bytes
    delta_count: Signed


@dataclass
class _Row(_Part):
    parts: Annotated[list[_Part], Absent([])]


@dataclass
class _Run:
    """The JSON of an accepted `diff` or `trend`, as far as it is needed."""

    schema: Literal["dumpleak/diff/1", "dumpleak/trend/1"]
    by: str | None
    of: str | None
    sites: list[_Row]
    private: Annotated[list[_Row], Absent([])]


@dataclass(frozen=True)
class Baseline:
    """What was accepted.

    Attributes:
        file: Its name.
        growth: By key, bytes and blocks that a site may grow; of the JSON of an accepted run.
        level: By key, bytes and blocks that a site may have; of a snapshot.
    """

    file: str
    growth: dict[str, tuple[int, int]] | None = None
    level: dict[str, tuple[int, int]] | None = None

    def beyond(self, site: SiteDelta | SiteTrend) -> tuple[int, int]:
        """Growth of a site in bytes and blocks that was not accepted; never negative where it grew."""
        grown = site.delta_bytes, site.delta_count
        base = site.base.bytes, site.base.count
        known = self._known(site.site.key)
        if known is None:
            # What one cause has may have been told by its parts: snapshots do, and runs with other parts.
            parts = [self._known(part.site.key) or (0, 0) for part in site.parts]
            known = sum(part[0] for part in parts), sum(part[1] for part in parts)
        if self.growth is not None:
            allowed = known
        else:
            allowed = (max(known[0] - base[0], 0), max(known[1] - base[1], 0))
        return _beyond(grown[0], allowed[0]), _beyond(grown[1], allowed[1])

    def _known(self, key: str) -> tuple[int, int] | None:
        """What was accepted of a key."""
        table = self.growth if self.growth is not None else self.level or {}
        return table.get(key) or table.get(hashed_key(key))


def snapshot_baseline(snapshot: Snapshot) -> Baseline:
    """A baseline of what each site had in a dump."""
    everything: dict[str, tuple[Any, Totals]] = {**snapshot.groups, **snapshot.private}
    return Baseline(
        snapshot.source.file,
        level={key: (totals.bytes, totals.count) for key, (_, totals) in everything.items()},
    )


def json_baseline(path: Path | str, by: str | None = None, of: str | None = None) -> Baseline:
    """A baseline of the growth in an earlier `diff` or `trend`, written with `--format json`.

    Args:
        path: The file.
        by: The grouping it must be of; None for any.
        of: The population it must be of; None for blocks or pool.

    Raises:
        BaselineError: the file is no such thing.
        OSError: it cannot be read.
    """
    raw = read_head(path, MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise BaselineError(f"{path}: too large for a baseline")
    try:
        run = Decoder()(_Run, load_json(raw), "the file")
    except ValueError as error:
        why = f" ({error})" if isinstance(error, WrongMemberError) else ""
        raise BaselineError(
            f"{path}: not a baseline{why}; give a snapshot, or what diff or trend wrote with --format json"
        ) from error
    check_grouping(str(path), run.by, by)
    told = run.of or of
    if told != of and (of is not None or told not in (BLOCKS, POOL)):
        raise BaselineError(f"{path}: it is of {told}, and no baseline for {of or BLOCKS}")
    growth = {
        row.key: (row.delta_bytes or 0, row.delta_count)
        for site in (*run.sites, *run.private)
        for row in (site, *site.parts)
    }
    return Baseline(str(path), growth=growth)


def check_grouping(path: str, grouping: str | None, by: str | None) -> None:
    """Refuses a baseline whose groups are others than those it is held against: no key would match.

    Raises:
        BaselineError: they are others.
    """
    if by is not None and grouping is not None and grouping != by:
        raise BaselineError(
            f"{path}: its groups by {grouping} are no baseline for groups by {by}; write it with --by {by}"
        )


def _beyond(growth: int, allowed: int) -> int:
    return max(growth - max(allowed, 0), 0) if growth > 0 else growth
