"""What is written about pool tags: the built-in table and the user's own `pooltag.txt`.

The format of `pooltag.txt` (documented with PoolMon and `!poolused`): `TAG - driver - description`, one a
line; `rem` begins a comment; a tag is filled up with blanks to four characters, `?` stands for any
character and `*` for any rest. Tags may hold dashes, so the tag is taken by column and not by splitting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import WindumpsError
from windumps.files import read_head

BUILT_IN = "built-in table"
FILE_NAMES = ("pooltag.txt", "localtag.txt")
MAX_FILE_BYTES = 4 << 20  # Microsoft's has a tenth of it
_TABLE = "pool_tags.txt"
_TAG = 4
# All of these are linear in the text, whatever it is: none tries the same stretch from each of its places.
_LINE = re.compile(r"(?P<tag>.{4}|\S{1,3}(?=\s))\s*-\s*(?P<rest>.*)")
_DASH = re.compile(r"\s-\s")
_COMMENT = re.compile(r"rem(\s|$)|//", re.IGNORECASE)
_NAMES = re.compile(r"(?<![\w.$~+-])[\w.$~+-]+\.(?:sys|exe|dll|lib)\b|nt!\w+|\bnt\b", re.IGNORECASE)
_WILD = frozenset("?*")
# Components of the kernel are all one image.
KERNEL = "ntoskrnl.exe"


class PoolTagFileError(WindumpsError):
    """A `pooltag.txt` that was asked for says nothing."""


@dataclass(frozen=True)
class TagNote:
    """What one source says of a tag.

    Attributes:
        tag: As written there, four characters, perhaps with wildcards.
        drivers: File names; the kernel's components as `KERNEL`.
        component: "mm" of "nt!mm"; "" when none is named.
        description: "" when there is none.
        source: `BUILT_IN`, or the file.
    """

    tag: str
    drivers: tuple[str, ...]
    component: str
    description: str
    source: str

    @property
    def is_exact(self) -> bool:
        """The tag is written out, without wildcards."""
        return not _WILD & set(self.tag)


class TagTable:
    """Looks tags up; written-out tags go before wildcards, the narrower before the wider."""

    def __init__(self, notes: list[TagNote]) -> None:
        self._exact: dict[str, TagNote] = {}
        # By the places that are written out, of which there are few kinds however long the table is.
        self._wild: dict[tuple[int, ...], dict[str, tuple[int, TagNote]]] = {}
        for number, note in enumerate(notes):
            if note.is_exact:
                self._exact.setdefault(note.tag, note)
            else:
                places = _written_out(note.tag)
                found = self._wild.setdefault(places, {})
                found.setdefault("".join(note.tag[n] for n in places), (number, note))

    @property
    def drivers(self) -> set[str]:
        """All that it names, in small letters."""
        notes = [*self._exact.values(), *(n for f in self._wild.values() for _, n in f.values())]
        return {name.lower() for note in notes for name in note.drivers}

    def __len__(self) -> int:
        return len(self._exact) + sum(map(len, self._wild.values()))

    def find(self, tag: str) -> TagNote | None:
        """The note on a tag of four characters; None when nothing is written about it."""
        found = self._exact.get(tag)
        if found is not None:
            return found
        matches = [
            (-len(places), *match)
            for places, notes in self._wild.items()
            if (match := notes.get("".join(tag[n] for n in places)))
        ]
        return min(matches, key=lambda match: match[:2])[2] if matches else None


def _written_out(pattern: str) -> tuple[int, ...]:
    """Places of the characters that a tag must have."""
    fixed = pattern.partition("*")[0]
    return tuple(n for n, character in enumerate(fixed) if character != "?")


def parse_drivers(text: str) -> tuple[tuple[str, ...], str]:
    """(file names, the kernel's component) out of a driver field, "nt!io" or "a.sys/b.sys"."""
    names: dict[str, None] = {}
    component = ""
    for name in _NAMES.findall(text):
        if name.lower() == "nt" or name.lower().startswith("nt!"):
            component = component or name[3:].lower()
            names[KERNEL] = None
        elif not name.lower().endswith(".lib"):  # code linked into some driver, nobody knows which
            names[name] = None
    return tuple(names), component


@lru_cache(maxsize=1)
def built_in_table() -> TagTable:
    """The table that comes with this package."""
    text = resources.files("dumpleak.owners").joinpath(_TABLE).read_text("ascii")
    notes = []
    for line in text.splitlines():
        binary, _, tags = line.partition("\t")
        if line.startswith("#") or not tags:
            continue
        drivers, component = parse_drivers(binary)
        tags = tags.ljust(-(-len(tags) // _TAG) * _TAG)
        notes += [
            TagNote(tags[at : at + _TAG], drivers, component, "", BUILT_IN)
            for at in range(0, len(tags), _TAG)
        ]
    return TagTable(notes)


def parse_pooltag(text: str, source: str) -> list[TagNote]:
    """The notes of a `pooltag.txt`; lines that say nothing are left out."""
    notes = []
    for raw in text.splitlines():
        line = raw.strip()
        match = _LINE.match(line)
        if match is None or _COMMENT.match(line):
            continue
        driver, description = _parted(match["rest"])
        drivers, component = parse_drivers(driver)
        if drivers or description:
            tag = match["tag"].rstrip().ljust(_TAG)
            notes.append(TagNote(tag, drivers, component, description, source))
    return notes


def _parted(rest: str) -> tuple[str, str]:
    """Driver and description, parted by the first dash that stands alone."""
    dash = _DASH.search(rest)
    return (rest[: dash.start()], rest[dash.end() :].strip()) if dash else (rest, "")


def read_pooltag(path: Path) -> TagTable:
    """Reads a `pooltag.txt`.

    Raises:
        PoolTagFileError: it is no such file.
        OSError: it cannot be read.
    """
    raw = read_head(path, MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise PoolTagFileError(
            f"{path}: too long for a pooltag.txt ({MAX_FILE_BYTES} bytes at most)"
        )
    utf16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = raw.decode("utf-16" if utf16 else "utf-8-sig", "replace")
    notes = parse_pooltag(text, path.name)
    if not notes:
        raise PoolTagFileError(
            f'{path}: no line of it reads "TAG - driver - description", as pooltag.txt has them'
        )
    return TagTable(notes)


def find_pooltag(folder: Path) -> Path | None:
    """A `pooltag.txt` in a folder, whatever its case; None when there is none or it cannot be listed."""
    try:
        files = {path.name.lower(): path for path in folder.iterdir() if path.is_file()}
    except OSError:
        return None
    return next((files[name] for name in FILE_NAMES if name in files), None)


def pooltag_for(
    folder: Path, given: Path | None, log: DiagnosticLog, structure: str
) -> TagTable | None:
    """The table a user named, or one that lies in a folder; None where there is none that can be used.

    Args:
        folder: Where to look.
        given: The one that was named.
        log: Told of one that was found and is of no use.
        structure: What the log calls it.

    Raises:
        PoolTagFileError: `given` says nothing.
        OSError: it cannot be read.
    """
    found = given or find_pooltag(folder)
    if found is None:
        return None
    try:
        return read_pooltag(found)
    except (PoolTagFileError, OSError) as error:
        if given is not None:
            raise
        log.add("pooltag-file", Severity.WARNING, structure, None, f"{error}; it is not used")
        return None
