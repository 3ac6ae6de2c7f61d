"""Reads snapshot files; nothing in them is trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.late_symbols import with_symbols
from dumpleak.files.checked_json import SnapshotFileError, load_json
from dumpleak.files.columns import COLUMNS, METADATA_KEY, ROWS_AT_ONCE, arrow, unpack
from dumpleak.files.metadata import Metadata
from dumpleak.files.metadata_form import from_json
from dumpleak.model.account_rows import account_of
from dumpleak.model.block_table import BY_STAMP, BlockTable, shape_identity
from dumpleak.model.coverage import PoolsCovered
from dumpleak.model.group_sums import GroupSums
from dumpleak.model.holding import StoredHolders
from dumpleak.model.info import Info, coverage_advice, pools_advice
from dumpleak.model.pool import sited
from dumpleak.model.pool_blocks import PoolBlocks
from dumpleak.model.pools import Pools
from dumpleak.model.refuted_counters import keep_refuted
from dumpleak.model.sites import Site, SiteKind, heap_name, key_site, size_name
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Group, Totals, by_key
from windumps.arrays import I32
from windumps.blocks import SIZE_UNKNOWN, Kind
from windumps.diagnostics import Diagnostic, Severity

# A snapshot of equal blocks packs well; more rows for its bytes than this is made to fill memory.
MAX_ROWS = 1 << 20
MAX_ROWS_PER_BYTE = 64
MAX_SIZE = 1 << 48  # bytes of one block


def read_snapshot_file(
    path: Path, by: str, skip_frames: tuple[str, ...] = (), pooltag: Path | None = None
) -> Snapshot:
    """Reads a snapshot file.

    Args:
        path: The file.
        by: The grouping wanted, a key of `GROUPINGS`.
        skip_frames: See `Session.skip_frames`.
        pooltag: A `pooltag.txt` that was asked for; it is not used, and that is said.

    Raises:
        SnapshotFileError: the file is damaged, no snapshot, or does not know the grouping.
        MissingExtraError: pyarrow is not installed.
    """
    snapshot = with_symbols(SnapshotFile(path).snapshot(by), None, skip_frames)
    if pooltag is not None:
        message = f"{pooltag} is not used: owners are as they were found when the snapshot was made"
        note = Diagnostic("pooltag-file", Severity.WARNING, "pooltag.txt", None, message)
        snapshot.diagnostics = [*snapshot.diagnostics, note]
    return snapshot


def snapshot_info(path: Path) -> Info:
    """What `dumpleak info` tells of the dump behind a snapshot file; comments are not in it.

    Raises:
        SnapshotFileError: the file cannot be used, or was written without that.
    """
    file = SnapshotFile(path)
    snapshot, about = file.metadata.snapshot, file.metadata.about
    if about is None:
        raise SnapshotFileError(f"{path}: this snapshot does not describe its dump")
    advice = coverage_advice(snapshot.coverage, snapshot.diagnostics)
    return Info(
        source=snapshot.source,
        full_memory=about.full_memory,
        memory_bytes=about.memory_bytes,
        thread_count=about.thread_count,
        comments=(),
        nt_global_flag=about.nt_global_flag,
        heaps=tuple(snapshot.heaps),
        coverage=snapshot.coverage,
        memory=about.memory,
        modules=snapshot.modules,
        unloaded_modules=about.unloaded_modules,
        usable=not snapshot.coverage.shortfall,
        advice=pools_advice(snapshot.coverage) if snapshot.is_pool else advice,
        diagnostics=tuple(snapshot.diagnostics),
        account=account_of(snapshot),
        handles=about.handles,
        sourced_blocks=sum(
            totals.count
            for site, totals in file.metadata.tables.get("source", ())
            if site.kind is SiteKind.SOURCE
        ),
    )


class SnapshotFile:
    """An open snapshot file.

    Args:
        path: The file.

    Attributes:
        path: The file.
        metadata: All but the blocks.

    Raises:
        SnapshotFileError: in the constructor and in all methods: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        arrow()
        self.path = path
        with self._checked():
            from pyarrow import parquet

            with parquet.ParquetFile(path) as file:
                raw = (file.metadata.metadata or {}).get(METADATA_KEY.encode())
                rows = file.metadata.num_rows
                types = {field.name: str(field.type) for field in file.schema_arrow}
        if raw is None:
            raise SnapshotFileError(
                f"{path}: a Parquet file, but no snapshot of a dump; make one with: dumpleak snapshot"
            )
        if types != COLUMNS:
            raise self._damaged(f"its columns are {', '.join(types)}")
        if not 0 <= rows <= MAX_ROWS + MAX_ROWS_PER_BYTE * path.stat().st_size:
            raise self._damaged(f"{rows} blocks are more than a file of this size can hold")
        with self._checked():
            self.metadata: Metadata = from_json(load_json(unpack(raw)), str(path))
        if self.metadata.block_count != rows:
            raise self._damaged(f"it holds {rows} blocks and says {self.metadata.block_count}")
        snapshot = self.metadata.snapshot
        if snapshot.is_pool and not isinstance(snapshot.coverage, PoolsCovered):
            snapshot.coverage = PoolsCovered(*astuple(snapshot.coverage))
        if snapshot.pool is not None:
            snapshot.pool = replace(snapshot.pool, blocks=cache(self._pool_blocks))
            snapshot.diagnostics += self._not_kept(snapshot.pool)

    def snapshot(self, by: str) -> Snapshot:
        """The snapshot with its blocks grouped.

        Args:
            by: A key of `GROUPINGS`.
        """
        held = self.metadata.snapshot.held_by if by == "site" else {}
        snapshot = replace(self.metadata.snapshot, grouping=by, held_by={}, unreferenced=None)
        if snapshot.pool is not None:
            keep_refuted(snapshot, snapshot.pool.rows, snapshot.pool.refuted)
        if held:
            snapshot.holders = StoredHolders(held, self.metadata.snapshot.unreferenced)
        if by in ("size", "heap", "kind"):
            groups, numbers = self._by_column(by)
            snapshot.groups = by_key(groups)
            keys = tuple(site.key for site, _ in groups)
            if not snapshot.is_pool:
                snapshot.blocks = lambda: self._table(numbers, keys)
            elif isinstance(snapshot.coverage, PoolsCovered):
                # These groups are of the blocks found: what is only counted is in none of them.
                snapshot.coverage = replace(snapshot.coverage, counted_bytes=0)
            return snapshot
        if by == "site":
            table, of_class = list(snapshot.groups.values()), None
        elif by == "tag":
            table, of_class = self._by_field("tag")
        elif by in self.metadata.tables:
            table = self.metadata.tables[by]
            of_class = np.array(self.metadata.classes[by], np.int32)
        elif by == "driver":
            table, of_class = self._by_field(by)
        else:
            better = "make it anew from the dump"
            if snapshot.is_pool and by == "stack":
                better = "those of the pools keep no stacks, ask the dump"
            raise SnapshotFileError(
                f"{self.path}: this snapshot does not know blocks by {by}; {better}"
            )
        snapshot.groups = by_key(table)
        keys = tuple(site.key for site, _ in table)
        # The rows of a pool's tags may be fewer than its trackers count.
        if not snapshot.is_pool:
            snapshot.blocks = lambda: self._table(self._class_numbers(of_class), keys)
        return snapshot

    def _pool_blocks(self) -> PoolBlocks:
        """Used blocks, of tags and pools that the snapshot has as sites."""
        columns = self.columns("address", "block_bytes", "kind", "site")
        pools = self.metadata.snapshot.pool
        rows = sited(pools.rows) if pools is not None else []
        keys = np.array([row.number << 2 | pool for row, pool in rows], np.uint64)
        key = keys[columns["site"]] if len(keys) else keys
        return PoolBlocks.of_columns(
            key, columns["address"], columns["block_bytes"], columns["kind"]
        )

    def _not_kept(self, pools: Pools) -> list[Diagnostic]:
        """Says which blocks the file leaves out."""
        found, kept = pools.account.walked_count, self.metadata.block_count
        if found is None or kept >= found:
            return []
        message = (
            f"the snapshot keeps {kept} of {found} blocks that were found; the rest are of tags and "
            "pools that no tracker counts, and are not among sizes and addresses of new blocks"
        )
        return [Diagnostic("pool-blocks-not-kept", Severity.INFO, "snapshot", None, message)]

    def columns(self, *names: str) -> dict[str, NDArray[Any]]:
        """Whole columns, checked: addresses ascend, sizes are possible, numbers are in range.

        Args:
            names: Of `COLUMNS`. `size` comes as int64 with `SIZE_UNKNOWN` for null; `kind` and `heap` as
                uint8 and uint16 indices of `Kind` and of the snapshot's heaps.
        """
        from pyarrow import parquet

        rows = self.metadata.block_count
        narrow = {"kind": np.uint8, "heap": np.uint16}
        found = {
            name: np.empty(rows, narrow[name] if name in narrow else COLUMNS[name])
            for name in names
        }
        texts = {
            "kind": {kind.label: int(kind) for kind in Kind},
            "heap": {row.label: n for n, row in enumerate(self.metadata.snapshot.heaps)},
        }
        start = 0
        with (
            self._checked(),
            parquet.ParquetFile(
                self.path,
                read_dictionary=["kind", "heap"],
                pre_buffer=False,
                page_checksum_verification=True,
            ) as file,
        ):
            for batch in file.iter_batches(1 << 18, columns=list(names)):
                end = start + batch.num_rows
                if end > rows:
                    raise self._damaged("it holds more blocks than it says")
                for name in names:
                    column = batch.column(name)
                    if name in texts:
                        values = _numbered(column, texts[name])
                    else:
                        if column.null_count and name == "size":
                            column = column.fill_null(SIZE_UNKNOWN)
                        values = column.to_numpy(zero_copy_only=True)
                    found[name][start:end] = values
                start = end
        if start != rows:
            raise self._damaged("it holds fewer blocks than it says")
        self._check(found)
        return found

    def _check(self, columns: dict[str, NDArray[Any]]) -> None:
        limits = {
            "size": (SIZE_UNKNOWN, MAX_SIZE),
            "block_bytes": (0, MAX_SIZE),
            "site": (0, len(self.metadata.snapshot.groups)),
            "detail": (0, max(len(self.metadata.classes["site"]), 1)),
        }
        for name, column in columns.items():
            if not len(column):
                continue
            if name == "address" and (column[1:] < column[:-1]).any():
                raise self._damaged("its addresses do not ascend")
            if name in limits:
                low, end = limits[name]
                if int(column.min()) < low or int(column.max()) >= end:
                    raise self._damaged(f"its column {name} holds impossible values")

    def _class_numbers(self, of_class: I32 | None) -> I32:
        """The group of each block, from its site and class."""
        if of_class is None:
            sites: I32 = self.columns("site")["site"]
            counts = np.zeros(len(self.metadata.snapshot.groups), np.int64)
            for start in range(0, len(sites), ROWS_AT_ONCE):
                piece = sites[start : start + ROWS_AT_ONCE]
                counts += np.bincount(piece, minlength=len(counts))
            said = [totals.count for _, totals in self.metadata.snapshot.groups.values()]
            if counts.tolist() != said:
                raise self._damaged("its sites have other numbers of blocks than it says")
            return sites
        columns = self.columns("site", "detail")
        site_of_class = np.array(self.metadata.classes["site"], np.int32)
        numbers = np.searchsorted(site_of_class, columns["site"]) + columns["detail"]
        wrong = numbers >= len(site_of_class)
        numbers[wrong] = 0
        if (wrong | (site_of_class[numbers] != columns["site"])).any():
            raise self._damaged("its column detail holds impossible values")
        groups: I32 = of_class[numbers]
        return groups

    def _table(self, groups: I32, keys: tuple[str, ...]) -> BlockTable:
        about, by = self.metadata.about, self.metadata.shapes_by
        unloaded = about.unloaded_modules if about is not None and by == BY_STAMP else ()
        images = frozenset(
            shape_identity(image) if by == BY_STAMP else image.identity
            for image in (*self.metadata.snapshot.modules, *unloaded)
        )
        columns = self.columns("address", "size", "shape")
        columns_of = (columns["address"], columns["size"], groups, columns["shape"])
        return BlockTable(*columns_of, keys, images, by)

    def _by_column(self, by: str) -> tuple[list[Group], I32]:
        """Groups of a column's values, and each block's group."""
        columns = self.columns(*{by, "size", "block_bytes"})
        # What callers asked the pool for is not kept; its blocks are grouped by what they take.
        pool = by == "size" and self.metadata.snapshot.is_pool
        values, numbers = np.unique(columns["block_bytes" if pool else by], return_inverse=True)
        names: dict[str, Callable[[int], str]]
        counted = np.where(columns["size"] == SIZE_UNKNOWN, columns["block_bytes"], columns["size"])
        sums = GroupSums()
        if len(numbers):
            sums.add(numbers, counted, columns["block_bytes"])
        heaps = self.metadata.snapshot.heaps
        names = {
            "size": size_name,
            "heap": lambda value: heap_name(heaps[value].label, heaps[value].kind),
            "kind": lambda value: Kind(value).label,
        }
        groups = [
            (key_site(by, names[by](value)), sums.totals(number))
            for number, value in enumerate(values.tolist())
        ]
        return groups, numbers.astype(np.int32)

    def _by_field(self, name: str) -> tuple[list[Group], I32]:
        """As `SiteFieldGrouping` puts sites together."""
        numbers: dict[str, int] = {}
        groups: list[Group] = []
        of_site = []
        for site, totals in self.metadata.snapshot.groups.values():
            text = getattr(site, name) or f"(no {name})"
            number = numbers.setdefault(text, len(groups))
            if number == len(groups):
                tag = site.tag if name == "tag" else None
                group = Site(SiteKind.GROUP, f"{name}|{text}", text, tag=tag)
                groups.append((group, Totals()))
            group, old = groups[number]
            groups[number] = group, old + totals
            of_site.append(number)
        return groups, np.array(of_site, np.int32)[self.metadata.classes["site"]]

    def _damaged(self, what: str) -> SnapshotFileError:
        return SnapshotFileError(
            f"{self.path}: this snapshot is damaged or was altered ({what}); make it anew from the dump"
        )

    @contextmanager
    def _checked(self) -> Iterator[None]:
        """Turns what pyarrow and the JSON reader raise on damaged files into this module's error."""
        try:
            yield
        except SnapshotFileError as error:
            text = str(error)
            raise (
                error
                if text.startswith(str(self.path))
                else SnapshotFileError(f"{self.path}: {text}")
            ) from error
        except FileNotFoundError:
            raise
        except MemoryError as error:
            raise self._damaged("a part of it claims to be larger than memory") from error
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            # ArrowInvalid is a ValueError, ArrowKeyError a KeyError, and so on; damaged pages give OSError.
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise self._damaged(first) from error


def _numbered(column: Any, numbers: dict[str, int]) -> NDArray[Any]:
    """Indices of a dictionary column's texts in our own list of them."""
    known = np.array([numbers[text] for text in column.dictionary.to_pylist()] or [0])
    indices = column.indices.to_numpy(zero_copy_only=True)
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(known):
        raise ValueError("a column's numbers are not in its dictionary")
    values: NDArray[Any] = known[indices]
    return values
