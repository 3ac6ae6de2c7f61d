"""What several answers and formats take from the model in the same way: rows of blocks, groups, accounts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from dumpleak.model.account import UNEXPLAINED, AccountRow
from dumpleak.model.block_page import BlockPage
from dumpleak.model.info import Info
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.texts import Texts
from dumpleak.model.totals import Totals
from dumpleak.model.units import format_address, format_bytes
from windumps.blocks import SIZE_UNKNOWN, Kind, State
from windumps.pool_tags import tag_text

TYPES = 6  # types of handles that are named
ADDRESSES_SHOWN = 0.01  # share of free address space from which a change of it is shown

_STATES = {int(state): state.name.lower() for state in State}
_KINDS = {int(kind): kind.label for kind in Kind}


def block_rows(pages: Iterable[BlockPage], top: int | None) -> Iterator[tuple[str | int, ...]]:
    """Block rows in the interface's column order; at most `top`."""
    left = top
    for page in pages:
        blocks = page.blocks
        count = len(blocks) if left is None else min(len(blocks), left)
        heap = page.heap_name or format_address(page.heap_address, page.pointer_size)
        tags = {tag: tag_text(tag) if tag else "" for tag in set(blocks.tag[:count].tolist())}
        columns = zip(
            blocks.address[:count].tolist(),
            blocks.size[:count].tolist(),
            blocks.block_bytes[:count].tolist(),
            blocks.state[:count].tolist(),
            blocks.kind[:count].tolist(),
            blocks.trace[:count].tolist(),
            blocks.tag[:count].tolist(),
            page.sites.rows()[:count],
            page.types.rows()[:count],
            strict=True,
        )
        for address, size, block_bytes, state, kind, trace, tag, site, type_ in columns:
            yield (
                format_address(address, page.pointer_size),
                "" if size == SIZE_UNKNOWN else size,
                block_bytes,
                _STATES[state],
                heap,
                _KINDS[kind],
                type_,
                tags[tag],
                site,
                f"0x{trace:x}" if trace else "",
                page.heap_label,
            )
        if left is not None:
            left -= count
            if not left:
                return


def nullable_block(values: dict[str, Any]) -> dict[str, Any]:
    """A block row for JSON: what is not known is null."""
    for name in ("size", "type", "tag", "stack_id"):
        values[name] = None if values[name] == "" else values[name]
    return values


def holder_evidence(snapshot: Snapshot, site: Site) -> list[str]:
    """Who holds the blocks of a site, one clause each; empty where that was not looked for."""
    holding = snapshot.held_by.get(site.key)
    return list(holding.evidence) if holding is not None else []


def texts_of(snapshot: Snapshot, site: Site) -> Texts | None:
    """What text its blocks hold, where that was looked for."""
    holding = snapshot.held_by.get(site.key)
    return holding.texts if holding is not None else None


def quoted(texts: Texts | None) -> tuple[str, ...]:
    """What is written in blocks, for people; nothing where that was not asked for."""
    return tuple(f'"{text}"' for text in texts.samples) if texts is not None else ()


def samples_json(texts: Texts | None) -> dict[str, list[str]]:
    """What is written in blocks, where that was asked for."""
    return {"samples": list(texts.samples)} if texts is not None and texts.samples else {}


def whole_of(rows: Iterable[AccountRow]) -> str:
    """What an account is of: "process", or "system"."""
    of_system = any(row.name.startswith(("pool.", "memory.")) for row in rows)
    return "system" if of_system else "process"


def changed(rows: Iterable[AccountRow]) -> list[AccountRow]:
    """Rows of the account that are worth showing: what changed, but for what the sites tell."""
    told = ("blocks.", "private.count", "private.bytes", "pool.count", "pool.bytes")
    return [
        row
        for row in rows
        if row.delta
        and not row.name.startswith(told)
        and (row.kind.threshold or abs(row.delta) >= ADDRESSES_SHOWN * (row.base or 0))
    ]


WOW64 = "WoW64, a 32-bit program on 64-bit Windows"


def process_facts(info: Info) -> list[tuple[str, str]]:
    """What the dump says of open handles, and of what Windows charged to the process."""
    figures = {figure.name: figure for figure in info.account}
    halves = "; heaps of both halves are listed" * info.both_halves
    facts = [("Process", f"{WOW64}{halves}")] if info.is_wow64 else []
    if info.handles is not None:
        told = [f"{number:,} {name or 'of unknown type'}" for name, number in info.handles[:TYPES]]
        if len(info.handles) > TYPES:
            told.append(f"{len(info.handles) - TYPES} types more")
        total = f"{sum(number for _, number in info.handles):,}"
        if figures["handles.count"].value is None:
            total = f"{total} and more, the list is cut or damaged"
        facts.append(("Handles", f"{total}{': ' * bool(told)}{', '.join(told)}"))
    private, rest = (figures.get(name) for name in ("counters.private_bytes", UNEXPLAINED))
    if private is not None and private.value is not None:
        why = "not known how much of it the dump explains"
        if rest is not None and rest.value is not None:
            why = f"{format_bytes(max(rest.value, 0))} of it not explained by memory in the dump"
        facts.append(("Private bytes", f"{format_bytes(private.value)} counted by Windows, {why}"))
    return facts


def retained_of(snapshot: Snapshot, site: Site) -> tuple[int | None, int | None]:
    """(bytes, count) of what the blocks of a site keep alive; None where that is not known."""
    holding = snapshot.held_by.get(site.key)
    return (holding.retained_bytes, holding.retained_count) if holding else (None, None)


def ranked_groups(snapshot: Snapshot) -> list[tuple[Site, Totals]]:
    """Groups by used bytes, largest first; by what they keep alive where that was asked for.

    Equal ones by name, so that the order is always the same.
    """

    def rank(pair: tuple[Site, Totals]) -> tuple[int, int, int, str]:
        site, totals = pair
        kept = retained_of(snapshot, site)[0] if snapshot.tells_retained else 0
        return -(kept or 0), -totals.bytes, -totals.count, site.key

    return sorted(snapshot.groups.values(), key=rank)
