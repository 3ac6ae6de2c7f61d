"""Where the memory of a system is: what is known of it, and the rest that nothing in the dump explains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dumpleak.model.account import AccountRow, Figure
from dumpleak.model.balance import Balance, Share, balances
from dumpleak.model.units import format_bytes
from dumpleak.reports.document import Column, Kind, Line, Part, Row, Table, View
from dumpleak.reports.values import Name
from dumpleak.reports.values import Share as Ratio

WORTH_TELLING = 0.05  # share of the whole by which one of its parts has to move
PHYSICAL = "physical memory"


def balance_tables(account: Sequence[Figure]) -> list[Part]:
    """Of one dump: each whole with its parts."""
    parts: list[Part] = []
    for balance in balances(account):

        def row(_: int, share: Share, whole: int = balance.total.points[0]) -> Row:
            size = share.points[0]
            return size, Ratio(max(size, 0), whole), Name(share.label)

        columns = (
            Column("bytes", Kind.BYTES),
            Column("share", Kind.SHARE),
            Column(f"{balance.of} of {format_bytes(balance.total.points[0])}", Kind.NAME),
        )
        parts += [_table(balance, columns, row, View.PEOPLE), Line(_rest(balance))]
    return parts


def balance_growth_tables(account: Sequence[AccountRow]) -> list[Part]:
    """Of two dumps and more: each whole of which a part moved much."""
    parts: list[Part] = []
    for balance in balances(account):
        shares = (*balance.parts, balance.rest)
        least = WORTH_TELLING * max(balance.total.points)
        if max(abs(share.delta) for share in (balance.total, *shares)) < least:
            continue
        columns = (
            Column("bytes +/-", Kind.BYTES, signed=True, hint="last minus first"),
            Column("base", Kind.BYTES),
            Column("current", Kind.BYTES),
            Column(f"{balance.of} of {format_bytes(balance.total.points[-1])}", Kind.NAME),
        )
        parts += [_table(balance, columns, _moved, View.PEOPLE), Line(_rest(balance))]
    return parts


def _moved(_: int, share: Share) -> Row:
    return share.delta, share.points[0], share.points[-1], Name(share.label)


def _table(balance: Balance, columns: Sequence[Column], row: Any, views: View) -> Table[Share]:
    rows = (*balance.parts, balance.rest)
    title = f"Where {balance.of} is"
    return Table(f"balance-{balance.of.partition(' ')[0]}", title, columns, rows, row, views)


def _rest(balance: Balance) -> str:
    return f"Not explained may be: {balance.holds}."


def rest_told(account: Sequence[AccountRow]) -> str:
    """By how much the unexplained physical memory changed: "not explained +824 MiB"; "" if unknown."""
    found = next((each for each in balances(account) if each.of == PHYSICAL), None)
    if found is None:
        return ""
    return f"not explained {format_bytes(found.rest.delta, signed=True)}"


def balance_json(account: Sequence[AccountRow] | Sequence[Figure]) -> list[dict[str, Any]]:
    """All balances that can be made: of one dump with `value`, else with `base`, `current`, `delta`."""
    return [
        {
            "of": balance.of,
            "total": _share(balance.total),
            "parts": [_share(part) for part in balance.parts],
            "rest": _share(balance.rest),
            "rest_holds": balance.holds,
        }
        for balance in balances(account)
    ]


def _share(share: Share) -> dict[str, Any]:
    made: dict[str, Any] = {"name": share.name or None, "label": share.label}
    if len(share.points) == 1:
        return made | {"value": share.points[0]}
    return made | {
        "base": share.points[0],
        "current": share.points[-1],
        "delta": share.delta,
    }
