"""How much more it takes to tell what blocks keep alive, and to explain one, than to walk and tell holders.

    python tests/benchmarks/bench_retained.py [DUMP [ROUNDS]]

Processor time, medians of rounds in which all is done in turn; the ratios are what counts. Without a dump
made graphs alone are measured, against one search of the same graph from its roots: wide ones of random
pointers, lists of a million members, circles.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from dumpleak.model.block_filter import BlockFilter
from dumpleak.pointers.pointer_graph import PointerGraph
from dumpleak.pointers.reachability import reachability_of
from dumpleak.pointers.retained import Retention
from dumpleak.process.session import Session
from dumpleak.survey.explain import explain
from dumpleak.survey.explain_sites import explain_sites
from dumpleak.survey.heaps import take_snapshot
from windumps.arrays import I64

ROUNDS = 3
BLOCKS = 1_000_000


def _seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _told(path: str, *, retained: bool) -> Callable[[], object]:
    def work() -> None:
        snapshot = take_snapshot(Session.open(path), holders=True, retained=retained)
        if snapshot.holders is not None:
            snapshot.holders(set(snapshot.groups))

    return work


def of_dump(path: str, rounds: int) -> None:
    """The commands' work on a dump."""
    _, blocks = next(iter(Session.open(path).blocks()))
    address = int(blocks.used.address[len(blocks.used) // 2])
    works: dict[str, Callable[[], object]] = {
        "walk with holders of all sites": _told(path, retained=False),
        "the same with what they keep alive": _told(path, retained=True),
        "explain one address": lambda: explain(Session.open(path), [address]),
        "explain all sites": lambda: explain_sites(Session.open(path), BlockFilter(site="*")),
    }
    _print(works, rounds, "walk with holders of all sites")


def _print(works: dict[str, Callable[[], object]], rounds: int, base: str) -> None:
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(_seconds(work))
    one = statistics.median(times[base])
    for name, found in times.items():
        middle = statistics.median(found)
        print(f"{name:42} {middle:7.2f} s  {middle / one:6.2f}")


def graphs(count: int) -> Iterator[tuple[str, I64, I64, I64]]:
    """(name, where pointers begin, where they lead to, what roots hold)."""
    dice, all_ = np.random.default_rng(1), np.arange(count)
    few, one = dice.integers(0, count, count // 1000), all_[:1]
    fan = np.repeat(all_, dice.integers(4, 11, count))
    ahead, back = (all_[:-1], all_[1:]), (all_[1:], all_[:-1])
    yield "4 to 10 pointers to random blocks", fan, dice.integers(0, count, len(fan)), few
    tree = (
        np.concatenate((all_[1:] // 3, all_)),
        np.concatenate((all_[1:], dice.permutation(count))),
    )
    yield "a tree with a random pointer each", *tree, one
    yield "a list", *ahead, one
    yield "a list with links both ways", *map(np.concatenate, zip(ahead, back, strict=True)), one
    yield "a circle that is held", all_, np.roll(all_, -1), one
    yield "a circle that is lost", all_, np.roll(all_, -1), one[:0]
    yield "pairs that hold each other, lost", all_, all_ ^ 1, one[:0]


def of_graphs(rounds: int) -> None:
    """What all blocks keep alive, against one search from the roots."""
    size = np.ones(BLOCKS, np.int64)
    for name, source, target, held in graphs(BLOCKS):
        kept = source != target
        graph = PointerGraph(
            BLOCKS,
            source[kept].astype(np.int32),
            target[kept].astype(np.int32),
            np.unique(held).astype(np.int32),
        )
        reachable = reachability_of(graph).reachable
        print(f"{name}: {BLOCKS:,} blocks, {len(graph.source):,} pointers")
        works: dict[str, Callable[[], object]] = {
            "  one search from the roots": lambda graph=graph: reachability_of(graph),
            "  what each block keeps alive": lambda graph=graph, reachable=reachable: Retention(
                graph, reachable, size
            ),
        }
        _print(works, rounds, "  one search from the roots")


if __name__ == "__main__":
    asked = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    if len(sys.argv) > 1:
        of_dump(sys.argv[1], asked)
    else:
        of_graphs(asked)
