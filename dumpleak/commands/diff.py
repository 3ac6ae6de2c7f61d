"""`dumpleak diff`: which sites grew between two dumps."""

from __future__ import annotations

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
from dumpleak.commands.options import (
    CONTENTS,
    HOLDERS,
    HOLDERS_TOP,
    RETAINED,
    SKIP_FRAMES,
    TOP,
    Options,
    options_with,
    shown_sites,
)
from dumpleak.commands.output import answer_to
from dumpleak.compare.diff import compare, with_proof
from dumpleak.compare.evidence import with_containers
from dumpleak.files.matching import matched
from dumpleak.reports.answers.diff import diff_document, diff_json
from dumpleak.reports.formats import DIFF_FORMATS, FORMATS, Answer, formats_of
from dumpleak.reports.shown import Shown


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak diff testdata/10.0.19041.3324-x64/leak-pair-aslr/before.dmp.gz"
    " testdata/10.0.19041.3324-x64/leak-pair-aslr/after.dmp.gz\n"
    '  dumpleak diff before.dmp after.dmp --fail-on "bytes>=1M"\n'
    '  dumpleak diff before.dmp after.dmp --of handles --fail-on "count>=1000"\n'
    "  dumpleak diff before.log after.log --by stack --skip-frames allocators.txt\n"
    "  dumpleak diff counters.csv --process app"
)
@click.argument("base", type=click.Path(exists=True, dir_okay=False))
@click.argument("current", required=False, type=click.Path(exists=True, dir_okay=False))
@OF
@BY
@gate_options
@click.option("--force", is_flag=True, help="Compare dumps that are not really comparable.")
@HOLDERS
@RETAINED
@CONTENTS
@shown_sites
@SKIP_FRAMES
@TOP
@options_with([*FORMATS, *DIFF_FORMATS])
def diff(
    *,
    base: str,
    current: str | None,
    of: str | None,
    by: str | None,
    force: bool,
    holders: bool | None,
    retained: bool,
    contents: bool,
    top: int | None,
    shown: Shown,
    gating: GateOptions,
    options: Options,
) -> None:
    """Which allocation sites grew from BASE to CURRENT, ranked by bytes.

    A log with many samples is compared with itself, its last sample with its first.
    """
    by = grouping_of(of, by)
    gate = open_gate(gating, of, by, options)
    with answering(gate):
        if current is None:
            if retained or contents:
                asked = "--retained" if retained else "--contents"
                raise click.UsageError(f"{asked} is of dumps, not of logs")
            series = opened_series(of, base, options)
            older, newer = matched(series[0], series[-1])
        else:
            older, newer = matched(
                opened(of, base, by, options, keep_blocks=True),
                opened(
                    *(of, current, by, options),
                    holders=holders is not False,
                    retained=retained,
                    contents=contents,
                    keep_blocks=True,
                ),
                of=of,
            )
        check_gate(gate, (older, newer))
        comparison = compare(older, newer, force=force)
        most = None if retained else top or HOLDERS_TOP
        grown, outside = (
            [d.site.key for d in deltas if d.delta_bytes > 0 and shown.only.takes_site(d.site)][
                :most
            ]
            for deltas in (comparison.sites, comparison.private)
        )
        if grown or outside:
            wanted = True if retained or contents else holders
            look_for_holders(comparison.current, [*grown, *outside], wanted, options)
        answer = judged(gate, with_containers(with_proof(comparison)))
    answer_to(
        options,
        Answer(
            lambda: diff_document(answer.answer, top, answer.gate, shown),
            lambda: diff_json(answer.answer, answer.gate, shown),
            formats_of(DIFF_FORMATS, answer, top),
        ),
    )
    finish(gate, answer)
