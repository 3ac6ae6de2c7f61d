"""Who owns a pool tag where there are no images to search: what tables say, and no more."""

from __future__ import annotations

from collections.abc import Iterable

from dumpleak.model.owners import MEDIUM, STRONG, Owner, Ownership
from dumpleak.owners.tag_table import BUILT_IN, TagNote

WRITTEN_WEIGHT, BUILT_IN_WEIGHT, WILDCARD_SHARE = 0.5, 0.45, 0.7
_NO_IMAGES = "a log holds no images to search for the tag: only tables tell of its owner"


def owner_by_notes(tag: str, notes: Iterable[TagNote | None]) -> Ownership:
    """The owner of a tag by what several tables say of it, the most trusted first.

    Args:
        tag: Four characters.
        notes: What each says; None where one says nothing.
    """
    said: dict[str, list[tuple[float, str]]] = {}
    names: dict[str, str] = {}
    description = ""
    for note in notes:
        if note is None:
            continue
        description = description or note.description
        weight = BUILT_IN_WEIGHT if note.source == BUILT_IN else WRITTEN_WEIGHT
        weight *= 1 if note.is_exact else WILDCARD_SHARE
        for driver in note.drivers:
            name = names.setdefault(driver.lower(), driver)
            source = f"the {note.source}" if note.source == BUILT_IN else note.source
            said.setdefault(name, []).append((weight, f"{source} names it"))
    owners = [_owner(name, evidence) for name, evidence in said.items()]
    owners.sort(key=lambda owner: (-owner.score, owner.driver.lower()))
    sure = owners and owners[0].score >= MEDIUM
    return Ownership(tag, tuple(owners), description, "" if sure else _NO_IMAGES)


def _owner(name: str, evidence: list[tuple[float, str]]) -> Owner:
    doubt = 1.0
    for weight, _ in evidence:
        doubt *= 1 - weight
    score = 1 - doubt
    word = "strong" if score >= STRONG else "medium" if score >= MEDIUM else "weak"
    return Owner(name, round(score, 4), word, tuple(text for _, text in evidence))
