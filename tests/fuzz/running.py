"""What the scripts share: options, the choice of names, the sharing of time, rows on disk."""

from __future__ import annotations

import argparse
import fnmatch
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
MINUTE = 60.0


def trial_options(doc: str, trial: str) -> argparse.ArgumentParser:
    """Options of a script that tries every damage of every dump; `trial` is what --replay takes."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="*", help="patterns of dumps, with commas between them")
    parser.add_argument("--damage", default="*", help="patterns of damages")
    parser.add_argument("--trials", type=int, help="of each damage and dump")
    parser.add_argument("--seconds", type=float, help="for all; 60 unless --trials is given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a line of JSON for each trial goes there")
    parser.add_argument("--table", type=Path, help="what --out wrote, as a table")
    parser.add_argument("--list", action="store_true", help="names of all dumps")
    parser.add_argument("--replay", metavar=trial, help="one trial again")
    parser.add_argument("--save", type=Path, help="with --replay: the damaged dump goes there")
    return parser


def chosen(names: Iterable[str], patterns: str) -> list[str]:
    """The names that match one of the patterns."""
    wanted = patterns.split(",")
    return [name for name in names if any(fnmatch.fnmatch(name, one) for one in wanted)]


class Share:
    """The rounds of one dump.

    Args:
        trials: How many; None for no limit.
        end: Time of `time.monotonic` after which no more begins; None for no limit.
    """

    def __init__(self, trials: int | None, end: float | None) -> None:
        self._trials, self._end = trials, end

    @property
    def is_over(self) -> bool:
        """The time is used up."""
        return self._end is not None and time.monotonic() >= self._end

    def __iter__(self) -> Iterator[int]:
        """Numbers of rounds; one at least."""
        number = 0
        while number == 0 or ((self._trials is None or number < self._trials) and not self.is_over):
            yield number
            number += 1


class Rounds:
    """How often each of many dumps is tried: so many rounds, or what its share of the time allows.

    Args:
        trials: Rounds of each dump; None for no limit.
        seconds: For all dumps; a minute when neither is given.
    """

    def __init__(self, trials: int | None, seconds: float | None) -> None:
        if trials is None and seconds is None:
            seconds = MINUTE
        self._trials = trials
        self._end = None if seconds is None else time.monotonic() + seconds

    def shared(self, names: list[str]) -> Iterator[tuple[str, Share]]:
        """Each name with its rounds."""
        for left, name in zip(range(len(names), 0, -1), names, strict=True):
            if self._end is None:
                yield name, Share(self._trials, None)
            else:
                now = time.monotonic()
                yield name, Share(self._trials, now + max(self._end - now, 0) / left)


def kept(rows: Iterable[T], out: Path | None) -> list[T]:
    """All rows; each goes to a file as soon as it is there."""
    found = []
    for row in rows:
        found.append(row)
        if out is not None:
            append(out, vars(row))
    return found


def append(out: Path, row: dict[str, Any]) -> None:
    """One more line of JSON."""
    with out.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What `append` wrote."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
