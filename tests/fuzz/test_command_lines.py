"""Every command and every option of the command line is among those that mutated inputs are given to."""

from __future__ import annotations

from pathlib import Path

import click

from dumpleak.cli import main_group
from dumpleak.model.populations import POPULATIONS
from fuzz.command_lines import (
    KERNEL_LINES,
    LEFT_OUT,
    PROCESS_LINES,
    SNAPSHOT_LINES,
    VALUES,
    filled,
    options,
)
from fuzz.dice import Dice

LINES = (*PROCESS_LINES, *KERNEL_LINES, *SNAPSHOT_LINES)
OPTIONS = {
    name: {
        word
        for option in command.params
        if isinstance(option, click.Option)
        for word in (*option.opts, *option.secondary_opts)
    }
    for name, command in main_group.commands.items()
}


def test_every_command_is_given_mutated_inputs() -> None:
    assert {line.words[0] for line in LINES} == main_group.commands.keys() - LEFT_OUT.keys()


def test_every_option_of_every_command_is_in_some_cases() -> None:
    made: dict[str, set[str]] = {}
    for number in range(60):
        for place, line in enumerate(LINES):
            words = filled(line, Dice(place, number), Path("in"), Path("whole"))
            made.setdefault(words[0], set()).update(words)
    for command, words in made.items():
        known = {word for word in OPTIONS[command] if word.startswith("--")}
        assert known - words - LEFT_OUT.keys() == set(), command
    assert made["stat"] > POPULATIONS.keys() | set(POPULATIONS["handles"].groupings)


def test_what_is_left_out_or_has_values_is_there() -> None:
    every = {word for words in OPTIONS.values() for word in words}
    assert LEFT_OUT.keys() <= every | main_group.commands.keys() | {"--help"}
    assert VALUES.keys() <= every
    taken = {name for command in main_group.commands for name in options(command)}
    assert VALUES.keys() <= taken
