"""Writes snapshot files of a process: what comparing commands need of a dump, and nothing of its memory."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.content_shape import content_shapes
from dumpleak.attribution.grouping import GROUPINGS
from dumpleak.attribution.source import shortened
from dumpleak.files.columns import (
    COLUMNS,
    DELTA_COLUMNS,
    METADATA_KEY,
    ROWS_AT_ONCE,
    arrow,
    pack,
)
from dumpleak.files.metadata import About, Metadata, to_json, with_sites
from dumpleak.files.pool_metadata import said_anew
from dumpleak.files.stripping import stripped_metadata
from dumpleak.model.errors import CannotAnswerError, Progress, no_progress
from dumpleak.model.group_sums import GroupSums
from dumpleak.model.populations import ARENAS, MANAGED
from dumpleak.model.sites import Site
from dumpleak.model.totals import Group
from dumpleak.pointers.arena_nodes import add_arenas
from dumpleak.pointers.holders import HolderFinder
from dumpleak.pointers.references import BlockIndexBuilder
from dumpleak.process.memory_use import memory_by_use
from dumpleak.process.session import HeapSource, Session
from dumpleak.process.used_pieces import used_pieces
from dumpleak.survey.heaps import walked_snapshot
from dumpleak.survey.info import handle_types
from dumpleak.survey.populations import all_populations
from windumps.arrays import I64, ColumnCache
from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind
from windumps.files import whole_file

# Groupings that the file's own columns, or the fields of its sites, tell.
DERIVED = frozenset({"site", "size", "heap", "kind", "tag", "driver"})
PATHS = "paths"
INCLUDABLE = (PATHS,)  # what is left out unless asked for
COMPRESSION_LEVEL = 6

# A path begins a word; its folders neither begin nor end with a blank, but may have some inside.
_FOLDERS = re.compile(
    r"""(?<![^\s'"(])(?:[A-Za-z]:|\\)?[\\/](?=\S)(?:[^\\/:*?"<>|\s](?:[^\\/:*?"<>|\r\n]*[^\\/:*?"<>|\s])?[\\/])*"""
)


def write_snapshot(
    session: Session,
    path: Path | str,
    include: tuple[str, ...] = (),
    *,
    strip_names: bool = False,
    keep_names: tuple[str, ...] = (),
    holders: bool | int = True,
    progress: Progress = no_progress,
    of: str | None = None,
) -> Metadata:
    """Walks a dump and writes its snapshot; the file is complete or not there at all.

    Args:
        session: The open dump.
        path: Where to.
        include: Of `INCLUDABLE`: "paths" for full paths of images and source files, which may hold the
            names of users.
        strip_names: Hash the names of types and modules.
        keep_names: Patterns of those that are not hashed, "ntdll.dll" or "app::*".
        holders: Also look for who points to the blocks of each site; all memory is read once more. A
            number is the bytes of used blocks up to which that is done.
        progress: Told of each heap.
        of: A population that the dump must tell of; None for none but blocks.

    Returns:
        What was written besides the blocks.

    Raises:
        CannotAnswerError: no heap can be read and blocks are meant, or the dump does not tell of the members
            of `of`.
        MissingExtraError: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    arrow()  # better now than after a long walk
    if of not in (MANAGED, ARENAS):  # they are told of where native heaps cannot be read
        session.require_heaps()
    walk = _Walk(session, holders if not strip_names else False)
    for source, used in used_pieces(session, progress):
        walk.add(source, used)
    metadata = walk.metadata()
    needed = metadata.populations.get(of or "")
    if needed is not None and not needed.groups:
        raise CannotAnswerError(f"{session.dump.path}: {needed.reason}")
    if PATHS not in include:
        metadata = without_paths(metadata)
    if strip_names:
        metadata = stripped_metadata(metadata, keep_names)
    write_columns(path, metadata, walk.columns())
    return metadata


def write_columns(path: Path | str, metadata: Metadata, columns: dict[str, NDArray[Any]]) -> None:
    """Writes a snapshot file; it is complete or not there at all.

    Args:
        path: Where to.
        metadata: All but the blocks.
        columns: The blocks, ascending by address: those of `COLUMNS` but `site_name`; `kind` as numbers of
            `Kind`, `heap` as rows of the snapshot's heaps, `size` with `SIZE_UNKNOWN`.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    with whole_file(path) as stream:
        _write(stream, metadata, dict(columns), arrow())


class _Walk:
    """Everything the file holds, as the walk over the blocks gives it."""

    def __init__(self, session: Session, holders: bool | int) -> None:
        self._index = BlockIndexBuilder() if holders else None
        self._holders = holders
        self._session = session
        self._rows = {source.label: row for row, source in enumerate(session.heaps)}
        self._sites = GROUPINGS["site"](session)
        self._site_sums = GroupSums()
        self._others = {
            name: (make(session), GroupSums())
            for name, make in GROUPINGS.items()
            if name not in DERIVED
        }
        self._classes = [_Pairs() for _ in self._others]
        self._pieces: list[tuple[NDArray[np.generic], ...]] = []

    def add(self, source: HeapSource, used: Blocks) -> None:
        counted = used.counted_bytes
        class_ = self._sites.assign(source, used)
        self._site_sums.add(class_, counted, used.block_bytes)
        if self._index is not None:
            self._index.add(used, class_, source.view.pointer_size)
        for pairs, (grouping, sums) in zip(self._classes, self._others.values(), strict=True):
            groups = grouping.assign(source, used)
            sums.add(groups, counted, used.block_bytes)
            class_ = pairs.number(class_, groups)
        # Heaps of one view stand behind each other in the list, as in the process's own.
        first = self._rows[source.label] - source.entry.ordinal
        heap = (used.heap + np.int64(first)).astype(np.uint16)
        shapes = content_shapes(self._session, source, used)
        self._pieces.append(
            (
                used.address,
                used.size,
                used.block_bytes,
                used.kind,
                heap,
                class_.astype(np.int32),
                shapes,
            )
        )

    def metadata(self) -> Metadata:
        """All but the blocks."""
        tables: dict[str, list[Group]] = {
            name: [(site, sums.totals(number)) for number, site in enumerate(grouping.table.sites)]
            for name, (grouping, sums) in self._others.items()
        }
        order, columns = self._class_table()
        names = ("site", *self._others)
        snapshot = walked_snapshot(self._session, "site", self._sites, self._site_sums)
        limit = self._holders
        if self._index is not None and (limit is True or snapshot.totals.bytes <= limit):
            own = self._sites.table.sites
            every = add_arenas(self._session, self._index, own)
            find = HolderFinder(self._session, self._index.build(), every, own=len(own))
            snapshot.holders = find
            snapshot.held_by = find((*snapshot.groups, *snapshot.private))
            snapshot.unreferenced = find.unreferenced
        return Metadata(
            snapshot,
            tables,
            {name: columns[n][order].tolist() for n, name in enumerate(names)},
            about=self._about(),
            block_count=sum(len(piece[0]) for piece in self._pieces),
            populations=all_populations(self._session, snapshot),
        )

    def _about(self) -> About:
        dump = self._session.dump
        flags = (view.nt_global_flag for view in self._session.views)
        return About(
            dump.full_memory,
            dump.memory.total_bytes,
            len(dump.threads),
            next((flag for flag in flags if flag is not None), None),
            tuple(dump.unloaded_modules),
            memory_by_use(self._session),
            handle_types(self._session),
        )

    def columns(self) -> dict[str, NDArray[Any]]:
        """The blocks, ascending by address."""
        order, columns = self._class_table()
        site = columns[0]
        detail = np.empty(len(site), np.int32)
        first = np.searchsorted(site[order], site[order])
        detail[order] = np.arange(len(site)) - first
        names = ("address", "size", "block_bytes", "kind", "heap", "class", "shape")
        found: dict[str, NDArray[Any]] = {}
        by_address: I64 | None = None
        for number, name in enumerate(names):
            column = np.concatenate(
                [piece[number] for piece in self._pieces] or [np.empty(0, np.uint64)]
            )
            if by_address is None:
                by_address = np.argsort(column, kind="stable")
            found[name] = column[by_address]
        classes = found.pop("class").astype(np.int64)
        return found | {"site": site[classes].astype(np.int32), "detail": detail[classes]}

    def _class_table(self) -> tuple[I64, list[I64]]:
        """Order of the classes by site, and each class's number in each grouping, sites first."""
        groups: list[I64] = []
        outer: I64 | None = None
        for pairs in reversed(self._classes):
            first, second = pairs.columns()
            if outer is not None:
                first, second = first[outer], second[outer]
            groups.append(second)
            outer = first
        site = outer if outer is not None else np.arange(len(self._sites.table.sites))
        return np.argsort(site, kind="stable"), [site, *reversed(groups)]


class _Pairs:
    """Numbers the pairs of two groups that occur."""

    def __init__(self) -> None:
        self._seen: list[NDArray[np.uint64]] = []
        self._count = 0
        self._numbers = ColumnCache(self._add)

    def number(self, first: I64, second: I64) -> I64:
        """The number of each pair (int64, shape (n,))."""
        return self._numbers((first << 32 | second).view(np.uint64))

    def columns(self) -> tuple[I64, I64]:
        """Both groups of all pairs, in order of their numbers."""
        codes = np.concatenate(self._seen or [np.empty(0, np.uint64)]).view(np.int64)
        return codes >> 32, codes & 0xFFFFFFFF

    def _add(self, codes: NDArray[np.uint64]) -> I64:
        self._seen.append(codes)
        self._count += len(codes)
        return np.arange(self._count - len(codes), self._count)


def without_paths(metadata: Metadata) -> Metadata:
    """What is written, without folders: they may hold the names of users."""
    snapshot = metadata.snapshot
    sites = {key: (_without_paths(site), totals) for key, (site, totals) in snapshot.groups.items()}
    modules = tuple(replace(module, path=module.name) for module in snapshot.modules)
    about = metadata.about
    if about is not None:
        unloaded = tuple(replace(module, path=module.name) for module in about.unloaded_modules)
        about = replace(about, unloaded_modules=unloaded)
    return replace(
        with_sites(metadata, _without_paths),
        snapshot=replace(
            snapshot,
            groups=sites,
            modules=modules,
            pool=snapshot.pool and said_anew(snapshot.pool, without_folders),
            heaps=[replace(row, reason=without_folders(row.reason)) for row in snapshot.heaps],
            diagnostics=[
                replace(item, message=without_folders(item.message))
                for item in snapshot.diagnostics
            ],
        ),
        about=about,
    )


def without_folders(text: str) -> str:
    r"""A sentence with the folders left out of the paths in it: `C:\Users\bob\a.pdb` → `a.pdb`."""
    return _FOLDERS.sub("", text)


def _without_paths(site: Site) -> Site:
    return (
        replace(site, lines=tuple(shortened(line) for line in site.lines)) if site.lines else site
    )


def _write(stream: BinaryIO, metadata: Metadata, columns: dict[str, NDArray[Any]], pa: Any) -> None:
    from pyarrow import parquet

    text = json.dumps(to_json(metadata), separators=(",", ":"))
    types = {
        name: pa.dictionary(pa.int32(), pa.string()) if type_ == "string" else getattr(pa, type_)()
        for name, type_ in COLUMNS.items()
    }
    schema = pa.schema(list(types.items()))
    sites = metadata.snapshot.groups
    # Not in order of first use: numbers that count up by one could be taken for somebody's alphabet.
    order = np.argsort(
        [blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest() for key in sites]
    )
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    columns["site_name"] = place[columns["site"]]
    # Lone surrogates, which names in a dump can have, are no UTF-8.
    names = [site.name.encode("utf-8", "backslashreplace").decode() for site, _ in sites.values()]
    texts = {
        "kind": [kind.label for kind in Kind],
        "heap": [row.label for row in metadata.snapshot.heaps],
        "site_name": [names[number] for number in order.tolist()],
    }
    dictionary: Any = [name for name in COLUMNS if name not in DELTA_COLUMNS]
    with parquet.ParquetWriter(
        stream,
        schema,
        compression="zstd",
        compression_level=COMPRESSION_LEVEL,
        use_dictionary=dictionary,
        column_encoding=dict.fromkeys(DELTA_COLUMNS, "DELTA_BINARY_PACKED"),
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    ) as writer:
        for start in range(0, metadata.block_count, ROWS_AT_ONCE):
            arrays = []
            for name in COLUMNS:
                piece = columns[name][start : start + ROWS_AT_ONCE]
                if name in texts:
                    numbers = pa.array(piece.astype(np.int32))
                    arrays.append(pa.DictionaryArray.from_arrays(numbers, texts[name]))
                else:
                    arrays.append(
                        pa.array(piece, mask=piece == SIZE_UNKNOWN if name == "size" else None)
                    )
            writer.write_table(pa.table(arrays, schema=schema))
        # Not as part of the schema: that would be in the file twice.
        writer.add_key_value_metadata({METADATA_KEY: pack(text)})
