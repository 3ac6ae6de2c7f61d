"""Names from dumps made fit to show: they are hostile, and may be very long."""

from __future__ import annotations

from pathlib import Path

CUT = "…"
# What makes a cell a formula; the wide ones do in East Asian versions. A tab or a line break before them
# is an escape by then.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def visible(text: str) -> str:
    """Text with control and direction characters shown as escapes, so that a name cannot move the
    cursor or turn the line round. Escaped are also lone surrogates, which no encoding can write.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(ord(c)) for c in text)


def cell(value: object) -> object:
    """A value as a CSV cell: text made visible, and never taken for a formula by a spreadsheet."""
    if not isinstance(value, (str, Path)):
        return value
    text = visible(str(value))
    return f"'{text}" if text.startswith(_FORMULA) else text


def cut_middle(text: str, width: int) -> str:
    """At most `width` characters, cut in the middle: beginnings name the module, ends the function."""
    if len(text) <= width:
        return text
    if width <= 1:
        return CUT[:width]
    head = width // 2
    return text[:head] + CUT + text[len(text) - (width - 1 - head) :]


def _escape(code: int) -> str:
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )
