"""What belongs together: dumps of one life of a process, one run of a system, one program on a machine."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple

from dumpleak.files import counter_log, poolmon_log, umdh_log
from dumpleak.model.units import count_of

if TYPE_CHECKING:
    import pyarrow as pa

TREND, PAIR, SINGLE = "trend", "pair", "single"
LOGS = frozenset(
    {counter_log.KIND, poolmon_log.KIND, umdh_log.KIND}
)  # never of one series with dumps
COLUMNS = (
    *("id", "url", "status", "subject", "kind", "computer", "architecture", "time", "program"),
    *("version", "life", "boot", "process_created"),
)
_ID_BYTES = 12
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"[a-z]+")
# Dumps of one moment stand in the order that their names tell.
_WORDS = {
    -1: frozenset(("before", "base", "old", "first", "start")),
    2: frozenset(("idle",)),
    1: frozenset(("after", "current", "new", "last", "end", "later")),
}


@dataclass(frozen=True)
class Series:
    """Inputs that belong together.

    Attributes:
        id: Of its members, in any order.
        kind: `TREND` of three inputs and more, `PAIR`, or `SINGLE`.
        ids: Of the inputs, in order of time.
        subject: "process" or "system".
        program: File name of the executable; "" for systems and where it is unknown.
        version: Of the executable; "" where it is unknown.
        computer: Name of the machine, or what stands for it; "" where it is unknown.
        one_life: They are known to be of one life of a process, or one run of a system; else the process was
            started anew in between, or nothing tells.
    """

    id: str
    kind: str
    ids: tuple[str, ...]
    subject: str = "process"
    program: str = ""
    version: str = ""
    computer: str = ""
    one_life: bool = True

    @property
    def told(self) -> str:
        """What to call it, for people."""
        what = f"{self.program or self.subject} {self.version}".strip()
        where = f" on {self.computer}" if self.computer else ""
        return f"{what}{where}, {count_of(len(self.ids), 'dump')}"


class _Input(NamedTuple):
    """An input that could be read; its attributes are columns of the dataset."""

    id: str
    url: str | None = None
    subject: str | None = None
    kind: str | None = None
    computer: str | None = None
    architecture: str | None = None
    time: datetime | None = None
    program: str | None = None
    version: str | None = None
    life: str | None = None
    boot: str | None = None
    process_created: datetime | None = None


def series(dumps: Iterable[pa.RecordBatch]) -> list[Series]:
    """All inputs that could be read, each in one series; the same for any order of the rows.

    Args:
        dumps: The dataset of dumps, piece by piece; only `COLUMNS` are needed.
    """
    together: dict[tuple[str, ...], list[_Input]] = defaultdict(list)
    for row in _read(dumps):
        run = row.boot if row.subject == "system" else row.life
        key = (*_program_on_machine(row), run) if run else (f"alone {row.id}",)
        together[key].append(row)
    alone: dict[tuple[str, ...], list[_Input]] = defaultdict(list)
    found = []
    for members in (part for whole in together.values() for part in _told_apart(whole)):
        if len(members) > 1:
            found.append(_series(members, one_life=True))
        else:
            alone[_program_on_machine(members[0])].append(members[0])
    for members in alone.values():
        # A system that was restarted begins anew.
        if members[0].subject == "system" and any(row.boot for row in members):
            found += [_series([row], one_life=True) for row in members]
        else:
            found.append(_series(members, one_life=len(members) == 1))
    return sorted(found, key=lambda one: (one.program, one.version, one.computer, one.id))


def _read(dumps: Iterable[pa.RecordBatch]) -> Iterator[_Input]:
    """Inputs that could be read; what many have in common is held once."""
    for batch in dumps:
        names = [name for name in COLUMNS if name in batch.schema.names]
        columns = [batch.column(name).to_pylist() for name in names]
        for values in zip(*columns, strict=True):
            held = (intern(value) if isinstance(value, str) else value for value in values)
            row: dict[str, Any] = dict(zip(names, held, strict=True))
            if row.pop("status") == "read":
                yield _Input(**row)


def _told_apart(members: list[_Input]) -> list[list[_Input]]:
    """Members of one life; where they are of one moment, which none can be, those of one folder."""
    times = {row.time for row in members}
    if len(times) == len(members):
        return [members]
    parts: dict[str, list[_Input]] = defaultdict(list)
    for row in members:
        parts[_folder(row)].append(row)
    return list(parts.values())


def _folder(row: _Input) -> str:
    return re.split(r"[/\\!][^/\\!]*$", row.url or "")[0]


def _program_on_machine(row: _Input) -> tuple[str, ...]:
    """What has to agree; where the machine is unknown, inputs of one folder may be of one."""
    machine = row.computer or f"in {_folder(row)}"
    texts = (row.subject, machine, row.program, row.version, row.architecture)
    logs = row.kind if row.kind in LOGS else ""
    return (*(str(text or "").lower() for text in texts), logs)


def _series(members: list[_Input], *, one_life: bool) -> Series:
    ordered = sorted(members, key=_order)
    if not one_life and len(ordered) > 1:
        ages = [_age(row) for row in ordered]
        if None not in ages:
            # What grows with the age of a process is of use; when it was started is not.
            ordered.sort(key=lambda row: (_age(row) or 0.0, *_order(row)))
    ids = tuple(row.id for row in ordered)
    digest = blake2b("\n".join(sorted(ids)).encode(), digest_size=_ID_BYTES)
    first = ordered[0]
    return Series(
        digest.hexdigest(),
        TREND if len(ids) > 2 else PAIR if len(ids) == 2 else SINGLE,
        ids,
        first.subject or "process",
        first.program or "",
        first.version or "",
        first.computer or "",
        one_life,
    )


def _order(row: _Input) -> tuple[Any, ...]:
    """By time; where that does not tell by name, in which numbers and words of time count."""
    url, time = (row.url or "").lower(), row.time
    words = set(_WORD.findall(re.split(r"[/\\!]", url)[-1]))
    place = next((n for n, known in _WORDS.items() if words & known), 0)
    parts = [part.zfill(20) for part in _NUMBER.findall(url)]
    return time is None, time.timestamp() if time is not None else 0.0, place, parts, row.id


def _age(row: _Input) -> float | None:
    if row.time is None or row.process_created is None:
        return None
    age: float = (row.time - row.process_created).total_seconds()
    return age


def version_order(version: str) -> tuple[tuple[int, ...], str]:
    """Sorts versions by their numbers, 2.9 before 2.10."""
    numbers = [int(part[:18]) for part in _NUMBER.findall(version)]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers), version
