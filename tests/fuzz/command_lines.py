"""Runs command lines in this process, and checks what holds for each of them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import click
import jsonschema

from dumpleak.attribution.grouping import GROUPINGS
from dumpleak.cli import main, main_group
from dumpleak.model.populations import POPULATIONS
from dumpleak.survey.populations import PRODUCERS
from dumpleak.survey.populations.system import SYSTEM_PRODUCERS
from fuzz.dice import Dice
from fuzz.invariants import require
from windumps.errors import WindumpsError

INPUT, WHOLE, OUTPUT = "<input>", "<whole>", "<output>"
BY = "<grouping>"
OF, OF_BY = "<population that is no blocks>", "<grouping of it>"
OF_MEMBERS = ("--of", OF, "--by", OF_BY)
WRONG_USAGE, CANNOT_ANSWER = 2, 3
ANY_FORMAT = (0, 1, WRONG_USAGE, CANNOT_ANSWER)  # of a line that not every format can write
REFUSALS = (WRONG_USAGE, CANNOT_ANSWER)
NO_ANSWER = ("dumpleak: ", "SUMMARY: NO ANSWER")
SAID = (*NO_ANSWER, "SUMMARY: ", "warning: ", "error: ", "info: ")
# A schema check takes longer than what it checks; larger documents are parsed only.
SCHEMA_BYTES = 200_000
LINES_CHECKED = 20  # of a document of lines, against their schema
LINE_BY_LINE = ("allocations", "explain")  # commands whose JSON is one document a line


class NoAnswerError(WindumpsError):
    """A command said that it cannot answer."""


@dataclass(frozen=True)
class Line:
    """One kind of command line.

    Attributes:
        words: The command and its arguments; INPUT stands for the mutated file, WHOLE for one that
            was not mutated, BY for any grouping of blocks, OF for one that has a producer and OF_BY
            for one of its groupings.
        more: Options that are there in half of all cases.
        codes: The exit codes it may end with; 2 only where a file of the user's own may be wrong.
    """

    words: tuple[str, ...]
    more: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0, 1, 3)


# Of a dump of a process.
PROCESS_LINES = (
    Line(("info", INPUT)),
    Line(("heaps", INPUT)),
    Line(("modules", INPUT)),
    Line(("symbols", INPUT)),
    Line(("stat", INPUT, "--by", BY)),
    Line(("leaks", INPUT, "--by", BY)),
    Line(("allocations", INPUT), ("--state", "all")),
    Line(("explain", INPUT, "7ffe0000", "0", "257`cbaf0000", "1a0000"), ("--bytes", "64")),
    Line(("diff", WHOLE, INPUT, "--by", BY, "--fail-on", "bytes>=1"), ("--force",)),
    Line(("diff", INPUT, WHOLE, "--by", BY), ("--force",)),
    Line(("trend", INPUT, WHOLE, INPUT, "--by", BY), ("--force",)),
    Line(("snapshot", INPUT)),
    Line(("snapshot", INPUT, "--format", "dlsnap", "--strip-names")),
    Line(("stat", INPUT, *OF_MEMBERS), codes=ANY_FORMAT),
    Line(("diff", WHOLE, INPUT, *OF_MEMBERS, "--fail-on", "count>=1"), ("--force",), ANY_FORMAT),
    Line(("trend", WHOLE, INPUT, INPUT, *OF_MEMBERS), ("--force",), ANY_FORMAT),
    Line(("snapshot", INPUT, "--format", "dlsnap", "--of", OF)),
)
KERNEL_LINES = (
    Line(("info", INPUT)),
    Line(("modules", INPUT)),
    Line(("processes", INPUT)),
    Line(("verifier", INPUT), codes=ANY_FORMAT),
    Line(("processes", WHOLE, INPUT)),
    Line(("stat", INPUT, *OF_MEMBERS), codes=ANY_FORMAT),
    Line(("pool", INPUT), ("--no-walk",), ANY_FORMAT),
    Line(("pool", WHOLE, INPUT), codes=ANY_FORMAT),
    Line(("pool", INPUT, WHOLE), codes=ANY_FORMAT),
    Line(("allocations", INPUT)),
    Line(("explain", INPUT, "fffff802`7d001234", "ffffd6d8c0034010", "0")),
    Line(("stat", INPUT, "--by", BY)),
    Line(("diff", WHOLE, INPUT, "--by", BY), ("--force",)),
    Line(("heaps", INPUT, "--process", "app.exe")),
    Line(("trend", INPUT, WHOLE, INPUT, "--by", BY), ("--force",)),
    Line(("symbols", INPUT)),
    Line(("leaks", INPUT, "--process", "app.exe")),
    Line(("snapshot", INPUT)),
)
# Of a file that holds a snapshot.
SNAPSHOT_LINES = (
    Line(("info", INPUT)),
    Line(("modules", INPUT)),
    Line(("stat", INPUT, "--by", BY)),
    Line(("diff", WHOLE, INPUT, "--by", BY), ("--force",)),
    Line(("diff", INPUT, WHOLE, "--by", BY), ("--force",)),
    Line(("stat", INPUT, *OF_MEMBERS), codes=ANY_FORMAT),
    Line(("heaps", INPUT)),
    Line(("symbols", INPUT)),
    Line(("pool", INPUT), codes=ANY_FORMAT),
)
# Options that a case may have besides those of its line. Switches and choices are known by themselves; these
# are values of the others, in which INPUT and WHOLE stand for files.
VALUES: dict[str, tuple[str, ...]] = {
    "--after-idle": (WHOLE, INPUT),
    "--baseline": (WHOLE, INPUT),
    "--bytes": ("1", "64"),
    "--fail-on": (
        *(
            "bytes>=1",
            "count>=1K",
            "percent>=0.1",
            "bytes-per-hour>=1",
            "site.count>=1",
            "leaked>=1",
        ),
        *("suspects>=1", "unreferenced.count>=1", "handles.count>=1", "private.bytes-per-hour>=1"),
    ),
    "--exclude": ("AcN*", "?"),
    "--frames": ("0", "all"),
    "--heap": ("heap 1", "0", "nobody"),
    "--keep-name": ("app*", "*"),
    "--pooltag": (INPUT,),
    "--process": ("app.exe", "4", "nobody.exe"),
    "--log": ("1", "9"),
    "--new-since": (WHOLE, INPUT),
    "--site": ("app*", "in heap"),
    "--size": ("48", "1-1K"),
    "--skip-frames": ("ntdll*!*", INPUT),
    "--suppressions": (INPUT,),
    "--symbols": (".", INPUT),
    "--tag": ("A*", "?"),
    "--top": ("1", "3"),
    "--type": ("app*", "?"),
}
# Options and commands that no case has, and why.
LEFT_OUT: dict[str, str] = {
    "--debug": "a traceback is no line of a known kind",
    "--format": "every case has one",
    "--help": "reads no input",
    "--output": "every case has one",
    "demo": "reads no input but its own",
    "fleet": "starts processes that do what the other commands do; its tests give it broken files",
}
MORE_OPTIONS = 0.08  # the share of cases with an option that its line does not name, each


@cache
def options(command: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The options that a case of a command may have: the ways to write each, by name."""
    found: dict[str, tuple[tuple[str, ...], ...]] = {}
    if command in LEFT_OUT:
        return found
    for option in main_group.commands[command].params:
        if not isinstance(option, click.Option) or option.opts[-1] in LEFT_OUT:
            continue
        name = option.opts[-1] if option.opts[-1].startswith("--") else option.opts[0]
        if option.is_flag:
            found[name] = tuple((word,) for word in (*option.opts, *option.secondary_opts))
        else:
            chosen = option.type.choices if isinstance(option.type, click.Choice) else VALUES[name]
            found[name] = tuple((name, str(value)) for value in chosen)
    return found


@cache
def formats(command: str) -> tuple[str, ...]:
    """The formats a command can write."""
    for option in main_group.commands[command].params:
        if option.name == "format_" and isinstance(option.type, click.Choice):
            return tuple(option.type.choices)
    return ()


@cache
def groupings(command: str) -> tuple[str, ...]:
    """The groupings of blocks that a command knows; other populations have others."""
    for option in main_group.commands[command].params:
        if option.name == "by" and isinstance(option.type, click.Choice):
            return tuple(key for key in option.type.choices if key in GROUPINGS)
    return ("site",)


def run(*words: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of a command line."""
    output, errors = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            main(list(words))
        except SystemExit as stop:
            code = stop.code or 0
    return int(code), output.getvalue(), errors.getvalue()


def use_file(lines: Sequence[Line], mutated: Path, whole: Path) -> Callable[[bytes, Dice], None]:
    """Writes mutated bytes to a file and runs one of these lines over it, in one of its formats."""
    output = mutated.with_name("output")

    def use(data: bytes, dice: Dice) -> None:
        mutated.write_bytes(data)
        output.unlink(missing_ok=True)
        line = dice.pick(lines)
        words = filled(line, dice, mutated, whole)
        # An option that does not go with the others is wrong usage.
        own = (*line.words, *line.more, "--format")
        more = any(word.startswith("--") and word not in own for word in words)
        code = checked(words, output, (*line.codes, *[WRONG_USAGE] * more))
        if code in REFUSALS:
            raise NoAnswerError(f"exit code {code}")

    return use


def filled(line: Line, dice: Dice, mutated: Path, whole: Path) -> list[str]:
    """The words of a command line, with files, a grouping and a format in it."""
    command = line.words[0]
    places = {INPUT: str(mutated), WHOLE: str(whole), BY: dice.pick(groupings(command))}
    places[OF] = dice.pick(tuple({**PRODUCERS, **SYSTEM_PRODUCERS}))
    places[OF_BY] = dice.pick(tuple(POPULATIONS[places[OF]].groupings))
    words = list(line.words)
    if line.more and dice.chance(0.5):
        words += line.more
    for name, ways in options(command).items():
        if dice.chance(MORE_OPTIONS) and not {name, *(way[0] for way in ways)} & {*words}:
            words += dice.pick(ways)
    words = [places.get(word, word) for word in words]
    if "--format" not in words:
        words += ["--format", dice.pick(formats(command))]
    return words


def checked(words: Sequence[str], output: Path, codes: Sequence[int] = (0, 1, 3)) -> int:
    """Runs a line, whose answer goes to a file; it must end as the contract says. Its exit code."""
    line = [*words, "-o", str(output)]
    code, printed, said = run(*line)
    if "internal error" in said:
        require(False, "no internal error", run(*line, "--debug")[2])
    require(code in codes, "the exit code is one of the contract", f"{code} {words} {said}")
    if code == WRONG_USAGE:
        require(not output.exists(), "wrong usage writes no answer", said)
        return code
    strange = [text for text in said.splitlines() if not text.startswith(SAID)]
    require(not strange, "what is said is lines of a known kind", repr(strange[:3]))
    told = [said.count(f"\n{start}") + said.startswith(start) for start in NO_ANSWER]
    require(code != CANNOT_ANSWER or max(told) == 1, "why there is no answer is one line", said)
    require(not printed, "the answer goes where -o says", printed[:200])
    if code != CANNOT_ANSWER:
        require(output.exists(), "an answer is written", f"{code} {said}")
    if output.exists() and "json" in words:
        written = output.read_bytes()
        for number, document in enumerate(
            written.splitlines() if words[0] in LINE_BY_LINE else [written]
        ):
            check_json(document, words[0] if number < LINES_CHECKED else "")
    return code


@cache
def _validator(schema: str) -> jsonschema.Draft202012Validator | None:
    """Of the schema a document names; None where the package has no file of it."""
    name = schema.removeprefix("dumpleak/").replace("/", "-")
    file = resources.files("dumpleak").joinpath(f"schemas/{name}.schema.json")
    if not file.is_file():
        return None
    return jsonschema.Draft202012Validator(json.loads(file.read_text("utf-8")))


def check_json(raw: bytes, command: str) -> None:
    """A document is JSON in the strict sense, and what the schema of its command says; "": of none."""

    def refuse(word: str) -> None:
        require(False, "JSON has no such number", word)

    document = json.loads(raw, parse_constant=refuse)
    schema = _validator(document.get("schema", f"dumpleak/{command}/1"))
    if len(raw) <= SCHEMA_BYTES and schema is not None:
        for error in schema.iter_errors(document):
            require(False, "JSON is what its schema says", f"{error.json_path} {error.message}")
