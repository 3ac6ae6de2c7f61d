"""What blocks keep alive is what is lost when they are taken out and everything is scanned again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from fuzz.command_lines import run
from pointers_again import Again
from truth import TESTDATA, TruthDump, truth_dumps

from dumpleak.attribution.grouping import GROUPINGS
from dumpleak.model.errors import CannotAnswerError
from dumpleak.pointers import shallow_dominators
from dumpleak.pointers.pointer_graph import PointerGraph
from dumpleak.pointers.reachability import reachability_of, scan_pointers
from dumpleak.pointers.references import BlockIndexBuilder
from dumpleak.pointers.retained import Retention
from dumpleak.pointers.roots import find_roots
from dumpleak.process.session import Session
from dumpleak.process.used_pieces import used_pieces
from dumpleak.survey.heaps import take_snapshot

KINDS = ("tiny", "mixed", "nt-lfh", "segment-lfh*", "leak-pair-ust", "leak-pair-aslr", "debug-crt")
DUMPS = [dump for dump in truth_dumps(*KINDS) if "before" not in dump.dump.name][::10]
PICKED = 100  # blocks of each dump; over all dumps more than a thousand


def graph_of(count: int, pairs: list[tuple[int, int]], held: list[int]) -> PointerGraph:
    table = np.array(pairs, np.int32).reshape(-1, 2)
    table = table[table[:, 0] != table[:, 1]]
    return PointerGraph(count, table[:, 0], table[:, 1], np.unique(np.array(held, np.int32)))


def retention_of(graph: PointerGraph, size: list[int] | None = None) -> Retention:
    sizes = np.array(size or [1] * graph.count, np.int64)
    return Retention(graph, reachability_of(graph).reachable, sizes)


def counts(count: int, pairs: list[tuple[int, int]], held: list[int]) -> list[int]:
    return retention_of(graph_of(count, pairs, held)).count.tolist()


def test_a_chain_keeps_what_hangs_on_it() -> None:
    assert counts(4, [(0, 1), (1, 2), (2, 3)], [0]) == [4, 3, 2, 1]
    # A second way in, from the root or over another block, and it keeps less.
    assert counts(4, [(0, 1), (1, 2), (2, 3)], [0, 2]) == [2, 1, 2, 1]
    assert counts(4, [(0, 1), (0, 2), (1, 3), (2, 3)], [0]) == [4, 1, 1, 1]


def test_members_of_a_list_with_links_both_ways_keep_the_rest_of_it() -> None:
    links = [(a, a + 1) for a in range(3)] + [(a + 1, a) for a in range(3)]
    assert counts(4, links, [0]) == [4, 3, 2, 1]
    # A ring around a sentinel: each member can be reached from both sides.
    assert counts(4, [*links, (3, 0), (0, 3)], [0]) == [4, 1, 1, 1]


def test_a_circle_that_nobody_holds_is_one_thing_with_one_size() -> None:
    ring = [(0, 1), (1, 2), (2, 0), (2, 3)]
    found = retention_of(graph_of(5, ring, [4]), [10, 20, 30, 5, 7])
    assert found.bytes.tolist() == [65, 65, 65, 5, 7]
    assert found.count.tolist() == [4, 4, 4, 1, 1]
    assert len(found.entries) == 1
    # One of its blocks, or all: the same.
    for blocks in ([0], [1], [0, 1, 2]):
        assert found.of_blocks(np.array(blocks, np.int32)) == (65, 4)
    # With something that leads into it, it is no entry, and its blocks are told apart.
    assert counts(5, [*ring, (4, 0)], []) == [4, 3, 2, 1, 5]


def test_a_leaked_list_is_entered_once() -> None:
    count = 5000
    links = [(a, a + 1) for a in range(count - 1)] + [(a + 1, a) for a in range(count - 1)]
    found = retention_of(graph_of(count, links, []))
    assert len(found.entries) == 1
    assert set(found.count.tolist()) == {count}


def test_blocks_that_only_together_keep_something_keep_it_as_a_group() -> None:
    graph = graph_of(6, [(0, 2), (1, 2), (2, 3), (4, 3), (2, 5)], [0, 1, 4])
    found = retention_of(graph)
    assert found.count.tolist() == [1, 1, 2, 1, 1, 1]
    assert found.of_blocks(np.array([0, 1], np.int32)) == (4, 4)
    assert found.of_blocks(np.array([0, 1, 4], np.int32)) == (6, 6)
    assert found.of_blocks(np.array([], np.int32)) == (0, 0)


def test_no_blocks_keep_nothing() -> None:
    assert counts(0, [], []) == []


def test_a_list_of_very_many_members_is_not_followed_in_steps_of_one() -> None:
    count = 300_000
    table = np.arange(count - 1, dtype=np.int32)
    graph = PointerGraph(count, table, table + 1, np.zeros(1, np.int32))
    found = retention_of(graph).count
    assert (found == np.arange(count, 0, -1)).all()


@pytest.mark.parametrize("levels", [0, 256], ids=["deep", "wide"])
@pytest.mark.parametrize("seed", range(60))
def test_in_any_graph_it_is_what_taking_out_and_following_again_loses(
    seed: int, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shallow_dominators, "MOST_LEVELS", levels)
    dice = np.random.default_rng(seed)
    count = int(dice.integers(1, 40))
    pairs = dice.integers(0, count, (int(dice.integers(0, 3 * count)), 2)).tolist()
    held = dice.integers(0, count, int(dice.integers(0, 4))).tolist()
    graph = graph_of(count, [(a, b) for a, b in pairs], held)
    size = dice.integers(0, 100, count).tolist()
    found, again = retention_of(graph, size), Again(graph)
    assert set(found.entries.tolist()) <= again.circle.keys()
    for block in range(count):
        lost = again.lost_with({block})
        assert found.count[block] == len(lost)
        assert found.bytes[block] == sum(size[other] for other in lost)
    for _ in range(20):
        blocks = dice.choice(count, int(dice.integers(1, count + 1)), replace=False)
        lost = again.lost_with(set(blocks.tolist()))
        expected = sum(size[other] for other in lost), len(lost)
        assert found.of_blocks(blocks.astype(np.int32)) == expected


@pytest.mark.parametrize("seed", range(20))
def test_wide_and_deep_graphs_are_answered_alike(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = np.random.default_rng(seed)
    count, edges = 400, int(dice.integers(300, 2000))
    pairs = dice.integers(0, count, (edges, 2))
    # In half of them most edges lead only a little further: these are deep.
    pairs[:, 1] = (pairs[:, 0] + pairs[:, 1] % 4) % count if seed % 2 else pairs[:, 1]
    graph = graph_of(count, pairs.tolist(), dice.integers(0, count, 3).tolist())
    wide = retention_of(graph).count
    monkeypatch.setattr(shallow_dominators, "MOST_LEVELS", 0)
    assert (retention_of(graph).count == wide).all()
    # And where the way to it is given up on half of it.
    monkeypatch.setattr(shallow_dominators, "MOST_LEVELS", 1 << 20)
    monkeypatch.setattr(shallow_dominators, "STEPS_AN_EDGE", 0)
    assert (retention_of(graph).count == wide).all()


def test_a_ladder_that_settles_late_is_answered_by_the_other_way() -> None:
    # Each node has a way of its own to the next and one from far before: what dominates moves up slowly.
    count = 3000
    pairs = [(n, n + 1) for n in range(count - 1)] + [(n, n - 2) for n in range(2, count)]
    pairs += [(n // 2, n) for n in range(2, count)]
    graph = graph_of(count, pairs, [0])
    found = retention_of(graph).count
    picked = [1, 2, 3, 700, 1499, 1500, 2999]
    again = Again(graph)
    assert found[picked].tolist() == [len(again.lost_with({block})) for block in picked]


@pytest.mark.parametrize("dump", DUMPS, ids=lambda d: d.name)
def test_in_a_dump_it_is_what_taking_out_and_following_again_loses(dump: TruthDump) -> None:
    session = Session.open(dump.dump)
    grouping, builder = GROUPINGS["site"](session), BlockIndexBuilder()
    for source, used in used_pieces(session):
        builder.add(used, grouping.assign(source, used), source.view.pointer_size)
    index = builder.build()
    graph = scan_pointers(session.dump.memory, find_roots(session), index)
    found = Retention(graph, reachability_of(graph).reachable, index.size)
    again, size = Again(graph), index.size.tolist()
    dice = np.random.default_rng(len(index))
    picked = [[block] for block in dice.integers(0, len(index), PICKED).tolist()]
    sites = [np.flatnonzero(index.group == n).tolist() for n in range(len(grouping.table.sites))]
    keeping = 0
    for blocks in picked + sites:
        lost = again.lost_with(set(blocks))
        expected = sum(size[other] for other in lost), len(lost)
        assert found.of_blocks(np.array(blocks, np.int32)) == expected
        if len(blocks) == 1:
            assert (found.bytes[blocks[0]], found.count[blocks[0]]) == expected
        keeping += len(lost) > len(blocks)
    assert keeping


AFTER = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-aslr" / "after.dmp.gz"


def answered(*words: object) -> dict[str, Any]:
    code, output, said = run(*map(str, words), "--format", "json")
    assert code == 0, said
    found: dict[str, Any] = json.loads(output)
    return found


def test_what_groups_keep_is_told_and_the_largest_comes_first() -> None:
    groups = answered("stat", AFTER, "--by", "type", "--retained")["groups"]
    kept = [group["retained_bytes"] for group in groups]
    assert kept == sorted(kept, reverse=True)
    assert all(group["retained_bytes"] >= group["used_bytes"] for group in groups)
    assert all(group["retained_count"] >= group["used_count"] for group in groups)
    cache = next(group for group in groups if "Cache" in (group["type"] or ""))
    assert cache["retained_bytes"] > 20 * cache["used_bytes"]
    plain = answered("stat", AFTER, "--by", "type")["groups"]
    assert not any("retained_bytes" in group for group in plain)
    assert {g["name"]: g["used_bytes"] for g in plain} == {
        g["name"]: g["used_bytes"] for g in groups
    }


def test_what_grew_is_told_with_what_it_keeps() -> None:
    base = AFTER.with_name("before.dmp.gz")
    sites = answered("diff", base, AFTER, "--retained")["sites"]
    grown = [site for site in sites if site["delta_bytes"] > 0]
    assert all(site["retained_bytes"] >= site["current_bytes"] for site in grown)
    assert any(site["retained_count"] > site["current_count"] for site in grown)
    code, output, _ = run("diff", str(base), str(AFTER), "--retained", "--format", "csv")
    assert code == 0
    assert "retained_bytes,retained_count" in output.splitlines()[0]


def test_where_roots_are_missing_nothing_is_said_to_be_kept() -> None:
    session = Session.open(AFTER)
    session.dump.modules.clear()
    with pytest.raises(CannotAnswerError, match="would look unreferenced"):
        take_snapshot(session, holders=True, retained=True)
