"""The Parquet files of a fleet, written piece by piece in an order that depends on content alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dumpleak.files.columns import arrow
from dumpleak.fleets.tables import Column, schema_of
from windumps.files import whole_file

BYTES_AT_ONCE = 1 << 20  # of Arrow's, in a group of rows: what writes and what reads holds one
_ROWS_AT_ONCE = 1 << 8


def write_rows(path: Path, columns: tuple[Column, ...], rows: Iterable[dict[str, Any]]) -> int:
    """Writes rows as they come; gives how many."""
    pa = arrow()
    schema = schema_of(columns)
    times = [column.name for column in columns if column.type.startswith("timestamp")]

    def tables() -> Iterator[Any]:
        held: list[dict[str, Any]] = []
        for row in rows:
            held.append(row | {name: _time(row.get(name)) for name in times})
            if len(held) == _ROWS_AT_ONCE:
                yield pa.Table.from_pylist(held, schema=schema)
                held.clear()
        yield pa.Table.from_pylist(held, schema=schema)

    return write_tables(path, columns, tables())


def _time(value: object) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else None


def write_tables(path: Path, columns: tuple[Column, ...], tables: Iterable[Any]) -> int:
    """Writes tables one after the other; what a column of the dataset lacks in one is null.

    Args:
        path: Where to.
        columns: Of the dataset.
        tables: Arrow tables.

    Returns:
        How many rows there are.

    Raises:
        OSError: the file cannot be written.
    """
    pa = arrow()
    from pyarrow import parquet

    schema = schema_of(columns)
    count, held, waiting = 0, [schema.empty_table()], 0
    with (
        whole_file(path) as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for table in tables:
            held.append(_fitting(table, schema))
            count, waiting = count + table.num_rows, waiting + held[-1].nbytes
            if waiting >= BYTES_AT_ONCE:
                writer.write_table(pa.concat_tables(held))
                held, waiting = [], 0
        if held:
            writer.write_table(pa.concat_tables(held))
    return count


def _fitting(table: Any, schema: Any) -> Any:
    pa = arrow()
    names = set(table.column_names)
    columns = [
        table[field.name].cast(field.type)
        if field.name in names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def batches(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """A dataset piece by piece, the columns of these that it has.

    Raises:
        OSError: it cannot be read.
    """
    from pyarrow import parquet

    with parquet.ParquetFile(path, pre_buffer=False) as file:
        names = set(file.schema_arrow.names)
        wanted = [name for name in columns if name in names]
        yield from file.iter_batches(_ROWS_AT_ONCE, columns=wanted, use_threads=False)


def rows_of(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of a dataset one by one, with the columns of these that it has.

    Raises:
        OSError: it cannot be read.
    """
    for batch in batches(path, columns):
        yield from batch.to_pylist()


def stream_table(content: bytes) -> Any:
    """The table of an Arrow stream."""
    return arrow().ipc.open_stream(content).read_all()


def with_id(table: Any, id_: str) -> Any:
    """Rows of sites, with the input they are of."""
    pa = arrow()
    return table.append_column("id", pa.array([id_] * table.num_rows, pa.string()))
