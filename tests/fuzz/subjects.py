"""Dumps whose truth is known, and how answers about them are taken; one row a scenario in `SUBJECTS`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from truth import TESTDATA, TruthDump, load_json, truth_dumps

from fuzz.criteria import Truth
from fuzz.dump_kinds import unpacked
from fuzz.kernel_subjects import pools_with_truth
from fuzz.made_dumps import MADE_ROWS, MadeRow
from fuzz.other_subjects import arenas, managed
from fuzz.process_subject import ProcessSubject
from fuzz.subject import Subject


def read_truth(raw: dict[str, Any]) -> Truth:
    """Used blocks: what the program allocated, and the busy entries of the genuine walk.

    The walk's own sizes are coarse on some systems, so -1 stands for them.
    """
    columns = raw["alloc_columns"]
    address, size = columns.index("address"), columns.index("requested_size")
    used: dict[int, int] = {row[address]: row[size] for row in raw["allocations"]}
    for walk in raw["walks"].values():
        for row in walk or ():
            if row[2] & 1:
                used.setdefault(row[0], -1)
    truth = Truth(used, {})
    runtime = raw.get("crt")
    if runtime is not None:
        # The rows to show are what the debug runtime gave out; the heap's own blocks hold them.
        for outer, _, inner, inner_size, *_ in [*runtime["blocks"], *runtime["internal"]]:
            if outer != inner:
                truth.stands_for[outer] = inner
                used.pop(outer, None)
            used[inner] = inner_size
        for outer, inner, *_ in runtime["kept_after_free"]:
            truth.optional |= {outer, inner}
            used.pop(outer, None)
    return truth


def process_of(dump: TruthDump) -> Subject:
    """A dump with a truth file."""
    return ProcessSubject(unpacked(dump.dump), read_truth(load_json(dump.truth)))


def made_process(row: MadeRow) -> Subject:
    """A dump that builders make."""
    data, used = row.dump()
    return ProcessSubject(data, Truth(dict(used), {}))


Makers = dict[str, Callable[[], Subject]]


def _with_truth(*scenarios: str) -> Makers:
    return {
        ("testdata/" if dump.dump.is_relative_to(TESTDATA) else "") + dump.name: partial(
            process_of, dump
        )
        for dump in truth_dumps(*scenarios)
        if not dump.dump.name.startswith("before")
    }


def _made() -> Makers:
    return {row.name: partial(made_process, row) for row in MADE_ROWS}


# One row a kind of subject: what it is, and its dumps by name.
SUBJECTS: dict[str, Callable[[], Makers]] = {
    "pools": pools_with_truth,
    "heaps": partial(_with_truth, "tiny", "mixed", "nt-*", "segment-*"),
    "page heaps": partial(_with_truth, "page-heap-full", "page-heap-light", "page-heap-range"),
    "debug runtimes": partial(_with_truth, "debug-crt*"),
    "pairs": partial(_with_truth, "leak-pair-ust", "leak-pair-aslr"),
    "made heaps": _made,
    "arenas": arenas,
    "managed": managed,
}


def subjects() -> Makers:
    """Every dump by name; those of testdata begin with "testdata/", made ones with "made/"."""
    return {name: make for makers in SUBJECTS.values() for name, make in makers().items()}
