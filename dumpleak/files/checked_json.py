"""Checked reading of the JSON in a snapshot file: nothing in it is trusted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from windumps.errors import DumpError

MAX_INTEGER = 1 << 64  # addresses and sizes


class SnapshotFileError(DumpError):
    """A snapshot file cannot be used: damaged, altered, or of a version this program does not know."""


class Fields:
    """A JSON object whose members have to be of the types asked for.

    Args:
        value: What stands in the file.
        where: Its place, for the error.

    Raises:
        SnapshotFileError: in all methods: the member is absent or of another type.
    """

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise damaged(where, "an object")
        self._value: dict[str, Any] = value
        self._where = where

    def text(self, name: str, default: str | None = None) -> str:
        """A string."""
        value = self._value.get(name, default)
        if not isinstance(value, str):
            raise damaged(f"{self._where}.{name}", "text")
        return value

    def text_or_none(self, name: str) -> str | None:
        """A string or null."""
        return None if self._value.get(name) is None else self.text(name)

    def integer(self, name: str, low: int = 0) -> int:
        """An integer of at most 64 bits."""
        value = self._value.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value < MAX_INTEGER:
            raise damaged(f"{self._where}.{name}", "an integer")
        return value

    def index(self, name: str, limit: int) -> int:
        """An integer from 0 to below a limit."""
        value = self.integer(name)
        if value >= limit:
            raise damaged(f"{self._where}.{name}", f"an index below {limit}")
        return value

    def integer_or_none(self, name: str, low: int = 0) -> int | None:
        """An integer or null."""
        return None if self._value.get(name) is None else self.integer(name, low)

    def fraction(self, name: str) -> float:
        """A number from 0 to 1."""
        value = self._value.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise damaged(f"{self._where}.{name}", "a number from 0 to 1")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._value.get(name)
        if not isinstance(value, bool):
            raise damaged(f"{self._where}.{name}", "true or false")
        return value

    def time_or_none(self, name: str) -> datetime | None:
        """A time with its zone, or null."""
        text = self.text_or_none(name)
        if text is None:
            return None
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            time = datetime.min
        if time.tzinfo is None:
            raise damaged(f"{self._where}.{name}", "an ISO time with its zone")
        return time.astimezone(UTC)

    def items(self, name: str) -> list[Any]:
        """A list of anything."""
        value = self._value.get(name, [])
        if not isinstance(value, list):
            raise damaged(f"{self._where}.{name}", "a list")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of strings."""
        return [self._text(value, name) for value in self.items(name)]

    def numbers(self, name: str, limit: int) -> list[int]:
        """A list of integers from 0 to below a limit, indices that is."""
        values = self.items(name)
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
                raise damaged(f"{self._where}.{name}", f"indices below {limit}")
        return values

    def objects(self, name: str) -> Iterator[Fields]:
        """A list of objects."""
        for number, value in enumerate(self.items(name)):
            yield Fields(value, f"{self._where}.{name}[{number}]")

    def object(self, name: str) -> Fields:
        """One object."""
        return Fields(self._value.get(name), f"{self._where}.{name}")

    def object_or_none(self, name: str) -> Fields | None:
        """One object or null."""
        return None if self._value.get(name) is None else self.object(name)

    def has(self, name: str) -> bool:
        """True for a member that is there and not null."""
        return self._value.get(name) is not None

    def names(self) -> list[str]:
        """Names of all members."""
        return list(self._value)

    def _text(self, value: Any, name: str) -> str:
        if not isinstance(value, str):
            raise damaged(f"{self._where}.{name}", "texts")
        return value


def damaged(where: str, expected: str) -> SnapshotFileError:
    """The error for a member that is not what it should be; the reader adds the file's name."""
    return SnapshotFileError(f"{where} is not {expected}")
