"""What whole commands take, from the start of Python to the end, beside other readers of the same file.

    python tests/benchmarks/bench_whole.py DUMP [--later DUMP2] [--rival 'COMMAND with {dump}'] [--rounds N]

DUMP is an uncompressed dump; DUMP2 one of the same process, taken later. COMMAND lists the dump's blocks as another
tool does. Other readers that are not installed are said and left out: the `minidump` package, volatility3 for kernel
dumps. Printed are medians of processor time and of peak memory; the ratios are to the first of: the rival, a plain
numpy pass over the file. All run in turn, so load on the machine meets all of them.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from processes import DUMPLEAK, MEGABYTE, medians, show

NUMPY = """
import sys, numpy
data = numpy.memmap(sys.argv[1], numpy.uint8, "r")
data = data[: len(data) // 8 * 8].view(numpy.uint64)
step = 1 << 20
print(sum(int(numpy.bitwise_xor.reduce(data[at : at + step])) for at in range(0, len(data), step)))
"""
MINIDUMP = """
import sys
from minidump.minidumpfile import MinidumpFile
dump = MinidumpFile.parse(sys.argv[1])
reader = dump.get_reader()
for piece in reader.memory_segments:
    reader.read(piece.start_virtual_address, piece.size)
"""
PLAIN, RIVAL = "plain numpy pass over the file", "the rival"
NTOSEYE = "ntoseye"


def is_kernel(dump: str) -> bool:
    """Whether a file is a dump of a system, by its signature."""
    with open(dump, "rb") as file:
        return file.read(4) == b"PAGE"


def own_commands(dump: str, later: str | None) -> dict[str, list[str]]:
    """What dumpleak is asked."""
    asked = ["--version", "info", "pool"] if is_kernel(dump) else ["--version", "info", "heaps"]
    if not is_kernel(dump):
        asked += ["stat --by heap", "stat --no-holders", "stat", "leaks", "allocations --format csv"]
    found = {}
    for text in asked:
        words, *more = text.split(" ", 1)
        line = [*DUMPLEAK, words] if words == "--version" else [*DUMPLEAK, words, dump]
        found[text] = line + (more[0].split() if more else [])
    if later is not None:
        found["diff"] = [*DUMPLEAK, "diff", dump, later]
    return found


def other_commands(dump: str, rival: str | None) -> dict[str, list[str]]:
    """What others are asked; those that are lacking are said."""
    found = {PLAIN: [sys.executable, "-c", NUMPY, dump]}
    if rival:
        found[RIVAL] = [word.replace("{dump}", dump) for word in shlex.split(rival)]
    else:
        where = shutil.which(NTOSEYE)
        print(f"no rival: give one with --rival ({NTOSEYE} is {where or 'not installed'})")
    if is_kernel(dump):
        vol = shutil.which("vol")
        if vol:
            found["volatility3 bigpools"] = [vol, "-q", "-f", dump, "windows.bigpools"]
        else:
            print("volatility3 is not installed: left out")
    elif find_spec("minidump"):
        found["minidump package, all memory read"] = [sys.executable, "-c", MINIDUMP, dump]
    else:
        print("the minidump package is not installed: left out")
    return found


def main() -> None:
    """Runs all in turn and prints a row each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dump")
    parser.add_argument("--later")
    parser.add_argument("--rival")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    size = Path(given.dump).stat().st_size
    print(f"a file of {size / MEGABYTE:.0f} MB; medians of {given.rounds}", flush=True)
    others = other_commands(given.dump, given.rival)
    costs = medians({**others, **own_commands(given.dump, given.later)}, given.rounds)
    bases = {name: costs[name] for name in (RIVAL, PLAIN) if name in costs and not costs[name].code}
    for name, cost in costs.items():
        shares = (f"{cost.seconds / base.seconds:7.2f} x {to}" for to, base in bases.items())
        show(name, cost, "".join(f"  {share}" for share in shares))


if __name__ == "__main__":
    main()
