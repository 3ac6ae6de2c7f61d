r"""UMDH's log, read: a base or a current for a comparison that is no dump.

Besides the form that `dumpleak.survey.umdh_log` writes there are older logs, which add blocks up and have
symbols:

    00005320 bytes in 0x14 allocations (@ 0x00000428) by: BackTrace00053
    \tntdll!RtlAllocateHeap+0x00000808

A log that was cut is refused.

A log knows an image by its file name only, so frames are matched by name and offset; logs that we wrote say
in comments who each image is, and give the same keys as the dump they were made from. `matched` brings the
two sides of a comparison down to what a log can tell.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from dumpleak.attribution.stack import Frame, FrameNamer, module_stem, stack_site
from dumpleak.files.live_text import lines_of
from dumpleak.files.umdh_lines import ADDRESS, HEX, Log, parse
from dumpleak.model.coverage import Coverage
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.sites import Site, SiteKind, stack_key
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.model.subject import Subject
from dumpleak.model.totals import Groups, Totals, add_to, sum_of
from windumps.diagnostics import HEAP_LIST_CUT, Diagnostic, Severity
from windumps.process.stack_traces import CodeMap

KIND = "umdh log"
GROUPINGS = ("site", "stack")
NAMES_ONLY = "umdh-names-only"  # diagnostic of a log that does not tell builds of an image apart
# Diagnostic of a log that does not count its heaps: UMDH's own never does.
HEAPS_UNCOUNTED = "umdh-heaps-uncounted"
# An offset at the end of a symbol, or before what stands behind it: " (file, line)", " : address".
_OFFSET = re.compile(rf"\+(?:0x)?({HEX})(?=$|\s+[(:])")


class LogCoverage(Coverage):
    """See `Coverage`; all that a log lists is covered, but no log says what it left out."""

    never: ClassVar[str] = (
        "a UMDH log holds only blocks with a recorded stack, and does not say how much else there was"
    )


def read_log(path: Path | str, by: str = "site", skip_frames: tuple[str, ...] = ()) -> Snapshot:
    """Reads a UMDH log into a snapshot whose groups are its stacks.

    Args:
        path: The log, in UTF-8, an ANSI code page or UTF-16 with a byte order mark.
        by: The grouping: "site", or "stack" for stacks cut at the allocator's frames.
        skip_frames: See `Session.skip_frames`.

    Raises:
        CannotAnswerError: the file is no log, or a comparison that UMDH made of two, or a log cannot
            be grouped so.
    """
    if by not in GROUPINGS:
        raise CannotAnswerError(
            f"{path}: a UMDH log knows stacks only; it can be grouped by {' or '.join(GROUPINGS)}, "
            f"not by {by}"
        )
    log = parse(lines_of(path, "utf-8-sig"))
    if not log.is_comparison and log.why_not_whole:
        raise CannotAnswerError(f"{path}: {log.why_not_whole}; write it again")
    if not log.stacks:
        what = (
            "a comparison made by UMDH; compare the two logs it was made from"
            if log.is_comparison
            else "no log of UMDH, or cut before its first heap: it lists no blocks"
        )
        raise CannotAnswerError(f"{path}: {what}")
    return _snapshot(log, str(path), by, skip_frames)


def matched(*snapshots: Snapshot) -> tuple[Snapshot, ...]:
    """Snapshots so that their sites can match; unchanged where none comes from a log.

    Raises:
        CannotAnswerError: one is a log, and no block of another has a recorded stack.
    """
    logs = [side for side in snapshots if side.source.kind == KIND]
    if not logs:
        return snapshots
    by_name = any(note.code == NAMES_ONLY for log in logs for note in log.diagnostics)
    # UMDH writes symbols where it found some. A dump has both, so it goes along with what the log has.
    by_symbol = any(
        site.frames and not site.places for log in logs for site, _ in log.groups.values()
    )
    sides = tuple(as_log(side, by_name=by_name, by_symbol=by_symbol) for side in _ended(snapshots))
    for side, whole in zip(sides, snapshots, strict=True):
        if not side.groups and whole.groups:
            raise CannotAnswerError(
                f"{whole.source.file}: none of its {whole.totals.count} blocks has a recorded stack, so "
                "nothing of it can be compared with a UMDH log; take a dump of the program with "
                "`gflags /i app.exe +ust`"
            )
    return sides


def _ended(snapshots: tuple[Snapshot, ...]) -> tuple[Snapshot, ...]:
    """Snapshots of which those say so that may be cut between two heaps.

    Such a log has the first heaps of the one before it, and lacks the others. That they were destroyed is
    possible, but what they held must not pass for given back.
    """
    found = list(snapshots[:1])
    for before, after in pairwise(snapshots):
        ours, theirs = ([row.address for row in side.heaps] for side in (after, before))
        uncounted = any(item.code == HEAPS_UNCOUNTED for item in after.diagnostics)
        if (
            before.source.kind == KIND
            and uncounted
            and len(ours) < len(theirs)
            and theirs[: len(ours)] == ours
        ):
            message = (
                f"the log ends behind the heap at {ours[-1]:X}, where {before.source.file} has "
                f"{len(theirs) - len(ours)} more: it is cut there, or those were destroyed"
            )
            cut = Diagnostic(HEAP_LIST_CUT, Severity.WARNING, KIND, None, message)
            after = replace(after, diagnostics=[*after.diagnostics, cut])
        found.append(after)
    return tuple(found)


def as_log(snapshot: Snapshot, *, by_name: bool = True, by_symbol: bool = True) -> Snapshot:
    """What a UMDH log would tell of a snapshot, to compare it with one.

    Args:
        snapshot: Of a dump or a log.
        by_name: Make keys of module names instead of image identities. Two builds of one module are
            not told apart then. To be the same for both sides of a comparison.
        by_symbol: With `by_name`: match frames as they are written, with their symbols, if any; else
            by offsets in modules.

    Returns:
        The snapshot with only those groups that have a recorded stack.
    """
    groups: Groups = {}
    for site, totals in snapshot.groups.values():
        if site.kind is SiteKind.STACK:
            shown = site
            if by_name and site.frames:
                # Without places, so that nobody looks for differences between builds.
                shown = replace(site, key=stack_key(_names(site, by_symbol=by_symbol)), places=())
            add_to(groups, shown, totals)
    kept = sum_of(totals for _, totals in groups.values())
    notes = []
    if by_name:
        message = "stacks are matched by module names, as UMDH logs have no more"
        notes.append(Diagnostic("umdh-match-by-name", Severity.WARNING, KIND, None, message))
    if kept.count < snapshot.totals.count:
        message = (
            f"{snapshot.totals.count - kept.count} blocks have no recorded stack and are left out, as a "
            "UMDH log lists none of them"
        )
        left_out = snapshot.totals.block_bytes - kept.block_bytes
        notes.append(Diagnostic("umdh-left-out", Severity.WARNING, KIND, None, message, left_out))
    return replace(
        snapshot,
        groups=groups,
        totals=kept,
        private={},
        diagnostics=[*snapshot.diagnostics, *notes],
        modules=() if by_name else snapshot.modules,
        blocks=None,
    )


def _names(site: Site, *, by_symbol: bool) -> list[str]:
    if site.places and not by_symbol:
        return [_by_name(f"{place.module}+0x{place.rva:x}") for place in site.places]
    return [_by_name(frame) for frame in site.frames]


def _by_name(frame: str) -> str:
    """A frame with the module's extension off and in small letters."""
    module, mark, symbol = frame.partition("!")
    if not mark:
        module, mark, symbol = frame.rpartition("+0x")
    return f"{module_stem(module).lower()}{mark}{symbol}"


def _snapshot(log: Log, file: str, by: str, skip_frames: tuple[str, ...]) -> Snapshot:
    modules = log.images or log.modules
    code = CodeMap(modules, log.unloaded)
    namer = FrameNamer(code, skip_frames=skip_frames)
    groups: Groups = {}
    unnamed = 0
    for trace, stack in log.stacks.items():
        frames = [frame for text in stack.frames for frame in _frames(namer, text)]
        unnamed += not frames
        name = f"BackTrace{trace:X}"
        cut = by == "stack"
        site = stack_site(frames, cut=cut) if frames else Site(SiteKind.STACK, f"umdh|{name}", name)
        add_to(groups, site, Totals(stack.count, stack.bytes, stack.block_bytes, stack.largest))
    highest = max([log.highest, *log.heaps, *(module.base_address for module in modules)])
    architecture = "x64" if highest >> 32 else "x86"
    heaps = [
        HeapRow(
            f"log heap {number}",  # a log leaves heaps out, so its numbers are not a dump's
            address,
            "umdh",
            architecture,
            "",
            used_bytes=heap.bytes,
            used_count=heap.count,
            overhead_bytes=heap.block_bytes - heap.bytes,
        )
        for number, (address, heap) in enumerate(log.heaps.items())
    ]
    totals = sum_of(totals for _, totals in groups.values())
    # A log does not say what was committed; all that it lists is covered.
    covered = totals.block_bytes
    program = next((m.name for m in modules if m.name.lower().endswith(".exe")), "")
    return Snapshot(
        SourceInfo(
            *(file, KIND, "Windows", architecture, 0, log.taken, None, program, None),
            subject=Subject.LOG,
        ),
        by,
        groups,
        totals,
        {},
        heaps,
        LogCoverage(covered, covered, covered, len(heaps), len(heaps)),
        _notes(log, unnamed),
        # Without identities nobody can tell builds apart, or find the PDBs.
        modules=tuple(code.modules) if log.images else (),
    )


def _notes(log: Log, unnamed: int) -> list[Diagnostic]:
    """What the log does not say; `unnamed` stacks are not in it."""
    notes = [Diagnostic("umdh-log", Severity.INFO, KIND, None, LogCoverage.never)]
    if not log.is_counted:
        message = (
            "the log does not say how many heaps it has: one that is cut between two looks whole"
        )
        notes.append(Diagnostic(HEAPS_UNCOUNTED, Severity.INFO, KIND, None, message))
    if not log.images:
        message = (
            "the log does not say which builds its images are; stacks are matched by module names"
        )
        notes.append(Diagnostic(NAMES_ONLY, Severity.INFO, KIND, None, message))
    if unnamed:
        message = (
            f"{unnamed} of {len(log.stacks)} stacks are not in the log; they are shown by number"
        )
        notes.append(Diagnostic("umdh-stack-absent", Severity.WARNING, KIND, None, message))
    return notes


def _frames(namer: FrameNamer, text: str) -> list[Frame]:
    """The frame of one line: an address, or a symbol."""
    if match := ADDRESS.fullmatch(text):
        return namer.frames([int(match[1], 16)])
    module, _, symbol = text.partition("!")
    match = _OFFSET.search(symbol)
    function = symbol[: match.start()] if match else symbol.split(" (", 1)[0].strip()
    tail = f"+0x{int(match[1], 16):x}" if match else ""
    known = function.strip("?")
    shown = f"{module}!{function}{tail}" if known else f"{module}{tail}"
    return [Frame(shown, shown, namer.skips(module, function if known else ""))]
