"""`dumpleak explain`: what lies at an address, and why it is alive."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.heap_source import blocks_at, opened
from builders.image_builder import DATA, TEXT, ImageBuilder
from builders.minidump_builder import MinidumpBuilder
from builders.opening import open_bytes
from fuzz.command_lines import run
from pointers_again import Again
from truth import TESTDATA, TruthDump, truth_dumps

from dumpleak.attribution import SiteFinder
from dumpleak.model.block_filter import BlockFilter
from dumpleak.model.explanation import Explained, HolderNode, What
from dumpleak.model.sites import Site, SiteKind
from dumpleak.pointers import holder_tree
from dumpleak.pointers.holder_tree import DEPTH, FieldLog, HolderTrees, Namer
from dumpleak.pointers.pointer_graph import PointerGraph
from dumpleak.pointers.reachability import scan_pointers
from dumpleak.pointers.references import BlockIndex, BlockIndexBuilder, Edges
from dumpleak.pointers.roots import find_roots
from dumpleak.process.places import Places
from dumpleak.process.session import Session
from dumpleak.process.used_pieces import used_pieces
from dumpleak.reports.answers.explain import SHOWN_STEPS, path_told
from dumpleak.survey.explain import _Asked, explain
from dumpleak.survey.explain_holders import MOST_STEPS, Holding
from dumpleak.survey.explain_sites import explain_sites
from windumps.memory import AddressSpace

MIXED = TESTDATA / "10.0.26100.5074-x64" / "mixed" / "dump.dmp.gz"
PLAIN = TESTDATA / "10.0.26100.5074-x64" / "leak-pair-aslr" / "after.dmp.gz"
POOLS = TESTDATA / "kernel" / "14393-x64" / "tiny-pair" / "after.dmp.xz"
BUTTON = 0x257CBAF07F0  # of MIXED
PICKED = 25
DUMPS = [
    dump
    for dump in truth_dumps("tiny", "mixed", "leak-pair-ust", "segment-lfh*")
    if "before" not in dump.dump.name
][::6]


def explained(dump: object, *words: object) -> list[dict[str, Any]]:
    code, output, said = run("explain", str(dump), *map(str, words), "--format", "json")
    assert code == 0, said
    return [json.loads(line) for line in output.splitlines()]


def one(dump: object, *words: object) -> dict[str, Any]:
    (found,) = explained(dump, *words)
    return found


def index_of(session: Session) -> BlockIndex:
    finder, builder = SiteFinder(session), BlockIndexBuilder()
    for source, used in used_pieces(session):
        builder.add(used, finder.assign(source, used), source.view.pointer_size)
    return builder.build()


def steps_from_roots(again: Again) -> dict[int, int]:
    """How many blocks the shortest way to each block has, by breadth-first search from the roots."""
    steps = dict.fromkeys(again.held, 1)
    front = list(again.held)
    while front:
        new = {n for node in front for n in again.leads[node]} - steps.keys()
        steps.update(dict.fromkeys(new, steps[front[0]] + 1))
        front = list(new)
    return steps


@pytest.mark.parametrize("dump", DUMPS, ids=lambda d: d.name)
def test_paths_are_real_and_shortest_and_holders_are_all(dump: TruthDump) -> None:
    session = Session.open(dump.dump)
    index, memory = index_of(session), session.dump.memory
    graph = scan_pointers(memory, find_roots(session), index)
    again = Again(graph)
    steps = steps_from_roots(again)
    picked = np.random.default_rng(7).integers(0, len(index), PICKED).tolist()
    asked = [int(index.address[block]) for block in picked]
    reached = 0
    for block, found in zip(picked, explain(Session.open(dump.dump), asked).found, strict=True):
        start, size = int(index.address[block]), int(index.size[block])
        assert (found.what, found.address, found.held_bytes) == ("block", start, size)
        assert found.path_count == (steps[block] + 1 if block in steps else 0)
        assert_real(memory, index, [(step.address, step.offset) for step in found.path])
        reached += bool(found.path)
        lost = again.lost_with({block})
        assert found.retained_count == len(lost)
        assert found.retained_bytes == sum(int(index.size[other]) for other in lost)
        holding = {h.address - h.offset for h in found.holders if h.address and h.offset >= 0}
        assert {int(index.address[other]) for other in again.back[block]} <= holding
        for holder in found.holders:
            if holder.address is not None:
                value = memory.read_uint(holder.address, index.width_of(block))
                assert start <= value < start + max(size, 1)
    assert reached > 0


def assert_real(
    memory: AddressSpace, index: BlockIndex, path: list[tuple[int | None, int]]
) -> None:
    """Each step's pointer is in memory, and leads into the next block."""
    for (address, offset), (following, _) in pairwise(path):
        if address is not None:
            width = index.width_of(0)
            value = memory.read_uint(address + offset, width)
            number = int(index.find(np.array([value], np.uint64))[0])
            assert int(index.address[number]) == following


def test_a_block_is_told_with_heap_site_and_what_keeps_it_alive() -> None:
    found = one(MIXED, f"{BUTTON:x}")
    assert found["what"] == "block"
    assert found["block"]["type"] == "app::Button"
    assert found["block"]["heap_label"] == "heap 0"
    assert [step["what"] for step in found["path"]] == [
        "global app.exe+0xd1a0",
        "app::Application",
        "app::Document",
        "app::TextView",
        "app::Button",
    ]
    assert [holder["what"] for holder in found["holders"]] == ["app::TextView"]
    assert found["holders"][0]["offset"] == 0x28
    code, text, _ = run("explain", str(MIXED), hex(BUTTON))
    assert code == 0
    assert "global app.exe+0xd1a0 → app::Application +0x8 → app::Document +0x18" in text
    assert "keeps alive  at least 168 B in 2 blocks, itself included" in text


@pytest.mark.parametrize(
    "form",
    ["0x257cbaf07f8", "257CBAF07F8", "00000257`cbaf07f8", "257cbaf07f8h", "0n2576102655992"]
    + ["0x257cbaf07f8,"],
)
def test_addresses_are_read_as_debuggers_write_them(form: str) -> None:
    found = one(MIXED, form)
    assert found["address"] == "0x00000257cbaf07f8"
    assert (found["offset"], found["block"]["address"]) == (8, "0x00000257cbaf07f0")


@pytest.mark.parametrize("word", ["xyz", "0x", "12 34", "-1", "1ffffffffffffffff", "12`34", ""])
def test_what_is_no_address_is_wrong_usage(word: str) -> None:
    code, _, said = run("explain", str(MIXED), "--", word)
    assert code == 2
    assert "is no address" in said


def test_places_in_images_are_addresses_and_what_is_not_there_is_refused_in_one_line() -> None:
    base = Session.open(MIXED).dump.modules[0].base_address
    name = Session.open(MIXED).dump.modules[0].name
    for form in (f"{name}+0x1234", f"{name.upper()}+1234", f"{name.partition('.')[0]}+0x1234"):
        assert int(one(MIXED, form)["address"], 16) == base + 0x1234
    refused = {
        "nobody.dll+0x10": "no image 'nobody.dll' is loaded",
        f"{name}!g_cache": f"there are no symbols of {name}",
        f"{name}+0xffffffffffffffffff": "has only 0x",
        "app+zz": "is no address",
    }
    for form, told in refused.items():
        code, output, said = run("explain", str(MIXED), form)
        assert (code, output) == (2 if "zz" in form else 3, ""), said
        assert told in said


def test_a_driver_is_named_by_name_or_as_nt() -> None:
    for form in ("ntoskrnl.exe+0x1234", "nt+0x1234"):
        assert one(POOLS, form)["told"] == "driver ntoskrnl.exe+0x1234"


def test_a_decimal_number_without_a_mark_is_told_how_it_was_read() -> None:
    assert "0n12345678" in one(MIXED, "12345678")["notes"][0]
    assert one(MIXED, "1234567a")["notes"] == []


def test_contents_that_are_not_there_are_said_to_be_lacking() -> None:
    made = MinidumpBuilder()
    made.memory(0x10000, b"\1" * 0x100)
    made.region(0x10000, 0x1000)
    session = Session(open_bytes(made.build()))
    told = explain(session, [0x10000, 0x100F8, 0x90000], 16).found
    assert [item.notes for item in told] == [
        (),
        ("Of the 16 bytes asked for, only 8 can be read here.",),
        ("Of the 16 bytes asked for, none can be read here.",),
    ]
    pool = one(POOLS, "0x10000", "--bytes", 8)
    assert pool["notes"] == ["Of the 8 bytes asked for, none can be read here."]


@pytest.mark.parametrize("command", ["snapshot", "json"])
def test_what_has_no_memory_is_refused_in_one_line(command: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    if command == "snapshot":
        assert run("snapshot", str(MIXED), "-o", str(file))[0] == 0
    else:
        file.write_text('{"a": 1}')
    code, output, said = run("explain", str(file), "1234")
    assert (code, output, len(said.strip().splitlines())) == (3, "", 1)


def test_a_slot_of_a_stack_is_told_with_the_code_that_follows_up_the_stack() -> None:
    image = ImageBuilder(0x10000000, 8)
    made = image.add_to(MinidumpBuilder(architecture="x64"))
    code = 0x10000000 + TEXT + 0x10
    made.memory(0x20000, struct.pack("<8Q", 0, 0, code, 0, 0, 0, 0, 0))
    made.region(0x20000, 0x40)
    made.thread(7, stack=(0x20000, 0x40), registers={"rsp": 0x20008})
    told = explain(Session(open_bytes(made.build())), [0x20008, 0x20018, 0x20000]).found
    assert [item.told for item in told] == [
        f"stack of thread 7, rsp+0x0, near app.exe+0x{TEXT + 0x10:x}",
        "stack of thread 7, rsp+0x10",
        "stack of thread 7, rsp-0x8 (below what is in use)",
    ]


def test_of_blocks_that_overlap_the_one_that_begins_last_is_told() -> None:
    # Of a block of the debug runtime with an alignment it is known only how much the heap took for it.
    session = Session.open(MIXED)
    source = session.heaps[0]
    blocks = blocks_at([HEAP, HEAP + 0x40, HEAP + 0x200], 0x100)
    asked = _Asked([HEAP + 0x20, HEAP + 0x50, HEAP + 0x40, HEAP + 0x1F0, HEAP + 0x210])
    list(asked.seen([(source, blocks)]))
    starts = {address: int(found.block.address[0]) for address, found in asked.found.items()}
    assert starts == {
        HEAP + 0x20: HEAP,
        HEAP + 0x50: HEAP + 0x40,
        HEAP + 0x40: HEAP + 0x40,
        HEAP + 0x210: HEAP + 0x200,
    }


def test_an_address_is_needed() -> None:
    assert run("explain", str(MIXED))[0] == 2


def test_contents_are_shown_only_when_asked_for() -> None:
    memory = Session.open(MIXED).dump.memory
    assert one(MIXED, hex(BUTTON))["contents"] == ""
    assert one(MIXED, hex(BUTTON), "--bytes", 24)["contents"] == memory.read(BUTTON, 24).hex()
    text = run("explain", str(MIXED), hex(BUTTON), "--bytes", "20")[1]
    assert memory.read(BUTTON, 16).hex(" ") in text


def test_what_nothing_leads_to_has_no_path_and_still_a_size() -> None:
    leaks = json.loads(run("leaks", str(PLAIN), "--format", "json")[1])
    group = leaks["groups"][0]
    found = one(PLAIN, group["addresses"][0])
    assert found["path"] == []
    assert found["retained_bytes"] >= group["unreferenced_bytes"] // group["unreferenced_count"]
    assert "no root leads to it" in run("explain", str(PLAIN), group["addresses"][0])[1]


def test_places_that_are_no_blocks_are_told_apart() -> None:
    session = Session.open(PLAIN)
    thread = session.dump.threads[0]
    heap = session.heaps[0].entry.address
    module = session.dump.modules[0]
    free = next(
        int(blocks.address[blocks.state == 0][0])
        for _, blocks in session.blocks()
        if (blocks.state == 0).any()
    )
    asked = {
        thread.registers["rsp"] + 8: ("stack", f"stack of thread {thread.thread_id}, rsp+0x8"),
        thread.registers["rsp"] - 0x100: ("stack", "rsp-0x100 (below what is in use)"),
        thread.teb + 0x30: ("region", f"TEB of thread {thread.thread_id}, +0x30"),
        heap + 0x10: ("heap-structure", "heap 0 (+0x10 from its handle): no block"),
        module.base_address + 0x1000: ("image", f"{module.name}+0x1000"),
        free: ("free-block", "free block"),
        0x1234: ("not-mapped", "the process had no memory here"),
    }
    found = explained(PLAIN, *map(hex, asked))
    for item, (what, told) in zip(found, asked.values(), strict=True):
        assert item["what"] == what, item
        assert told in item["told"]
        assert item["holder_count"] is None


def test_what_the_dump_lacks_is_absent_and_what_was_never_there_is_not() -> None:
    made = MinidumpBuilder()
    made.memory(0x10000, b"\1" * 0x100)
    made.region(0x10000, 0x2000)
    told = explain(Session(open_bytes(made.build())), [0x10080, 0x11000, 0x90000]).found
    assert [item.what for item in told] == ["region", "absent", "not-mapped"]
    assert "not in the dump" in told[1].told


def test_a_thread_without_registers_whose_stack_spans_address_0_is_told_as_a_stack() -> None:
    made = MinidumpBuilder()
    made.memory(0x10000, b"\1" * 0x100)
    made.region(0x10000, 0x2000)
    made.thread(7, stack=(0, 0x11000))
    (told,) = explain(Session(open_bytes(made.build())), [0x10080]).found
    assert (told.what, told.told) == ("stack", "stack of thread 7")


def test_a_pool_block_has_its_tag_and_owner() -> None:
    block, header, driver = explained(
        POOLS, "ffffd6d8c0034018", "ffffd6d8c0034008", "0xfffff8027d001234"
    )
    assert (block["what"], block["block"]["tag"], block["offset"]) == ("pool-block", "MmLd", 8)
    assert "ntoskrnl.exe" in block["told"]
    assert header["what"] == "heap-structure"
    assert (driver["what"], driver["told"]) == ("image", "driver ntoskrnl.exe+0x1234")


HEAP = 0x20000000


def test_a_very_long_path_is_told_by_its_ends() -> None:
    # A list of blocks of two words, held by a global.
    count = 1000
    image = ImageBuilder(0x10000000, 8)
    image.words(DATA + 0x40, HEAP)
    dump = image.add_to(MinidumpBuilder(architecture="x64"))
    words = [word for n in range(count) for word in (0, HEAP + 16 * (n + 1))]
    dump.memory(HEAP, struct.pack(f"<{2 * count}Q", *words[:-1], 0))
    session, _ = opened(dump)
    builder = BlockIndexBuilder()
    used = blocks_at([HEAP + 16 * n for n in range(count)], 16)
    builder.add(used, np.zeros(count, np.int64), 8)
    last = HEAP + 16 * (count - 1)
    sites = [Site(SiteKind.TYPE, "type|n", "Node", type="Node")]
    holding = Holding(session, builder.build(), sites, Places(session), [last])
    found = holding.explained(Explained(last, What.BLOCK, "", held_bytes=16))
    assert found.path_count == count + 1
    assert len(found.path) == MOST_STEPS + 1
    assert [found.path[n].address for n in (1, 2, -2, -1)] == [HEAP, HEAP + 16, last - 16, last]
    assert any("in the middle of the path are left out" in note for note in found.notes)
    assert path_told(found).count("Node") == SHOWN_STEPS - 1
    assert f"… {count + 1 - SHOWN_STEPS:,} more …" in path_told(found)


def test_a_handle_is_told_by_its_value() -> None:
    made = MinidumpBuilder()
    made.handles([(0x1A4, "Event", "\\BaseNamedObjects\\Go"), (0x1A8, "File", "")])
    made.memory(0x10000, b"\1" * 0x100)
    made.region(0x10000, 0x1000)
    told = explain(Session(open_bytes(made.build())), [0x1A4, 0x1A8, 0x1AC]).found
    assert [(item.what, item.told) for item in told[:2]] == [
        ("handle", "handle of type Event \\BaseNamedObjects\\Go"),
        ("handle", "handle of type File"),
    ]
    assert told[2].what == "not-mapped"


# What the blocks of a site hang on.


def tree_counts(nodes: list[dict[str, Any]]) -> None:
    for node in nodes:
        above = node["holders"]
        assert sum(holder["count"] for holder in above) <= node["count"]
        assert sum(holder["bytes"] for holder in above) <= node["bytes"]
        tree_counts(above)


def test_what_a_site_hangs_on_is_a_tree_of_its_holders_up_to_the_roots() -> None:
    found = one(MIXED, "--type", "app::Button")
    assert found["sites"] == ["app::Button"]
    (view,) = found["holders"]
    assert (view["what"], view["offset"], view["count"]) == ("app::TextView", 0x28, found["count"])
    (document,) = view["holders"]
    assert (document["what"], document["offset"]) == ("app::Document", 0x18)
    assert {holder["what"] for holder in document["holders"]} == {"app::Application"}
    tree_counts(found["holders"])
    text = run("explain", str(MIXED), "--type", "app::Button")[1]
    assert "app::TextView +0x28\n" in text
    assert "  ← app::Document +0x18\n" in text
    group = json.loads(run("stat", str(MIXED), "--by", "type", "--retained", "--format", "json")[1])
    same = next(g for g in group["groups"] if g["type"] == "app::Button")
    assert found["retained_bytes"] == same["retained_bytes"]


def test_lists_are_one_step_and_what_is_lost_is_no_part_of_the_tree() -> None:
    found = one(PLAIN, "--type", "app::Node")
    first = found["holders"][0]
    assert (first["what"], first["offset"], first["is_chain"]) == ("app::Node", 0x10, True)
    assert first["holders"][0]["what"] == "app::Document"
    assert found["unreferenced_count"] > 0
    held = sum(holder["count"] for holder in found["holders"])
    assert held <= found["count"] - found["unreferenced_count"]


@pytest.mark.parametrize("dump", DUMPS[::3], ids=lambda d: d.name)
def test_a_whole_tree_leads_every_block_that_is_reached_to_a_root(
    dump: TruthDump, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holder_tree, "MOST_BRANCHES", 1 << 20)
    monkeypatch.setattr(holder_tree, "LEAST_SHARE", 0)
    monkeypatch.setattr(holder_tree, "DEPTH", 1 << 20)
    found = explain_sites(Session.open(dump.dump), BlockFilter(site="*"))
    session = Session.open(dump.dump)
    index = index_of(session)
    graph = scan_pointers(session.dump.memory, find_roots(session), index)
    steps = steps_from_roots(Again(graph))
    assert found.count == len(index)
    assert found.count - found.unreferenced_count == len(steps)
    direct = sum(node.count for node in found.holders if not node.holders)
    assert direct == sum(count == 1 for count in steps.values()) > 0

    def at_roots(nodes: tuple[HolderNode, ...]) -> int:
        return sum(at_roots(n.holders) if n.holders else n.count for n in nodes)

    assert at_roots(found.holders) == len(steps)


def test_a_long_list_of_two_kinds_is_followed_only_so_far() -> None:
    # Blocks of two sites in turn, each held by the one before.
    count = 3000
    graph = PointerGraph(
        count,
        np.arange(count - 1, dtype=np.int32),
        np.arange(1, count, dtype=np.int32),
        np.zeros(1, np.int32),
    )
    index = BlockIndex(
        np.arange(count, dtype=np.uint64) * 16 + HEAP,
        np.full(count, 16, np.int64),
        np.zeros(count, np.int32),
        np.full(count, 8, np.uint8),
    )
    log = FieldLog(index, np.zeros(count, np.bool_))
    log.rank[0] = 0
    place = index.address[:-1] + np.uint64(8)
    source = np.arange(count - 1, dtype=np.int64)
    log.add_blocks(Edges(place, index.address[1:], source, source + 1))
    namer = Namer(["A", "B"], np.arange(count, dtype=np.int64) % 2, lambda *_: "root")
    trees = HolderTrees(graph, log, index.size, namer)
    (node,) = trees.tree(np.array([count - 1], np.int32))
    depth = 1
    while node.holders:
        (node,), depth = node.holders, depth + 1
    assert depth == DEPTH
    # Of one kind it is one step.
    namer = Namer(["A"], np.zeros(count, np.int64), lambda *_: "root")
    (node,) = HolderTrees(graph, log, index.size, namer).tree(np.array([count - 1], np.int32))
    assert (node.what, node.offset, node.is_chain) == ("A", 8, True)
    assert [above.what for above in node.holders] == ["root"]


def test_either_addresses_or_sites_are_asked_for() -> None:
    assert run("explain", str(MIXED), "10", "--site", "x")[0] == 2
    code, output, said = run("explain", str(MIXED), "--type", "nobody")
    assert (code, output) == (3, "")
    assert "no blocks of a site with type 'nobody'" in said
