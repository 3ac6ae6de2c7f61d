"""Who points to the blocks of a site: counted again one by one, and in memory of our own making."""

from __future__ import annotations

import json
import struct
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from builders.heap_source import blocks_at, opened
from builders.image_builder import DATA, ImageBuilder
from builders.minidump_builder import MinidumpBuilder
from truth import TESTDATA, TruthDump, truth_dumps

from dumpleak.attribution import SiteFinder
from dumpleak.compare.diff import compare
from dumpleak.model.holding import Holding
from dumpleak.model.sites import Site, SiteKind
from dumpleak.pointers.holders import HolderFinder
from dumpleak.pointers.references import BlockIndexBuilder
from dumpleak.pointers.roots import RootKind, find_roots
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-aslr"
HEAP = 0x20000000


def counted_again(session: Session) -> dict[str, tuple[int, int, dict[str, int]]]:
    """Key → (blocks, unreachable, blocks by holding class or kind of root); one word at a time."""
    finder = SiteFinder(session)
    blocks: list[tuple[int, int, int, int]] = []
    for source, piece in session.blocks():
        used = piece.used
        width = source.view.pointer_size
        sites = finder.assign(source, used).tolist()
        rows = zip(used.address.tolist(), used.counted_bytes.tolist(), sites, strict=True)
        blocks += [(address, size, site, width) for address, size, site in rows]
    owner = {
        address + offset: number
        for number, (address, size, _, _) in enumerate(blocks)
        for offset in range(max(size, 1))
    }
    sites_ = finder.table.sites
    holders: dict[int, set[str]] = defaultdict(set)
    leads_to: dict[int, set[int]] = defaultdict(set)  # -1 stands for the roots
    memory = session.dump.memory

    def scan(start: int, end: int, width: int, label: str, me: int) -> None:
        for place in range(-(-start // width) * width, end - width + 1, width):
            target = owner.get(memory.read_uint(place, width), -1)
            if target >= 0 and target != me:
                holders[target].add(label)
                leads_to[me].add(target)

    for number, (address, size, site, width) in enumerate(blocks):
        scan(address, address + size, width, sites_[site].type or sites_[site].key, number)
    width = blocks[0][3]
    for root in find_roots(session).memory:
        if root.kind in (RootKind.GLOBALS, RootKind.STACK, RootKind.THREAD, RootKind.HEAP):
            name = root.module.name if root.module else ""
            scan(root.start, root.end, width, f"{root.kind} {name}", -1)
    for thread in session.dump.threads:
        for value in thread.registers.values():
            if value in owner:
                holders[owner[value]].add("registers")
                leads_to[-1].add(owner[value])
    reached, left = {-1}, [-1]
    while left:
        new = leads_to[left.pop()] - reached
        reached |= new
        left += new
    found: dict[str, tuple[int, int, dict[str, int]]] = {}
    for number, site in enumerate(sites_):
        mine = [n for n, block in enumerate(blocks) if block[2] == number]
        votes = Counter(label for n in mine for label in holders[n])
        found[site.key] = len(mine), sum(n not in reached for n in mine), votes
    return found


@pytest.mark.parametrize("dump", truth_dumps("tiny")[:10], ids=lambda d: d.name)
def test_holders_are_those_that_a_scan_word_by_word_finds(dump: TruthDump) -> None:
    expected = counted_again(Session.open(dump.dump))
    snapshot = take_snapshot(Session.open(dump.dump), holders=True)
    assert snapshot.holders is not None
    found = snapshot.holders(snapshot.groups.keys())
    assert found.keys() == snapshot.groups.keys()
    held = 0
    for key, holding in found.items():
        blocks, unreferenced, votes = expected[key]
        most = max(votes.values(), default=0)
        assert (holding.blocks, holding.unreferenced, holding.held) == (blocks, unreferenced, most)
        best = [label for label, count in votes.items() if count == most]
        if len(best) == 1 and not best[0].startswith("shape|"):
            word = best[0].removeprefix("globals ").removeprefix("stack ").removeprefix("heap-")
            assert word in holding.holder
            held += 1
    assert held >= 3


# Memory of our own making: three groups of blocks, a program's data, and who points where.


def holding(
    width: int,
    words: dict[int, int],
    groups: list[list[tuple[int, int]]],
    global_words: list[int] | None = None,
    kinds: tuple[SiteKind, ...] = (),
) -> list[Holding]:
    """What is found of each group of blocks (offset, bytes); words stand at offsets in the heap."""
    image = ImageBuilder(0x10000000, width)
    image.words(DATA + 0x40, *(global_words or [0]))
    dump = image.add_to(MinidumpBuilder(architecture="x64" if width == 8 else "x86"))
    raw = bytearray(0x1000)
    for offset, word in words.items():
        struct.pack_into("<Q" if width == 8 else "<I", raw, offset, word)
    dump.memory(HEAP, bytes(raw))
    session, _ = opened(dump)
    builder = BlockIndexBuilder()
    sites = []
    for number, blocks in enumerate(groups):
        used = blocks_at([HEAP + at for at, _ in blocks], [size for _, size in blocks])
        builder.add(used, np.full(len(blocks), number, np.int64), width)
        kind = kinds[number] if kinds else SiteKind.TYPE
        name = f"Class{number}"
        sites.append(Site(kind, f"key{number}", name, type=name if kind is SiteKind.TYPE else None))
    found = HolderFinder(session, builder.build(), sites)([site.key for site in sites])
    return [found[site.key] for site in sites]


both_widths = pytest.mark.parametrize("width", [4, 8])


@both_widths
def test_the_field_is_told_where_nearly_all_pointers_stand_in_it(width: int) -> None:
    nodes = [(0x40 * n, 0x20) for n in range(10)]
    items = [(0x400 + 0x40 * n, 0x20) for n in range(10)]
    words = {
        at + 2 * width: HEAP + item + 4 for (at, _), (item, _) in zip(nodes, items, strict=True)
    }
    node, item = holding(width, words, [nodes, items])
    assert item == Holding(10, 10, f"Class0 at +0x{2 * width:x}", 10)
    assert node == Holding(10, 10, fields=(f"+0x{2 * width:x} -> Class1",))
    assert item.evidence == (
        f"10 of 10 held by Class0 at +0x{2 * width:x}",
        "10 of 10 unreferenced",
    )
    assert node.evidence[0] == "10 of 10 unreferenced"
    scattered = {
        at + width * (at // 0x40 % 2): word
        for (at, _), word in zip(nodes, words.values(), strict=True)
    }
    assert holding(width, scattered, [nodes, items])[1].holder == "Class0"


@both_widths
def test_globals_are_told_by_module_and_offset(width: int) -> None:
    items = [(0x40 * n, 0x20) for n in range(3)]
    (one,) = holding(width, {}, [items], [HEAP + 0x40])
    assert one == Holding(3, 2, f"the global at app.exe+0x{DATA + 0x40:x}", 1)
    (all_,) = holding(width, {}, [items], [HEAP, HEAP + 0x40, HEAP + 0x80])
    assert all_.holder == f"3 globals of app.exe, the first at app.exe+0x{DATA + 0x40:x}"
    assert (all_.held, all_.unreferenced) == (3, 0)


def test_a_block_counts_once_for_each_holder_and_never_for_itself() -> None:
    array, items = [(0, 0x40)], [(0x100, 0x20), (0x140, 0x20)]
    words = {
        0: HEAP + 0x100,
        8: HEAP + 0x100,
        16: HEAP + 0x108,
        24: HEAP + 0x140,
        0x100: HEAP + 0x100,
    }
    _, item = holding(8, words, [array, items])
    assert item == Holding(2, 2, "Class0", 2)
    alone = holding(8, {0x100: HEAP + 0x100, 0x148: HEAP + 0x140}, [array, items])[1]
    assert alone == Holding(2, 2)


def test_the_one_that_holds_most_is_told() -> None:
    first, second, items = [(0, 0x40)], [(0x80, 0x40)], [(0x100 + 0x20 * n, 0x10) for n in range(5)]
    words = {0: HEAP + 0x100, 8: HEAP + 0x120}
    words |= {0x80 + 8 * n: HEAP + 0x120 + 0x20 * n for n in range(3)}
    kinds = (SiteKind.SHAPE, SiteKind.STACK, SiteKind.TYPE)
    found = holding(8, words, [first, second, items], kinds=kinds)
    assert found[2] == Holding(5, 5, "blocks from Class1", 3)
    assert holding(8, {0: HEAP + 0x100}, [first, second, items], kinds=kinds)[2] == Holding(
        5, 5, "blocks of Class0 at +0x0", 1
    )


def test_blocks_of_one_class_are_one_holder_wherever_they_were_allocated() -> None:
    session = Session.open(PAIR / "after.dmp.gz")
    snapshot = take_snapshot(session, holders=True)
    assert snapshot.holders is not None
    nodes = next(key for key, (site, _) in snapshot.groups.items() if site.type == "app::Node")
    found = snapshot.holders([nodes, "no such key"])
    assert found.keys() == {nodes}
    assert found[nodes].holder.startswith("app::Node at +0x")
    assert snapshot.holders([]) == {}


def test_what_hangs_on_an_unreferenced_block_is_unreferenced_as_well() -> None:
    nodes, items = [(0, 0x20), (0x40, 0x20)], [(0x100, 0x20), (0x140, 0x20)]
    words = {0: HEAP + 0x100, 0x40: HEAP + 0x140}
    node, item = holding(8, words, [nodes, items], [HEAP + 0x40])
    assert (node.unreferenced, item.unreferenced) == (1, 1)
    assert item.holder == "Class0 at +0x0"


@both_widths
def test_fields_are_told_where_nearly_all_blocks_agree(width: int) -> None:
    image = 0x10000000
    nodes = [(0x40 * n, 0x30) for n in range(10)]
    items = [(0x400 + 0x40 * n, 0x20) for n in range(10)]
    words: dict[int, int] = {}
    for number, ((node, _), (item, _)) in enumerate(zip(nodes, items, strict=True)):
        words[node + width] = HEAP + item  # a kind of block
        words[node + 2 * width] = image + 0x1010  # one place in an image
        words[node + 3 * width] = image + 0x2000 + 4 * number  # several
        words[node + 4 * width] = image  # a handle
        if number < 8:
            words[node + 5 * width] = HEAP + item  # not all of them
    del words[nodes[3][0] + width]  # one in ten may be empty
    kinds = (SiteKind.SHAPE, SiteKind.TYPE)
    node, item = holding(width, words, [nodes, items], kinds=kinds)
    assert node.fields == (
        f"+0x{width:x} -> Class1",
        f"+0x{2 * width:x} -> app.exe+0x1010",
        f"+0x{3 * width:x} -> app.exe",
    )
    assert node.evidence[-1] == f"fields: {', '.join(node.fields)}"
    assert item.fields == ()
    # Three blocks may agree by chance.
    assert holding(width, words, [nodes[:3], items], kinds=kinds)[0].fields == ()


def test_fields_end_with_the_smallest_block_and_no_more_than_four_are_shown() -> None:
    nodes = [(0x80 * n, 0x40) for n in range(6)]
    words = {at + 8 * field: 0x10001010 + field for at, _ in nodes for field in range(6)}
    (node,) = holding(8, words, [nodes], kinds=(SiteKind.SHAPE,))
    assert len(node.fields) == 4
    short = [*nodes[:5], (nodes[5][0], 15)]
    (node,) = holding(8, words, [short], kinds=(SiteKind.SHAPE,))
    assert node.fields == ("+0x0 -> app.exe+0x1010",)
    # Of an object the first word, its vftable, is known already.
    (typed,) = holding(8, words, [short])
    assert typed.fields == ()


# In reports.


def test_diff_tells_of_the_sites_that_grew_who_holds_them(run: Any) -> None:
    args = ("diff", PAIR / "before.dmp.gz", PAIR / "after.dmp.gz")
    sites = json.loads(run(*args, "--format", "json", "--top", "5")[1])["sites"]
    told = [any("unreferenced" in e or "held by" in e for e in site["evidence"]) for site in sites]
    assert told[:5] == [True] * 5
    assert not any(told[5:])
    code, out, _ = run(*args, "--top", "5")
    assert code == 0
    assert "600 of 600 unreferenced" in out  # one cause in three heaps
    assert "unreferenced" not in run(*args, "--no-holders")[1]


def test_stat_tells_who_holds_the_largest_groups(run: Any) -> None:
    args = ("stat", PAIR / "after.dmp.gz", "--by", "type", "--format")
    groups = json.loads(run(*args, "json")[1])["groups"]
    node = next(group for group in groups if group["type"] == "app::Node")
    assert any("held by app::Node at +0x" in clause for clause in node["evidence"])
    silent = json.loads(run(*args, "json", "--no-holders")[1])["groups"]
    assert all(group["evidence"] == [] for group in silent)
    assert "held by app::Node" in run(*args, "csv")[1]


@pytest.mark.parametrize("by", ["heap", "kind"])
def test_who_holds_whole_heaps_is_looked_for_only_when_asked(run: Any, by: str) -> None:
    dump = str(TESTDATA / "10.0.26100.5074-x64" / "leak-pair-ust" / "after.dmp.gz")
    held = [
        any(group.get("evidence") for group in json.loads(run(*args)[1])["groups"])
        for args in (
            ("stat", dump, "--by", by, "--format", "json"),
            ("stat", dump, "--by", by, "--format", "json", "--holders"),
        )
    ]
    assert held == [False, True]


def test_trend_tells_who_holds_in_the_last_dump_the_blocks_of_what_grew(run: Any) -> None:
    series = TESTDATA / "10.0.22621.4541-x64" / "series-ust"
    dumps = [series / f"dump{number}.dmp.gz" for number in range(4)]
    sites = json.loads(run("trend", *dumps, "--format", "json")[1])["sites"]
    leaking = [site for site in sites if site["confidence"] == "suspect"]
    assert leaking
    for site in leaking:
        count = site["current_count"]
        assert any(f" of {count:,} unreferenced" in clause for clause in site["evidence"])
    assert " unreferenced" in run("trend", *dumps)[1]
    assert " unreferenced" not in run("trend", *dumps, "--no-holders")[1]


def test_holders_are_no_part_of_keys() -> None:
    sides = [
        take_snapshot(Session.open(PAIR / f"{name}.dmp.gz"), holders=True)
        for name in ("before", "after")
    ]
    plain = [take_snapshot(Session.open(PAIR / f"{name}.dmp.gz")) for name in ("before", "after")]
    for with_, without in zip(sides, plain, strict=True):
        assert with_.groups.keys() == without.groups.keys()
    found = [[(d.site.key, d.delta_bytes) for d in compare(*pair).sites] for pair in (sides, plain)]
    assert found[0] == found[1]
