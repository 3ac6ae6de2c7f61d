"""Mutations of text: words, lines, and values inside JSON."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from fuzz.dice import Dice

WORDS = (
    *(b"0", b"-1", b"9" * 400, b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"-"),
    *(b"[" * 2000, b"{" * 500, b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\r\n", b"\n" * 50),
    *(b"A" * 70000, b"18446744073709551616", b"FFFFFFFFFFFFFFFF", b"*" * 300, b"????", b"rem "),
    *(b"%", b"\\", b"/../", b"BackTrace", b" bytes + ", b" at ", b" - ", b"2027-01-31"),
    *(b"9999-12-31T00:00:00Z", b'"\\ud800"', b"=1+1", b"@SUM", b"</script>"),
)
VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 1 << 31, 1 << 63, 1 << 64, -(1 << 63), 10**400, 1e308, -1.5),
    *(float("nan"), float("inf"), None, True, "", "x", "\ud800", "A" * 70000, "0" * 33),
    *([], {}, [None], [[]], {"a": 1}, "</script>", "\x1b[31m", "=1+1"),
)
MOST_BYTES = 1 << 22


def mutated_text(data: bytes, dice: Dice) -> bytes:
    """The text with one to four changes; JSON most often stays JSON."""
    if data[:1] == b"{" and dice.chance(0.8):
        return mutated_json(data, dice)
    text = bytearray(data)
    for _ in range(dice.pick((1, 1, 2, 4))):
        text = _changed(text, dice)[:MOST_BYTES]
    return bytes(text)


def _changed(text: bytearray, dice: Dice) -> bytearray:
    at = dice.below(len(text) + 1)
    how = dice.below(20)
    if how < 6:
        text[at:at] = dice.pick(WORDS)
    elif how < 10:
        low, high = _word_at(text, at)
        text[low:high] = dice.pick(WORDS)
    elif how < 13:
        del text[at : at + dice.pick((1, 3, 20, 300))]
    elif how < 16:
        source = dice.below(len(text) + 1)
        piece = text[source : source + dice.pick((5, 50, 2000))]
        text[at:at] = piece * dice.pick((1, 1, 5))
    elif how < 18:
        text = text[:at] or text
    else:
        text[at : at + 1] = dice.raw(1)
    return text


def _word_at(text: bytearray, at: int) -> tuple[int, int]:
    low = high = at
    while low and chr(text[low - 1]).isalnum():
        low -= 1
    while high < len(text) and chr(text[high]).isalnum():
        high += 1
    return low, high


def mutated_json(data: bytes, dice: Dice) -> bytes:
    """The document with other values, without some keys, or with parts repeated."""
    box = [json.loads(data)]
    for _ in range(dice.pick((1, 1, 2, 4))):
        holder: Any = box
        key: Any = 0
        while isinstance(holder[key], dict | list) and holder[key] and dice.chance(0.85):
            holder = holder[key]
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            key = dice.pick(keys)
        _change_value(holder, key, dice)
    return json.dumps(box[0]).encode()


def _change_value(holder: Any, key: Any, dice: Dice) -> None:
    how = dice.below(10)
    value = holder[key]
    if how < 7:
        holder[key] = deepcopy(dice.pick(VALUES))  # a later change may be inside of it
    elif how < 8 and isinstance(holder, dict):
        del holder[key]
    elif how < 9 and isinstance(holder, list):
        holder[key:key] = [value] * dice.pick((1, 50))
    elif isinstance(value, int):
        holder[key] = value + dice.pick((1, -1, 1 << 32))
