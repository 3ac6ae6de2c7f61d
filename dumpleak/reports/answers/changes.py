"""Drivers and Windows builds that changed between the dumps of a system."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from dumpleak.compare.system_changes import ChangedDriver, SystemChanges
from windumps.images.modules import Module

NAMED = 4


def changes_facts(
    changes: SystemChanges | None, grown: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """What changed, for the first screen; nothing where nothing did.

    Args:
        changes: It; None of what is no pair of systems.
        grown: Files of drivers whose tags grew: they are named first.
    """
    told = [] if changes is None else changes_told(changes, {name.lower() for name in grown})
    return [("Changed", "; ".join(told))] if told else []


def changes_told(changes: SystemChanges, first: Collection[str] = ()) -> list[str]:
    """One clause each on Windows, drivers of another build, new ones and those that are gone."""
    told = []
    if changes.windows is not None:
        told.append(f"Windows is another build: {changes.windows[0]} → {changes.windows[1]}")
    elif changes.kernel_changed:
        told.append("Windows was updated")
    changed = _first([(driver.name, driver.told) for driver in changes.changed], first)
    if changed:
        told.append(f"another build of {_listed(changed)}")
    for what, modules in (
        ("only in the later dump", changes.loaded),
        ("no longer loaded", changes.unloaded),
    ):
        names = _first([(module.name, module.name) for module in modules], first)
        if names:
            told.append(f"{what}: {_listed(names)}")
    if told and changes.unknown:
        told.append(f"drivers that only one dump has are not known: {changes.unknown}")
    return told


def _first(named: Sequence[tuple[str, str]], first: Collection[str]) -> list[str]:
    return [text for _, text in sorted(named, key=lambda pair: pair[0].lower() not in first)]


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - NAMED
    return ", ".join(texts[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def changes_json(changes: SystemChanges | None) -> dict[str, Any] | None:
    """What changed; None of what is no pair of systems that tell of their drivers."""
    if changes is None:
        return None
    windows = changes.windows
    return {
        "windows": None if windows is None else {"base": windows[0], "current": windows[1]},
        "drivers_changed": [_changed(driver) for driver in changes.changed],
        "drivers_loaded": None if changes.unknown else _names(changes.loaded),
        "drivers_unloaded": None if changes.unknown else _names(changes.unloaded),
        "unknown": changes.unknown or None,
    }


def _names(modules: Iterable[Module]) -> list[str]:
    return [module.name for module in modules]


def _changed(driver: ChangedDriver) -> dict[str, Any]:
    one, other = driver.base, driver.current
    return {
        "name": driver.name,
        "base_version": one.version or None,
        "current_version": other.version or None,
        "base_build": one.identity,
        "current_build": other.identity,
        "why": driver.why,
    }
