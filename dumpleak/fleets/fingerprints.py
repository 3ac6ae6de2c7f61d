"""Fingerprints: what a site is called in all builds and on all machines.

Made of names, best first: functions of the program's own frames, classes, tags with their drivers. What has
no name is known by its modules and the size of its blocks. No address or offset in an image is part of it.
Names are hashed as in snapshots without names, so that such a snapshot has the same fingerprints.

Where two sites of one snapshot have no name to tell them apart, each also gets the place of its code: that
holds for one build only, but two leaks never are one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from dumpleak.model.owners import drivers_named
from dumpleak.model.sites import Place, Site, SiteKind, is_private
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.stripping import Names, hashed_key, hashed_name
from dumpleak.model.totals import Totals

_BYTES = 12
_EXACT_BYTES = 4
# Windows' own, which calls the program and allocates for it: which of its functions did so differs by build.
_WINDOWS = frozenset(
    hashed_name("module", name)
    for name in (
        *("ntdll.dll", "wntdll.dll", "kernel32.dll", "kernelbase.dll", "wow64.dll", "wow64cpu.dll"),
        *("ucrtbase.dll", "ucrtbased.dll", "msvcrt.dll", "vcruntime140.dll", "vcruntime140d.dll"),
    )
)
_SHAPE = re.compile(r"(?P<size>\d+ bytes|unknown size) in (?P<heap>[^()]+) \([^()]*\)")
_LEADS_TO = " -> "
_OFFSET = re.compile(r"\+0x[0-9a-f]+$")
_LINE = re.compile(r"\(\d+\)$")
_VARIED = "varied sizes"


class _Parts(NamedTuple):
    """What a fingerprint is made of.

    Attributes:
        named: What holds in all builds.
        exact: What tells sites apart that have that in common; "" where nothing has to.
    """

    named: tuple[str, ...]
    exact: str = ""


class Fingerprints:
    """The fingerprints of a snapshot's sites.

    Args:
        snapshot: The snapshot, grouped by site.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        program = snapshot.source.program
        self._program = hashed_name("module", program) if program else ""
        self._sizes = _sizes(snapshot)
        sites = [*snapshot.groups.values(), *snapshot.private.values()]
        self._seen = Counter(self._parts(site, totals).named for site, totals in sites)

    def of(self, site: Site, totals: Totals) -> str:
        """The fingerprint of a site, with what it has in the snapshot."""
        parts = self._parts(site, totals)
        text = "\n".join(parts.named)
        named = f"{site.kind}-{_digest(text, _BYTES)}"
        if parts.exact and self._seen[parts.named] > 1:
            return f"{named}-{_digest(parts.exact, _EXACT_BYTES)}"
        return named

    def _parts(self, site: Site, totals: Totals) -> _Parts:
        match site.kind:
            case SiteKind.STACK:
                return self._stack(site, totals)
            case SiteKind.TYPE if site.places:
                place = site.places[0]
                if place.function:
                    return _Parts((self._program, *_code(place)))
                size = self._size(site, totals)
                return _Parts((self._program, _module(place), "vftable", size), _exact([place]))
            case SiteKind.SOURCE:
                file = hashed_name("source", _LINE.sub("", site.name).replace("\\", "/"))
                return _Parts((self._program, file, self._size(site, totals)), hashed_key(site.key))
            case SiteKind.TAG:
                return _tag(site)
            case SiteKind.SHAPE if not is_private(site) and (said := _SHAPE.match(site.name)):
                image = site.name.rpartition(_LEADS_TO)[2] if _LEADS_TO in site.name else ""
                shown = image and hashed_name("module", image)
                return _Parts((self._program, said["heap"], said["size"], shown))
        return _Parts((self._program, hashed_key(site.key)))

    def _stack(self, site: Site, totals: Totals) -> _Parts:
        """All frames but the allocator's; of Windows' own only the module, and once."""
        if not site.places:
            names = Names(())
            frames = [_OFFSET.sub("", names.frame(frame)) for frame in site.frames]
            if any("!" not in frame for frame in frames):
                frames.append(self._size(site, totals))
            return _Parts((self._program, *frames), hashed_key(site.key))
        texts: list[str] = []
        places = [place for place in site.places if not place.skipped] or list(site.places)
        own = [place for place in places if _module(place) not in _WINDOWS]
        unnamed = not own or any(place.module and not place.function for place in own)
        for place in places:
            module = _module(place)
            if own and module in _WINDOWS:
                if texts[-1:] != [module]:
                    texts.append(module)
            else:
                texts += _code(place)
        if not unnamed:
            return _Parts(tuple(texts), "")
        return _Parts((self._program, *texts, self._size(site, totals)), _exact(places))

    def _size(self, site: Site, totals: Totals) -> str:
        """The size of a site's blocks; `_VARIED` where they have several."""
        size = self._sizes.get(site.key)
        if size is None and totals.count and totals.count * totals.largest == totals.bytes:
            size = totals.largest
        return _VARIED if size is None else str(size)


def without_place(fingerprint: str) -> str:
    """A fingerprint as it is where no other site shares its names."""
    return "-".join(fingerprint.split("-")[:2])


def _digest(text: str, size: int) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()


def _code(place: Place) -> tuple[str, ...]:
    """A frame: module and function, or the module alone."""
    if not place.module:
        return (place.image,)
    if not place.function:
        return (_module(place),)
    return (f"{_module(place)}!{hashed_name('function', place.function)}",)


def _module(place: Place) -> str:
    return hashed_name("module", place.module) if place.module else ""


def _exact(places: Iterable[Place]) -> str:
    # The image without its name, which may be hashed.
    return "\n".join(f"{place.image.rpartition(':')[2]}+{place.rva:x}" for place in places)


def _tag(site: Site) -> _Parts:
    """Tag and driver, and which pool."""
    tag = site.tag or ""
    head = site.name.removesuffix(site.driver or "").partition(",")[0]
    pool = head[len(tag.rstrip()) :].strip()
    drivers = [hashed_name("module", name) for name in drivers_named(site.driver)]
    return _Parts((tag, pool, *sorted(drivers)))


def _sizes(snapshot: Snapshot) -> dict[str, int]:
    """By key the size of a site's blocks, where all have one; only sites that may lack a name count."""
    unnamed = any(
        site.kind is SiteKind.SOURCE or any(not place.function for place in site.places)
        for site, _ in snapshot.groups.values()
    )
    if not unnamed or snapshot.blocks is None:
        return {}
    table = snapshot.blocks()
    low = np.full(len(table.keys), np.iinfo(np.int64).max)
    high = np.full(len(table.keys), -1)
    np.minimum.at(low, table.group, table.size)
    np.maximum.at(high, table.group, table.size)
    same = np.flatnonzero((low == high) & (high >= 0))
    return {table.keys[number]: int(high[number]) for number in same.tolist()}
