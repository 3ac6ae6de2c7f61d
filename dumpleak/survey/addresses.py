"""Addresses as people and debuggers write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dumpleak.model.errors import CannotAnswerError
from windumps.images.modules import Module
from windumps.symbols.provider import Symbols

# Hexadecimal: 1a2b, 0x1a2b, 1a2bh, 00000001`40001000; decimal: 0n1234.
_HEXADECIMAL = re.compile(r"(?:0x)?([0-9a-f]+(?:`[0-9a-f]{8})?)h?", re.IGNORECASE)
_DECIMAL = re.compile(r"0n([0-9]+)", re.IGNORECASE)
_PLACE = re.compile(r"([^!+]+)(?:!([^+]+))?(?:\+(?:0x)?([0-9a-f]+))?", re.IGNORECASE)
_KERNEL = ("nt", "ntoskrnl.exe")  # what debuggers call the kernel, whatever its file is called


def address_of(word: str) -> int | None:
    """The number that a word is; None where it is none, or more than an address has."""
    word = word.strip().rstrip(",;")
    hexadecimal, decimal = _HEXADECIMAL.fullmatch(word), _DECIMAL.fullmatch(word)
    if decimal is not None:
        number = int(decimal[1])
    elif hexadecimal is not None:
        number = int(hexadecimal[1].replace("`", ""), 16)
    else:
        return None
    return number if number < 1 << 64 else None


def is_place(word: str) -> bool:
    """Whether a word is a place in an image: app.exe+0x1234, app!g_cache, app!g_cache+8."""
    return ("!" in word or "+" in word) and _PLACE.fullmatch(word.strip()) is not None


def addresses_of(
    words: Iterable[str], modules: Sequence[Module], symbols: Symbols | None
) -> list[int]:
    """The addresses that words mean in a dump.

    Args:
        words: Each a number or a place.
        modules: Images of the dump.
        symbols: Where names come from.

    Raises:
        CannotAnswerError: no such image, or no such name in it.
    """
    found = []
    for word in words:
        number = address_of(word)
        found.append(_place(word.strip(), modules, symbols) if number is None else number)
    return found


def _place(word: str, modules: Sequence[Module], symbols: Symbols | None) -> int:
    parts = _PLACE.fullmatch(word)
    if parts is None:
        raise CannotAnswerError(f"{word!r} is no address")
    asked, name, offset = parts[1].lower(), parts[2], int(parts[3] or "0", 16)
    wanted = _KERNEL[1] if asked == _KERNEL[0] else asked
    module = next((m for m in modules if wanted in (m.name.lower(), _stem(m.name))), None)
    if module is None:
        raise CannotAnswerError(
            f"{word}: no image {parts[1]!r} is loaded; `dumpleak modules` lists all"
        )
    if offset >= module.size_bytes:
        raise CannotAnswerError(f"{word}: {module.name} has only 0x{module.size_bytes:x} bytes")
    if name is None:
        return module.base_address + offset
    source = symbols.source(module) if symbols is not None else None
    if source is None:
        raise CannotAnswerError(
            f"{word}: there are no symbols of {module.name}; give --symbols, or write {module.name}+0xRVA"
        )
    rva = source.rva(name)
    if rva is None:
        raise CannotAnswerError(f"{word}: the symbols of {module.name} have no {name!r}")
    return module.base_address + rva + offset


def _stem(name: str) -> str:
    return name.lower().rpartition(".")[0]
