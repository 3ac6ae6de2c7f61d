"""How numbers are written for people, and read from them."""

from __future__ import annotations

import re

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


def format_bytes(count: int, *, signed: bool = False) -> str:
    """Bytes with a binary unit: "1.5 MiB"; with `signed` always with a sign."""
    value, unit = float(abs(count)), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    number = f"{value:.0f}" if unit == 0 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
    return f"{_sign(count, signed=signed)}{number} {_UNITS[unit]}"


def format_count(count: int, *, signed: bool = False) -> str:
    """A number with thousands separators; with `signed` always with a sign."""
    return f"{_sign(count, signed=signed)}{abs(count):,}"


def format_share(part: float, whole: float, digits: int = 1, *, complete: bool = True) -> str:
    """A share as "97.4%"; 100% only where part and whole are equal and nothing else is missing.

    Args:
        part: The part.
        whole: Of what; a share of nothing is 0%.
        digits: Decimals.
        complete: Nothing is missing that neither number counts.
    """
    percent = 100 * part / whole if whole else 0.0
    if part != whole or not complete:
        percent = min(percent, 100 - 10.0**-digits if digits else 99.0)
    return f"{percent:.{digits}f}%"


def count_of(count: int, noun: str) -> str:
    """The text "3 sites", "1 site", "2 processes"."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{plural * (count != 1)}"


def format_address(address: int, pointer_size: int = 8) -> str:
    """An address as zero-padded hex, so that columns line up and sort as text."""
    return f"0x{address:0{2 * pointer_size}x}"


def parse_size(text: str) -> int:
    """Reads "64K", "1.5MiB" or "300" as bytes (binary units).

    Raises:
        ValueError: not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write 4096, 64K or 1.5M")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


def _sign(count: int, *, signed: bool) -> str:
    return "-" if count < 0 else "+" if signed and count > 0 else ""
