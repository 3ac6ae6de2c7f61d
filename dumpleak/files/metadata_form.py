"""The JSON of a snapshot file's metadata as types, and what is made of it. `metadata.to_json` writes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from dumpleak.files.checked_json import (
    Absent,
    Chosen,
    Decoder,
    Named,
    Signed,
    SnapshotFileError,
    Together,
    WrongMemberError,
)
from dumpleak.files.columns import unpack_flags
from dumpleak.files.metadata import FORMAT, About, Metadata, StoredPopulation
from dumpleak.files.pool_metadata import POOL_HINTS, StoredPool, boot_of, pools_of
from dumpleak.model.account import NO_REGIONS, Figure, older_figures
from dumpleak.model.block_table import BY_PDB
from dumpleak.model.coverage import Coverage, PoolsCovered, is_list_cut
from dumpleak.model.holding import Holding
from dumpleak.model.memory import Limit
from dumpleak.model.populations import ARENAS, BLOCKS, POOL
from dumpleak.model.process_rows import ProcessRow
from dumpleak.model.sites import Place, Site
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.model.subject import Subject
from dumpleak.model.texts import Texts
from dumpleak.model.totals import Group, Totals, by_key
from dumpleak.subjects import OF_KIND
from windumps.diagnostics import Diagnostic
from windumps.images.modules import Module

_Group = Annotated[Group, Together]


@dataclass
class _Shared:
    """What stands once and is chosen by index: frames and lines, places."""

    texts: list[str]
    places: list[Place]


@dataclass
class _SiteNumber:
    site: int


@dataclass
class _Metadata:
    source: SourceInfo
    blocks: int
    shapes_by: Literal[1, 2] | None  # `BY_PDB`, `BY_STAMP`
    about: About | None
    stripped: bool
    kept_names: tuple[str, ...]
    coverage: Any
    totals: Totals
    heaps: list[HeapRow]
    limits: tuple[Limit, ...]
    modules: tuple[Module, ...]
    groups: dict[str, list[_Group]]
    populations: dict[str, StoredPopulation] | None
    classes: dict[str, list[int]]
    holders: list[Annotated[tuple[_SiteNumber, Holding], Together]]
    private_holders: Annotated[list[Annotated[tuple[_SiteNumber, Holding], Together]], Absent([])]
    private: list[_Group]
    private_unknown: Annotated[str, Absent("")]
    by_regions: Annotated[bool, Absent(True)]
    in_file: Annotated[list[_Group], Absent([])]
    diagnostics: list[Diagnostic]
    account: tuple[Figure, ...] | None
    unreferenced: str | None
    pool: StoredPool | None
    processes: tuple[ProcessRow, ...] | None


@dataclass
class _Version:
    format: str | None


_COVERAGE = {
    "unread_bytes": Annotated[int, Absent(0)],
    "list_cut": Annotated[bool, Absent(False)],
}
# Where members are more than their class says, or absent from older files.
_HINTS: dict[type, dict[str, Any]] = {
    **POOL_HINTS,
    About: {"handles": tuple[Annotated[tuple[str, int], Named(("type", "count"))], ...] | None},
    Coverage: _COVERAGE,
    PoolsCovered: _COVERAGE,
    Diagnostic: {"bytes_affected": Signed},
    HeapRow: dict.fromkeys(
        (
            *("flags", "reserved_bytes", "committed_bytes", "used_bytes", "used_count"),
            *("free_bytes", "free_count", "overhead_bytes", "unwalked_bytes", "residual_bytes"),
        ),
        Signed | None,
    ),
    StoredPopulation: {
        "groups": dict[str, list[_Group]],
        "lacking": Annotated[tuple[_Group, ...], Absent(())],
        "notes": Annotated[dict[str, tuple[Diagnostic, ...]], Absent({})],
        "coverage": Annotated[Coverage | None, Absent(None)],
    },
    Holding: {"texts": Annotated[Texts | None, Absent(None)]},
    Module: {"checksum": Annotated[int, Absent(0)]},
    SourceInfo: {
        "file": Any,  # no file says its own name
        "subject": Subject | None,
        "cut_bytes": Annotated[int, Absent(0)],
        "nt_global_flag": Annotated[int | None, Absent(None)],
        "processor_seconds": Annotated[int | None, Absent(None)],
        "computer": Annotated[str, Absent("")],
    },
}


def from_json(document: Any, file: str) -> Metadata:
    """Reads the JSON object of a file's metadata.

    Args:
        document: As `load_json` gives it.
        file: Name of the snapshot file, for reports.

    Raises:
        SnapshotFileError: it is of another version.
        ValueError: a member is absent or not what it should be.
    """
    decode = Decoder(_HINTS)
    version = decode(_Version, document, "metadata").format
    if version != FORMAT:
        raise SnapshotFileError(
            f"format {(version or '')[:40]!r} is not known to this version, which reads {FORMAT!r}; "
            "make it anew from the dump, or take a newer dumpleak"
        )
    shared = decode(_Shared, document, "metadata")
    lines = Annotated[tuple[str, ...], Chosen(shared.texts), Absent([])]
    places = Annotated[tuple[Place, ...], Chosen(shared.places), Absent([])]
    site = {"frames": lines, "lines": lines, "places": places}
    decode = Decoder({**_HINTS, Site: site})
    stored = decode(_Metadata, document, "metadata")
    tables = stored.groups
    _check_classes(stored.classes, tables)
    snapshot = _snapshot(stored, tables.pop("site"), file)
    snapshot.coverage = _coverage(decode, stored)
    snapshot.outside = stored.account
    if stored.account is None and not snapshot.is_pool:
        snapshot.outside = _older(stored.about)
    if stored.pool is not None:
        snapshot.pool = pools_of(stored.pool, len(snapshot.groups))
        snapshot.boot = boot_of(stored.pool, snapshot.source)
    if stored.unreferenced is not None:
        snapshot.unreferenced = unpack_flags(stored.unreferenced, stored.blocks)
    return Metadata(
        snapshot,
        tables,
        stored.classes,
        stored.blocks,
        stored.about,
        stored.shapes_by or BY_PDB,
        stored.populations or {},
        stored.processes,
    )


def _snapshot(stored: _Metadata, sites: list[Group], file: str) -> Snapshot:
    source, groups = stored.source, by_key(sites)
    if len(groups) != len(sites):
        raise WrongMemberError("a list of different sites", "metadata.groups.site")
    # In files with a subject it is one; older ones say only of what format the dump is.
    subject = source.subject or OF_KIND.get(source.kind, Subject.PROCESS)
    return Snapshot(
        source=replace(source, file=file, subject=subject),
        grouping="site",
        groups=groups,
        totals=stored.totals,
        private=by_key(stored.private),
        heaps=stored.heaps,
        coverage=stored.coverage,
        diagnostics=stored.diagnostics,
        limits=stored.limits,
        modules=stored.modules,
        stripped=stored.stripped,
        kept_names=stored.kept_names,
        private_unknown=stored.private_unknown,
        by_regions=stored.by_regions,
        in_file=next(iter(stored.in_file), None),
        held_by=_held_by(stored.holders, list(groups), "holders")
        | _held_by(
            stored.private_holders, [site.key for site, _ in stored.private], "private_holders"
        ),
        population=POOL if any(row.kind == POOL for row in stored.heaps) else BLOCKS,
        allocators_known=ARENAS in (stored.populations or {}),
    )


def _coverage(decode: Decoder, stored: _Metadata) -> Coverage:
    of_pools = isinstance(stored.coverage, dict) and "unbounded" in stored.coverage
    kind = PoolsCovered if of_pools else Coverage
    found = decode(kind, stored.coverage, "metadata.coverage")
    return replace(found, list_cut=is_list_cut(stored.diagnostics))


def _held_by(
    held: list[tuple[_SiteNumber, Holding]], keys: list[str], name: str
) -> dict[str, Holding]:
    try:
        return {keys[number.site]: holding for number, holding in held}
    except IndexError:
        raise WrongMemberError(f"of sites below {len(keys)}", f"metadata.{name}") from None


def _check_classes(classes: dict[str, list[int]], tables: dict[str, list[Group]]) -> None:
    where = "metadata.classes"
    if "site" not in tables:
        raise WrongMemberError("complete: it has no sites", "metadata.groups")
    if classes.keys() != tables.keys() or len({len(column) for column in classes.values()}) != 1:
        raise WrongMemberError("a table with a column for each grouping", where)
    for by, column in classes.items():
        if column and max(column) >= len(tables[by]):
            raise WrongMemberError(f"a list of indices below {len(tables[by])}", f"{where}.{by}")
    if classes["site"] != sorted(classes["site"]):
        raise WrongMemberError("in order", f"{where}.site")


def _older(about: About | None) -> tuple[Figure, ...] | None:
    """What a file without an account says of its figures elsewhere."""
    if about is None:
        return None
    reason = "" if about.memory.complete else NO_REGIONS
    committed = sum(row.committed_bytes for row in about.memory.rows)
    return older_figures(about.thread_count, None if reason else committed, reason)
