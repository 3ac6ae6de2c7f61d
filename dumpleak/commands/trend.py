"""`dumpleak trend`: which sites grow steadily over three dumps and more."""

from __future__ import annotations

import os

import click

from dumpleak.commands.gating import GateOptions, answering, finish, gate_options, judged, open_gate
from dumpleak.commands.opening import (
    BY,
    OF,
    check_gate,
    grouping_of,
    look_for_holders,
    opened,
    opened_series,
)
from dumpleak.commands.options import HOLDERS, HOLDERS_TOP, SKIP_FRAMES, TOP, Options, options_with
from dumpleak.commands.output import answer_to
from dumpleak.compare.evidence import with_trend_containers
from dumpleak.compare.site_trends import middle_of
from dumpleak.compare.trend import find_trend, time_order
from dumpleak.files.detect import is_series
from dumpleak.files.matching import matched
from dumpleak.model.populations import BLOCKS
from dumpleak.model.snapshot import Snapshot
from dumpleak.reports.answers.trend import trend_document, trend_json
from dumpleak.reports.formats import FORMATS, GROWTH_FORMATS, Answer, formats_of

_FILE = click.Path(exists=True, dir_okay=False)


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak trend testdata/10.0.22621.4541-x64/series-ust/dump0.dmp.gz"
    " testdata/10.0.22621.4541-x64/series-ust/dump2.dmp.gz"
    " testdata/10.0.22621.4541-x64/series-ust/dump4.dmp.gz"
    " --after-idle testdata/10.0.22621.4541-x64/series-ust/dump5.dmp.gz\n"
    "  dumpleak trend monday.dmp tuesday.dmp wednesday.dmp --format json\n"
    "  dumpleak trend counters.csv --process app"
)
@click.argument("dumps", nargs=-1, required=True, type=_FILE)
@click.option(
    "--after-idle",
    metavar="DUMP",
    type=_FILE,
    help="One more dump, taken after the load stopped: what did not come back is leaked.",
)
@OF
@BY
@gate_options
@click.option("--force", is_flag=True, help="Compare dumps that are not really comparable.")
@HOLDERS
@SKIP_FRAMES
@TOP
@options_with([*FORMATS, *GROWTH_FORMATS])
def trend(
    *,
    dumps: tuple[str, ...],
    after_idle: str | None,
    of: str | None,
    by: str | None,
    force: bool,
    holders: bool | None,
    top: int | None,
    gating: GateOptions,
    options: Options,
) -> None:
    """Which sites grow steadily over three dumps and more, how fast, and when memory ends.

    A verdict takes three dumps under load, and growth of at least 4 blocks and 256 B, or 1.0 MiB, over
    them: less is noise, however regular.
    """
    by = grouping_of(of, by)
    gate = open_gate(gating, of, by, options)
    under_load = [
        dump for dump in dumps if after_idle is None or not os.path.samefile(dump, after_idle)
    ]
    idle = [after_idle] if after_idle else []
    with answering(gate):
        if len(under_load) == 1 and is_series(under_load[0]):
            series = opened_series(of, under_load[0], options)
            taken = [*series, *(opened(of, dump, by, options) for dump in idle)]
        else:
            taken = _opened(under_load, idle, of, by, options, holders=holders is not False)
        snapshots = matched(*taken, of=of)
        check_gate(gate, snapshots)
        loaded = list(snapshots[: len(snapshots) - len(idle)])
        found = find_trend(loaded, snapshots[-1] if idle else None, force=force)
        answer = judged(gate, found)
    many = top or HOLDERS_TOP
    shown = [trend.site.key for trend in (*found.sites[:many], *found.private[:many])]
    look_for_holders(found.current, shown, holders, options)
    found = with_trend_containers(found)
    answer_to(
        options,
        Answer(
            lambda: trend_document(found, top, answer.gate),
            lambda: trend_json(found, answer.gate),
            formats_of(GROWTH_FORMATS, answer, top),
        ),
    )
    finish(gate, answer)


def _opened(
    under_load: list[str],
    idle: list[str],
    of: str | None,
    by: str,
    options: Options,
    *,
    holders: bool,
) -> list[Snapshot]:
    """All dumps, in the order given.

    Blocks of the first, the middle and the last in time are followed; those of all would take much memory.
    When each dump was taken is known only once it is open: where the order given is another one, those
    that were opened for less than they are needed for are opened again.
    """
    files = [*under_load, *idle]
    last, middle = len(files) - 1, middle_of(len(under_load))

    def needs(place: int) -> int:
        return (place in (0, middle, last)) + (holders and place == last)

    def opened_for(number: int, place: int) -> Snapshot:
        wanted, kept = holders and place == last, needs(place) > 0
        return opened(of, files[number], by, options, holders=wanted, keep_blocks=kept)

    snapshots = [opened_for(number, number) for number in range(len(files))]
    for place, number in enumerate(time_order(snapshots[: len(under_load)])):
        if needs(place) > needs(number) and snapshots[number].population == BLOCKS:
            snapshots[number] = opened_for(number, place)
    return snapshots
