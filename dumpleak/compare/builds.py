"""Sites of a module that is not the same build in all dumps: matched by symbol names, else kept apart.

The key of a stack, or of a vftable without type information, holds each module's identity and an offset:
that needs no symbols and never mixes two builds, but after a rebuild nothing matches any more. Where PDBs
of both builds are there, such sites get a key of module and function names. Offsets in functions are left
out, since they move with every change of the code; sites that then have one key are taken together.

Modules whose builds are the same everywhere keep identity and offset in the new keys. Frames of an
allocator (ntdll after an update of Windows, say) for which there are no symbols count by module only: all
that is lost is which of the allocator's functions was called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from dumpleak.model.sites import Place, Site, image_identity
from dumpleak.model.totals import Groups, Totals
from windumps.diagnostics import Diagnostic, Severity
from windumps.images.modules import Module

DIGEST_BYTES = 16
# Names of one function differ in these between kinds of symbols.
_SPELLING = re.compile(r"\b(?:class|struct|union|enum) |\s")


@dataclass(frozen=True)
class Aligned:
    """Groups of several snapshots whose keys match across builds.

    Attributes:
        groups: One for each snapshot, in their order, by keys that match. The sites in them keep
            their own keys.
        notes: Why sites with these keys match, for `SiteDelta.evidence`.
        diagnostics: Which modules are other builds, and what became of their sites.
    """

    groups: list[Groups]
    notes: dict[str, str]
    diagnostics: list[Diagnostic]


@dataclass
class _Module:
    """One module that is not the same build in all snapshots.

    Attributes:
        common: Builds that all snapshots have.
        has_names: Every other build has symbols.
        by_name, by_module, apart: Sites that were matched so, or not.
    """

    common: set[str]
    has_names: bool
    by_name: int = 0
    by_module: int = 0
    apart: int = 0


def align_builds(snapshots: Sequence[Groups], modules: Sequence[Iterable[Module]]) -> Aligned:
    """Gives sites in rebuilt modules keys that can match.

    Args:
        snapshots: The groups of each snapshot, by key; two at least.
        modules: The images of each; those of its sites need not be among them.
    """
    rebuilt = _rebuilt(snapshots, modules)
    if not rebuilt:
        return Aligned(list(snapshots), {}, [])
    notes: dict[str, str] = {}
    merged: dict[str, list[int]] = {}
    aligned: list[Groups] = []
    for number, groups in enumerate(snapshots):
        kept: Groups = {}
        for site, totals in groups.values():
            concerned = _concerned(site, rebuilt)
            key = _new_key(site, rebuilt, concerned) if concerned else site.key
            if key != site.key:
                merged.setdefault(key, [0] * len(snapshots))[number] += 1
                notes[key] = _note(concerned, rebuilt)
            _put(kept, key, site, totals)
        aligned.append(kept)
    for key, counts in merged.items():
        if max(counts) > 1:
            notes[key] += f", {' and '.join(map(str, counts))} sites of the dumps taken together"
    return Aligned(aligned, notes, _diagnostics(rebuilt))


def more_is_named(first: Site, second: Site) -> bool:
    """True when symbols name more places of the first: one dump was read with them, one without."""
    counts = [sum(bool(place.function) for place in site.places) for site in (first, second)]
    return counts[0] > counts[1]


def _rebuilt(
    snapshots: Sequence[Groups], modules: Sequence[Iterable[Module]]
) -> dict[str, _Module]:
    """The modules of sites that are not the same build in all snapshots that have them, by name."""
    builds: dict[str, list[set[str]]] = {}
    named: dict[tuple[str, str], bool] = {}
    for number, groups in enumerate(snapshots):
        for site, _ in groups.values():
            for place in site.places:
                if place.module:
                    of_all = builds.setdefault(place.module, [set() for _ in snapshots])
                    of_all[number].add(place.image)
                    identity = place.module, place.image
                    named[identity] = named.get(identity, False) or bool(place.function)
    for number, loaded in enumerate(modules):
        for image in loaded:
            if image.name.lower() in builds:
                builds[image.name.lower()][number].add(image_identity(image))
    found = {}
    for module, of_all in builds.items():
        present = [images for images in of_all if images]
        common = set.intersection(*present)
        others = set.union(*present) - common
        if len(present) > 1 and others:
            # An image that no site has needs no names.
            has_names = all(named.get((module, image), True) for image in others)
            found[module] = _Module(common, has_names)
    return found


def _concerned(site: Site, rebuilt: dict[str, _Module]) -> list[str]:
    """Names of the modules because of which a site's own key cannot match everywhere."""
    return list(
        dict.fromkeys(
            place.module
            for place in site.places
            if place.module in rebuilt and place.image not in rebuilt[place.module].common
        )
    )


def _new_key(site: Site, rebuilt: dict[str, _Module], concerned: list[str]) -> str:
    """A key of names where there are some; the site's own where a frame has none."""
    parts = []
    for place in site.places:
        part = _part(place, rebuilt) if place.module in concerned else _place_key(place)
        if part is None:
            rebuilt[place.module].apart += 1
            return site.key
        parts.append(part)
    for name in concerned:
        module = rebuilt[name]
        module.by_name += module.has_names
        module.by_module += not module.has_names
    digest = blake2b("\n".join(parts).encode(), digest_size=DIGEST_BYTES)
    return f"{site.kind}|names|{digest.hexdigest()}"


def _part(place: Place, rebuilt: dict[str, _Module]) -> str | None:
    module = rebuilt[place.module]
    if place.image in module.common:
        return _place_key(place)
    if module.has_names and place.function:
        return f"{place.module}!{_SPELLING.sub('', place.function)}"
    return place.module if place.skipped else None


def _place_key(place: Place) -> str:
    return f"{place.image}+{place.rva:x}"


def _put(groups: Groups, key: str, site: Site, more: Totals) -> None:
    """Adds a site; of several with one key the largest is shown."""
    if key in groups:
        other, totals = groups[key]
        site = other if totals.bytes >= more.bytes else site
        more = totals + more
    groups[key] = site, more


def _note(concerned: list[str], rebuilt: dict[str, _Module]) -> str:
    by_name = [name for name in concerned if rebuilt[name].has_names]
    if not by_name:
        return f"matched without the frames' places in {', '.join(concerned)}: not the same build"
    return f"matched by function names: {', '.join(by_name)} is not the same build"


def _diagnostics(rebuilt: dict[str, _Module]) -> list[Diagnostic]:
    found = []
    for name, module in rebuilt.items():
        lack = (
            "some functions have no symbols"
            if module.has_names
            else "PDBs of all its builds are not there (--symbols)"
        )
        for many, code, severity, what in (
            (
                *(module.by_name, "rebuilt-by-name", Severity.INFO),
                ": its frames were matched by function names",
            ),
            (
                *(module.by_module, "rebuilt-by-module", Severity.INFO),
                ", and PDBs of all its builds are not there: its frames, which are the "
                "allocator's, were matched by module only",
            ),
            (
                *(module.apart, "rebuilt-apart", Severity.WARNING),
                f", and {lack}: its sites are kept apart for each build ({module.apart} in all), "
                "so that one site may be shown as gone and as new",
            ),
        ):
            if many:
                message = f"{name} is not the same build in all dumps{what}"
                found.append(Diagnostic(code, severity, name, None, message))
    return found
