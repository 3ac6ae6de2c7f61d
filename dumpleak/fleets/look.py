"""What there is to read: looks at each new file once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from dumpleak.files.detect import HEAD_BYTES
from dumpleak.fleets.contents import Content, Member, has_dump_name, members, recognised
from dumpleak.fleets.places import MEMBER, Place, PlaceError, opened, places
from dumpleak.fleets.store import ARCHIVE, DONE, ERROR, NEW, OTHER, Store, holds_fleet

_AT_ONCE = 256
_THREADS = 16  # stores far away answer slowly, and many at a time


@dataclass(frozen=True)
class Seen:
    """What a run was given.

    Attributes:
        inputs: How many.
        known: Of these, read in a run before.
        to_read: The others.
        others: Files that are none.
        bytes: To read.
    """

    inputs: int
    known: int
    to_read: int
    others: int
    bytes: int


class _Looked(NamedTuple):
    """What a file is, with the inputs in it when it is an archive."""

    content: Content
    members: list[Member] | None = None


def look(
    words: Iterable[str],
    store: Store,
    folder: Path,
    found: Callable[[int], None],
    *,
    retry_errors: bool,
) -> Seen:
    """Finds the inputs, and puts into the store what is new.

    Args:
        words: Paths, globs and URLs.
        store: What is known.
        folder: The fleet's, in which nothing is an input.
        found: Told how many files were found so far.
        retry_errors: What could not be read counts as new.

    Raises:
        PlaceError: a word means nothing, or a store cannot be reached.
    """

    def is_left_out(path: str) -> bool:
        return holds_fleet(path) or (folder.exists() and os.path.samefile(path, folder))

    count = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        for word in words:
            files = places(word, is_left_out)
            while batch := list(islice(files, _AT_ONCE)):
                new = [place for place in batch if _is_new(place, store, retry_errors=retry_errors)]
                for place, looked in zip(new, threads.map(_looked, new), strict=True):
                    _put(place, looked, store)
                count += len(batch)
                found(count)
    store.save()
    to_read, known = store.count(NEW), store.count(DONE)
    return Seen(to_read + known, known, to_read, store.count(OTHER), store.new_bytes())


def _is_new(place: Place, store: Store, *, retry_errors: bool) -> bool:
    known = store.known(place.url)
    if known is None or (known.bytes, known.stamp) != (place.bytes, place.stamp):
        return True
    if place.named and known.state == OTHER:
        return True
    if place.error and (retry_errors or known.status != ERROR):
        return True
    if retry_errors:
        store.retry(place.url)
    store.see(place.url)
    return False


def _looked(place: Place) -> _Looked:
    """What a file is; one that cannot be read is left to a worker, which says why."""
    if place.error:
        is_input = place.named or has_dump_name(place.url)
        return _Looked(Content.INPUT if is_input else Content.OTHER)
    content = Content.INPUT
    try:
        with opened(place.url) as file:
            head = file.read(HEAD_BYTES)
            content = recognised(head, place.url)
            if content is Content.ARCHIVE:
                file.seek(0)
                inside = members(file, place.url, head)
                return _of_archive(inside, is_named=place.named)
    except (OSError, PlaceError):
        return _Looked(Content.INPUT)
    return _Looked(Content.INPUT if place.named else content)


def _of_archive(inside: list[Member] | None, *, is_named: bool) -> _Looked:
    if inside:
        return _Looked(Content.ARCHIVE, inside)
    is_input = inside is None or is_named
    return _Looked(Content.INPUT if is_input else Content.OTHER)


_STATES = {Content.INPUT: NEW, Content.ARCHIVE: ARCHIVE, Content.OTHER: OTHER}


def _put(place: Place, looked: _Looked, store: Store) -> None:
    store.put(place, _STATES[looked.content])
    for member in looked.members or ():
        inside = replace(place, url=f"{place.url}{MEMBER}{member.name}", bytes=member.bytes)
        store.put(inside, NEW, place.url, member.name)


__all__ = ["Seen", "look"]
