"""`dumpleak stat`: used blocks of one dump, added up."""

from __future__ import annotations

import click

from dumpleak.commands.opening import BY, OF, grouping_of, look_for_holders, opened
from dumpleak.commands.options import (
    COARSE,
    CONTENTS,
    DUMP,
    HOLDERS,
    HOLDERS_TOP,
    RETAINED,
    SKIP_FRAMES,
    TOP,
    Options,
    options_with,
    shown_sites,
)
from dumpleak.commands.output import answer_to, require
from dumpleak.compare.causes import NO_CAUSES, with_causes
from dumpleak.reports.answers.stat import stat_document, stat_json
from dumpleak.reports.formats import FOR_PEOPLE, FORMATS, STAT_FORMATS, Answer, formats_of
from dumpleak.reports.rows import ranked_groups
from dumpleak.reports.shown import Shown


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak stat testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz --by size\n"
    "  dumpleak stat app.dmp --by heap --format json\n"
    "  dumpleak stat app.dmp --by type --retained\n"
    "  dumpleak stat app.dmp --of handles --by type"
)
@DUMP
@OF
@BY
@HOLDERS
@RETAINED
@CONTENTS
@shown_sites
@SKIP_FRAMES
@TOP
@options_with([*FORMATS, *STAT_FORMATS])
def stat(
    dump: str,
    of: str | None,
    by: str | None,
    holders: bool | None,
    retained: bool,
    contents: bool,
    top: int | None,
    shown: Shown,
    options: Options,
) -> None:
    """Used blocks of one dump, added up by site, by one kind of evidence, or by another key."""
    by = grouping_of(of, by)
    if holders is None and by in COARSE:
        holders = False
    snapshot = opened(
        *(of, dump, by, options),
        holders=holders is not False,
        retained=retained,
        contents=contents,
    )
    causes = NO_CAUSES
    if options.format in FOR_PEOPLE and not shown.only:
        (snapshot,), causes = with_causes((snapshot,))
    groups = ranked_groups(snapshot)
    only = shown.only.among({site.name for site, _ in groups})
    ranked = [site.key for site, _ in groups if only.takes_site(site)]
    most = None if retained else top or HOLDERS_TOP
    wanted = True if retained or contents else holders
    look_for_holders(snapshot, ranked[:most], wanted, options, containers=False)
    answer_to(
        options,
        Answer(
            lambda: stat_document(snapshot, top, shown, causes),
            lambda: stat_json(snapshot, shown),
            formats_of(STAT_FORMATS, snapshot),
        ),
    )
    require(snapshot.shortfall)
