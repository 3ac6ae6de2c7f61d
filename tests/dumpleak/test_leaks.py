"""`dumpleak leaks`: exactly the blocks that no pointer leads to, on every dump with known truth."""

from __future__ import annotations

import csv
import gzip
import io
import json
import struct
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.heap_source import blocks_at, opened
from builders.image_builder import DATA, ImageBuilder
from builders.minidump_builder import MinidumpBuilder
from patching import with_bytes
from truth import REAL, TESTDATA, Truth, TruthDump, truth_dumps

from dumpleak.model.errors import CannotAnswerError
from dumpleak.pointers.reachability import find_reachable
from dumpleak.pointers.references import BlockIndex, BlockIndexBuilder
from dumpleak.pointers.roots import Root, RootKind, Roots, find_roots
from dumpleak.process.session import Session
from dumpleak.reports.answers.leaks import leaks_document, leaks_json
from dumpleak.reports.formats import FORMATS, Answer, write_answer
from dumpleak.reports.text.writer import write_text
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.leaks import Leaks, find_leaks
from windumps import open_dump
from windumps.dumps.minidump.reader import open_minidump
from windumps.errors import WindumpsError
from windumps.images.modules import Module
from windumps.memory import Regions

SCENARIOS = (
    *("tiny", "mixed", "nt-vad", "segment-lfh*", "leak-pair-ust"),
    *("page-heap-full", "page-heap-light", "debug-crt"),
)
DUMPS = [dump for dump in truth_dumps(*SCENARIOS) if "before" not in dump.dump.name]
AFTER = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-aslr" / "after.dmp.gz"
WOW64 = REAL / "user" / "lldb-fizzbuzz_wow64.dmp.xz"
HEAP = 0x20000000


def reachable_by_scan(truth: Truth) -> dict[int, bool]:
    """What the truth's own scan found, by the address that the program got."""
    columns = truth.raw["alloc_columns"]
    address, scan = columns.index("address"), columns.index("reachable_by_scan")
    crt = truth.raw.get("crt")
    if crt is None:
        return {row[address]: row[scan] for row in truth.raw["allocations"]}
    columns = crt["block_columns"]
    user, scan = (
        columns.index(c) for c in ("crt_user_address", "reachable_by_scan_without_crt_links")
    )
    return {row[user]: row[scan] for row in crt["blocks"]}


@pytest.mark.parametrize("dump", DUMPS, ids=lambda d: d.name)
def test_exactly_the_blocks_that_no_pointer_leads_to_are_listed(dump: TruthDump) -> None:
    expected = reachable_by_scan(dump.read_truth())
    found = find_leaks(Session.open(dump.dump))
    listed = {a for group in found.groups for a in group.addresses.tolist()}
    assert listed & expected.keys() == {a for a, reached in expected.items() if not reached}
    # Others are ntdll's and the runtime's own, which these made-up programs have few of.
    assert len(listed - expected.keys()) <= 4
    for group in found.groups:
        assert 0 < group.unreferenced_count == len(group.addresses) <= group.used.count
        assert group.head_count <= group.unreferenced_count
        assert group.unreferenced_bytes <= group.used.bytes


def test_the_dumps_are_of_all_kinds() -> None:
    assert {dump.build.rsplit("-")[-1] for dump in DUMPS} == {"x86", "x64"}
    assert any(False in reachable_by_scan(d.read_truth()).values() for d in DUMPS)


@pytest.mark.parametrize("dump", [WOW64] if WOW64.exists() else [], ids=lambda d: d.name)
def test_a_program_that_leaks_nothing_has_next_to_no_unreferenced_blocks(dump: Any) -> None:
    # A real one, whose 64-bit and 32-bit halves point to each other's memory.
    found = find_leaks(Session.open(dump))
    assert found.used.count > 300
    assert found.unreferenced_count <= 3


# Memory of our own making.


def scanned(
    width: int,
    words: list[int],
    blocks: list[tuple[int, int]],
    global_words: list[int] | None = None,
    more: list[Root] | None = None,
    registers: tuple[int, ...] = (),
) -> tuple[list[bool], list[bool]]:
    """(reachable, referenced) of blocks (offset, bytes) in memory that holds `words`."""
    image = ImageBuilder(0x10000000, width)
    place = image.words(DATA + 0x100, *(global_words or [0]))
    dump = image.add_to(MinidumpBuilder(architecture="x64" if width == 8 else "x86"))
    dump.memory(HEAP, struct.pack(f"<{len(words)}{'Q' if width == 8 else 'I'}", *words))
    session, _ = opened(dump)
    builder = BlockIndexBuilder()
    addresses, sizes = [HEAP + at for at, _ in blocks], [size for _, size in blocks]
    used = blocks_at(addresses, sizes)
    builder.add(used, np.zeros(len(used), np.int64), width)
    index = builder.build()
    roots = [root for root in find_roots(session).memory if root.kind is RootKind.GLOBALS]
    assert any(root.start <= place < root.end for root in roots)
    found = find_reachable(session.dump.memory, Roots((*roots, *(more or [])), registers), index)
    return found.reachable.tolist(), found.referenced.tolist()


both_widths = pytest.mark.parametrize("width", [4, 8])


@both_widths
def test_a_chain_from_a_global_keeps_all_its_members(width: int) -> None:
    # Four blocks of four words; each of the first three points into the next, not to its start.
    size = 4 * width
    words = [0] * 16
    for member in range(3):
        words[4 * member + 1] = HEAP + size * (member + 1) + width
    blocks = [(size * member, size) for member in range(4)]
    assert scanned(width, words, blocks, [HEAP])[0] == [True] * 4
    assert scanned(width, words, blocks, [HEAP + size])[0] == [False, True, True, True]
    reachable, referenced = scanned(width, words, blocks)
    assert reachable == [False] * 4
    assert referenced == [False, True, True, True]


@both_widths
def test_blocks_that_only_hold_each_other_are_unreferenced(width: int) -> None:
    words = [HEAP + 2 * width, 0, HEAP, HEAP + 2 * width]  # the second points to itself, too
    blocks = [(0, 2 * width), (2 * width, 2 * width)]
    assert scanned(width, words, blocks) == ([False, False], [True, True])
    assert scanned(width, words, blocks, registers=(HEAP + 1,))[0] == [True, True]


@both_widths
def test_what_counts_as_a_pointer(width: int) -> None:
    size = 2 * width
    blocks = [(0, size), (size, size), (2 * size, 0)]
    words = [0] * 6
    kept = [
        scanned(width, words, blocks, [HEAP + offset])[0].index(True)
        for offset in (0, size - 1, size, 2 * size)
    ]
    assert kept == [0, 0, 1, 2]
    # Behind a block, in front of it, and not aligned as pointers are.
    behind = [(0, size), (4 * width, size)]
    assert scanned(width, words, behind, [HEAP + size, HEAP - 1])[0] == [False, False]
    raw = HEAP << 16
    shifted = [raw % 2 ** (8 * width), raw >> (8 * width)]
    assert scanned(width, words, blocks, shifted)[0] == [False] * 3


@both_widths
def test_words_that_no_used_block_covers_hold_nothing(width: int) -> None:
    words = [HEAP + 6 * width, 0, HEAP + 6 * width, 0, 0, HEAP + 6 * width, 0, 0]
    target = (6 * width, width)
    held = (0, width)
    # In a used block that is held; in a gap; in a block that ends within the word.
    assert scanned(width, words, [held, target], [HEAP])[0] == [True, True]
    assert scanned(width, [0, *words[1:]], [held, target], [HEAP])[0] == [True, False]
    torn = (4 * width, 2 * width - 1)
    assert scanned(width, [0] * 2 + [0, *words[3:]], [torn, target], [HEAP + 4 * width])[0] == [
        True,
        False,
    ]


def test_in_unknown_memory_of_32_bits_only_the_start_of_a_block_counts() -> None:
    # Text of UTF-16 leads into 32-bit heaps; in 64 bits no text does.
    for width, kept in ((4, [False, True]), (8, [True, True])):
        words = [0] * 4 + [HEAP + 1, HEAP + 2 * width]
        root = Root(RootKind.PRIVATE, HEAP + 4 * width, HEAP + 6 * width)
        blocks = [(0, 2 * width), (2 * width, 2 * width)]
        assert scanned(width, words, blocks, more=[root])[0] == kept


def test_a_long_list_is_followed_to_its_end() -> None:
    count = 200_000
    words = [HEAP + 16 * (member // 2 + 1) if member % 2 else 0 for member in range(2 * count - 1)]
    blocks = [(16 * member, 16) for member in range(count)]
    assert all(scanned(8, [*words, 0], blocks, [HEAP])[0])


def test_no_blocks_need_no_memory() -> None:
    index = BlockIndexBuilder().build()
    assert len(index) == 0
    assert index.find(np.array([0, 5], np.uint64)).tolist() == [-1, -1]
    assert index.stretches() == []


def test_overlapping_and_extreme_blocks_are_looked_up_without_wrapping() -> None:
    top = 2**64 - 16
    index = BlockIndex(
        np.array([top, 0x1000, 0x1008], np.uint64),
        np.array([16, 64, 8], np.int64),
        np.zeros(3, np.int32),
        np.full(3, 8, np.uint8),
    )
    found = index.find(np.array([0x1000, 0x1008, 0x1010, top, 2**64 - 1, 0], np.uint64))
    assert found.tolist() == [0, 1, -1, 2, 2, -1]


def test_stacks_that_nobody_lists_are_scanned_as_other_memory() -> None:
    dump = truth_dumps("tiny")[0]
    listed = find_leaks(Session.open(dump.dump))
    session = Session.open(dump.dump)
    session.dump.threads.clear()
    for view in session.views:
        view.thread_blocks.clear()  # nor does a TEB tell of them
    found = find_leaks(session)
    assert "the dump does not say where the stacks" in " ".join(
        d.message for d in found.diagnostics
    )
    # More is scanned then, since what a stack has given back counts as well.
    assert _addresses(found) <= _addresses(listed) | _held_by_registers(dump)


def test_without_a_list_of_regions_all_memory_outside_heaps_is_scanned() -> None:
    for dump in truth_dumps("tiny")[:10]:
        session = Session.open(dump.dump)
        session.dump.memory.regions = Regions.empty()
        found = find_leaks(session)
        # What a stack has given back is not told from other memory then, and counts.
        assert set() < _addresses(found) <= _addresses(find_leaks(Session.open(dump.dump)))
        assert found.roots[RootKind.PRIVATE].present_bytes > 0
        for root in find_roots(session).memory:
            for source in session.heaps:
                assert not root.start <= source.entry.address < root.end


def test_no_memory_is_scanned_twice_whatever_the_lists_say() -> None:
    session = Session.open(truth_dumps("tiny")[0].dump)
    for _ in session.blocks():
        pass
    once = find_roots(session)
    dump = session.dump
    dump.threads += [replace(thread, registers={}) for thread in dump.threads]
    # Without headers an image is data as a whole; this one lies over everything there is.
    dump.modules += [*dump.modules, Module("x.dll", "x.dll", 0x1000, (1 << 47) - 0x1000, 1)]
    roots = sorted(find_roots(session).memory, key=lambda root: root.start)
    assert all(a.end <= b.start for a, b in pairwise(roots))
    covered = sum(root.end - root.start for root in roots)
    assert covered == (1 << 47) - 0x1000
    assert {r for r in roots if r.module and r.module.name != "x.dll"} == {
        root for root in once.memory if root.kind is RootKind.GLOBALS
    }


TINY = [
    TESTDATA / build / "tiny" / "dump.dmp.gz"
    for build in ("10.0.19041.3324-x64", "6.1.7601.24384-x86", "10.0.26100.5074-x64")
]


@pytest.mark.parametrize("path", TINY, ids=lambda p: p.parts[-3])
def test_damaged_dumps_give_an_answer_or_a_typed_error(path: Path) -> None:
    original = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)
    random = np.random.default_rng(5)
    answers = 0
    for round_ in range(40):
        data = original[: random.integers(len(original))] if round_ % 4 == 0 else original.copy()
        if round_ % 4:
            limit = 0x3000 if round_ % 2 else len(data)
            data[random.integers(0, limit, 12)] ^= random.integers(1, 256, 12).astype(np.uint8)
        try:
            session = Session(open_minidump(Path("hostile.dmp"), data))
            snapshot = take_snapshot(session, holders=True)
            assert snapshot.holders is not None
            snapshot.holders(snapshot.groups.keys())
            find_leaks(session)
            answers += 1
        except WindumpsError:
            pass
    assert answers


def test_every_real_dump_gives_an_answer_or_one_line(run: Any) -> None:
    for path in sorted(REAL.glob("user/*.dmp*")):
        code, out, err = run("leaks", path)
        assert code in (0, 3), path
        assert "internal error" not in err
        if code == 0 or out:
            assert "used blocks" in out
        else:
            assert len([line for line in err.splitlines() if line.startswith("dumpleak: ")]) == 1


def _addresses(leaks: Leaks) -> set[int]:
    return {address for group in leaks.groups for address in group.addresses.tolist()}


def _held_by_registers(dump: TruthDump) -> set[int]:
    registers = {v for t in Session.open(dump.dump).dump.threads for v in t.registers.values()}
    sizes = dump.read_truth().sizes
    return {a for a, size in sizes.items() for v in registers if a <= v < a + size}


# The command.


def test_the_report_never_says_leaked(run: Any) -> None:
    code, out, err = run("leaks", AFTER)
    assert (code, err) == (0, "")
    assert "unreferenced" in out
    assert "leaked" not in out.replace("leak-pair", "")


def test_none_is_an_answer() -> None:
    found = replace(
        find_leaks(Session.open(AFTER)),
        groups=(),
        unreferenced_count=0,
        unreferenced_bytes=0,
        head_count=0,
    )
    written = {}
    for name in FORMATS:
        stream = io.StringIO()
        answer = Answer(lambda: leaks_document(found, None), lambda: leaks_json(found))
        write_answer(answer, name, stream)
        written[name] = stream.getvalue()
    assert "None of 2.1 MiB in 7,094 used blocks is unreferenced." in written["text"]
    document = json.loads(written["json"])
    assert (document["groups"], document["totals"]["unreferenced_count"]) == ([], 0)
    assert written["csv"].count("\n") == 1


def test_json_and_csv_have_the_same_groups_and_add_up(run: Any) -> None:
    code, out, _ = run("leaks", AFTER, "--format", "json")
    document = json.loads(out)
    groups, totals = document["groups"], document["totals"]
    assert code == 0
    assert document["schema"] == "dumpleak/leaks/1"
    for name in ("unreferenced_bytes", "unreferenced_count", "head_count"):
        assert totals[name] == sum(group[name] for group in groups)
    assert all(len(group["addresses"]) == group["unreferenced_count"] for group in groups)
    sizes = [group["unreferenced_bytes"] for group in groups]
    assert sizes == sorted(sizes, reverse=True)
    rows = list(csv.DictReader(io.StringIO(run("leaks", AFTER, "--format", "csv")[1])))
    assert [row["name"] for row in rows] == [group["name"] for group in groups]
    types = json.loads(run("leaks", AFTER, "--by", "type", "--format", "json")[1])
    assert types["totals"] == totals
    assert {"app::net::Session", "app::Node"} <= {group["type"] for group in types["groups"]}


def test_a_dump_without_globals_or_stacks_cannot_answer(run: Any) -> None:
    dump = truth_dumps("tiny")[0].dump
    session = Session.open(dump)
    threads = session.dump.threads
    threads[:] = [replace(thread, stack_start=0x10000, stack_size=0x1000) for thread in threads]
    with pytest.raises(CannotAnswerError, match="stacks of the threads"):
        find_leaks(session)
    session = Session.open(dump)
    session.dump.modules.clear()
    with pytest.raises(CannotAnswerError, match="data sections"):
        find_leaks(session)
    code, out, err = run("leaks", __file__)
    assert (code, out) == (3, "")
    assert err.count("\n") == 1


def _with_absent_memory(path: Path, size: int) -> Session:
    """The dump with one more private region, of which the file has nothing."""
    session = Session.open(path)
    memory = session.dump.memory
    more = (0x7000_0000, 0x7000_0000, size, 0x1000, 4, 0x20000)
    columns = [getattr(memory.regions, field.name) for field in fields(Regions)[:6]]
    order = np.argsort(np.append(columns[0], np.uint64(more[0])))
    memory.regions = Regions(
        *(
            np.append(column, np.array(value, column.dtype))[order]
            for column, value in zip(columns, more, strict=True)
        )
    )
    return session


def test_leaks_are_refused_when_most_memory_that_may_hold_pointers_is_absent() -> None:
    session = _with_absent_memory(AFTER, 1 << 28)
    with pytest.raises(CannotAnswerError, match=r"9\d\.\d% of the memory that may hold pointers"):
        find_leaks(session)


def test_the_first_line_says_how_much_memory_that_may_hold_pointers_is_absent() -> None:
    found = find_leaks(_with_absent_memory(AFTER, 0x100000))
    assert 0.05 < found.lost_share < 0.5
    stream = io.StringIO()
    write_text(leaks_document(found, None), stream)
    first = stream.getvalue().splitlines()[0]
    assert first.startswith(f"{found.lost_share:.1%} of the memory that may hold pointers is not")
    whole = find_leaks(Session.open(AFTER))
    assert whole.lost_share == 0


def test_a_dump_that_does_not_say_what_it_lacks_says_so_first() -> None:
    session = Session.open(AFTER)
    session.dump.memory.regions = Regions.empty()
    assert find_leaks(session).lost_share == 0
    session.dump.full_memory = False
    found = find_leaks(session)
    assert found.lost_share is None
    stream = io.StringIO()
    write_text(leaks_document(found, None), stream)
    assert stream.getvalue().startswith(
        "This dump of part of the memory does not say what it lacks"
    )
    snapshot = take_snapshot(session, holders=True)
    assert snapshot.holders is not None
    held = snapshot.holders(snapshot.groups.keys())
    assert not any(holding.unreferenced for holding in held.values())


def test_no_other_answer_calls_blocks_unreferenced_when_roots_are_absent() -> None:
    for session, told in (
        (Session.open(AFTER), True),
        (_with_absent_memory(AFTER, 0x100000), False),
    ):
        snapshot = take_snapshot(session, holders=True)
        assert snapshot.holders is not None
        held = snapshot.holders(snapshot.groups.keys())
        assert any(holding.unreferenced for holding in held.values()) is told


def test_memory_of_a_heap_that_was_not_read_may_hold_pointers() -> None:
    dump = open_dump(AFTER)
    session = Session(dump)
    heap = session.heaps[1].entry.address
    damaged = Session(with_bytes(dump, {heap + 0x10: bytes(0x400)}))
    for _ in damaged.blocks():
        pass
    assert damaged.heaps[1].entry.heap is None
    assert any(root.start <= heap < root.end for root in find_roots(damaged).memory)


# A heap that went over to LFH keeps the table without a pointer to it.
XP = truth_dumps("tiny", "nt-basic")


@pytest.mark.parametrize(
    "dump", [d for d in XP if d.build.startswith("5.")], ids=lambda d: getattr(d, "name", None)
)
def test_the_front_ends_own_table_is_held_by_the_heaps_header(dump: TruthDump) -> None:
    """A look-aside table is a used block of the heap that the program never asked for."""
    columns = dump.read_truth().raw["alloc_columns"]
    of_program = {row[columns.index("address")] for row in dump.read_truth().raw["allocations"]}
    unreferenced = {
        address
        for group in find_leaks(Session.open(dump.dump)).groups
        for address in group.addresses.tolist()
    }
    assert unreferenced
    assert unreferenced <= of_program
