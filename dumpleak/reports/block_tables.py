"""Rows of blocks as Parquet and Arrow files, for pandas and DuckDB: the columns of CSV, with types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from dumpleak.model.block_page import BLOCK_COLUMNS, BlockPage, Names
from dumpleak.model.optional_libraries import missing_extra
from dumpleak.model.units import format_address
from dumpleak.reports.binary import binary_stream
from windumps.blocks import SIZE_UNKNOWN, Kind, State
from windumps.pool_tags import tag_text

if TYPE_CHECKING:
    import pyarrow as pa

_STATES = {int(state): state.name.lower() for state in State}
_KINDS = {int(kind): kind.label for kind in Kind}


def write_parquet(pages: Iterable[BlockPage], top: int | None, stream: IO[str]) -> None:
    """Writes a Parquet file.

    Raises:
        NotForTerminalError: a terminal would show it.
        MissingExtraError: pyarrow is not installed.
    """
    raw = binary_stream(stream, "blocks.parquet")
    schema = _schema()
    from pyarrow import parquet

    with parquet.ParquetWriter(raw, schema) as writer:
        for batch in _batches(pages, top, schema):
            writer.write_batch(batch)


def write_arrow(pages: Iterable[BlockPage], top: int | None, stream: IO[str]) -> None:
    """Writes an Arrow file (Feather); errors as `write_parquet` has them."""
    raw = binary_stream(stream, "blocks.arrow")
    schema = _schema()
    from pyarrow import ipc

    sink: Any = raw  # pyarrow takes any open file
    with ipc.new_file(sink, schema) as writer:
        for batch in _batches(pages, top, schema):
            writer.write_batch(batch)


def _schema() -> pa.Schema:
    """The columns; addresses and ids of stacks are numbers, and what is not known is null."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise missing_extra("Parquet and Arrow files", "pyarrow", "snapshots") from error
    types: dict[str, Any] = {"address": pa.uint64(), "stack_id": pa.uint64()}
    types |= {"size": pa.int64(), "block_bytes": pa.int64()}
    return pa.schema([(name, types.get(name, pa.string())) for name in BLOCK_COLUMNS])


def _batches(
    pages: Iterable[BlockPage], top: int | None, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    left = top
    for page in pages:
        count = len(page.blocks) if left is None else min(left, len(page.blocks))
        if count:
            yield _batch(page, count, schema)
        if left is not None:
            left -= count


def _batch(page: BlockPage, count: int, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    blocks = page.blocks

    def texts(names: Names) -> pa.Array[Any]:
        numbers = names.number[:count]
        known = pa.array([*names.texts, ""], pa.string())
        told = pa.array(np.where(numbers < 0, len(names.texts), numbers), pa.int32())
        return pa.DictionaryArray.from_arrays(told, known).dictionary_decode()

    def of(values: list[str]) -> pa.Array[Any]:
        return texts(Names.of(values))

    heap = page.heap_name or format_address(page.heap_address, page.pointer_size)
    size, trace, tag = blocks.size[:count], blocks.trace[:count], blocks.tag[:count]
    columns = (
        pa.array(blocks.address[:count]),
        pa.array(size, mask=size == SIZE_UNKNOWN),
        pa.array(blocks.block_bytes[:count]),
        of([_STATES[state] for state in blocks.state[:count].tolist()]),
        of([heap] * count),
        of([_KINDS[kind] for kind in blocks.kind[:count].tolist()]),
        texts(page.types),
        of([tag_text(each) if each else "" for each in tag.tolist()]),
        texts(page.sites),
        pa.array(trace.astype(np.uint64), mask=trace == 0),
        of([page.heap_label] * count),
    )
    return pa.RecordBatch.from_arrays(
        [column.cast(field.type) for column, field in zip(columns, schema, strict=True)],
        schema=schema,
    )
