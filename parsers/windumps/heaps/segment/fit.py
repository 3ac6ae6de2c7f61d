"""Segment heap: how well a layout fits a heap, and what its header says under that layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np

from windumps.diagnostics import DiagnosticLog
from windumps.heaps.segment.contexts import SegContext, list_segments, read_contexts
from windumps.heaps.segment.keys import (
    ImageWords,
    Key,
    heap_key,
    lfh_key_fits,
    same_vs_key,
    solve_lfh_key,
    solve_vs_key,
    vs_key_fits,
)
from windumps.heaps.segment.lfh import read_subsegments
from windumps.heaps.segment.pages import SegmentBatch, header_bytes, read_segments
from windumps.heaps.segment.tiling import Use
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace

SAMPLE_SEGMENTS = 4
SAMPLE_RANGES = 64


@dataclass(frozen=True)
class Fit:
    """What a layout makes of a heap's header."""

    contexts: list[SegContext]
    key: Key | None
    vs_key: Key | None
    lfh_key: Key | None


def fit_layout(
    memory: AddressSpace, row: LayoutRow, heap: int, image: ImageWords
) -> tuple[float, Fit]:
    """Tries a layout on a heap.

    The score is the share of the header's checks that hold, times the share of sampled segments and page
    ranges that can be read: a header that fits is worth nothing when the memory behind it does not.
    """
    scratch = DiagnosticLog()
    contexts = read_contexts(memory, row, heap)
    listed = list_all(memory, row, contexts, None, scratch)
    place = heap + row.offset("_SEGMENT_HEAP", "SegContexts")
    checks = [
        sum(not context.damage for context in contexts) / row.offset("constants", "Contexts"),
        # Elsewhere than the layout says: another layout may fit better.
        float(
            bool(contexts) and (contexts[0].address - place) % row.size("_HEAP_SEG_CONTEXT") == 0
        ),
        float(bool(contexts) and not scratch.collect()),
        float(header_bytes(memory, row, heap)[0] > 0),
    ]
    key = heap_key(memory, row, contexts, listed)
    if key is not None and scratch.collect():
        listed = list_all(memory, row, contexts, key, scratch)
    if key is None:
        # Without a segment only the contexts' back pointers tell; without those, everything must hold.
        sure = min(checks) == 1.0 or (
            row.has("_HEAP_SEG_CONTEXT", "Heap") and checks[0] == checks[-1] == 1.0
        )
        score = sum(checks) / len(checks) if sure else 0.0
        return score, Fit(contexts, None, None, None)
    checks.append(key.agreeing / key.samples)
    samples, there = _samples(memory, row, listed, scratch)
    vs_key, vs_agreeing = _find_vs_key(memory, row, samples[Use.VS][:SAMPLE_RANGES], key, image)
    lfh_key = None
    lfh_agreeing = 0
    if samples[Use.LFH]:
        subsegments = read_subsegments(
            memory,
            row,
            np.array([address for address, _ in samples[Use.LFH]], np.uint64),
            np.array([size for _, size in samples[Use.LFH]], np.int64),
        )
        lfh_key = solve_lfh_key(row, subsegments, image, image.behind(key.value))
        lfh_agreeing = lfh_key_fits(row, subsegments, lfh_key.value) if lfh_key else 0
    sampled = len(samples[Use.VS][:SAMPLE_RANGES]) + len(samples[Use.LFH])
    sampled += len(samples[Use.UNKNOWN])
    readable = (vs_agreeing + lfh_agreeing) / sampled if sampled else 1.0
    score = sum(checks) / len(checks) * readable * there
    return score, Fit(contexts, key, vs_key, lfh_key)


def _samples(
    memory: AddressSpace, row: LayoutRow, listed: list[tuple[SegContext, int]], log: DiagnosticLog
) -> tuple[dict[int, list[tuple[int, int]]], float]:
    """Page ranges as (address, size) by use, and the share of committed bytes that are not lost."""
    samples: dict[int, list[tuple[int, int]]] = {use: [] for use in Use}
    lost = held = read = 0
    for batch in _some_batches(memory, row, listed, log):
        read += len(batch.segments)
        ranges = batch.ranges
        lost += batch.lost_bytes
        held += batch.lost_bytes + int(ranges.committed.sum())
        for use, address, size in zip(
            ranges.use.tolist(), ranges.address.tolist(), ranges.size.tolist(), strict=True
        ):
            samples[use].append((address, size))
        if read >= SAMPLE_SEGMENTS and samples[Use.VS] and samples[Use.LFH]:
            break
    return samples, 1 - lost / max(held, 1)


def _some_batches(
    memory: AddressSpace, row: LayoutRow, listed: list[tuple[SegContext, int]], log: DiagnosticLog
) -> Iterator[SegmentBatch]:
    """The first segments, then the others, a few of a context at a time."""
    for part in (listed[:SAMPLE_SEGMENTS], listed[SAMPLE_SEGMENTS:]):
        for context, group in groupby(part, itemgetter(0)):
            yield from read_segments(memory, row, context, [segment for _, segment in group], log)


def list_all(
    memory: AddressSpace,
    row: LayoutRow,
    contexts: list[SegContext],
    key: Key | None,
    log: DiagnosticLog,
) -> list[tuple[SegContext, int]]:
    """All segments of a heap, each with its context."""
    value = key.value if key is not None else None
    return [
        (context, segment)
        for context in contexts
        for segment in list_segments(memory, row, context, value, log)
    ]


def _find_vs_key(
    memory: AddressSpace,
    row: LayoutRow,
    ranges: list[tuple[int, int]],
    key: Key,
    image: ImageWords,
) -> tuple[Key | None, int]:
    """The key of chunk headers, HeapKey itself where it fits, and how many of the ranges agree."""
    if not ranges:
        return None, 0
    agreeing = vs_key_fits(memory, row, ranges, key.value)
    solved = None
    if agreeing * 2 <= len(ranges) or key.agreeing < 2:
        solved = solve_vs_key(memory, row, ranges, image)
    if solved is not None and not same_vs_key(row, solved.value, key.value):
        return solved, vs_key_fits(memory, row, ranges, solved.value)
    if agreeing:
        return Key(key.value, "HeapKey", agreeing, len(ranges)), agreeing
    return None, 0
