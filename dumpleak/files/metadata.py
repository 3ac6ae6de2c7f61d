"""What a snapshot file says besides its blocks, and its JSON; `metadata_form` reads that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from dumpleak.files.columns import pack_flags
from dumpleak.files.pool_metadata import pools_json
from dumpleak.model.block_table import BY_STAMP
from dumpleak.model.coverage import Coverage
from dumpleak.model.holding import Holding
from dumpleak.model.memory import MemoryByUse
from dumpleak.model.process_rows import ProcessRow
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Group
from windumps.diagnostics import Diagnostic
from windumps.images.modules import Module

FORMAT = "dumpleak/snapshot/1"


@dataclass(frozen=True)
class About:
    """What `dumpleak info` tells of a dump besides its heaps.

    Attributes:
        full_memory: The writer was asked for all memory.
        memory_bytes: Bytes of process memory in the dump.
        thread_count: Threads listed.
        nt_global_flag: PEB.NtGlobalFlag; None when unknown.
        unloaded_modules: Images unloaded before the dump.
        memory: All memory by use.
        handles: As `Info.handles`; None in older files too.
    """

    full_memory: bool
    memory_bytes: int
    thread_count: int
    nt_global_flag: int | None
    unloaded_modules: tuple[Module, ...]
    memory: MemoryByUse
    handles: tuple[tuple[str, int], ...] | None = None


@dataclass(frozen=True)
class StoredPopulation:
    """A population of a process that is no blocks.

    Attributes:
        groups: By the key of each grouping.
        sized: The bytes of its members are known.
        reason: Why the dump did not tell of it, or not of some groupings; "" when it did.
        lacking: As `ListCovered` has it.
        notes: What was not looked at, by the key of a grouping.
        coverage: How much of their memory was walked; None for members that the dump lists.
    """

    groups: dict[str, list[Group]] = field(default_factory=dict)
    sized: bool = True
    reason: str = ""
    lacking: tuple[Group, ...] = ()
    notes: dict[str, tuple[Diagnostic, ...]] = field(default_factory=dict)
    coverage: Coverage | None = None


@dataclass
class Metadata:
    """All of a snapshot file but its blocks.

    Attributes:
        snapshot: Grouped by site.
        tables: Groups of other groupings, by the grouping's name and in the order of their numbers.
        classes: Blocks of one class agree in all groupings. For each class its `site` (ascending, so that
            the column `detail` counts the classes of one site) and its group in each of `tables`.
        block_count: Rows of the file.
        about: The dump; None where nobody noted it.
        shapes_by: How the column `shape` calls images, see `content_shape`.
        populations: What the process had besides blocks, by population; those of older files are absent.
        processes: Those of a system, one by one; None of one process, and in older files.
    """

    snapshot: Snapshot
    tables: dict[str, list[Group]] = field(default_factory=dict)
    classes: dict[str, list[int]] = field(default_factory=dict)
    block_count: int = 0
    about: About | None = None
    shapes_by: int = BY_STAMP
    populations: dict[str, StoredPopulation] = field(default_factory=dict)
    processes: tuple[ProcessRow, ...] | None = None


def with_sites(metadata: Metadata, change: Callable[[Site], Site]) -> Metadata:
    """The same with other sites in all groupings but the snapshot's own, and of all other members."""

    def changed(tables: dict[str, list[Group]]) -> dict[str, list[Group]]:
        return {
            by: [(change(site), totals) for site, totals in groups] for by, groups in tables.items()
        }

    return replace(
        metadata,
        tables=changed(metadata.tables),
        populations={
            of: replace(
                kept,
                groups=changed(kept.groups),
                lacking=tuple((change(site), totals) for site, totals in kept.lacking),
            )
            for of, kept in metadata.populations.items()
        },
    )


class _Texts:
    """Strings and places that many sites share, each once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._index: dict[Any, int] = {}

    def index(self, value: Any) -> int:
        number = self._index.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


def to_json(metadata: Metadata) -> dict[str, Any]:
    """The JSON object of the file's metadata."""
    snapshot = metadata.snapshot
    texts, places = _Texts(), _Texts()

    def tables(groups_of: Mapping[str, Iterable[Group]]) -> dict[str, list[dict[str, Any]]]:
        return {
            by: [_group(group, texts, places) for group in groups]
            for by, groups in groups_of.items()
        }

    groups = tables({"site": snapshot.groups.values(), **metadata.tables})
    populations = {
        of: {
            "sized": kept.sized,
            "reason": kept.reason,
            "groups": tables(kept.groups),
            **tables({"lacking": kept.lacking}),
            "notes": {by: [asdict(note) for note in notes] for by, notes in kept.notes.items()},
            "coverage": kept.coverage and asdict(kept.coverage),
        }
        for of, kept in metadata.populations.items()
    }
    pool = {} if snapshot.pool is None else {"pool": pools_json(snapshot.pool, snapshot.boot)}
    return {
        "format": FORMAT,
        "source": _times(asdict(snapshot.source) | {"file": None}),
        "blocks": metadata.block_count,
        "shapes_by": metadata.shapes_by,
        "about": _about(metadata.about) if metadata.about else None,
        "stripped": snapshot.stripped,
        "kept_names": list(snapshot.kept_names),
        "coverage": asdict(snapshot.coverage),
        "totals": asdict(snapshot.totals),
        "heaps": [asdict(row) for row in snapshot.heaps],
        "limits": [asdict(limit) for limit in snapshot.limits],
        "modules": [asdict(module) for module in snapshot.modules],
        "groups": groups,
        "populations": populations,
        "classes": metadata.classes,
        "holders": _holders(snapshot.held_by, snapshot.groups),
        "private_holders": _holders(snapshot.held_by, snapshot.private),
        **tables({"private": snapshot.private.values()}),
        "private_unknown": snapshot.private_unknown,
        "by_regions": snapshot.by_regions,
        **tables({"in_file": [snapshot.in_file] if snapshot.in_file else []}),
        "texts": texts.values,
        "places": [list(place) for place in places.values],
        "diagnostics": [asdict(item) for item in snapshot.diagnostics],
        "account": None
        if snapshot.outside is None
        else [asdict(figure) for figure in snapshot.outside],
        "unreferenced": None
        if snapshot.unreferenced is None
        else pack_flags(snapshot.unreferenced),
        **pool,
        "processes": _processes(metadata.processes),
    }


def _holders(held: Mapping[str, Holding], keys: Iterable[str]) -> list[dict[str, Any]]:
    """All but what is written in blocks."""
    return [
        {"site": number, **asdict(_without_texts(held[key]))}
        for number, key in enumerate(keys)
        if key in held
    ]


def _without_texts(holding: Holding) -> Holding:
    return replace(holding, texts=holding.texts and replace(holding.texts, written={}))


def _processes(rows: tuple[ProcessRow, ...] | None) -> list[dict[str, Any]] | None:
    return None if rows is None else [_times(asdict(row)) for row in rows]


def _about(about: About) -> dict[str, Any]:
    found = asdict(about)
    if about.handles is not None:
        found["handles"] = [{"type": name, "count": count} for name, count in about.handles]
    return found


def _times(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
    }


def _group(group: Group, texts: _Texts, places: _Texts) -> dict[str, Any]:
    site, totals = group
    found: dict[str, Any] = {"kind": str(site.kind), "key": site.key, "name": site.name}
    if site.frames:
        found["frames"] = [texts.index(frame) for frame in site.frames]
    if site.lines:
        found["lines"] = [texts.index(line) for line in site.lines]
    if site.places:
        found["places"] = [places.index(place) for place in site.places]
    for name in ("type", "tag", "driver"):
        if getattr(site, name) is not None:
            found[name] = getattr(site, name)
    return found | asdict(totals)
