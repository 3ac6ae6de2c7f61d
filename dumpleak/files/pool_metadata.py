"""What a snapshot file keeps of the kernel's pools besides its blocks, to JSON and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Annotated, Any, Literal

from dumpleak.files.checked_json import Absent, Bounds, Fraction, Named, Signed, WrongMemberError
from dumpleak.model.boots import Boot
from dumpleak.model.owners import CONFIDENCES, Owner, Ownership
from dumpleak.model.pool import POOLS, TRACKERS, WALK, Counters, TagRow, sited
from dumpleak.model.pool_account import PoolAccount, Residual
from dumpleak.model.pool_sites import Refuted
from dumpleak.model.pools import Pools
from dumpleak.model.snapshot import SourceInfo
from windumps.pool_tags import tag_text

_MICROSECOND = timedelta(microseconds=1)
_REFUTED = ("tag", "pool", "count", "bytes")
_COUNTERS = ("allocs", "frees", "count", "bytes")
# Members of `Pools` that stand in the object as they are.
_PLAIN = (
    *("has_trackers", "counter_bits", "absent_entries", "has_session_pool", "why_no_session_pool"),
)


_TagNumber = Annotated[int, Bounds(0, (1 << 32) - 1)]
_Counter = Signed | None
_PoolNumber = Annotated[int, Bounds(0, len(POOLS) - 1)]
_RefutedRow = Annotated[tuple[_TagNumber, _PoolNumber, int, int], Named(_REFUTED)]


@dataclass
class _Tag:
    tag: _TagNumber
    source: str
    pools: dict[str, tuple[_Counter, _Counter, _Counter, _Counter]]
    owners: tuple[Owner, ...]
    description: str
    note: str
    on_behalf: str
    unloaded: tuple[str, ...]


@dataclass
class StoredPool:
    """The JSON object."""

    tags: list[_Tag]
    account: PoolAccount
    has_trackers: bool
    counter_bits: Literal[32, 64]
    absent_entries: int
    has_session_pool: bool
    why_no_session_pool: str
    kernel_base: int
    up_time_microseconds: Annotated[int, Bounds(0, timedelta(days=365_000) // _MICROSECOND)] | None
    refuted: tuple[Refuted, ...]


# Where a member is less, or more, than its class says.
POOL_HINTS: dict[type, dict[str, Any]] = {
    _Tag: {
        "source": Literal[TRACKERS, WALK],
        "on_behalf": Annotated[str, Absent("")],
        "unloaded": Annotated[tuple[str, ...], Absent([])],
    },
    StoredPool: {"refuted": Annotated[tuple[_RefutedRow, ...], Absent([])]},
    Owner: {"score": Fraction, "confidence": Literal[CONFIDENCES]},
    Residual: {"pool": Literal[POOLS], "count": Signed, "bytes": Signed},
    PoolAccount: {
        "ranking": Literal[TRACKERS, WALK],
        "tracked_bytes": Signed | None,
        "uncounted_bytes": Signed,
        "matched_bytes": Signed | None,
        # Files written before the blocks could refute counters do not have these.
        "tags_by_blocks": Annotated[int, Absent(0)],
        "by_blocks_bytes": Annotated[int, Absent(0)],
        "refuted_tags": Annotated[int, Absent(0)],
        "pool_count": Annotated[int, Absent(2)],
        "large_unknown": Annotated[bool, Absent(False)],
        "doubt_bytes": Annotated[int, Absent(0)],
    },
}


def pools_json(pools: Pools, boot: Boot | None) -> dict[str, Any]:
    """The JSON object."""
    up_time = boot.up_time if boot else None
    return {
        "tags": [_row_json(row) for row in pools.rows],
        "account": asdict(pools.account),
        **{name: getattr(pools, name) for name in _PLAIN},
        "kernel_base": boot.kernel_base if boot else 0,
        "up_time_microseconds": None if up_time is None else up_time // _MICROSECOND,
        "refuted": [dict(zip(_REFUTED, row, strict=True)) for row in pools.refuted],
    }


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
        "on_behalf": owner.on_behalf,
        "unloaded": list(owner.unloaded),
    }


def pools_of(stored: StoredPool, site_count: int) -> Pools:
    """What the JSON object says.

    Args:
        stored: The object.
        site_count: Sites of the snapshot.

    Raises:
        WrongMemberError: its members do not fit together.
    """
    rows = tuple(_row(tag) for tag in stored.tags)
    numbers = [row.number for row in rows]
    if numbers != sorted(set(numbers)):
        raise WrongMemberError("a list of tags in order, each once", "metadata.pool.tags")
    if len(sited(rows)) != site_count:
        raise WrongMemberError("in accord with the list of sites", "metadata.pool.tags")
    plain = {name: getattr(stored, name) for name in _PLAIN}
    return Pools(rows, stored.account, refuted=stored.refuted, **plain)


def boot_of(stored: StoredPool, source: SourceInfo) -> Boot:
    """Which run of the system it is of."""
    up_time = stored.up_time_microseconds
    told = None if up_time is None else up_time * _MICROSECOND
    return Boot(stored.kernel_base, source.time, told, source.file)


def _row(stored: _Tag) -> TagRow:
    text = tag_text(stored.tag)
    if not stored.pools.keys() <= set(POOLS):
        raise WrongMemberError(
            f"of {', '.join(POOLS)}", f"metadata.pool: pools of tag {stored.tag:#x}"
        )
    owner = Ownership(
        text, stored.owners, stored.description, stored.note, stored.on_behalf, stored.unloaded
    )
    pools = {pool: Counters(*stored.pools[pool]) for pool in POOLS if pool in stored.pools}
    return TagRow(stored.tag, text, pools, stored.source, owner)


def said_anew(pools: Pools, say: Callable[[str], str]) -> Pools:
    """Pools with each sentence about them said otherwise; names of drivers stay."""

    def owner(old: Ownership) -> Ownership:
        owners = tuple(
            replace(each, evidence=tuple(say(text) for text in each.evidence))
            for each in old.owners
        )
        return replace(old, owners=owners, description=say(old.description), note=say(old.note))

    account = pools.account
    return replace(
        pools,
        rows=tuple(replace(row, owner=owner(row.owner)) for row in pools.rows),
        account=replace(
            account,
            reason=say(account.reason),
            trackers=say(account.trackers),
            walk=say(account.walk),
            notes=tuple(say(text) for text in account.notes),
        ),
        why_no_session_pool=say(pools.why_no_session_pool),
    )
