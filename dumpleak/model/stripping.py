"""Snapshots without names: types, modules and functions become hashes, so that a file can be shared."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from hashlib import blake2b

from dumpleak.model.block_table import BlockTable
from dumpleak.model.owners import drivers_named, either
from dumpleak.model.sites import OWN_CODE, Place, Site, SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Group, by_key
from windumps.images.modules import Module

NAME_DIGEST_BYTES = 4


KEY_DIGEST_BYTES = 16


_HASHED = re.compile(r"(module|type|function|source|computer)-[0-9a-f]{8}")


_OFFSET = re.compile(r"\+0x[0-9a-f]+$")


_HASHED_KEY = re.compile(r"[a-z]+\|#[0-9a-f]{32}")


_POINTS_TO = ", points to "


_LEADS_TO = " -> "


_VFTABLE = "vftable "


def hashed_name(word: str, name: str) -> str:
    """The word and a digest, "module-1a2b3c4d"; a name that is hashed already stays."""
    if _HASHED.fullmatch(name):
        return name
    digest = blake2b(name.lower().encode("utf-8", "surrogatepass"), digest_size=NAME_DIGEST_BYTES)
    return f"{word}-{digest.hexdigest()}"


def hashed_key(key: str) -> str:
    """A site's key without the names in it."""
    if _HASHED_KEY.fullmatch(key):
        return key
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=KEY_DIGEST_BYTES)
    return f"{key.partition('|')[0]}|#{digest.hexdigest()}"


_OF_PROCESS = "name|"  # in keys of processes and of what is theirs, see `process_key`
_BEHIND = OWN_CODE, " (ended)", " (unlisted)"


class Names:
    """Hashes what is not to be kept.

    Args:
        kept: Patterns of names of modules and types, in any case, "ntdll.dll", "app::*".
    """

    def __init__(self, kept: Iterable[str]) -> None:
        self._kept = [pattern.lower() for pattern in kept]

    def name(self, word: str, name: str) -> str:
        """A name as it may be shown."""
        return name if not name or self._keeps(name) else hashed_name(word, name)

    def site(self, site: Site) -> Site:
        """A site without names, but for the kept ones."""
        return replace(
            site,
            key=hashed_key(site.key),
            name=self._site_name(site),
            frames=tuple(self.frame(frame) for frame in site.frames),
            type=site.type and self.name("type", site.type),
            driver=site.driver and self._drivers(site.driver),
            lines=tuple(self._line(line) for line in site.lines),
            places=tuple(self._place(place) for place in site.places),
        )

    def _drivers(self, text: str) -> str:
        """What `Ownership.driver` says."""
        return either(self.name("module", driver) for driver in drivers_named(text))

    def frame(self, text: str) -> str:
        """`module+0xRVA` or `module!function+0xOFFSET`."""
        if text.startswith("("):
            return text  # says that there is no image
        module, mark, function = text.partition("!")
        if not mark:
            module, plus, offset = text.rpartition("+0x")
            return f"{self.name('module', module)}{plus}{offset}"
        if self._keeps(module):
            return text
        found = _OFFSET.search(function)
        behind = found[0] if found else ""
        shown = f"{hashed_name('function', function.removesuffix(behind))}{behind}"
        return f"{hashed_name('module', module)}!{shown}"

    def module(self, module: Module) -> Module:
        """A module without names."""
        if self._keeps(module.name):
            return replace(module, path=module.name)
        name = self.name("module", module.name)
        pdb = module.pdb and replace(module.pdb, name=self.name("module", module.pdb.name))
        return replace(module, name=name, path=name, pdb=pdb)

    def _keeps(self, name: str) -> bool:
        return any(fnmatchcase(name.lower(), pattern) for pattern in self._kept)

    def _site_name(self, site: Site) -> str:
        name = site.name
        match site.kind:
            case SiteKind.STACK:
                return self.frame(name)
            case SiteKind.SOURCE:
                return self._line(name)
            case SiteKind.TYPE:
                if name.startswith(_VFTABLE) and site.type is None:
                    return _VFTABLE + self.frame(name.removeprefix(_VFTABLE))
                return self.name("type", name)
            case SiteKind.SHAPE:
                if _LEADS_TO in name:
                    head, arrow, module = name.rpartition(_LEADS_TO)
                    return f"{head}{arrow}{self.name('module', module)}"
                head, said, type_ = name.partition(_POINTS_TO)
                return f"{head}{said}{self.name('type', type_)}" if said else name
            case SiteKind.TAG | SiteKind.GROUP if site.driver and name.endswith(site.driver):
                return name.removesuffix(site.driver) + self._drivers(site.driver)
            case SiteKind.GROUP if _OF_PROCESS in site.key:
                behind = next((end for end in _BEHIND if name.endswith(end)), "")
                return self.name("module", name.removesuffix(behind)) + behind
            case SiteKind.GROUP if site.key.startswith("thread|"):
                return self.frame(name)
            case SiteKind.GROUP if site.key.startswith("module|") and not name.startswith("("):
                return self.name("module", name)
        return name

    def _line(self, line: str) -> str:
        path, bracket, number = line.rpartition("(")
        return f"{self.name('source', path)}{bracket}{number}" if path else line

    def _place(self, place: Place) -> Place:
        if not place.module or self._keeps(place.module):
            return place
        function = place.function and hashed_name("function", place.function)
        module = hashed_name("module", place.module)
        # A module that has little else to tell its builds apart has its name in front.
        name, colon, identity = place.image.rpartition(":")
        image = f"{module if name else ''}{colon}{identity}"
        return place._replace(module=module, image=image, function=function)


def stripped_snapshot(snapshot: Snapshot, kept: tuple[str, ...]) -> Snapshot:
    """A snapshot without names, but for the kept ones; keys are hashed in any case."""
    names = Names(kept)
    read_blocks = snapshot.blocks
    modules = tuple(names.module(module) for module in snapshot.modules)
    shown = {old.name: new.name for old, new in zip(snapshot.modules, modules, strict=True)}
    stripped = replace(
        snapshot,
        source=replace(
            snapshot.source,
            program=names.name("module", snapshot.source.program),
            computer=names.name("computer", snapshot.source.computer),
        ),
        groups=_groups(snapshot.groups.values(), names),
        private=_groups(snapshot.private.values(), names),
        modules=modules,
        diagnostics=[
            replace(item, message=_without(item.message, shown)) for item in snapshot.diagnostics
        ],
        heaps=[replace(row, layout=_without(row.layout, shown)) for row in snapshot.heaps],
        holders=None,
        held_by={},
        stripped=True,
        kept_names=kept,
    )
    if read_blocks is not None:
        provider = read_blocks

        def read() -> BlockTable:
            table = provider()
            return replace(table, keys=tuple(hashed_key(key) for key in table.keys))

        stripped.blocks = read
    return stripped


def alike(base: Snapshot, current: Snapshot) -> tuple[Snapshot, Snapshot]:
    """Both without names when one of them is, so that the same site has the same key."""
    if base.stripped and not current.stripped:
        current = stripped_snapshot(current, base.kept_names)
    elif current.stripped and not base.stripped:
        base = stripped_snapshot(base, current.kept_names)
    return base, current


def _groups(groups: Iterable[Group], names: Names) -> dict[str, Group]:
    return by_key((names.site(site), totals) for site, totals in groups)


def _without(text: str, shown: dict[str, str]) -> str:
    """A sentence with names of modules replaced."""
    for old, new in shown.items():
        if old != new and old and old.lower() in text.lower():
            text = re.sub(re.escape(old), new, text, flags=re.IGNORECASE)
    return text
