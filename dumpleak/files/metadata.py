"""What a snapshot file says besides its blocks, to JSON and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from dumpleak.files.checked_json import Fields, SnapshotFileError, damaged
from dumpleak.files.columns import pack_flags, unpack_flags
from dumpleak.files.pool_metadata import PoolRecord, read_record, record_json
from dumpleak.model.account import NO_REGIONS, Figure, older_figures
from dumpleak.model.block_table import BY_PDB, BY_STAMP
from dumpleak.model.coverage import Coverage, PoolsCovered, is_list_cut
from dumpleak.model.holding import Holding
from dumpleak.model.memory import Limit, MemoryByUse, UseRow
from dumpleak.model.populations import POOL
from dumpleak.model.sites import Place, Site, SiteKind
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.model.subject import Subject
from dumpleak.model.totals import Group, Totals
from dumpleak.subjects import OF_KIND
from windumps.diagnostics import Diagnostic, Severity
from windumps.images.modules import Module, PdbIdentity

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
    """

    groups: dict[str, list[Group]] = field(default_factory=dict)
    sized: bool = True
    reason: str = ""


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
        pool: Of a kernel's pools, what their rows and sites do not say; None for heaps, and in old files.
        shapes_by: How the column `shape` calls images, see `content_shape`.
        populations: What the process had besides blocks, by population; those of older files are absent.
    """

    snapshot: Snapshot
    tables: dict[str, list[Group]] = field(default_factory=dict)
    classes: dict[str, list[int]] = field(default_factory=dict)
    block_count: int = 0
    about: About | None = None
    pool: PoolRecord | None = None
    shapes_by: int = BY_STAMP
    populations: dict[str, StoredPopulation] = field(default_factory=dict)


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
    tables = {
        name: [_group(group, texts, places) for group in groups]
        for name, groups in (("site", list(snapshot.groups.values())), *metadata.tables.items())
    }
    populations = {
        of: {
            "sized": kept.sized,
            "reason": kept.reason,
            "groups": {
                by: [_group(group, texts, places) for group in groups]
                for by, groups in kept.groups.items()
            },
        }
        for of, kept in metadata.populations.items()
    }
    pool = {} if metadata.pool is None else {"pool": record_json(metadata.pool)}
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
        "groups": tables,
        "populations": populations,
        "classes": metadata.classes,
        "holders": [
            {"site": number, **asdict(snapshot.held_by[key])}
            for number, key in enumerate(snapshot.groups)
            if key in snapshot.held_by
        ],
        "private": [_group(group, texts, places) for group in snapshot.private.values()],
        "private_unknown": snapshot.private_unknown,
        "by_regions": snapshot.by_regions,
        "in_file": [
            _group(group, texts, places) for group in [snapshot.in_file] if group is not None
        ],
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
    }


def from_json(document: Any, file: str) -> Metadata:
    """Reads the JSON object of a file's metadata.

    Args:
        document: As `json.loads` gives it.
        file: Name of the snapshot file, for reports.

    Raises:
        SnapshotFileError: a member is absent or not what it should be.
    """
    root = Fields(document, "metadata")
    version = root.text("format", "")
    if version != FORMAT:
        raise SnapshotFileError(
            f"format {version!r} is not known to this version, which reads {FORMAT!r}; "
            "make it anew from the dump, or take a newer dumpleak"
        )
    texts = root.texts("texts")
    places = [_read_place(value) for value in root.items("places")]
    tables = root.object("groups")
    groups = {name: _read_groups(tables, name, texts, places) for name in tables.names()}
    if "site" not in groups:
        raise damaged("metadata.groups", "complete: it has no sites")
    coverage, totals = root.object("coverage"), root.object("totals")
    diagnostics = [_read_diagnostic(item) for item in root.objects("diagnostics")]
    snapshot = Snapshot(
        source=_read_source(root.object("source"), file),
        grouping="site",
        groups={site.key: (site, total) for site, total in groups["site"]},
        totals=_read_totals(totals),
        private={
            site.key: (site, total) for site, total in _read_groups(root, "private", texts, places)
        },
        heaps=[_read_heap(row) for row in root.objects("heaps")],
        coverage=_read_coverage(coverage, is_list_cut(diagnostics)),
        diagnostics=diagnostics,
        limits=tuple(
            Limit(
                item.text("name"), item.integer("free_bytes"), item.integer_or_none("total_bytes")
            )
            for item in root.objects("limits")
        ),
        modules=tuple(_read_module(item) for item in root.objects("modules")),
        stripped=root.flag("stripped"),
        kept_names=tuple(root.texts("kept_names")),
        private_unknown=root.text("private_unknown", ""),
        by_regions="by_regions" not in root.names() or root.flag("by_regions"),
        in_file=next(iter(_read_groups(root, "in_file", texts, places)), None),
    )
    if any(row.kind == POOL for row in snapshot.heaps):
        snapshot.population = POOL
    if len(snapshot.groups) != len(groups["site"]):
        raise damaged("metadata.groups.site", "a list of different sites")
    keys = list(snapshot.groups)
    snapshot.held_by = {
        keys[item.index("site", len(keys))]: Holding(
            item.integer("blocks"),
            item.integer("unreferenced"),
            item.text("holder"),
            item.integer("held"),
            tuple(item.texts("fields")),
        )
        for item in root.objects("holders")
    }
    pool = root.object_or_none("pool")
    about = _read_about(root.object_or_none("about"))
    if not snapshot.is_pool:
        snapshot.outside = _read_account(root, about)
    if root.has("unreferenced"):
        snapshot.unreferenced = unpack_flags(root.text("unreferenced"), root.integer("blocks"))
    return Metadata(
        snapshot,
        {name: table for name, table in groups.items() if name != "site"},
        _read_classes(root.object("classes"), groups),
        root.integer("blocks"),
        about,
        read_record(pool, len(keys)) if pool is not None else None,
        root.integer_or_none("shapes_by") or BY_PDB,
        _read_populations(root, texts, places),
    )


def _read_populations(
    root: Fields, texts: list[str], places: list[Place]
) -> dict[str, StoredPopulation]:
    if not root.has("populations"):
        return {}
    kept, found = root.object("populations"), {}
    for of in kept.names():
        item = kept.object(of)
        groups = item.object("groups")
        tables = {by: _read_groups(groups, by, texts, places) for by in groups.names()}
        found[of] = StoredPopulation(tables, item.flag("sized"), item.text("reason"))
    return found


def _read_classes(item: Fields, groups: dict[str, list[Group]]) -> dict[str, list[int]]:
    found = {name: item.numbers(name, len(table)) for name, table in groups.items()}
    sites = found["site"]
    if sites != sorted(sites) or len({len(numbers) for numbers in found.values()}) != 1:
        raise damaged("metadata.classes", "a table in order of sites")
    return found


def _read_account(root: Fields, about: About | None) -> tuple[Figure, ...] | None:
    """The figures of the account; of an older file what else it says of them."""
    if root.has("account"):
        return tuple(
            Figure(
                item.text("name"),
                item.integer_or_none("value"),
                item.text("reason"),
                item.text("unit"),
            )
            for item in root.objects("account")
        )
    if about is None:
        return None
    reason = "" if about.memory.complete else NO_REGIONS
    committed = sum(row.committed_bytes for row in about.memory.rows)
    return older_figures(about.thread_count, None if reason else committed, reason)


def _about(about: About) -> dict[str, Any]:
    found = asdict(about)
    if about.handles is not None:
        found["handles"] = [{"type": name, "count": count} for name, count in about.handles]
    return found


def _read_about(item: Fields | None) -> About | None:
    if item is None:
        return None
    memory = item.object("memory")
    return About(
        item.flag("full_memory"),
        item.integer("memory_bytes"),
        item.integer("thread_count"),
        item.integer_or_none("nt_global_flag"),
        tuple(_read_module(module) for module in item.objects("unloaded_modules")),
        MemoryByUse(
            tuple(
                UseRow(
                    row.text("use"),
                    row.integer("committed_bytes"),
                    row.integer("present_bytes"),
                    row.integer("regions"),
                )
                for row in memory.objects("rows")
            ),
            memory.flag("complete"),
        ),
        tuple((row.text("type"), row.integer("count")) for row in item.objects("handles"))
        if item.has("handles")
        else None,
    )


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


def _read_groups(parent: Fields, name: str, texts: list[str], places: list[Place]) -> list[Group]:
    return [_read_group(item, texts, places) for item in parent.objects(name)]


def _read_group(item: Fields, texts: list[str], places: list[Place]) -> Group:
    try:
        kind = SiteKind(item.text("kind"))
    except ValueError as error:
        raise damaged("a group's kind", "known") from error
    site = Site(
        kind,
        item.text("key"),
        item.text("name"),
        frames=_chosen(item, "frames", texts),
        type=item.text_or_none("type"),
        tag=item.text_or_none("tag"),
        driver=item.text_or_none("driver"),
        lines=_chosen(item, "lines", texts),
        places=tuple(places[n] for n in item.numbers("places", len(places))),
    )
    return site, _read_totals(item)


def _chosen(item: Fields, name: str, texts: list[str]) -> tuple[str, ...]:
    return tuple(texts[number] for number in item.numbers(name, len(texts)))


def _read_totals(item: Fields) -> Totals:
    return Totals(
        item.integer("count"),
        item.integer("bytes"),
        item.integer("block_bytes"),
        item.integer("largest"),
    )


def _read_place(value: Any) -> Place:
    if not isinstance(value, list) or len(value) != len(Place._fields):
        raise damaged("metadata.places", "a list of places")
    item = Fields(dict(zip(Place._fields, value, strict=True)), "metadata.places")
    return Place(
        item.text("module"),
        item.text("image"),
        item.integer("rva"),
        item.text("function"),
        item.flag("skipped"),
    )


def _read_coverage(item: Fields, list_cut: bool) -> Coverage:
    numbers = (
        item.integer("walked_bytes"),
        item.integer("present_bytes"),
        item.integer("committed_bytes"),
        item.integer("heaps_listed"),
        item.integer("heaps_read"),
        item.integer_or_none("unread_bytes") or 0,
        list_cut,
    )
    if "unbounded" not in item.names():
        return Coverage(*numbers)
    return PoolsCovered(*numbers, item.integer("counted_bytes"), item.flag("unbounded"))


def _read_source(item: Fields, file: str) -> SourceInfo:
    return SourceInfo(
        file=file,
        kind=item.text("kind"),
        machine=item.text("machine"),
        architecture=item.text("architecture"),
        build=item.integer("build"),
        time=item.time_or_none("time"),
        process_id=item.integer_or_none("process_id"),
        program=item.text("program"),
        process_created=item.time_or_none("process_created"),
        program_base=item.integer_or_none("program_base"),
        subject=_read_subject(item),
        cut_bytes=item.integer_or_none("cut_bytes") or 0,
    )


def _read_subject(item: Fields) -> Subject:
    """What the dump tells of; older files say only of what format it is."""
    text = item.text_or_none("subject")
    if text is None:
        return OF_KIND.get(item.text("kind"), Subject.PROCESS)
    try:
        return Subject(text)
    except ValueError:
        raise damaged("source.subject", f"one of {', '.join(Subject)}") from None


def _read_heap(item: Fields) -> HeapRow:
    numbers = {
        name: item.integer_or_none(name, low=-(1 << 63))
        for name in (
            *("flags", "reserved_bytes", "committed_bytes", "used_bytes", "used_count"),
            *("free_bytes", "free_count", "overhead_bytes", "unwalked_bytes", "residual_bytes"),
        )
    }
    return HeapRow(
        label=item.text("label"),
        address=item.integer("address"),
        kind=item.text("kind"),
        architecture=item.text("architecture"),
        reason=item.text("reason"),
        front_end=item.text("front_end"),
        layout=item.text("layout"),
        **numbers,
    )


def _read_diagnostic(item: Fields) -> Diagnostic:
    try:
        severity = Severity(item.text("severity"))
    except ValueError as error:
        raise damaged("a diagnostic's severity", "known") from error
    return Diagnostic(
        item.text("code"),
        severity,
        item.text("structure"),
        item.integer_or_none("address"),
        item.text("message"),
        item.integer("bytes_affected", low=-(1 << 63)),
    )


def _read_module(item: Fields) -> Module:
    identity = item.object_or_none("pdb")
    pdb = (
        PdbIdentity(identity.text("name"), identity.text("guid"), identity.integer("age"))
        if identity
        else None
    )
    return Module(
        name=item.text("name"),
        path=item.text("path"),
        base_address=item.integer("base_address"),
        size_bytes=item.integer("size_bytes"),
        timestamp=item.integer("timestamp"),
        version=item.text("version"),
        pdb=pdb,
        checksum=item.integer_or_none("checksum") or 0,
    )
