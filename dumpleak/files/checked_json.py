"""Checked reading of files of ours: what the type hints of a class say is what a file may hold.

A member has to be there unless its type admits None, or is marked `Absent`; defaults of the class do not
count, as a total that is absent is not zero. Members that no hint names are ignored unless the class is
closed. An `int` has no sign and at most 64 bits, unless `Bounds` say otherwise. Texts come from dumps, so
they may hold halves of surrogate pairs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from enum import Enum
from functools import cache
from itertools import repeat
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from windumps.errors import DumpError

T = TypeVar("T")
Decode = Callable[[Any], Any]
_LARGEST = (1 << 64) - 1
_MAX_NAME = 40  # of a member, as far as an error shows it


class SnapshotFileError(DumpError):
    """A snapshot file cannot be used: damaged, altered, or of a version this program does not know."""


class WrongMemberError(ValueError):
    """A member is absent or not what it should be.

    Args:
        expected: What it should be, "an integer".
        where: Its place.
    """

    def __init__(self, expected: str, where: str = "") -> None:
        super().__init__(f"{where} is not {expected}")
        self.expected, self.where = expected, where

    def below(self, member: str | int) -> WrongMemberError:
        """This error, told by what holds the member."""
        plain = isinstance(member, str) and member.replace("-", "_").isidentifier()
        shown = f".{member}" if plain else f"[{member!a}]"
        if len(shown) > _MAX_NAME or not shown.isascii():
            shown = f"[{str(member)[:_MAX_NAME]!a}…]"
        return WrongMemberError(self.expected, shown + self.where)


@dataclass(frozen=True)
class Bounds:
    """The least and the largest that a number may be."""

    low: int
    high: int


@dataclass(frozen=True, eq=False)  # a list may stand in it
class Absent:
    """Marks a member that not every file has; without it the member is as if this JSON stood there."""

    value: Any


@dataclass(frozen=True, eq=False)
class Chosen:
    """Marks a tuple that stands as a list of indices of these values."""

    values: Sequence[Any]


@dataclass(frozen=True)
class Named:
    """Marks a tuple that stands as an object with these members."""

    names: tuple[str, ...]


class Together:
    """Marks a tuple of classes whose members stand in one object."""


Signed = Annotated[
    int, Bounds(-(1 << 63), (1 << 64) - 1)
]  # what can be below zero in damaged dumps
Fraction = Annotated[float, Bounds(0, 1)]


def load_json(raw: bytes) -> Any:
    """The JSON in some bytes.

    Raises:
        ValueError: it is none, nests too deeply, or holds numbers that are none, as NaN.
    """
    try:
        return json.loads(raw, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


class Decoder:
    """Makes objects of what a JSON or TOML reader gave.

    Args:
        hints: By class, hints that go before those of the class itself.
        closed: Classes that have no other members than those with hints.
    """

    def __init__(
        self, hints: Mapping[type, Mapping[str, Any]] | None = None, closed: tuple[type, ...] = ()
    ) -> None:
        self._hints = hints or {}
        self._closed = closed
        self._made: dict[Any, Decode] = {}

    def __call__(self, type_: type[T], value: Any, where: str) -> T:
        """An object of a type.

        Args:
            type_: The type.
            value: What stands in the file.
            where: Its place, for the error.

        Raises:
            WrongMemberError: a member is absent or not what it should be.
        """
        try:
            made: T = self._of(type_)(value)
        except WrongMemberError as error:
            raise WrongMemberError(error.expected, where + error.where) from None
        return made

    def _of(self, hint: Any) -> Decode:
        if hint not in self._made:
            self._made[hint] = _SCALARS.get(hint) or self._build(hint)
        return self._made[hint]

    def _build(self, hint: Any) -> Decode:
        origin, args = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self._marked(args[0], args[1:])
        if origin in (Union, UnionType):
            (inner,) = (self._of(arg) for arg in args if arg is not NoneType)
            return lambda value: None if value is None else inner(value)
        if origin is Literal:
            return _choice({value: value for value in args})
        if origin is dict:
            return _mapping(*map(self._of, args))
        if origin is tuple and args[-1] is not Ellipsis:
            return _fixed([self._of(arg) for arg in args], tuple)
        if origin in (list, tuple):
            return _items(self._of(args[0]), origin)
        if issubclass(hint, Enum):
            return _choice({member.value: member for member in hint})
        hints = _type_hints(hint) | dict(self._hints.get(hint, {}))
        if issubclass(hint, tuple):  # a named tuple stands as a list
            return _fixed([self._of(hints[name]) for name in hint._fields], hint._make)
        members = {field.name: hints[field.name] for field in fields(hint)}
        return self._object(hint, members, closed=hint in self._closed)

    def _marked(self, hint: Any, marks: Sequence[Any]) -> Decode:
        for mark in marks:
            if isinstance(mark, Bounds):
                return _number(hint, mark)
            if isinstance(mark, Chosen):
                return _chosen(self._of(list[int]), mark.values)
            if isinstance(mark, Named):
                return self._object(
                    lambda *found: found, dict(zip(mark.names, get_args(hint), strict=True))
                )
            if mark is Together:
                parts = [self._of(part) for part in get_args(hint)]
                return lambda value: tuple([part(value) for part in parts])
        return self._of(hint)

    def _object(
        self, make: Callable[..., Any], hints: dict[str, Any], *, closed: bool = False
    ) -> Decode:
        members = [(self._of(hint), name, _if_absent(hint)) for name, hint in hints.items()]
        names = list(hints)

        def decode(value: Any) -> Any:
            if type(value) is not dict or (closed and not value.keys() <= hints.keys()):
                only = " and nothing else" * closed
                raise WrongMemberError(f"an object with {', '.join(names)}{only}")
            found, get = [], value.get
            try:
                for inner, name, absent in members:
                    found.append(inner(get(name, absent)))
            except WrongMemberError as error:
                raise error.below(names[len(found)]) from None
            return make(*found)

        return decode


@cache
def _type_hints(class_: type) -> dict[str, Any]:
    """Its own, which take long to find."""
    return get_type_hints(class_, include_extras=True)


def _if_absent(hint: Any) -> Any:
    marked = [note.value for note in get_args(hint) if isinstance(note, Absent)]
    # What is no JSON is of no type.
    return marked[0] if marked else None if NoneType in get_args(hint) else ...


def _each(
    inner: Iterable[Decode], values: Iterable[Any], names: Sequence[str] | None = None
) -> list[Any]:
    found = []
    try:
        for decode, value in zip(inner, values, strict=False):  # one may repeat without end
            found.append(decode(value))
    except WrongMemberError as error:
        raise error.below(names[len(found)] if names else len(found)) from None
    return found


def _items(inner: Decode, make: Callable[[list[Any]], Any]) -> Decode:
    plain = next((type_ for type_ in (int, str) if inner is _SCALARS[type_]), None)

    def decode(value: Any) -> Any:
        if type(value) is not list:
            raise WrongMemberError("a list")
        # Lists of numbers and texts are long, and nearly always as they should be.
        whole = plain is not None and set(map(type, value)) == {plain}
        if whole and (plain is str or 0 <= min(value) <= max(value) <= _LARGEST):
            return make(value)
        return make(_each(repeat(inner), value))

    return decode


def _chosen(indices: Decode, values: Sequence[Any]) -> Decode:
    def decode(value: Any) -> Any:
        try:
            return tuple([values[index] for index in indices(value)])
        except IndexError:
            raise WrongMemberError(f"a list of indices below {len(values)}") from None

    return decode


def _fixed(inner: list[Decode], make: Callable[[list[Any]], Any]) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) is not list or len(value) != len(inner):
            raise WrongMemberError(f"a list of {len(inner)}")
        return make(_each(inner, value))

    return decode


def _mapping(key: Decode, inner: Decode) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) is not dict:
            raise WrongMemberError("an object")
        names = list(value)
        keys, values = _each(repeat(key), names, names), _each(repeat(inner), value.values(), names)
        return dict(zip(keys, values, strict=True))

    return decode


def _choice(values: dict[Any, Any]) -> Decode:
    types = {type(value) for value in values}

    def decode(value: Any) -> Any:
        if type(value) not in types or value not in values:
            raise WrongMemberError(f"one of {', '.join(map(str, values))}")
        return values[value]

    return decode


def _scalar(types: tuple[type, ...], expected: str) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) not in types:
            raise WrongMemberError(expected)
        return value

    return decode


def _number(type_: type, bounds: Bounds) -> Decode:
    low, high = bounds.low, bounds.high
    types = (int,) if type_ is int else (int, float)
    expected = f"{'an integer' if type_ is int else 'a number'} from {low} to {high}"

    def decode(value: Any) -> Any:
        if type(value) not in types or not low <= value <= high:
            raise WrongMemberError(expected)
        return value if type_ is int else float(value)

    return decode


def _time(value: Any) -> datetime:
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise WrongMemberError("an ISO time with its zone")


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


_SCALARS: dict[Any, Decode] = {
    Any: lambda value: value,
    str: _scalar((str,), "text"),
    int: _number(int, Bounds(0, _LARGEST)),
    bool: _scalar((bool,), "true or false"),
    date: _scalar((date,), "a day, 2027-01-31 (without quotes)"),
    datetime: _time,
}
