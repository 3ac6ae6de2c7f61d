"""What of a system is not the same in two of its dumps: Windows itself, and the drivers that are loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dumpleak.model.snapshot import Snapshot
from dumpleak.model.subject import Subject
from windumps.images.modules import Module, same_build

LIST_BROKEN = frozenset(
    {"module-list-broken", "bad-module"}
)  # codes: parts of the list are missing
CUT_LIST = "the list of drivers is not whole in {}"
KERNEL_NAMES = frozenset({"ntoskrnl.exe", "ntkrnlmp.exe", "ntkrnlpa.exe", "ntkrpamp.exe"})


@dataclass(frozen=True)
class ChangedDriver:
    """A driver that is another build in the later dump.

    Attributes:
        base: In the earlier dump.
        current: In the later one.
    """

    base: Module
    current: Module

    @property
    def name(self) -> str:
        """Its file."""
        return self.current.name

    @property
    def why(self) -> str:
        """What shows that it is another build."""
        one, other = self.base, self.current
        if one.pdb_key and other.pdb_key:
            guids = [side.pdb.guid for side in (one, other) if side.pdb is not None]
            return "build GUID changed" if len(set(guids)) > 1 else "build age changed"
        if one.size_bytes != other.size_bytes:
            return "size changed"
        if one.timestamp and other.timestamp and one.timestamp != other.timestamp:
            return "time stamp changed"
        return "checksum or version changed"

    @property
    def told(self) -> str:
        """For people: "acmenet.sys 1.2.0.0 → 1.3.0.0 (build GUID changed)"."""
        versions = [side.version for side in (self.base, self.current)]
        told = ""
        if all(versions):
            told = f" {versions[0]} → {versions[1]}" if versions[0] != versions[1] else ""
            told = told or f" {versions[0]} in both"
        return f"{self.name}{told} ({self.why})"


@dataclass(frozen=True)
class SystemChanges:
    """What changed of a system between two dumps.

    Attributes:
        windows: (earlier, later) as both name themselves, where the builds differ; else None.
        changed: Drivers of another build.
        loaded: Drivers that only the later dump has.
        unloaded: Drivers that only the earlier dump has.
        unknown: Why drivers that only one has are not known; "" when they are.
    """

    windows: tuple[str, str] | None
    changed: tuple[ChangedDriver, ...]
    loaded: tuple[Module, ...]
    unloaded: tuple[Module, ...]
    unknown: str = ""

    def __bool__(self) -> bool:
        return bool(self.windows or self.changed or self.loaded or self.unloaded)

    @property
    def kernel_changed(self) -> bool:
        """The kernel itself is another build: an update was installed."""
        return any(driver.name.lower() in KERNEL_NAMES for driver in self.changed)


def system_changes(base: Snapshot, current: Snapshot) -> SystemChanges | None:
    """What changed; None of what is no pair of systems that tell of their drivers.

    Args:
        base: The earlier dump.
        current: The later one.
    """
    sides = base, current
    systems = all(side.source.subject is Subject.SYSTEM for side in sides)
    if not systems or not all(side.modules for side in sides) or base.stripped != current.stripped:
        return None
    before, after = (_by_name(side.modules) for side in sides)
    changed = [
        ChangedDriver(before[name], after[name])
        for name in after
        if name in before and same_build(before[name], after[name]) is False
    ]
    broken = [side.source.file for side in sides if _is_broken(side)]
    builds = base.source.build, current.source.build
    windows = None
    if all(builds) and builds[0] != builds[1]:
        windows = base.source.machine, current.source.machine
    return SystemChanges(
        windows,
        tuple(changed),
        () if broken else tuple(after[name] for name in after if name not in before),
        () if broken else tuple(before[name] for name in before if name not in after),
        CUT_LIST.format(" and ".join(broken)) if broken else "",
    )


def _by_name(modules: Iterable[Module]) -> dict[str, Module]:
    found: dict[str, Module] = {}
    for module in modules:
        found.setdefault(module.name.lower(), module)
    return found


def _is_broken(snapshot: Snapshot) -> bool:
    return any(item.code in LIST_BROKEN for item in snapshot.diagnostics)
