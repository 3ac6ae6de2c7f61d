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
from dumpleak.commands.options import TOP, Options, options_with
from dumpleak.commands.output import EXIT_CANNOT_ANSWER, answer_to, progress_bar
from dumpleak.compare.answers import Verdict
from dumpleak.compare.diff import compare
from dumpleak.compare.pool_answers import EXPLAINED_TAGS, Selection, take_growth, take_pool
from dumpleak.files.detect import HEAD_BYTES, is_snapshot_file
from dumpleak.files.matching import mark_lost_tags, matched
from dumpleak.files.poolmon_lines import is_log
from dumpleak.files.poolmon_log import LoggedPools
from dumpleak.files.stored_pools import StoredPools
from dumpleak.kernel.pools import PoolReader
from dumpleak.model.errors import Progress
from dumpleak.model.pool import ORDERS, POOLS
from dumpleak.model.pool_source import PoolSource
from dumpleak.model.populations import POOL
from dumpleak.model.snapshot import Snapshot
from dumpleak.reports.answers.diff import diff_document, diff_json
from dumpleak.reports.answers.pools import (
    pool_document,
    pool_growth_document,
    pool_growth_json,
    pool_json,
)
from dumpleak.reports.formats import FORMATS, GROWTH_FORMATS, OF_CI, Answer, formats_of
from dumpleak.survey.open import Wanted, open_snapshot
from dumpleak.survey.pools import take_pool_snapshot
from windumps import open_dump
from windumps.files import read_head

# `!poolused` sorts by digits.
_DIGITS = {"2": "nonpaged", "4": "paged"}
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
    type=click.Choice([*ORDERS, *_DIGITS]),
    default="bytes",
    show_default=True,
    help="How tags are ranked; of two dumps the growth is. 2 and 4 as in !poolused.",
)
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="PATTERN",
    help="Only these tags, as Leak or Ntf*; case matters. May be given more than once.",
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
    dump: str,
    current: str | None,
    sort: str,
    tags: tuple[str, ...],
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
        _check_gated(current, whole=walk and not (tags or pools))
    selection = Selection(ORDERS[_DIGITS.get(sort, sort)], tags, pools or POOLS)
    with progress_bar(options) as progress:
        sources: list[PoolSource] = [
            _source(name, pooltag, options, progress)
            for name in (dump, current)
            if name is not None
        ]
        if current is None:
            answer = take_pool(sources[0], selection, walk)
        elif not of_growth:
            mark_lost_tags(sources[0], sources[1], walk=walk)
            growth = take_growth(sources[0], sources[1], selection, walk, top or EXPLAINED_TAGS)
    if current is None:
        answer_to(options, Answer(lambda: pool_document(answer, top), lambda: pool_json(answer)))
        if answer.account.shortfall:
            click.echo(f"dumpleak: {answer.account.shortfall}", err=True)
            raise SystemExit(EXIT_CANNOT_ANSWER)
        return
    if not of_growth:
        answer_to(
            options,
            Answer(lambda: pool_growth_document(growth, top), lambda: pool_growth_json(growth)),
        )
        if gate is None and growth.comparison.verdict is Verdict.NOT_COMPARABLE:
            reasons = "; ".join(growth.comparison.reasons)
            click.echo(f"dumpleak: the dumps are not comparable: {reasons}", err=True)
            raise SystemExit(EXIT_CANNOT_ANSWER)
        if gate is None:
            return
    with answering(gate):
        names = dump, current
        base, after = matched(*(_snapshot(*each) for each in zip(sources, names, strict=True)))
        judgement = judged(gate, compare(base, after))
    if of_growth:
        answer_to(
            options,
            Answer(
                lambda: diff_document(judgement.answer, top, judgement.gate),
                lambda: diff_json(judgement.answer, judgement.gate),
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
            "all tags are judged, by their blocks too: --tag, --type and --no-walk do not go with that"
        )


def _snapshot(source: PoolSource, name: str) -> Snapshot:
    """The pools as `diff` compares them."""
    if isinstance(source, PoolReader):
        return take_pool_snapshot(source)
    return open_snapshot(name, Wanted(of=POOL))


def _source(name: str, pooltag: Path | None, options: Options, progress: Progress) -> PoolSource:
    """The pools of a snapshot file, a log or a dump."""
    if is_snapshot_file(name):
        return StoredPools(Path(name), pooltag)
    if is_log(read_head(name, HEAD_BYTES)):
        return LoggedPools(name, pooltag)
    return PoolReader(open_dump(name), options.symbols, pooltag, progress)
