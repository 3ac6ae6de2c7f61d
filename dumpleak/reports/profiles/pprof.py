"""pprof's protobuf (google/pprof, proto/profile.proto), gzip compressed, for `go tool pprof` and its kin.

A comparison is what `pprof -diff_base` makes of two profiles: each site is a sample with what it holds now,
and one with what it held before, negative and labelled `pprof::base`. Viewers add both up, and
take percentages of the base. The absolute values of both dumps are sample types of their own.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import IO

from dumpleak.compare.answers import Comparison
from dumpleak.gate.gate import Judged
from dumpleak.model.snapshot import Snapshot
from dumpleak.reports.binary import binary_stream
from dumpleak.reports.names import visible
from dumpleak.reports.profiles.protobuf import Message
from dumpleak.reports.profiles.stack_tree import SitePair, compared_pairs, path_of, site_pairs

BASE_LABEL = "pprof::base"
_DIFF_TYPES = (
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
    ("base_objects", "count"),
    ("base_space", "bytes"),
    ("delta_objects", "count"),
    ("delta_space", "bytes"),
)
_TYPES = (("inuse_objects", "count"), ("inuse_space", "bytes"))
# "app.exe!main+0x1f" or "app.exe+0x1234": the module, and the rest.
_FRAME = re.compile(r"([^!+]+)[!+].*", re.DOTALL)
_LINE = re.compile(r"(.+)\((\d+)\)", re.DOTALL)


def write_diff(judged: Judged[Comparison], _: int | None, stream: IO[str]) -> None:
    """All sites, changed or not; a comparison that was refused has none."""
    comparison = judged.answer
    files = comparison.base.source.file, comparison.current.source.file
    profile = _Profile(_DIFF_TYPES, "delta_space")
    profile.comments(
        (f"dumpleak diff {files[0]} {files[1]}{_of(comparison.base)}", *comparison.reasons)
    )
    for pair in () if comparison.refused else compared_pairs(comparison):
        base, current = pair.base, pair.current
        if current.count:
            held = current.count, current.bytes
            profile.sample(pair, (*held, 0, 0, *held))
        if base.count:
            lost = -base.count, -base.bytes
            profile.sample(pair, (0, 0, base.count, base.bytes, *lost), [(BASE_LABEL, "true")])
    profile.write(comparison.current.source.time, stream)


def write_stat(snapshot: Snapshot, stream: IO[str]) -> None:
    """All groups of one dump."""
    profile = _Profile(_TYPES, "inuse_space")
    profile.comments((f"dumpleak stat {snapshot.source.file}{_of(snapshot)}",))
    for pair in site_pairs({}, snapshot.groups):
        profile.sample(pair, (pair.current.count, pair.current.bytes))
    profile.write(snapshot.source.time, stream)


def _of(snapshot: Snapshot) -> str:
    """What was counted, where that is no blocks."""
    if not snapshot.is_listed:
        return ""
    return f" --of {snapshot.population} --by {snapshot.grouping}"


class _Profile:
    """Collects samples, and numbers what they share."""

    def __init__(self, types: Sequence[tuple[str, str]], default: str) -> None:
        self._message = Message()
        self._strings: dict[str, int] = {"": 0}
        self._mappings: dict[str, int] = {}
        self._locations: dict[tuple[str, str], int] = {}
        self._default = self._string(default)
        for kind, unit in types:
            value_type = Message()
            value_type.integer(1, self._string(kind))
            value_type.integer(2, self._string(unit))
            self._message.message(1, value_type)

    def comments(self, lines: Iterable[str]) -> None:
        self._message.integers(13, [self._string(line) for line in lines])

    def sample(
        self, pair: SitePair, values: Sequence[int], more: Iterable[tuple[str, str]] = ()
    ) -> None:
        site = pair.site
        lines = dict(zip(site.frames, site.lines, strict=False))
        sample = Message()
        path = reversed(path_of(site))
        sample.integers(1, [self._location(step, lines.get(step, "")) for step in path])
        sample.integers(2, values)
        labels = [("kind", str(site.kind)), *more]
        labels += [(k, v) for k, v in (("type", site.type), ("tag", site.tag)) if v]
        for key, text in labels:
            label = Message()
            label.integer(1, self._string(key))
            label.integer(2, self._string(text))
            sample.message(3, label)
        self._message.message(2, sample)

    def write(self, time: datetime | None, stream: IO[str]) -> None:
        for text in self._strings:
            self._message.text(6, text)
        if time is not None:
            self._message.integer(9, int(time.timestamp() * 1_000_000_000))
        self._message.integer(14, self._default)
        data = gzip.compress(self._message.finish(), mtime=0)
        binary_stream(stream, "profile.pb.gz").write(data)

    def _location(self, frame: str, line: str) -> int:
        known = self._locations.get((frame, line))
        if known is not None:
            return known
        number = self._locations[frame, line] = len(self._locations) + 1
        place = _LINE.fullmatch(line)
        function = Message()
        function.integer(1, number)
        function.integer(2, self._string(frame))
        function.integer(3, self._string(frame))
        function.integer(4, self._string(place[1]) if place else 0)
        self._message.message(5, function)
        where = Message()
        where.integer(1, number)
        where.integer(2, int(place[2]) if place else 0)
        location = Message()
        location.integer(1, number)
        location.integer(2, self._mapping(frame))
        location.message(4, where)
        self._message.message(4, location)
        return number

    def _mapping(self, frame: str) -> int:
        """The module, as a mapping whose functions are known, so that no viewer looks for a binary."""
        module = _FRAME.fullmatch(frame)
        name = module[1] if module else "(no module)"
        known = self._mappings.get(name)
        if known is not None:
            return known
        number = self._mappings[name] = len(self._mappings) + 1
        mapping = Message()
        mapping.integer(1, number)
        mapping.integer(5, self._string(name))
        mapping.integer(7, 1)
        self._message.message(3, mapping)
        return number

    def _string(self, text: str) -> int:
        return self._strings.setdefault(visible(text), len(self._strings))
