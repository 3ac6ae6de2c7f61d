"""An answer ready to be written: headline, facts, meters, typed tables, notes, next steps.

Who writes a document knows types, never answers: a column of bytes looks alike in all of them.

To add an answer: one file in `answers/` with a function that makes a `Document` of it and one that makes its
JSON, which is shaped by hand; a command hands both to `formats.write_answer`.
To add a format: one file with a function that writes a `Document` to a stream, and one row in
`formats.FORMATS`; all answers have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Flag, StrEnum, auto
from itertools import islice
from typing import Any, Generic, TypeVar

from dumpleak.model.coverage import Coverage
from dumpleak.model.memory import MemoryByUse
from dumpleak.model.snapshot import SourceInfo
from dumpleak.reports.answers.next_steps import Step
from dumpleak.reports.profiles.stack_tree import Node
from dumpleak.reports.values import Said, Style
from windumps.diagnostics import Diagnostic

DEFAULT_TOP = 20  # rows a terminal shows unless it is asked for more or less

T = TypeVar("T")
Row = Sequence[Any]  # one value for each column


class Tone(StrEnum):
    """What a verdict means for the reader."""

    GOOD = "good"
    NOTICE = "notice"
    BAD = "bad"
    CANNOT_TELL = "cannot-tell"


@dataclass(frozen=True)
class Summary:
    """The first screen.

    Attributes:
        tone: For its colour.
        headline: Is it leaking?
        facts: (question, answer): what, who, how sure.
        steps: What next.
    """

    tone: Tone
    headline: str
    facts: tuple[tuple[str, str], ...] = ()
    steps: tuple[Step, ...] = ()


class Kind(StrEnum):
    """What the values of a column are. All columns may have `Absent` or None, which is `Absent.NONE`."""

    TEXT = "text"  # str, or Said
    NAME = "name"  # Name: the last column of tables for people
    BYTES = "bytes"  # int, or Change
    COUNT = "count"  # int, or Change
    SHARE = "share"  # Share
    TOTALS = "totals"  # Totals: bytes and how many members have them
    RATE = "rate"  # float, an hour
    TIME = "time"  # datetime in UTC
    ADDRESS = "address"  # int
    FLAG = "flag"  # bool
    SERIES = "series"  # ints, one for each dump
    CLAUSES = "clauses"  # str each
    VALUE = "value"  # str or number: a table of properties has all kinds in one column


class View(Flag):
    """Who a column or a table is for; formats take one of these."""

    TEXT = auto()  # the terminal
    PAGE = auto()
    REVIEW = (
        auto()
    )  # comments on pull requests; what terminals show where a document has nothing for them
    DATA = auto()  # machines: columns go by `Column.name`
    PEOPLE = TEXT | PAGE
    ALL = PEOPLE | DATA


class Width(StrEnum):
    """On which screens a column or a line is shown."""

    ANY = "any"
    WIDE = "wide"
    NARROW = "narrow"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: Its head for people.
        kind: Of its values.
        name: Its head for machines, part of the contract; "" where they do not get it.
        views: Which people see it; it is for machines where it has a name.
        signed: Values are changes and have a sign.
        width: Screens that have room for it.
        hint: A longer explanation.
        digits: Hexadecimal digits of an address; 0 for as many as it has.
    """

    title: str
    kind: Kind = Kind.TEXT
    name: str = ""
    views: View = View.PEOPLE
    signed: bool = False
    width: Width = Width.ANY
    hint: str = ""
    digits: int = 16

    def is_in(self, view: View) -> bool:
        """Whether a view shows it."""
        return bool(self.name) if view is View.DATA else bool(self.views & view)


def data_columns(names: str, **kinds: Kind) -> list[Column]:
    """Columns that only machines get.

    Args:
        names: Their names with blanks between; what ends with bytes or count is that.
        kinds: Of those whose name does not tell.
    """
    told = {"bytes": Kind.BYTES, "count": Kind.COUNT}
    return [
        Column(
            "", kinds.get(name) or told.get(name.rpartition("_")[2], Kind.VALUE), name, View.DATA
        )
        for name in names.split()
    ]


@dataclass(frozen=True)
class Table(Generic[T]):
    """A table. Rows are made when a format asks for them: it may show only the first ones.

    Attributes:
        id: Its name in a document.
        title: Its heading.
        columns: All of them, in the order people read them; a column of names comes last.
        items: What rows are made of, in order.
        row: (rank from 1, item) -> a value for each column.
        views: Who it is for.
        data: Names of the columns for machines in their order, with blanks between; "" for that of `columns`.
        noun: What one row is called; "" where terminals show all rows.
        top: Rows the reader asked for; None for what is usual.
        note: A sentence about it.
        choose: Title of the column whose values a page lets choose from.
        folded: The last column is long and has to be read whole.
    """

    id: str
    title: str
    columns: Sequence[Column]
    items: Sequence[T]
    row: Callable[[int, T], Row]
    views: View = View.ALL
    data: str = ""
    noun: str = ""
    top: int | None = None
    note: str = ""
    choose: str = ""
    folded: bool = False

    def shown(self, view: View) -> list[Column]:
        """The columns of a view, in its order."""
        return [self.columns[place] for place in self._places(view)]

    def rows(self, view: View, most: int | None = None) -> Iterator[list[Any]]:
        """Values of these columns, of at most so many rows."""
        places = self._places(view)
        for rank, item in islice(enumerate(self.items, start=1), most):
            values = self.row(rank, item)
            yield [values[place] for place in places]

    def _places(self, view: View) -> list[int]:
        found = [place for place, column in enumerate(self.columns) if column.is_in(view)]
        if view is View.DATA and self.data:
            order = self.data.split()
            found.sort(key=lambda place: order.index(self.columns[place].name))
        return found


@dataclass(frozen=True)
class Source:
    """A dump that the answer is about.

    Attributes:
        label: "File", "Base".
        source: The dump.
        told: What terminals say of it below its name; None for what is usual.
        views: Who sees it.
    """

    label: str
    source: SourceInfo
    told: str | None = None
    views: View = View.PEOPLE


@dataclass(frozen=True)
class Facts:
    """Labels and what they say, of the dump before."""

    rows: Sequence[tuple[str, str]]
    views: View = View.PEOPLE


@dataclass(frozen=True)
class Line:
    """A sentence between tables, for terminals; pages say it where it belongs."""

    text: str
    style: Style = Style.PLAIN
    width: Width = Width.ANY


@dataclass(frozen=True)
class Remarks:
    """Sentences of a review, in pieces: paragraphs, or points of a list."""

    sentences: Sequence[Sequence[str | Said]]
    listed: bool = False


@dataclass(frozen=True)
class Meter:
    """How much of the memory was walked; the label says of what."""

    label: str
    coverage: Coverage
    views: View = View.PEOPLE


@dataclass(frozen=True)
class Notes:
    """What was left out, and why."""

    diagnostics: Sequence[Diagnostic]


@dataclass(frozen=True)
class MemoryMap:
    """Memory by use, for each dump; None where it is not known."""

    dumps: Sequence[tuple[str, MemoryByUse | None]]


@dataclass(frozen=True)
class Tree:
    """A flame graph."""

    make: Callable[[], Node]
    single: bool = False  # there is one dump only, and so nothing to compare
    levels: str = ""  # what stands above what, in a sentence; "" for stacks


Part = Table[Any] | Source | Facts | Line | Remarks | Meter | Notes | MemoryMap | Tree


@dataclass(frozen=True)
class Document:
    """An answer.

    Attributes:
        title: What it is, in a few words.
        summary: The first screen; None where there is nothing to judge.
        parts: All else, in the order it is read.
        series: Names of the points in time, for trends.
        members: What is counted.
        judged_in: Who sees the first screen.
    """

    title: str
    summary: Summary | None
    parts: Sequence[Part]
    series: Sequence[str] = ()
    members: str = "blocks"
    judged_in: View = View.PEOPLE

    def tables(self, view: View) -> list[Table[Any]]:
        """The tables of a view; machines read the first."""
        return [part for part in self.parts if isinstance(part, Table) and part.views & view]


def left_out(count: int, noun: str) -> str:
    """What is said of rows that are not shown; "" when all are."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"… and {count} more {noun}{ending}; --top N shows more." if count > 0 else ""


def properties(rows: Iterable[tuple[str, object]]) -> Table[tuple[str, object]]:
    """The table of what is no list: property and value, for machines."""
    columns = data_columns("property value")
    return Table("properties", "", columns, list(rows), lambda _, row: row, View.DATA)
