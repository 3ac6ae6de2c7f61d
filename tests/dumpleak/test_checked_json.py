"""The decoder of files of ours: a member is what its hint says, or the error names it in one line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumpleak.files.checked_json import (
    Absent,
    Bounds,
    Chosen,
    Decoder,
    Fraction,
    Named,
    Signed,
    Together,
    WrongMemberError,
    load_json,
)


class Colour(StrEnum):
    RED = "red"


class Spot(NamedTuple):
    name: str
    offset: int = 0


@dataclass(frozen=True)
class Part:
    name: str
    bytes: int = 0


@dataclass
class Whole:
    number: int
    signed: Signed
    share: Fraction
    small: Annotated[int, Bounds(3, 5)]
    flag: bool
    text: str
    maybe: int | None
    colour: Colour
    bits: Literal[32, 64]
    numbers: list[int]
    texts: tuple[str, ...]
    pair: tuple[str, int]
    spots: list[Spot]
    parts: dict[str, Part]
    time: datetime | None
    chosen: Annotated[tuple[str, ...], Chosen(["a", "b"])]
    named: Annotated[tuple[str, int], Named(("type", "count"))]
    both: Annotated[tuple[Part, Spot], Together] | None
    later: Annotated[bool, Absent(True)]


GOOD: dict[str, Any] = {
    "number": (1 << 64) - 1,
    "signed": -(1 << 63),
    "share": 1,
    "small": 3,
    "flag": False,
    "text": "\ud800\x00",
    "colour": "red",
    "bits": 64,
    "numbers": [0, (1 << 64) - 1],
    "texts": ["", "\udfff"],
    "pair": ["a", 1],
    "spots": [["a", 1]],
    "parts": {"\ud800": {"name": "a", "bytes": 1, "of a newer version": None}},
    "time": "2025-01-01T02:00:00+02:00",
    "chosen": [1, 0, 1],
    "named": {"type": "File", "count": 2},
}


def _decode(value: Any) -> Whole:
    return Decoder()(Whole, value, "file")


def test_what_is_as_the_hints_say_is_made() -> None:
    made = _decode(json.loads(json.dumps(GOOD)))
    assert made == Whole(
        **{name: GOOD[name] for name in ("number", "signed", "small", "flag", "text", "bits")},
        share=1.0,
        maybe=None,
        colour=Colour.RED,
        numbers=[0, (1 << 64) - 1],
        texts=("", "\udfff"),
        pair=("a", 1),
        spots=[Spot("a", 1)],
        parts={"\ud800": Part("a", 1)},
        time=datetime(2025, 1, 1, tzinfo=UTC),
        chosen=("b", "a", "b"),
        named=("File", 2),
        both=None,
        later=True,
    )
    assert isinstance(made.share, float)


WRONG: list[tuple[str, Any]] = [
    *[("number", value) for value in (-1, 1 << 64, True, 1.0, "1", None, float("nan"))],
    *[("signed", value) for value in (-(1 << 63) - 1, 1 << 64, False, None)],
    *[("share", value) for value in (-0.1, 1.1, float("nan"), float("inf"), True, "1")],
    *[("small", value) for value in (2, 6)],
    *[("flag", value) for value in (0, 1, "true", None)],
    *[("text", value) for value in (1, None, ["a"])],
    *[("maybe", value) for value in ("1", -1)],
    *[("colour", value) for value in ("blue", "RED", None, ["red"], {})],
    *[("bits", value) for value in (16, 64.0, True, "64", [64])],
    *[("numbers", value) for value in ([-1], [1 << 64], [0, True], [0.5], {}, "12", None)],
    *[("texts", value) for value in ([1], ["a", None], "ab", {"a": 1})],
    *[("pair", value) for value in (["a"], ["a", 1, 2], ["a", "b"], {"0": "a", "1": 1})],
    *[("spots", value) for value in ([["a"]], [["a", -1]], [{"name": "a", "offset": 1}])],
    *[("parts", value) for value in ({"a": {"name": "a"}}, {"a": []}, [], {"a": None})],
    *[("time", value) for value in ("2025-01-01T00:00:00", "", "\ud800", 5, [])],
    *[("time", "0001-01-01T00:00:00+23:59")],  # before the first there is
    *[("chosen", value) for value in ([2], [-1], [1 << 63], [True], ["a"], None)],
    *[("named", value) for value in ({"type": "a"}, ["a", 1], {"type": 1, "count": 1})],
    *[("later", value) for value in (None, 1)],
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_what_is_not_as_its_hint_says_is_named_in_one_line(name: str, value: Any) -> None:
    with pytest.raises(WrongMemberError) as error:
        _decode({**GOOD, name: value})
    told = str(error.value)
    assert told.startswith(f"file.{name}")
    assert " is not " in told
    assert "\n" not in told


@pytest.mark.parametrize("name", sorted(GOOD.keys() - {"time"}))
def test_a_member_that_is_absent_is_no_default(name: str) -> None:
    """Also where the class has one: a total that is absent is not zero."""
    with pytest.raises(WrongMemberError, match=rf"^file\.{name} is not "):
        _decode({other: value for other, value in GOOD.items() if other != name})
    with pytest.raises(WrongMemberError, match=r"^file\.parts\.a\.bytes is not an integer"):
        _decode({**GOOD, "parts": {"a": {"name": "a"}}})


def test_the_place_of_an_error_is_whole_and_short_whatever_the_names_are() -> None:
    for key, shown in (("a-b", ".a-b"), ("\ud800\n", "['\\ud800\\n']"), ("x" * 10**6, "[")):
        with pytest.raises(WrongMemberError) as error:
            _decode({**GOOD, "parts": {"first": {"name": "a", "bytes": 1}, key: {"name": 3}}})
        told = str(error.value)
        assert told.startswith(f"file.parts{shown}")
        assert told.endswith(".name is not text")
        assert told.isascii() or "…" in told
        assert "\n" not in told
        assert len(told) < 120
    with pytest.raises(WrongMemberError, match=r"^file\.spots\[1\]\[1\] is not an integer"):
        _decode({**GOOD, "spots": [["a", 1], ["b", "c"]]})


def test_parts_that_stand_in_one_object_are_made_of_it() -> None:
    made = Decoder({Spot: {}})
    hint: Any = Annotated[tuple[Part, Whole], Together]
    part, whole = made(hint, {**GOOD, "name": "a", "bytes": 7}, "file")
    assert (part, whole) == (Part("a", 7), _decode(GOOD))


def test_hints_of_a_decoder_go_before_those_of_the_class() -> None:
    made = Decoder({Part: {"bytes": Annotated[int, Absent(5)]}})
    assert made(Part, {"name": "a"}, "file") == Part("a", 5)
    assert Decoder()(Part, {"name": "a", "bytes": 5, "more": 1}, "file") == Part("a", 5)


def test_a_closed_class_has_no_other_members() -> None:
    made = Decoder(closed=(Part,))
    assert made(Part, {"name": "a", "bytes": 5}, "file") == Part("a", 5)
    with pytest.raises(WrongMemberError, match="nothing else"):
        made(Part, {"name": "a", "bytes": 5, "more": 1}, "file")


def test_a_day_is_no_time() -> None:
    made = Decoder()
    assert made(date, date(2027, 1, 31), "file") == date(2027, 1, 31)
    for wrong in (datetime(2027, 1, 31, tzinfo=UTC), "2027-01-31"):
        with pytest.raises(WrongMemberError, match="a day"):
            made(date, wrong, "file")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"NaN", b'{"a": -Infinity}', b"[" * 10**6, b"1" * 10**5, b"\xff\xff\xff"]
)
def test_what_is_no_json_is_an_error_of_one_kind(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        load_json(raw)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(name=st.sampled_from([*GOOD, "maybe", "both", "later"]), value=ANYTHING)
def test_anything_anywhere_gives_an_object_or_the_one_error(name: str, value: Any) -> None:
    told = ""
    try:
        assert _decode({**GOOD, name: value}).number >= 0
    except WrongMemberError as error:
        told = str(error)
    assert not told or told.startswith(f"file.{name}")
