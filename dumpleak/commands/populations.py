"""`--of`: what a command adds up, and the groupings that fit it."""

from __future__ import annotations

from typing import Any

import click

from dumpleak.attribution.grouping import GROUPINGS
from dumpleak.commands.base import open_snapshot, progress_bar
from dumpleak.files.detect import is_snapshot_file
from dumpleak.files.umdh_lines import is_log
from dumpleak.gate.conditions import COUNTED_SITES, PER_HOUR
from dumpleak.gate.gate import Gate
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.populations import BLOCKS, HANDLES, POOL
from dumpleak.model.snapshot import Snapshot
from dumpleak.process.session import Session
from dumpleak.reports import REPORTS
from dumpleak.survey.handles import KEYS, handles_of, stored_handles, take_handles
from windumps.dumps.kernel.dump import KernelDump
from windumps.files import read_head

# The groupings of each population, its default first.
POPULATIONS: dict[str, tuple[str, ...]] = {
    BLOCKS: tuple(GROUPINGS),
    POOL: tuple(GROUPINGS),
    HANDLES: KEYS,
}

OF = click.option(
    "--of",
    type=click.Choice(list(POPULATIONS)),
    help="What is added up; the default is the used blocks of a process, of a system its pools.",
)
BY = click.option(
    "--by",
    type=click.Choice(list(dict.fromkeys(key for keys in POPULATIONS.values() for key in keys))),
    help="What groups are; the default is site, for handles type.",
)


def grouping_of(of: str | None, by: str | None, options: dict[str, Any]) -> str:
    """The grouping to use.

    Raises:
        UsageError: the population has no such grouping, or the format cannot show it.
    """
    keys = POPULATIONS[of or BLOCKS]
    if by is not None and by not in keys:
        raise click.UsageError(
            f"{of or BLOCKS} are not grouped by {by}; --by takes {', '.join(keys)}"
        )
    if of == HANDLES and options["format_"] not in REPORTS:
        raise click.UsageError(f"--of {of} goes with --format {', '.join(REPORTS)}")
    return by or keys[0]


def check_gate(of: str | None, gate: Gate | None, options: dict[str, Any]) -> None:
    """Refuses conditions that members without bytes can never fail.

    Raises:
        UsageError: there is one.
    """
    if of != HANDLES or gate is None:
        return
    if options["baseline"] is not None or options["suppressions"] is not None:
        raise click.UsageError(f"--baseline and --suppressions do not go with --of {of}")
    for condition in gate.conditions:
        counted = (*COUNTED_SITES, "count", f"count{PER_HOUR}")
        if not condition.is_of_account and condition.quantity not in counted:
            raise click.UsageError(
                f"--fail-on: {condition.text}: {of} are only counted; ask for count>=N or {of}.count>=N"
            )


def check_population(of: str | None, session: Session) -> None:
    """Refuses a dump that does not tell of a population that was asked for by name.

    Raises:
        CannotAnswerError: it does not.
    """
    is_system = isinstance(session.dump, KernelDump)
    if of == HANDLES:
        handles_of(session)
    elif of is not None and (of == POOL) != is_system:
        raise CannotAnswerError(
            f"{session.dump.path} tells of {POOL if is_system else BLOCKS}, not of {of}"
        )


def open_population(
    of: str | None, dump: str, by: str, options: dict[str, Any], **how: bool
) -> Snapshot:
    """Opens a dump or a snapshot file, grouped; see `open_snapshot`.

    Raises:
        WindumpsError: as `open_snapshot`; also where the input does not tell of that population.
    """
    if of != HANDLES:
        snapshot = open_snapshot(dump, by, options, **how)
        if of is not None and of != snapshot.population:
            raise CannotAnswerError(f"{dump} tells of {snapshot.population}, not of {of}")
        return snapshot
    if is_snapshot_file(dump):
        return stored_handles(dump, by)
    if is_log(read_head(dump, 0x10000)):
        raise CannotAnswerError(f"{dump}: a log of heap blocks, which tells of no {of}")
    with progress_bar(options) as progress:
        return take_handles(
            Session.open(dump, options.get("symbols"), options.get("process")), by, progress
        )
