"""What a snapshot file keeps of the kernel's pools besides its blocks, to JSON and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

from dumpleak.files.checked_json import Fields, damaged
from dumpleak.model.boots import Boot
from dumpleak.model.owners import CONFIDENCES, Owner, Ownership
from dumpleak.model.pool import POOLS, TRACKERS, WALK, Counters, TagRow, sited
from dumpleak.model.pool_account import PoolAccount, Residual
from dumpleak.model.pool_sites import Refuted
from dumpleak.model.snapshot import SourceInfo
from windumps.pool_tags import tag_text

_MICROSECOND = timedelta(microseconds=1)
_LOW = -(1 << 63)  # of numbers that are below zero in a damaged dump
_MAX_TAG = 1 << 32
_MAX_UP_TIME = timedelta(days=365_000) // _MICROSECOND
_REFUTED = ("tag", "pool", "count", "bytes")
_COUNTERS = ("allocs", "frees", "count", "bytes")


@dataclass(frozen=True)
class PoolRecord:
    """What is known of the pools of one dump.

    Attributes:
        rows: One a tag, ascending by number.
        account: Of the pools as a whole, after a walk.
        has_trackers: See `PoolSource`, as for the next four.
        counter_bits: Width of allocs and frees.
        absent_entries: Entries of the tracker tables that are not in the dump.
        has_session_pool: The counters of session pool were found.
        why_no_session_pool: Why there is none.
        kernel_base: See `Boot`.
        up_time: See `Boot`.
        refuted: See `refuted_counters`.
    """

    rows: tuple[TagRow, ...]
    account: PoolAccount
    has_trackers: bool
    counter_bits: int
    absent_entries: int
    has_session_pool: bool
    why_no_session_pool: str
    kernel_base: int
    up_time: timedelta | None
    refuted: tuple[Refuted, ...] = ()

    def boot(self, source: SourceInfo) -> Boot:
        """Which run of the system it is of."""
        return Boot(self.kernel_base, source.time, self.up_time, source.file)


def record_json(record: PoolRecord) -> dict[str, Any]:
    """The JSON object."""
    up_time = record.up_time
    return {
        "tags": [_row_json(row) for row in record.rows],
        "account": asdict(record.account),
        "has_trackers": record.has_trackers,
        "counter_bits": record.counter_bits,
        "absent_entries": record.absent_entries,
        "has_session_pool": record.has_session_pool,
        "why_no_session_pool": record.why_no_session_pool,
        "kernel_base": record.kernel_base,
        "up_time_microseconds": None if up_time is None else up_time // _MICROSECOND,
        "refuted": [dict(zip(_REFUTED, row, strict=True)) for row in record.refuted],
    }


def read_record(item: Fields, site_count: int) -> PoolRecord:
    """Reads the JSON object.

    Args:
        item: The object.
        site_count: Sites of the snapshot.

    Raises:
        SnapshotFileError: a member is absent or not what it should be.
    """
    rows = tuple(_read_row(row) for row in item.objects("tags"))
    numbers = [row.number for row in rows]
    if numbers != sorted(set(numbers)):
        raise damaged("metadata.pool.tags", "a list of tags in order, each once")
    if len(sited(rows)) != site_count:
        raise damaged("metadata.pool.tags", "in accord with the list of sites")
    bits = item.integer("counter_bits")
    if bits not in (32, 64):
        raise damaged("metadata.pool.counter_bits", "32 or 64")
    up_time = item.integer_or_none("up_time_microseconds")
    if up_time is not None and up_time > _MAX_UP_TIME:
        raise damaged("metadata.pool.up_time_microseconds", "a possible time")
    return PoolRecord(
        rows=rows,
        account=_read_account(item.object("account")),
        has_trackers=item.flag("has_trackers"),
        counter_bits=bits,
        absent_entries=item.integer("absent_entries"),
        has_session_pool=item.flag("has_session_pool"),
        why_no_session_pool=item.text("why_no_session_pool"),
        kernel_base=item.integer("kernel_base"),
        up_time=None if up_time is None else up_time * _MICROSECOND,
        # Older files do not have it.
        refuted=tuple(_read_refuted(row) for row in item.objects("refuted"))
        if "refuted" in item.names()
        else (),
    )


def _read_refuted(row: Fields) -> Refuted:
    return (
        row.index("tag", _MAX_TAG),
        row.index("pool", len(POOLS)),
        row.integer("count"),
        row.integer("bytes"),
    )


def _row_json(row: TagRow) -> dict[str, Any]:
    owner = row.owner
    return {
        "tag": row.number,
        "source": row.source,
        "pools": {
            pool: [getattr(counters, name) for name in _COUNTERS]
            for pool, counters in row.pools.items()
        },
        "owners": [asdict(candidate) for candidate in owner.owners],
        "description": owner.description,
        "note": owner.note,
    }


def _read_row(item: Fields) -> TagRow:
    number = item.index("tag", _MAX_TAG)
    text = tag_text(number)
    pools = item.object("pools")
    if not set(pools.names()) <= set(POOLS):
        raise damaged("a tag's pools", "known")
    owners = tuple(_read_owner(owner) for owner in item.objects("owners"))
    return TagRow(
        number,
        text,
        {pool: _read_counters(pools, pool) for pool in POOLS if pool in pools.names()},
        _choice(item, "source", (TRACKERS, WALK)),
        Ownership(text, owners, item.text("description"), item.text("note")),
    )


def _read_counters(pools: Fields, pool: str) -> Counters:
    values = pools.items(pool)
    if len(values) != len(_COUNTERS):
        raise damaged("a tag's counters", "four numbers")
    item = Fields(dict(zip(_COUNTERS, values, strict=True)), f"a tag's {pool} counters")
    return Counters(*(item.integer_or_none(name, _LOW) for name in _COUNTERS))


def _read_owner(item: Fields) -> Owner:
    return Owner(
        item.text("driver"),
        item.fraction("score"),
        _choice(item, "confidence", CONFIDENCES),
        tuple(item.texts("evidence")),
    )


def _read_account(item: Fields) -> PoolAccount:
    return PoolAccount(
        ranking=_choice(item, "ranking", (TRACKERS, WALK)),
        reason=item.text("reason"),
        trackers=item.text("trackers"),
        walk=item.text("walk"),
        tracked_bytes=item.integer_or_none("tracked_bytes", _LOW),
        tag_count=item.integer("tag_count"),
        unknown_tags=item.integer("unknown_tags"),
        walked_bytes=item.integer_or_none("walked_bytes"),
        walked_count=item.integer_or_none("walked_count"),
        uncounted_bytes=item.integer("uncounted_bytes", _LOW),
        matched_bytes=item.integer_or_none("matched_bytes", _LOW),
        absent_bytes=item.integer("absent_bytes"),
        damaged_bytes=item.integer("damaged_bytes"),
        missing_bytes=item.integer("missing_bytes"),
        residuals=tuple(
            Residual(
                row.text("tag"),
                _choice(row, "pool", POOLS),
                row.integer("count", _LOW),
                row.integer("bytes", _LOW),
            )
            for row in item.objects("residuals")
        ),
        notes=tuple(item.texts("notes")),
        # Files written before the blocks could refute counters do not have it.
        tags_by_blocks=item.integer("tags_by_blocks") if "tags_by_blocks" in item.names() else 0,
        by_blocks_bytes=item.integer("by_blocks_bytes") if "by_blocks_bytes" in item.names() else 0,
        refuted_tags=item.integer("refuted_tags") if "refuted_tags" in item.names() else 0,
        pool_count=item.integer("pool_count") if "pool_count" in item.names() else len(POOLS[:2]),
        large_unknown="large_unknown" in item.names() and item.flag("large_unknown"),
        pool_bytes=item.integer_or_none("pool_bytes") if "pool_bytes" in item.names() else None,
        doubt_bytes=item.integer("doubt_bytes") if "doubt_bytes" in item.names() else 0,
    )


def _choice(item: Fields, name: str, choices: tuple[str, ...]) -> str:
    value = item.text(name)
    if value not in choices:
        raise damaged(f"a tag's or a pool's {name}", f"one of {', '.join(choices)}")
    return value


def said_anew(record: PoolRecord, say: Callable[[str], str]) -> PoolRecord:
    """The same with each sentence in it said otherwise; names of drivers stay."""
    account = record.account
    return replace(
        record,
        rows=tuple(
            replace(
                row,
                owner=replace(
                    row.owner,
                    owners=tuple(
                        replace(owner, evidence=tuple(say(text) for text in owner.evidence))
                        for owner in row.owner.owners
                    ),
                    description=say(row.owner.description),
                    note=say(row.owner.note),
                ),
            )
            for row in record.rows
        ),
        account=replace(
            account,
            reason=say(account.reason),
            trackers=say(account.trackers),
            walk=say(account.walk),
            notes=tuple(say(text) for text in account.notes),
        ),
        why_no_session_pool=say(record.why_no_session_pool),
    )
