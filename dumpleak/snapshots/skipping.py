"""Names stacks of a snapshot anew, with frames left out that were not left out when it was made."""

from __future__ import annotations

from dataclasses import replace

from dumpleak.attribution.stack import SKIPPED, Frame, FrameNamer, stack_site
from dumpleak.sites import Place, Site, SiteKind
from dumpleak.snapshots.metadata import Group, Metadata
from windumps.windows.stack_traces import CodeMap


def with_skipped_frames(metadata: Metadata, skip_frames: tuple[str, ...]) -> Metadata:
    """The same with stacks named as if the dump were read with `Session.skip_frames` set.

    Stacks whose images are not identified keep their names.
    """
    namer = FrameNamer(CodeMap([], []), skip_frames=skip_frames)
    groups = {}
    for key, (site, totals) in metadata.snapshot.groups.items():
        frames = _frames(site, namer)
        if frames:
            named = stack_site(frames)
            site = replace(site, name=named.name, places=named.places)
        groups[key] = site, totals
    cut, numbers = _cut(metadata.tables.get("stack", []), namer)
    classes = dict(metadata.classes)
    if "stack" in classes:
        classes["stack"] = [numbers[number] for number in classes["stack"]]
    return replace(
        metadata,
        snapshot=replace(metadata.snapshot, groups=groups),
        tables=metadata.tables | ({"stack": cut} if "stack" in metadata.tables else {}),
        classes=classes,
    )


def _cut(table: list[Group], namer: FrameNamer) -> tuple[list[Group], list[int]]:
    """Stacks without the frames before the one that names them; some become one."""
    found: dict[str, Group] = {}
    keys = []
    for site, totals in table:
        frames = _frames(site, namer)
        shown = stack_site(frames, cut=True) if frames else site
        known = found.get(shown.key)
        found[shown.key] = (known[0], known[1] + totals) if known else (shown, totals)
        keys.append(shown.key)
    order = {key: number for number, key in enumerate(found)}
    return list(found.values()), [order[key] for key in keys]


def _frames(site: Site, namer: FrameNamer) -> list[Frame]:
    """The frames of a stack as `stack_site` takes them; empty where they cannot be had."""
    if site.kind is not SiteKind.STACK or not site.places or len(site.places) != len(site.frames):
        return []
    lines = site.lines or ("",) * len(site.frames)
    return [
        _frame(text, place, line, namer)
        for text, place, line in zip(site.frames, site.places, lines, strict=False)
    ]


def _frame(text: str, place: Place, line: str, namer: FrameNamer) -> Frame:
    if not place.module:
        return Frame(text, place.image, SKIPPED, place, line)
    module = text.partition("!")[0] if "!" in text else text.rpartition("+0x")[0]
    skipped = namer.skips(module, place.function)
    return Frame(
        text,
        f"{place.image}+{place.rva:x}",
        skipped,
        place._replace(skipped=skipped > 0),
        line,
    )
