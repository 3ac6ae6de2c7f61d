"""The columns of a fleet's datasets. They are a contract for DuckDB and pandas: add columns, change none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dumpleak.files.columns import arrow


@dataclass(frozen=True)
class Column:
    """One column of a Parquet file.

    Attributes:
        name: Its name.
        type: As pyarrow spells it: "string", "int64", "double", "timestamp[us, tz=UTC]", "list<string>".
        what: What it holds, with its unit; null where that is not known.
    """

    name: str
    type: str
    what: str


def schema_of(columns: tuple[Column, ...]) -> Any:
    """Columns as Arrow has them."""
    pa = arrow()
    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "double": pa.float64(),
        _TIME: pa.timestamp("us", tz="UTC"),
        "list<string>": pa.list_(pa.string()),
    }
    return pa.schema([(column.name, types[column.type]) for column in columns])


_TIME = "timestamp[us, tz=UTC]"

# One row an input. An input that could not be read has `status` "error" and no snapshot.
DUMPS = (
    Column("id", "string", "content hash of the input, hex"),
    Column("url", "string", "where it was found; a member of an archive is ARCHIVE!MEMBER"),
    Column("also", "list<string>", "other places with the same content"),
    Column("bytes", "int64", "size of the input"),
    Column("status", "string", '"read" or "error"'),
    Column("error_kind", "string", "type of the error"),
    Column("error", "string", "one line: what, where, what to do"),
    Column("attempts", "int64", "how often a worker tried"),
    Column("snapshot", "string", "its snapshot, a file under the folder"),
    Column("subject", "string", '"process" or "system"'),
    Column("kind", "string", '"minidump", "umdh-log", …'),
    Column("computer", "string", "name of the machine, or what stands for it"),
    Column("computer_from", "string", 'where that comes from: "environment", "path", "boot"'),
    Column("machine", "string", "the system, as answers name it"),
    Column("architecture", "string", "of the dump"),
    Column("build", "int64", "Windows build number"),
    Column("time", _TIME, "when the dump was taken"),
    Column("program", "string", "file name of the executable; null for systems"),
    Column("version", "string", "file version of the executable"),
    Column("program_id", "string", "PDB GUID and age of the executable"),
    Column("process_id", "int64", "of a process"),
    Column("process_created", _TIME, "start of the process"),
    Column("life", "string", "inputs with one value are of one life of one process"),
    Column("boot", "string", "inputs with one value are of one run of one system"),
    Column("walked_bytes", "int64", "coverage"),
    Column("present_bytes", "int64", "coverage"),
    Column("committed_bytes", "int64", "coverage"),
    Column("used_bytes", "int64", "of all used blocks, or of the pool"),
    Column("used_count", "int64", "of all used blocks, or of the pool"),
    Column("account", "string", "the account, JSON: name to value or null"),
    Column("seconds", "double", "processor time that reading took"),
)

# Site × dump. `key` is the site's key (no addresses).
SITES = (
    Column("id", "string", "of the dump"),
    Column("fingerprint", "string", "stable across builds and machines"),
    Column("key", "string", "key of the site"),
    Column("kind", "string", "stack, source, type, tag, shape"),
    Column("name", "string", "of the site"),
    Column("bytes", "int64", "used"),
    Column("count", "int64", "used"),
    Column(
        "unreferenced_bytes", "int64", "nothing points to them; null where that was not looked for"
    ),
    Column(
        "unreferenced_count", "int64", "nothing points to them; null where that was not looked for"
    ),
)

# Site × series. Bytes and count are those of the last dump less those of the first.
GROWTH = (
    Column("series", "string", "which inputs belong together"),
    Column("series_kind", "string", '"trend" (three inputs and more), "pair", "single"'),
    Column("fingerprint", "string", "stable across builds and machines"),
    Column("key", "string", "key of the site"),
    Column("kind", "string", "stack, source, type, tag, shape"),
    Column("name", "string", "of the site"),
    Column("dumps", "list<string>", "ids in order of time"),
    Column("first", _TIME, "time of the first"),
    Column("last", _TIME, "time of the last"),
    Column("delta_bytes", "int64", "growth; of a single dump what nothing points to"),
    Column("delta_count", "int64", "growth; of a single dump what nothing points to"),
    Column("bytes_per_hour", "double", "null without times"),
    Column("count_per_hour", "double", "null without times"),
    Column("shape", "string", "of a trend: steady, step, saturating, sawtooth, flat, irregular"),
    Column("confidence", "string", "growth, suspect, leaked"),
    Column("program", "string", "of the series"),
    Column("version", "string", "of the series"),
    Column("computer", "string", "of the series"),
    Column(
        "weight", "int64", "2: a leak by itself; 1: where most series show it; 0: noise, or no leak"
    ),
    Column(
        "part_of",
        "string",
        "fingerprint of the site that holds it and grew by the same number of blocks",
    ),
)

# One row a leak as people mean it.
CLUSTERS = (
    Column("fingerprint", "string", "stable across builds and machines"),
    Column("name", "string", "what to call it"),
    Column("known", "string", "its name in the file of known ones"),
    Column("state", "string", '"new", "known", "muted", "seen" (in the run before)'),
    Column("kind", "string", "stack, source, type, tag, shape"),
    Column("programs", "list<string>", "where it is"),
    Column("dumps", "int64", "inputs it is in"),
    Column("series", "int64", "series it grew in"),
    Column("machines", "int64", "computers it is on"),
    Column("first_seen", _TIME, "earliest input it is in"),
    Column("last_seen", _TIME, "latest input it is in"),
    Column("versions", "list<string>", "versions it grew in, in order"),
    Column("appeared_in", "string", "first version with it, where an older one is without"),
    Column("disappeared_in", "string", "first later version without it"),
    Column("delta_bytes", "int64", "sum over its series"),
    Column("delta_count", "int64", "sum over its series"),
    Column("bytes_per_hour", "double", "median over its series with times"),
    Column("bytes_per_hour_p10", "double", "a tenth of its series grow slower"),
    Column("bytes_per_hour_p90", "double", "a tenth of its series grow faster"),
    Column("confidence", "string", "the strongest of its series"),
    Column("examples", "list<string>", "urls of inputs to open"),
    Column("parts", "list<string>", "names of sites that grew with it, and that it holds"),
)
