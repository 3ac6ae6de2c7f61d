"""`dumpleak pool`: the kernel's pools by tag, of one dump or of two."""

from __future__ import annotations

from pathlib import Path

import click

from dumpleak.commands.gating import (
    GateOptions,
    answering,
    finish,
    gate_options,
    judged,
    open_gate,
)
from dumpleak.commands.opening import opened
from dumpleak.commands.options import TOP, Options, options_with
from dumpleak.commands.output import answer_to, require
from dumpleak.compare.diff import compare
from dumpleak.compare.pool_answers import EXPLAINED_TAGS, Selection, take_growth, take_pool
from dumpleak.files.matching import matched
from dumpleak.model.listed_blocks import MAX_LISTED
from dumpleak.model.pool import ORDER_KEYS, ORDERS, POOLS
from dumpleak.model.populations import POOL
from dumpleak.model.snapshot import Snapshot
from dumpleak.reports.answers.pools import (
    pool_document,
    pool_growth_document,
    pool_growth_json,
    pool_json,
)
from dumpleak.reports.formats import FORMATS, GROWTH_FORMATS, OF_CI, Answer, formats_of
from dumpleak.survey.wanted import Wanted

_FILE = click.Path(exists=True, dir_okay=False)


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak pool testdata/kernel/22621-x64/tiny-pair/after.dmp.xz --top 10\n"
    "  dumpleak pool testdata/kernel/22621-x64/tiny-pair/before.dmp.xz"
    " testdata/kernel/22621-x64/tiny-pair/after.dmp.xz\n"
    '  dumpleak pool MEMORY.DMP --tag "Ntf*" --sort nonpaged --pooltag pooltag.txt'
)
@click.argument("dump", type=_FILE)
@click.argument("current", required=False, type=_FILE)
@click.option(
    "--sort",
    type=click.Choice([*ORDERS, *ORDER_KEYS]),
    default="bytes",
    show_default=True,
    help="How tags are ranked; of two dumps the growth is. Letters are PoolMon's keys, 2 and 4 as in "
    "!poolused.",
)
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="PATTERN",
    help="Only these tags, as Leak or Ntf*; case matters. May be given more than once. Of one dump their "
    "blocks are listed, with what they point to.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN[,PATTERN…]",
    help="All but these tags; patterns as with --tag.",
)
@click.option("--type", "pools", type=click.Choice(POOLS), multiple=True, help="Only this pool.")
@click.option(
    "--pooltag",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A pooltag.txt with drivers and descriptions; one beside the dump is found without.",
)
@click.option(
    "--walk/--no-walk",
    default=True,
    show_default=True,
    help="Read the blocks themselves: sizes and addresses of new ones, and a check of the counters.",
)
@gate_options
@TOP
@options_with([*FORMATS, *GROWTH_FORMATS])
def pool(
    *,
    dump: str,
    current: str | None,
    sort: str,
    tags: tuple[str, ...],
    exclude: tuple[str, ...],
    pools: tuple[str, ...],
    pooltag: Path | None,
    walk: bool,
    top: int | None,
    gating: GateOptions,
    options: Options,
) -> None:
    """Kernel pool by tag with the driver that owns it; with two dumps or snapshots, which tags grew."""
    if options.process is not None:
        raise click.UsageError("--process is for heaps; the pools belong to the whole system")
    gate = open_gate(gating, POOL, "site", options)
    of_growth = options.format in (GROWTH_FORMATS if current is None else OF_CI)
    if gate is not None or of_growth:
        _check_gated(current, whole=walk and not (tags or pools or exclude))
    excluded = tuple(part for text in exclude for part in text.split(",") if part)
    selection = Selection(ORDERS[ORDER_KEYS.get(sort, sort)], tags, pools or POOLS, excluded)

    asked = Wanted(pooltag=pooltag, walk=walk, even_short=True)

    def snapshot(name: str) -> Snapshot:
        return opened(POOL, name, "site", options, asked=asked)

    if current is None:
        answer = take_pool(snapshot(dump), selection, top or MAX_LISTED)
        answer_to(options, Answer(lambda: pool_document(answer, top), lambda: pool_json(answer)))
        require(answer.account.shortfall)
        return
    with answering(gate):
        base, after = matched(snapshot(dump), snapshot(current))
        comparison = compare(base, after)
        judgement = judged(gate, comparison)
        growth = take_growth(comparison, selection, (top or EXPLAINED_TAGS) if walk else 0)
    answer_to(
        options,
        Answer(
            lambda: pool_growth_document(growth, top, judgement.gate),
            lambda: pool_growth_json(growth),
            formats_of(GROWTH_FORMATS, judgement, top),
        ),
    )
    finish(gate, judgement)


def _check_gated(current: str | None, *, whole: bool) -> None:
    """Refuses to judge what is not the growth of all tags.

    Raises:
        UsageError: there is one dump only, or a part of the pools.
    """
    if current is None:
        raise click.UsageError("one dump shows no growth: a gate and formats of CI take two")
    if not whole:
        raise click.UsageError(
            "all tags are judged, by their blocks too: --tag, --exclude, --type and --no-walk do not go "
            "with that"
        )
