"""Asks the gate about a whole dump and a damaged later one: growth that is there must never pass.

    python tests/fuzz/pairs.py --trials 4 --seed 1 --out rows.jsonl
    python tests/fuzz/pairs.py --seconds 60 --seed 1
    python tests/fuzz/pairs.py --replay 'testdata/6.1.7601.24384-x86/leak-pair-ust/after:hide-drop:1' --seed 1

The limit is nine tenths of the growth of the undamaged pair.
Right are exit codes 1 (it grew) and 3 (no answer).
Pairs that were taken in swapped order are left out: of these the gate answers nothing on purpose.
Ends with 1 when any pair passes, or ends with anything else.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kernel_truth import KernelTruthDump, genuine_kernel_dumps, kernel_pairs
from truth import TESTDATA, TruthDump, load_json
from truth import pairs as truth_pairs

from fuzz.command_lines import run
from fuzz.damages import DAMAGES, Damage, Damaged, Narrowed, cut_tail, dropped, filled, zeros
from fuzz.dice import Dice
from fuzz.dump_kinds import unpacked
from fuzz.invariants import ViolationError, require
from fuzz.kernel_damages import POOL_DAMAGES
from fuzz.kernel_subjects import KernelSubject
from fuzz.process_subject import ProcessSubject
from fuzz.running import Rounds, chosen, kept, read_rows, trial_options
from fuzz.seeds import PAGE
from fuzz.subject import Subject
from fuzz.subjects import read_truth
from windumps.errors import WindumpsError

SCENARIOS = ("leak-pair-*", "page-heap-leak-pair")
KERNEL_SCENARIOS = ("tiny-pair", "leak-pair", "traps")
SHARE = 0.9  # of the growth is the limit
PASSED, GREW, NO_ANSWER = 0, 1, 3
SWAPPED = "dumps-swapped"  # the code of what is said of a pair in swapped order
FALSE_PASS, WRONG_END, UNUSABLE = "false PASS", "other exit code", "not compared when whole"
# Where growth can be asked for: in all, or of the site that grew most; bytes or blocks.
CONDITIONS: dict[str, Callable[[dict[str, Any]], int]] = {
    "site.bytes": lambda whole: max(site["delta_bytes"] for site in whole["sites"]),
    "bytes": lambda whole: int(whole["totals"]["delta_bytes"]),
    "site.count": lambda whole: max(site["delta_count"] for site in whole["sites"]),
    "count": lambda whole: int(whole["totals"]["delta_count"]),
}


@dataclass
class Row:
    """What came of one pair.

    Attributes:
        pair: Name of the later dump.
        damage: A key of `PAIR_DAMAGES`.
        number: Number of the trial.
        condition: What the gate was asked.
        code: The exit code.
        wrong: What is wrong with it; "" when nothing is.
        said: The last line on standard error.
        is_swapped: The pair was taken in swapped order, and is left out.
    """

    pair: str
    damage: str
    number: int
    condition: str = ""
    code: int = -1
    wrong: str = ""
    said: str = ""
    is_swapped: bool = False

    @property
    def name(self) -> str:
        """What `--replay` takes."""
        return f"{self.pair}:{self.damage}:{self.number}"


class Paired(Subject):
    """A pair whose later dump gets damaged.

    Attributes:
        growth: Condition → growth of the undamaged pair.
        is_swapped: It was taken in swapped order.
        planted: Pages of the blocks that were leaked between the two.
    """

    planted: set[int]

    def take(self, before: bytes, folder: Path) -> dict[str, Any]:
        """Compares the undamaged pair; gives what is said of it."""
        self.before, self.after = folder / "before.dlsnap", folder / "after.dmp"
        self.after.write_bytes(before)
        code, _, said = run("snapshot", str(self.after), "--no-holders", "-o", str(self.before))
        require(code == 0, "the whole dump can be read", said)
        whole = self._whole()
        self.growth = {name: growth(whole) for name, growth in CONDITIONS.items()}
        self.is_swapped = any(item["code"] == SWAPPED for item in whole["diagnostics"])
        return whole

    def _whole(self) -> dict[str, Any]:
        """What is said of the undamaged pair."""
        _, text, said = self.asked(self.data, "--format", "json")
        require(bool(text), "the whole pair can be compared", said)
        return dict(json.loads(text))

    def asked(self, data: bytes, *more: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a comparison with the earlier dump."""
        self.after.write_bytes(data)
        return run("diff", str(self.before), str(self.after), "--no-holders", *more)


def hidden(how: Callable[[float], Damage]) -> Callable[[Paired, Dice], Damaged]:
    """Damages all, half or a quarter of the pages that hold what was leaked."""

    def damage(pair: Paired, dice: Dice) -> Damaged:
        return how(dice.pick((100, 50, 25)))(Narrowed(pair, pair.planted), dice)

    return damage


HIDING: dict[str, Callable[[Any, Dice], Damaged]] = {
    "hide-drop": hidden(dropped),
    "hide-zero": hidden(partial(filled, fill=zeros)),
    "cut-tail": cut_tail,
}
PAIR_DAMAGES = {**POOL_DAMAGES, **HIDING}


class PairSubject(Paired, ProcessSubject):
    """Two dumps of a process."""

    damages: ClassVar[Mapping[str, Callable[[Any, Dice], Damaged]]] = {**DAMAGES, **HIDING}

    def __init__(self, pair: tuple[TruthDump, TruthDump], folder: Path) -> None:
        before, after = pair
        super().__init__(unpacked(after.dump), read_truth(load_json(after.truth)))
        self.take(unpacked(before.dump), folder)
        leaked = load_json(after.truth)["leaked_since_before"]
        self.planted = set(
            self._pages_of([row[0] if isinstance(row, list) else row for row in leaked])
        )

    def _pages_of(self, addresses: list[int]) -> Iterator[int]:
        for address in addresses:
            end = address + max(self.truth.used.get(address, 1), 1)
            yield from range((address - 1) // PAGE * PAGE, end, PAGE)


class KernelPairSubject(Paired, KernelSubject):
    """Two dumps of a kernel; what was leaked are the blocks of the tag that grew most."""

    damages: ClassVar[Mapping[str, Callable[[Any, Dice], Damaged]]] = PAIR_DAMAGES

    def __init__(self, pair: tuple[KernelTruthDump, KernelTruthDump], folder: Path) -> None:
        before, after = pair
        super().__init__(unpacked(after.dump), after.read_truth())
        whole = self.take(unpacked(before.dump), folder)
        most = max(whole["sites"], key=lambda site: site["delta_bytes"])
        self.planted = self.frames_of(str(most["tag"]))


def tried(pair: Paired, name: str, damage: str, seed: int, number: int) -> tuple[Row, Damaged]:
    """One trial; the conditions take turns."""
    row = Row(name, damage, number)
    made = pair.damages[damage](pair, Dice(name, damage, seed, number))
    condition = list(CONDITIONS)[number % len(CONDITIONS)]
    row.condition = f"{condition}>={int(SHARE * pair.growth[condition])}"
    row.code, _, said = pair.asked(made.data, "--fail-on", row.condition)
    row.said = (said.strip().splitlines() or [""])[-1]
    if row.code == PASSED:
        row.wrong = FALSE_PASS
    elif row.code not in (GREW, NO_ANSWER) or "internal error" in said:
        row.wrong = WRONG_END
    elif damage == "none" and row.code != GREW:
        row.wrong = WRONG_END  # nothing is missing, so there is an answer
    return row, made


def pairs() -> dict[str, Callable[[Path], Paired]]:
    """Every pair with truth, by the name of its later dump; those of testdata begin with "testdata/"."""
    found: dict[str, Callable[[Path], Paired]] = {}
    for pair in truth_pairs(*SCENARIOS):
        found[_place(pair[1].dump) + pair[1].name] = partial(PairSubject, pair)
    genuine = {dump.name: dump for dump in genuine_kernel_dumps()}
    both = [
        (genuine[name.replace("/after", "/before")], dump)
        for name, dump in genuine.items()
        if name.replace("/after", "/before") in genuine.keys() - {name}
    ]
    for room, some in (("kernel", kernel_pairs(*KERNEL_SCENARIOS)), ("kernel-genuine", both)):
        for kernels in some:
            name = f"{_place(kernels[1].dump)}{room}/{kernels[1].name}"
            found[name] = partial(KernelPairSubject, kernels)
    return found


def _place(dump: Path) -> str:
    return "testdata/" if dump.is_relative_to(TESTDATA) else ""


def trials(names: list[str], damages: list[str], seed: int, rounds: Rounds) -> Iterator[Row]:
    """Every damage once a round."""
    known = pairs()
    for name, numbers in rounds.shared(names):
        with tempfile.TemporaryDirectory() as folder:
            try:
                pair = known[name](Path(folder))
            except (ViolationError, WindumpsError) as error:
                yield Row(name, "none", 0, wrong=UNUSABLE, said=str(error))
                continue
            if pair.is_swapped:
                yield Row(name, "none", 0, is_swapped=True)
                continue
            mine = [damage for damage in damages if damage in pair.damages]
            # Where time ends a round early, other damages come first for each pair.
            turn = names.index(name) % max(len(mine), 1)
            for number in numbers:
                for damage in mine[turn:] + mine[:turn]:
                    yield tried(pair, name, damage, seed, number)[0]
                    if pair.is_slow and numbers.is_over:
                        break


def replay(name: str, seed: int, save: Path | None) -> int:
    """One trial again, with what was done and what was said."""
    pair_name, damage, number = name.rsplit(":", 2)
    with tempfile.TemporaryDirectory() as folder:
        pair = pairs()[pair_name](Path(folder))
        row, made = tried(pair, pair_name, damage, seed, int(number))
        if save is not None:
            save.write_bytes(made.data)
        code, text, said = pair.asked(made.data, "--fail-on", row.condition)
    print("\n".join(made.told))
    print(f"{text}\n{said}\n{row.condition}: exit code {code} {row.wrong}")
    return 1 if row.wrong else 0


def report(rows: list[Row], seed: int) -> int:
    """Every pair that is wrong or left out; the last line is the result."""
    swapped, rows = [row for row in rows if row.is_swapped], [r for r in rows if not r.is_swapped]
    for row in swapped:
        print(f"left out, for it was taken in swapped order: {row.pair}")
    for row in rows:
        if row.wrong:
            print(f"{row.wrong}: {row.condition}, exit code {row.code}: {row.said}")
            print(f"    python tests/fuzz/pairs.py --seed {seed} --replay '{row.name}'")
    codes, wrong = Counter(row.code for row in rows), Counter(row.wrong for row in rows)
    print(
        f"pairs: {len(rows)} trials of {len({row.pair for row in rows})} pairs: {codes[GREW]} grew, "
        f"{codes[NO_ANSWER]} no answer, {wrong[FALSE_PASS]} false PASS, "
        f"{wrong[WRONG_END] + wrong[UNUSABLE]} ended otherwise; {len(swapped)} pairs left out"
    )
    return 1 if any(row.wrong for row in rows) or not rows else 0


def table(rows: list[Row]) -> None:
    """Exit codes by damage, as a table for the README."""
    print("| damage | trials | grew | no answer | false PASS | other end |")
    print("| --- | --- | --- | --- | --- | --- |")
    for damage in PAIR_DAMAGES:
        mine = [row for row in rows if row.damage == damage]
        codes, wrong = Counter(row.code for row in mine), Counter(row.wrong for row in mine)
        ended = wrong[WRONG_END] + wrong[UNUSABLE]
        counts = (codes[GREW], codes[NO_ANSWER], wrong[FALSE_PASS], ended)
        print(f"| {damage} | {len(mine)} | {' | '.join(map(str, counts))} |")


def main() -> int:
    """The command line."""
    given = trial_options(__doc__, "PAIR:DAMAGE:N").parse_args()
    names, damages = chosen(pairs(), given.only), chosen(PAIR_DAMAGES, given.damage)
    if given.list:
        print("\n".join(names))
    elif given.table:
        rows = [Row(**row) for row in read_rows(given.table)]
        table([row for row in rows if not row.is_swapped])
    elif given.replay:
        return replay(given.replay, given.seed, given.save)
    else:
        rounds = Rounds(given.trials, given.seconds)
        return report(kept(trials(names, damages, given.seed, rounds), given.out), given.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
