"""Retained sizes, paths and holders, against a scan of the dump's bytes that shares no code with ours."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from held_again import Dump, Held
from truth import SHARED, TESTDATA, TruthDump, truth_dumps

from dumpleak.attribution import SiteFinder
from dumpleak.model.explanation import Explained
from dumpleak.pointers.reachability import reachability_of, scan_pointers
from dumpleak.pointers.references import BlockIndex, BlockIndexBuilder
from dumpleak.pointers.retained import Retention
from dumpleak.pointers.roots import find_roots
from dumpleak.process.session import Session
from dumpleak.process.used_pieces import used_pieces
from dumpleak.survey.explain import explain
from windumps.heaps.nt.base import NtHeapBase

# A dump each of all kinds of heaps, from XP to 11, 32-bit and 64-bit.
ASKED = (
    ("10.0.26100.5074-x64", "mixed"),
    ("10.0.22621.4541-x64", "segment-lfh-vs-large"),
    ("10.0.19041.3996-x86", "segment-process-heap"),
    ("10.0.17134.556-x86", "segment-ust"),
    ("10.0.14393.1715-x64", "nt-lfh"),
    ("10.0.10586.1106-x64", "leak-pair-ust"),
    ("6.3.9600.17736-x86", "nt-basic"),
    ("6.1.7601.24545-x64", "mixed"),
    ("6.1.7601.24384-x86", "debug-crt"),
    ("5.1.2600.6055-x86", "mixed"),
    ("5.2.3790.3959-x64", "nt-lfh"),
    ("10.0.14393.479-x86", "page-heap-full"),
    ("10.0.19041.3324-x64", "nt-vad"),
)
FOUND = [dump for dump in truth_dumps("*") if "before" not in dump.dump.name]
WANTED = [
    dump for dump in FOUND if SHARED in dump.dump.parents and (dump.build, dump.scenario) in ASKED
]
# Without the shared collection, what the repository has.
DUMPS = WANTED or [dump for dump in FOUND if TESTDATA in dump.dump.parents][::3]
PICKED = 1000
EXPLAINED = 200


def index_of(session: Session) -> tuple[BlockIndex, int]:
    finder, builder = SiteFinder(session), BlockIndexBuilder()
    for source, used in used_pieces(session):
        builder.add(used, finder.assign(source, used), source.view.pointer_size)
    return builder.build(), len(finder.table.sites)


class Both:
    """A dump, and both answers to who holds whom."""

    def __init__(self, dump: TruthDump) -> None:
        self.session = session = Session.open(dump.dump)
        self.index, self.sites = index_of(session)
        roots = find_roots(session)
        graph = scan_pointers(session.dump.memory, roots, self.index)
        self.reachable = reachability_of(graph).reachable
        self.retention = Retention(graph, self.reachable, self.index.size)
        opened = [s.entry.heap for s in session.heaps if s.entry.heap]
        spans = [h.front_end_pointer for h in opened if isinstance(h, NtHeapBase)]
        self.again = Held(
            Dump(dump.dump),
            list(zip(self.index.address.tolist(), self.index.size.tolist(), strict=True)),
            [(start, size) for heap in opened for start, size in heap.account.ranges],
            self.index.widths[0],
            [(start, end - start) for start, end in spans],
        )
        self.size = self.index.size.tolist()
        # What no root leads to is entered at blocks that nothing points to, or at a circle of blocks.
        self.entered: dict[int, set[int]] = {}
        again = self.again
        seen = again.reached(again.held, set())
        for block in range(len(seen)):
            if not seen[block] and block not in self.entered:
                before = self._all_before(block)
                if before <= self._all_behind(block):
                    self.entered.update(dict.fromkeys(before, before))

    def _all_before(self, block: int) -> set[int]:
        return _spread({block}, self.again.back)

    def _all_behind(self, block: int) -> set[int]:
        return _spread({block}, self.again.leads)

    def lost_with(self, blocks: list[int]) -> tuple[int, int]:
        """(bytes, count) that can no longer be reached when some blocks are taken out, they included."""
        gone = set(blocks).union(*(self.entered.get(block, set()) for block in blocks))
        seen = self.again.reached(self.again.held | self.entered.keys(), gone)
        lost = [number for number, how in enumerate(seen) if how != 1]
        return sum(self.size[number] for number in lost), len(lost)

    def picked(self, count: int) -> list[int]:
        dice = np.random.default_rng(len(self.size))
        return dice.permutation(len(self.size))[:count].tolist()


def _spread(found: set[int], leads: list[set[int]]) -> set[int]:
    left = list(found)
    while left:
        new = leads[left.pop()] - found
        found |= new
        left += new
    return found


@pytest.mark.parametrize("dump", DUMPS, ids=lambda d: d.name)
def test_what_a_thousand_blocks_keep_is_what_a_scan_without_each_of_them_loses(
    dump: TruthDump,
) -> None:
    both = Both(dump)
    picked = both.picked(PICKED)
    kept = both.retention
    found = [(int(kept.bytes[block]), int(kept.count[block])) for block in picked]
    assert found == [both.lost_with([block]) for block in picked]


SITES_OF = [dump for dump in DUMPS if dump.scenario == "mixed"][:1] or DUMPS[:1]


@pytest.mark.parametrize("dump", SITES_OF, ids=lambda d: d.name)
def test_what_every_site_keeps_is_what_a_scan_without_its_blocks_loses(dump: TruthDump) -> None:
    both = Both(dump)
    groups = range(both.sites)
    found = both.retention.of_groups(both.index.group, groups)
    for group in groups:
        blocks = np.flatnonzero(both.index.group == group).tolist()
        assert found[group] == both.lost_with(blocks)
    assert len(groups) > 5


@pytest.mark.parametrize("dump", DUMPS, ids=lambda d: d.name)
def test_paths_are_in_memory_step_by_step_and_as_short_as_breadth_first_search_finds(
    dump: TruthDump,
) -> None:
    both = Both(dump)
    again = both.again
    steps = again.distances()
    assert [bool(number) for number in steps] == both.reachable.tolist()
    picked = both.picked(EXPLAINED)
    found = explain(Session.open(dump.dump), [again.blocks[block][0] for block in picked]).found
    for block, told in zip(picked, found, strict=True):
        assert told.path_count == (steps[block] + 1 if steps[block] else 0)
        assert_in_memory(again, told)
        holders = {again.block_of(h.address) for h in told.holders if h.address is not None}
        assert holders - {-1} == again.back[block]
        for holder in told.holders:
            if holder.address is not None:
                assert again.block_of(again.dump.word(holder.address, again.width)) == block


def assert_in_memory(again: Held, told: Explained) -> None:
    for step, following in pairwise(told.path):
        if step.address is not None:
            value = again.dump.word(step.address + step.offset, again.width)
            assert again.blocks[again.block_of(value)][0] == following.address
