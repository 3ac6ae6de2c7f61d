"""What a fleet knows already: one file in its folder, whole whatever is killed while it is written."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

from dumpleak.fleets.places import Place
from windumps.errors import WindumpsError
from windumps.files import whole_file

STATE = "fleet.sqlite"
SNAPSHOTS = "snapshots"
VERSION = 1  # of the tables; another one is not read
NEW, DONE, OTHER, ARCHIVE = "new", "done", "other", "archive"
READ, ERROR = "read", "error"
ID_BYTES = 20
_COMMIT_EVERY = 16  # results that a killed run may lose; their snapshots stay

_TABLES = """
CREATE TABLE IF NOT EXISTS places(
    url BLOB PRIMARY KEY, bytes INTEGER, stamp TEXT, state TEXT, id TEXT, archive BLOB, member BLOB,
    run INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_id ON places(id);
CREATE INDEX IF NOT EXISTS by_archive ON places(archive);
CREATE INDEX IF NOT EXISTS by_state ON places(state, url);
CREATE TABLE IF NOT EXISTS inputs(id TEXT PRIMARY KEY, url BLOB, status TEXT, told TEXT, sites BLOB);
CREATE TABLE IF NOT EXISTS growth(series TEXT PRIMARY KEY, asked TEXT, error TEXT, rows BLOB);
CREATE TABLE IF NOT EXISTS facts(name TEXT PRIMARY KEY, value TEXT);
"""


class StoreError(WindumpsError):
    """The folder cannot be used."""


@dataclass(frozen=True)
class Known:
    """What the store has of a place.

    Attributes:
        bytes: Size of the file when it was looked at.
        stamp: As `Place` has it, then.
        state: `NEW`, `DONE`, `OTHER` (no input), `ARCHIVE`.
        status: Of its input: `READ`, `ERROR`; "" when it was not read.
    """

    bytes: int
    stamp: str
    state: str
    status: str


@dataclass(frozen=True)
class Task:
    """An input to read.

    Attributes:
        url: Where it is.
        archive: The archive it is in; "" for a file of its own.
        member: Its name there.
    """

    url: str
    archive: str = ""
    member: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of an input.

    Attributes:
        id: Hash of its content.
        told: Columns of its row by name, as JSON has them.
        snapshot: Its snapshot file; None where there is none, or the store has it.
        sites: Its rows of sites, an Arrow stream.
    """

    id: str
    told: dict[str, Any] = field(default_factory=dict)
    snapshot: bytes | None = None
    sites: bytes = b""


class Store:
    """The state of a fleet's folder; one run at a time has it.

    Args:
        folder: The folder, which is made.

    Raises:
        StoreError: another run has it, or it is no fleet's.
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / SNAPSHOTS).mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(folder / STATE, timeout=0.2, isolation_level=None)
        self._pending = 0
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._database.close()
            if "locked" in str(error):
                raise StoreError(
                    f"{folder}: another run is at work in this folder; wait for it, or end it"
                ) from error
            raise StoreError(
                f"{folder / STATE}: not the state of a fleet, or damaged ({error}); give another folder to "
                "-o, or remove the file: snapshots that are there are used again"
            ) from error

    def _prepare(self) -> None:
        self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute("BEGIN EXCLUSIVE")
        self._database.execute("COMMIT")
        self._database.executescript(_TABLES)
        version = self.fact("version")
        if version not in ("", str(VERSION)):
            self._database.close()
            raise StoreError(
                f"{self.folder}: made by another version of dumpleak; give another folder to -o"
            )
        self._database.execute("BEGIN")
        self.set_fact("version", str(VERSION))
        self._run = int(self.fact("run") or 0) + 1
        self.set_fact("run", str(self._run))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._database.in_transaction:
            self._database.execute("COMMIT")
        self._database.close()

    def save(self) -> None:
        """What was told so far stays, whatever happens."""
        self._database.execute("COMMIT")
        self._database.execute("BEGIN")
        self._pending = 0

    def _changed(self) -> None:
        self._pending += 1
        if self._pending >= _COMMIT_EVERY:
            self.save()

    def fact(self, name: str) -> str:
        """A value by name; "" when there is none."""
        row = self._one("SELECT value FROM facts WHERE name = ?", name)
        return str(row[0]) if row else ""

    def set_fact(self, name: str, value: str) -> None:
        """Keeps a value by name."""
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def require(self, name: str, value: str, option: str) -> None:
        """Refuses another value than the one the folder was made with.

        Raises:
            StoreError: it is another one.
        """
        before = self.fact(name)
        if before not in ("", value):
            raise StoreError(
                f"{self.folder}: made with {option} {before}; ask for that, or give another folder to -o"
            )
        self.set_fact(name, value)

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self._database.execute(query, values).fetchone()
        return found

    def known(self, url: str) -> Known | None:
        """What is known of a place; None for a new one."""
        row = self._one(
            "SELECT p.bytes, p.stamp, p.state, coalesce(i.status, '') FROM places p"
            " LEFT JOIN inputs i ON i.id = p.id WHERE p.url = ?",
            _bytes(url),
        )
        return Known(*row) if row else None

    def see(self, url: str) -> None:
        """A place is as it was, and what is in it when it is an archive."""
        self._database.execute(
            "UPDATE places SET run = ? WHERE url = ? OR archive = ?",
            (self._run, _bytes(url), _bytes(url)),
        )

    def retry(self, url: str) -> None:
        """Lets what is an error at a place, or in the archive there, be read again."""
        self._database.execute(
            "UPDATE places SET state = ? WHERE (url = ? OR archive = ?)"
            " AND id IN (SELECT id FROM inputs WHERE status = ?)",
            (NEW, _bytes(url), _bytes(url), ERROR),
        )

    def put(self, place: Place, state: str, archive: str = "", member: str = "") -> None:
        """A place is new or has changed."""
        self._drop(_bytes(place.url))
        self._database.execute(
            "INSERT INTO places VALUES (?, ?, ?, ?, NULL, ?, ?, ?)",
            (
                _bytes(place.url),
                place.bytes,
                place.stamp,
                state,
                _bytes(archive) if archive else None,
                _bytes(member) if member else None,
                self._run,
            ),
        )

    def _drop(self, url: bytes) -> None:
        """Forgets a place, what was in it once, and errors that nobody else has."""
        which = (url, url)
        ids = self._database.execute(
            "SELECT DISTINCT id FROM places WHERE (url = ? OR archive = ?) AND id IS NOT NULL",
            which,
        ).fetchall()
        self._database.execute("DELETE FROM places WHERE url = ? OR archive = ?", which)
        for (id_,) in ids:
            self._drop_error(id_)

    def _drop_error(self, id_: str | None) -> None:
        """Forgets an error that is at no place any more."""
        self._database.execute(
            "DELETE FROM inputs WHERE id = ? AND status = ?"
            " AND NOT EXISTS (SELECT 1 FROM places WHERE places.id = inputs.id)",
            (id_, ERROR),
        )

    def count(self, *states: str) -> int:
        """Places of this run that are of one of these states."""
        marks = ("SELECT count(*) FROM places WHERE run = ? AND state = ?", self._run)
        rows = (self._database.execute(marks[0], (marks[1], state)) for state in states)
        return sum(int(row.fetchone()[0]) for row in rows)

    def total(self, status: str) -> int:
        """Inputs of a status, of all runs."""
        row = self._one("SELECT count(*) FROM inputs WHERE status = ?", status)
        return int(row[0]) if row else 0

    def new_bytes(self) -> int:
        """Size of what is to be read."""
        row = self._one(
            "SELECT coalesce(sum(bytes), 0) FROM places WHERE run = ? AND state = ?", self._run, NEW
        )
        return int(row[0]) if row else 0

    def to_read(self) -> Iterator[Task]:
        """What is to be read in this run, in order of places."""
        at = b""
        while True:  # not one long query: rows change meanwhile
            found = self._database.execute(
                "SELECT url, archive, member FROM places WHERE run = ? AND state = ? AND url > ?"
                " ORDER BY url LIMIT 64",
                (self._run, NEW, at),
            ).fetchall()
            if not found:
                return
            for url, archive, member in found:
                yield Task(_text(url), _text(archive or b""), _text(member or b""))
            at = found[-1][0]

    def new_places(self) -> Iterator[tuple[str, int]]:
        """Places that are to be read in this run, with sizes, as people see them."""
        query = "SELECT url, bytes FROM places WHERE run = ? AND state = ? ORDER BY url"
        for url, size in self._database.execute(query, (self._run, NEW)):
            yield shown(url), size

    def finish(self, url: str, outcome: Outcome) -> None:
        """Keeps what came of an input. Of two with one content the place that is first by name counts."""
        name = outcome.told.get("snapshot")
        if name and outcome.snapshot is not None:
            with whole_file(self.folder / name) as file:
                file.write(outcome.snapshot)
        before = self._one("SELECT url, status FROM inputs WHERE id = ?", outcome.id)
        place = _bytes(url)
        if before is None or before[1] == ERROR or place <= before[0]:
            self._database.execute(
                "INSERT OR REPLACE INTO inputs VALUES (?, ?, ?, ?, ?)",
                (
                    outcome.id,
                    place,
                    outcome.told["status"],
                    json.dumps(outcome.told),
                    outcome.sites,
                ),
            )
        last = self._one("SELECT id FROM places WHERE url = ?", place)
        self._database.execute(
            "UPDATE places SET state = ?, id = ? WHERE url = ?", (DONE, outcome.id, place)
        )
        self._drop_error(last[0] if last else None)
        self._changed()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Columns of all inputs, in order of their ids."""
        query = "SELECT id, url, told FROM inputs ORDER BY id"
        for id_, url, told in self._database.execute(query):
            places = self._database.execute(
                "SELECT url FROM places WHERE id = ? ORDER BY url", (id_,)
            )
            also = [shown(row[0]) for row in places if row[0] != url]
            yield {**json.loads(told), "id": id_, "url": shown(url), "also": also}

    def snapshot_of(self, id_: str) -> str:
        """The snapshot file of an input that could be read."""
        row = self._one("SELECT told FROM inputs WHERE id = ?", id_)
        return str(json.loads(row[0])["snapshot"]) if row else ""

    def sites(self) -> Iterator[tuple[str, bytes]]:
        """Ids of inputs with their rows of sites, in order."""
        yield from self._database.execute(
            "SELECT id, sites FROM inputs WHERE length(sites) > 0 ORDER BY id"
        )

    def has_growth(self, series: str, asked: str) -> bool:
        """True when a series was looked at with just these inputs."""
        row = self._one("SELECT 1 FROM growth WHERE series = ? AND asked = ?", series, asked)
        return row is not None

    def put_growth(self, series: str, asked: str, error: str, rows: bytes) -> None:
        """Keeps what grew in a series, or why that cannot be told."""
        self._database.execute(
            "INSERT OR REPLACE INTO growth VALUES (?, ?, ?, ?)", (series, asked, error, rows)
        )
        self._changed()

    def keep_growth(self, series: set[str]) -> None:
        """Forgets series that are none any more."""
        known = self._database.execute("SELECT series FROM growth").fetchall()
        for (name,) in known:
            if name not in series:
                self._database.execute("DELETE FROM growth WHERE series = ?", (name,))

    def retry_growth(self) -> None:
        """Lets series of which nothing could be told be looked at again."""
        self._database.execute("DELETE FROM growth WHERE error != ''")

    def growth(self) -> Iterator[tuple[str, bytes]]:
        """Series with their rows, in order."""
        yield from self._database.execute("SELECT series, rows FROM growth ORDER BY series")

    def growth_errors(self) -> list[tuple[str, str]]:
        """Series of which nothing can be told, and why."""
        query = "SELECT series, error FROM growth WHERE error != '' ORDER BY series"
        return list(self._database.execute(query))


def holds_fleet(folder: str) -> bool:
    """True for the folder of a fleet: what it holds are no inputs."""
    return os.path.isfile(os.path.join(folder, STATE))


def lost_id(url: str) -> str:
    """What stands for the hash of content that cannot be read."""
    return blake2b(b"unreadable\0" + _bytes(url), digest_size=ID_BYTES).hexdigest()


def shown(url: bytes) -> str:
    """A place as text; names that are no UTF-8 as escapes."""
    return url.decode("utf-8", "backslashreplace")


def _bytes(url: str) -> bytes:
    return url.encode("utf-8", "surrogateescape")


def _text(url: bytes) -> str:
    return url.decode("utf-8", "surrogateescape")
