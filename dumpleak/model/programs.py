"""What a process mostly is, by whose most of its private memory is, and how to look into that.

A row each in `PROGRAMS`. Stacks that gflags records are of native heaps: they tell nothing of these.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dumpleak.model.account import Figure, allocator_row
from dumpleak.model.populations import ARENAS, Trace


class Program(NamedTuple):
    """One kind of program.

    Attributes:
        allocator: Whose memory shows it, as it is recognised.
        name: What such a program is, for people.
        memory: What the memory is called; "" where the name says it.
        look: How to see what is in it.
    """

    allocator: str
    name: str
    memory: str
    look: Trace


_ITS_BLOCKS = Trace(
    "Look at the blocks of other allocators:", f"dumpleak diff BASE CURRENT --of {ARENAS}"
)
PROGRAMS: tuple[Program, ...] = (
    Program("mimalloc", "mimalloc", "", _ITS_BLOCKS),
    Program("rpmalloc", "rpmalloc", "", _ITS_BLOCKS),
    Program(
        "Go heap",
        "Go",
        "Go heap",
        Trace(
            "See which Go code allocates, in the running program (net/http/pprof):",
            "go tool pprof http://HOST:PORT/debug/pprof/heap",
        ),
    ),
    Program(
        "Java",
        "Java",
        "memory of the JVM",
        Trace(
            "See which Java objects grow, in the running program:",
            "jmap -dump:live,format=b,file=heap.hprof PID",
        ),
    ),
    Program(
        "V8 heap",
        "JavaScript",
        "V8 heap",
        Trace(
            "Take heap snapshots of JavaScript and compare them in the developer tools:",
            "node --heapsnapshot-signal=SIGBREAK app.js",
        ),
    ),
    Program(
        "Python objects",
        "Python",
        "its objects",
        Trace("See which Python code allocates:", "python -X tracemalloc=25 app.py"),
    ),
)


class Mostly(NamedTuple):
    """What of a process belongs to one of `PROGRAMS`.

    Attributes:
        program: The row.
        bytes: Of its memory.
    """

    program: Program
    bytes: int


def mostly_of(account: Iterable[Figure]) -> Mostly | None:
    """The row with most memory; None where none is recognised."""
    sizes = {figure.name: figure.value or 0 for figure in account}
    found = [Mostly(row, sizes.get(allocator_row(row.allocator), 0)) for row in PROGRAMS]
    most = max(found, key=lambda each: each.bytes)
    return most if most.bytes else None
