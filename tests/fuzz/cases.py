"""One case: a mutated input is read, and what came of it."""

from __future__ import annotations

import re
import signal
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

from fuzz.dice import Dice
from fuzz.invariants import ViolationError
from fuzz.mutations import mutated
from fuzz.seeds import Seed
from windumps.errors import WindumpsError

ANSWERED, REFUSED = "answered", "refused"
PACKAGES = ("/windumps/", "/dumpleak/")
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
SHOWN_FRAMES = 4


class OverTimeError(BaseException):
    """A case took longer than it may; no handler of the code under test shall catch it."""


@dataclass(frozen=True)
class Finding:
    """What must not be.

    Attributes:
        what: The type of an error, or the invariant that does not hold.
        text: What it says.
        where: The innermost frames of the code under test.
    """

    what: str
    text: str
    where: tuple[str, ...]

    @property
    def key(self) -> str:
        """The same for cases with the same cause, most likely."""
        return " | ".join((self.what, *self.where[-2:]))


def case_of(seed: Seed, kind: str, run: int, number: int) -> tuple[bytes, Dice]:
    """The mutated bytes of a case, and the choices that are left for its use."""
    dice = Dice(kind, run, number)
    return mutated(seed, dice), dice


def outcome(seed: Seed, data: bytes, dice: Dice, seconds: float = 0) -> str | Finding:
    """Reads mutated bytes: `ANSWERED`, `REFUSED`, or what must not be."""
    try:
        with limited_time(seconds), strict_warnings():
            seed.use(data, dice)
    except WindumpsError as error:
        text = str(error)
        if not text or "\n" in text:
            return Finding("an error's message is one line", repr(text), _where(error))
        return REFUSED
    except ViolationError as error:
        what, _, about = str(error).partition(": ")
        return Finding(what, about, _frames_in(about) or _where(error))
    except OverTimeError as error:
        return Finding("over time", f"more than {seconds:g} s", _where(error))
    except Exception as error:  # whatever else comes is what is looked for
        return Finding(type(error).__name__, str(error), _where(error))
    return ANSWERED


@contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """Raises `OverTimeError` after so much time of the processor; 0 for any time."""

    def stop(_: int, __: FrameType | None) -> None:
        raise OverTimeError

    if not seconds:
        yield
        return
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def strict_warnings() -> Iterator[None]:
    """A warning of numpy is a mistake in what it was given."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("error", UserWarning)
        yield


def _where(error: BaseException) -> tuple[str, ...]:
    return _told(
        (frame.filename, str(frame.lineno), frame.name)
        for frame in traceback.extract_tb(_traceback(error))
    )


def _traceback(error: BaseException) -> TracebackType | None:
    return error.__traceback__


def _frames_in(text: str) -> tuple[str, ...]:
    """Frames of a traceback that was printed."""
    return _told(match.groups() for match in _FRAME.finditer(text))


def _told(frames: Iterator[tuple[str, ...]]) -> tuple[str, ...]:
    told = [
        f"{'/'.join(Path(file).parts[-2:])}:{line} {name}"
        for file, line, name in frames
        if any(package in file for package in PACKAGES) and "/tests/" not in file
    ]
    return tuple(told[-SHOWN_FRAMES:])
