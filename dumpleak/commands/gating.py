"""What commands with a gate share: its options, its verdict on stderr, its exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from dumpleak.commands.exit_codes import EXIT_CANNOT_ANSWER, EXIT_GATE
from dumpleak.commands.opening import opened
from dumpleak.commands.options import Options
from dumpleak.commands.saying import say
from dumpleak.compare.answers import Comparison
from dumpleak.compare.trend import Trend
from dumpleak.gate.baseline import Baseline, check_grouping, json_baseline, snapshot_baseline
from dumpleak.gate.conditions import GateError, parse_gate
from dumpleak.gate.gate import A, Gate, GateResult, Judged
from dumpleak.gate.suppressions import Suppression, read_suppressions
from windumps.errors import WindumpsError
from windumps.files import read_head

_FILE = click.Path(exists=True, dir_okay=False)
_OPTIONS = (
    click.option(
        "--fail-on",
        metavar="CONDITIONS",
        help="Exit with 1 when growth reaches one of: bytes>=N, count>=N, percent>=N, bytes-per-hour>=N, "
        "count-per-hour>=N; with site. in front for any one site; suspects>=N, leaked>=N of a trend; "
        "unreferenced.bytes>=N, unreferenced.count>=N of new blocks; any row of the account, as "
        "threads.count>=N or private.bytes>=N. Separated by commas. Where the dumps do not show enough to "
        "tell, the exit code is 3.",
    ),
    click.option(
        "--baseline",
        metavar="FILE",
        type=_FILE,
        help="Growth that was accepted: what diff or trend wrote with --format json, or a snapshot.",
    ),
    click.option(
        "--suppressions",
        metavar="FILE",
        type=_FILE,
        help="A TOML file of sites that may grow, each with a reason and an expiry date.",
    ),
)
# What a line without quotes comes to is written into a file of that name.
_SHELL = '. Shells take > for themselves: put conditions in quotes, --fail-on "bytes>=1M"'


@dataclass(frozen=True)
class GateOptions:
    """What the user asked of the gate; None each for nothing.

    Attributes:
        fail_on: Conditions.
        baseline: Name of a file.
        suppressions: Name of a file.
    """

    fail_on: str | None = None
    baseline: str | None = None
    suppressions: str | None = None


def gate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets them as one `GateOptions`, its parameter `gating`."""

    @wraps(command)
    def gated(
        fail_on: str | None, baseline: str | None, suppressions: str | None, **given: Any
    ) -> Any:
        return command(gating=GateOptions(fail_on, baseline, suppressions), **given)

    for option in reversed(_OPTIONS):
        gated = option(gated)
    return gated


def open_gate(given: GateOptions, of: str | None, by: str, options: Options) -> Gate | None:
    """The gate the user asked for; None when there is none.

    Args:
        given: What the user asked of it.
        of: The population that is compared; None for blocks or pool.
        by: The grouping.
        options: The command's.

    Raises:
        UsageError: a condition or the suppressions file was not understood.
        WindumpsError: the baseline cannot be used.
    """
    if given == GateOptions():
        return None
    try:
        conditions = parse_gate(given.fail_on) if given.fail_on is not None else []
    except ValueError as error:
        taken = "" if ">" in (given.fail_on or "") else _SHELL
        raise click.UsageError(f"--fail-on: {error}{taken}") from error
    return Gate(
        conditions, _suppressions(given.suppressions), _baseline(given.baseline, of, by, options)
    )


def judged(gate: Gate | None, answer: A) -> Judged[A]:
    """The answer with what the gate says of it.

    Raises:
        GateError: a condition cannot be measured on it.
    """
    if gate is None or answer.refused:
        return Judged(answer)
    return Judged(answer, gate.judge(answer))


@contextmanager
def answering(gate: Gate | None) -> Iterator[None]:
    """Where a gate was asked for, a failure to answer is said in its line, too."""
    try:
        yield
    except WindumpsError as error:
        if gate is not None:
            click.echo(f"SUMMARY: NO ANSWER; {error}", err=True)
            if isinstance(error, GateError) or not click.get_current_context().params.get("debug"):
                raise SystemExit(EXIT_CANNOT_ANSWER) from error
        raise


def finish(gate: Gate | None, judged: Judged[Comparison] | Judged[Trend]) -> None:
    """Says on stderr how it ended, and ends with the exit code for that."""
    answer, result = judged.answer, judged.gate
    # Suppressions and a baseline alone ask for nothing, and what is in doubt is no answer.
    asked = result is not None and result.conditions
    if answer.refused or (answer.doubts and not asked):
        why = f"the dumps are not comparable: {'; '.join(answer.reasons)}"
        if answer.doubts:
            why = "; ".join(answer.doubts)
        say(f"dumpleak: {why}" if gate is None else f"SUMMARY: NO ANSWER; {why}")
        raise SystemExit(EXIT_CANNOT_ANSWER)
    if answer.reasons:
        # Not every format has a place for it.
        click.echo(f"warning: compared by force although {'; '.join(answer.reasons)}", err=True)
    if result is None:
        return
    _say_suppressions(result)
    click.echo(f"{result.summary}{'; compared by force' if answer.reasons else ''}", err=True)
    if result.failed:
        raise SystemExit(EXIT_GATE)
    if result.unanswered:
        raise SystemExit(EXIT_CANNOT_ANSWER)


def _say_suppressions(result: GateResult) -> None:
    for entry in result.expired:
        click.echo(f"warning: suppression has expired: {entry.told}", err=True)
    for entry in result.unused:
        click.echo(f"warning: suppression matches no site that grew: {entry.told}", err=True)


def _suppressions(path: str | None) -> list[Suppression]:
    try:
        return read_suppressions(path) if path is not None else []
    except ValueError as error:
        raise click.UsageError(f"--suppressions: {error}") from error


def _baseline(path: str | None, of: str | None, by: str, options: Options) -> Baseline | None:
    if path is None:
        return None
    head = read_head(path, 64)
    # A shell on Windows may have put the mark of UTF-8 or UTF-16 in front.
    if head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"{"):
        return json_baseline(path, by, of)
    taken = opened(of, path, by, options)
    check_grouping(path, taken.grouping, by)
    if taken.coverage.shortfall:
        click.echo(f"warning: the baseline {path}: {taken.coverage.shortfall}", err=True)
    return snapshot_baseline(taken)
