"""`--of` and `--by`, and what commands open by them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from dumpleak.commands.options import HOLDERS_AUTO_BYTES, Options
from dumpleak.commands.output import progress_bar
from dumpleak.files.detect import read_series
from dumpleak.model.holding import Finder
from dumpleak.model.populations import POPULATIONS, grouping
from dumpleak.model.snapshot import Snapshot
from dumpleak.reports.formats import DETAILED, FORMATS, OF_BLOCKS
from dumpleak.survey.open import open_snapshot
from dumpleak.survey.wanted import Wanted, require_population

if TYPE_CHECKING:
    from dumpleak.gate.gate import Gate

OF = click.option(
    "--of",
    type=click.Choice(list(POPULATIONS)),
    help="What is added up; the default is the used blocks of a process, of a system its pools.",
)
BY = click.option(
    "--by",
    type=click.Choice(
        list(dict.fromkeys(key for p in POPULATIONS.values() for key in p.groupings))
    ),
    help="What groups are. "
    + " ".join(f"Of {of}: {', '.join(p.groupings)}." for of, p in POPULATIONS.items())
    + " The first is the default.",
)


def grouping_of(of: str | None, by: str | None) -> str:
    """The grouping to use.

    Raises:
        UsageError: the population has no such grouping.
    """
    try:
        return grouping(of, by)
    except ValueError as error:
        raise click.UsageError(f"--by: {error}") from error


def opened(
    of: str | None,
    dump: str,
    by: str,
    options: Options,
    *,
    holders: bool = False,
    retained: bool = False,
    contents: bool = False,
    keep_blocks: bool = False,
    asked: Wanted | None = None,
) -> Snapshot:
    """Opens whatever the user named, grouped.

    Args:
        of: The population, where the user named one.
        dump: A dump, a snapshot file or a log.
        by: The grouping.
        options: The command's.
        holders: Keep what `look_for_holders` needs.
        retained: Let that also tell what groups retain.
        contents: Let it also give texts that blocks hold.
        keep_blocks: Keep what tells whether single blocks are still there in another dump.
        asked: What else is wanted, of the kernel's pools say.

    Raises:
        UsageError: the format cannot show members without bytes.
        WindumpsError: as `open_snapshot`.
    """
    with progress_bar(options) as progress:
        wanted = replace(
            asked or Wanted(),
            of=of,
            by=by,
            symbols=options.symbols,
            process=options.process,
            skip_frames=options.skip_frames,
            details=options.format in DETAILED,
            keep_blocks=keep_blocks,
            holders=holders or retained or contents,
            retained=retained,
            contents=contents,
            progress=progress,
        )
        snapshot = open_snapshot(dump, wanted)
    if snapshot.is_listed and options.format in OF_BLOCKS:
        raise click.UsageError(
            f"--format {options.format} is of blocks, not of {snapshot.population}"
        )
    if not snapshot.has_bytes:
        _check_counted(f"{snapshot.population} of {dump}", options)
    return snapshot


def _check_counted(members: str, options: Options) -> None:
    """Refuses formats that show sizes of members without bytes.

    Raises:
        UsageError: the format is one.
    """
    shown = [name for name in FORMATS if name not in DETAILED]
    if options.format not in shown:
        raise click.UsageError(f"{members} are only counted: --format {', '.join(shown)} show them")


def opened_series(of: str | None, log: str, options: Options) -> list[Snapshot]:
    """The samples of a log that has many, in order.

    Raises:
        UsageError: it is no such log, so that there is only one moment.
        WindumpsError: the log cannot be used, or tells of another population.
    """
    series = read_series(log, options.process)
    if series is None:
        raise click.UsageError(
            f"Missing argument 'CURRENT': {log} is of one moment, name a later one"
        )
    require_population(log, of, series[-1].population)
    _check_counted("processes", options)
    return series


def check_gate(gate: Gate | None, snapshots: Iterable[Snapshot]) -> None:
    """Refuses conditions that members without bytes can never fail.

    Raises:
        UsageError: there is one.
    """
    of = next((snapshot.population for snapshot in snapshots if not snapshot.has_bytes), "")
    if gate is None or not of:
        return
    from dumpleak.gate.conditions import COUNTED_SITES, PER_HOUR  # only where there is a gate

    for condition in gate.conditions:
        counted = (*COUNTED_SITES, "count", f"count{PER_HOUR}")
        if not condition.is_of_account and condition.quantity not in counted:
            raise click.UsageError(
                f"--fail-on: {condition.text}: {of} are only counted; ask for count>=N or {of}.count>=N"
            )


def look_for_holders(
    snapshot: Snapshot,
    keys: Iterable[str],
    wanted: bool | None,
    options: Options,
    *,
    containers: bool = True,
) -> None:
    """Fills `Snapshot.held_by` for some groups, when that is wanted or does not take long.

    With `containers` also `Snapshot.contained`.
    """
    if snapshot.holders is None or wanted is False:
        return
    if wanted is None and snapshot.totals.bytes > HOLDERS_AUTO_BYTES:
        return
    with progress_bar(options) as progress:
        progress("looking for holders", 0, 1)
        snapshot.held_by = snapshot.holders(set(keys))
        if isinstance(snapshot.holders, Finder):
            snapshot.unreferenced = snapshot.holders.unreferenced
            if containers:
                snapshot.contained = snapshot.holders.contained
