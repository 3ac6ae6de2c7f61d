"""Tags that grow together, as facts of a summary and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dumpleak.compare.answers import Comparison
from dumpleak.compare.trend import Trend
from dumpleak.model.owners import Ownership
from dumpleak.model.sites import Site
from dumpleak.model.together import Together, group_of
from windumps.pool_tags import tag_text

NAMED_GROUPS = 3
Facts = list[tuple[str, str]]


def together_facts(answer: Comparison | Trend) -> Facts:
    """Which tags grew together and which of them is the root; the largest groups."""
    facts = [("Together", group.told) for group in answer.together[:NAMED_GROUPS]]
    more = len(answer.together) - NAMED_GROUPS
    return [*facts, *([("Together", f"{more} more groups of tags")] if more > 0 else [])]


def roots_told(answer: Comparison | Trend) -> str:
    """What a headline adds of the largest group of which the root is known; "" for none."""
    group = next((group for group in answer.together if group.root is not None), None)
    if group is None or group.root is None:
        return ""
    what = f"{len(group.tags)} of them"
    if group.by_counters:
        what = f"by counters alone {len(group.tags)}"
    return f", {what} together (root: {tag_text(group.root).rstrip()})"


def with_counted_roots(facts: Facts, answer: Comparison | Trend) -> Facts:
    """The facts, with the roots that only the counters know of named behind who grew by blocks."""
    found = []
    told = dict(facts).get("Who", "")
    for group in answer.together:
        if group.by_counters and group.root is not None:
            tag = tag_text(group.root).rstrip()
            if tag not in told:
                grew = f"{group.growth[0]:+,} blocks, and {len(group.tags) - 1} tags with it"
                found.append(f"{tag} {_owner(answer, group.root).whose} ({grew})")
    if not found:
        return facts
    roots = f"by counters alone {', '.join(found)}"
    if not told:
        return [*facts, ("Who", roots)]
    return [(label, f"{text}; {roots}" if label == "Who" else text) for label, text in facts]


def _owner(answer: Comparison | Trend, tag: int) -> Ownership:
    sides = (answer.current.pool, answer.base.pool)
    known = (side.owners[tag] for side in sides if side is not None and tag in side.owners)
    return next(known, Ownership(tag_text(tag)))


def membership_json(groups: Sequence[Together], tag: int | None) -> dict[str, Any]:
    """Which group a tag is in, and whether it is the root of it; null each where it is in none."""
    group = group_of(groups, tag)
    return {
        "group": group.number if group else None,
        "root": group.root == tag if group and group.root is not None else None,
    }


def site_membership(answer: Comparison | Trend, site: Site) -> dict[str, Any]:
    """As `membership_json`, of a site; nothing of what are no pools."""
    return membership_json(answer.together, answer.tag_of(site)) if answer.base.is_pool else {}


def together_json(groups: Sequence[Together]) -> list[dict[str, Any]]:
    """All groups of tags that grew together."""
    return [
        {
            "group": group.number,
            "root": None if group.root is None else tag_text(group.root),
            "tags": [
                {"tag": tag_text(tag), "delta_count": growth}
                for tag, growth in zip(group.tags, group.growth, strict=True)
            ],
            "by_counters": group.by_counters,
            "evidence": list(group.evidence),
        }
        for group in groups
    ]
