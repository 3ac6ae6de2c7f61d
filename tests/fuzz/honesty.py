"""Damages dumps whose truth is known, and holds what is said of them against it.

    python tests/fuzz/honesty.py --trials 10 --seed 1 --out rows.jsonl
    python tests/fuzz/honesty.py --seconds 60 --seed 1
    python tests/fuzz/honesty.py --seed 1 --replay 'testdata/6.1.7601.24384-x86/tiny/dump:words-4:7'
    python tests/fuzz/honesty.py --table rows.jsonl

With --trials each damage of each dump is tried so often, with --seconds as often as there is time for.
Ends with 1 when any criterion is broken.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.cases import strict_warnings
from fuzz.criteria import CRITERIA, Answer, Trial, by_kind, named
from fuzz.damages import Damaged
from fuzz.dice import Dice
from fuzz.kernel_damages import POOL_DAMAGES
from fuzz.kernel_subjects import KernelSubject
from fuzz.running import Rounds, chosen, kept, read_rows, trial_options
from fuzz.subject import Subject
from fuzz.subjects import subjects
from windumps.errors import WindumpsError

CHANGES_NOTHING = "none"  # this damage needs one trial
CRASHED, LOST_WHOLE, REFUSED_WHOLE = "untyped error", "lost whole", "refused whole"
SHOWN = 3  # examples of each criterion
SYSTEMS = (("5.", "XP"), ("6.0", "Vista"), ("6.1", "7"), ("6.", "8"), ("10.", "10"))


@dataclass
class Row:
    """What came of one trial.

    Attributes:
        subject: Name of the dump.
        damage: A key of the subject's damages.
        number: Number of the trial.
        refused: The error that refused the dump; "" when there was an answer.
        blocks: Kind → used blocks in truth.
        lost: Kind → those the answer lacks.
        broken: Criterion → kind → blocks.
        examples: Criterion → some of the addresses.
    """

    subject: str
    damage: str
    number: int
    refused: str = ""
    blocks: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    broken: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What `--replay` takes."""
        return f"{self.subject}:{self.damage}:{self.number}"


def damaged(subject: Subject, name: str, damage: str, run: int, number: int) -> Damaged:
    """The damaged file of a trial."""
    return subject.damages[damage](subject, Dice(name, damage, run, number))


def judged(subject: Subject, row: Row, answer: Answer) -> Row:
    """The row with all criteria in it."""
    trial = Trial(subject.truth, answer)
    row.blocks = dict(by_kind(trial, list(subject.truth.used)))
    row.lost = dict(by_kind(trial, trial.lost))
    found = {name: criterion(trial) for name, criterion in CRITERIA.items()}
    if row.damage == CHANGES_NOTHING:
        missing, extra = subject.mistakes
        found["invented"] = found["invented"] + extra
        row.broken[LOST_WHOLE] = dict(by_kind_of_missing(missing))
        row.examples[LOST_WHOLE] = [f"0x{address:x}" for address in missing[:SHOWN]]
    for name, addresses in found.items():
        row.broken[name] = dict(by_kind(trial, addresses))
        row.examples[name] = [named(address) for address in addresses[:SHOWN]]
    row.broken = {name: kinds for name, kinds in row.broken.items() if kinds}
    row.examples = {name: row.examples[name] for name in row.broken}
    return row


def by_kind_of_missing(addresses: list[int]) -> Counter[str]:
    """Blocks of the truth that no answer ever had: nobody knows their kind."""
    return Counter({"unknown": len(addresses)}) if addresses else Counter()


def tried(subject: Subject, name: str, damage: str, run: int, number: int) -> Row:
    """One trial."""
    row = Row(name, damage, number)
    try:
        with strict_warnings():
            answer = subject.answer(damaged(subject, name, damage, run, number).data)
    except WindumpsError as error:
        row.refused = str(error)
        return row
    except Exception as error:  # whatever comes is a finding, and the run goes on
        row.broken[CRASHED] = {"unknown": 1}
        row.examples[CRASHED] = [f"{type(error).__name__}: {error}"]
        return row
    return judged(subject, row, answer)


def trials(names: list[str], damages: list[str], run: int, rounds: Rounds) -> Iterator[Row]:
    """Every damage once a round."""
    makers = subjects()
    for name, numbers in rounds.shared(names):
        try:
            subject = makers[name]()
        except WindumpsError as error:
            yield Row(name, CHANGES_NOTHING, 0, str(error), broken={REFUSED_WHOLE: {"unknown": 1}})
            continue
        possible = [damage for damage in damages if damage in subject.damages]
        for number in numbers:
            for damage in Dice(name, run, number).sample(possible, len(possible)):
                if number == 0 or damage != CHANGES_NOTHING:
                    yield tried(subject, name, damage, run, number)
                if subject.is_slow and numbers.is_over:
                    break


def replay(name: str, run: int, save: Path | None) -> int:
    """One trial again, with what was done and what was said."""
    subject_name, damage, number = name.rsplit(":", 2)
    subject = subjects()[subject_name]()
    made = damaged(subject, subject_name, damage, run, int(number))
    if save is not None:
        save.write_bytes(made.data)
    print("\n".join(made.told))
    try:
        answer = subject.answer(made.data)
    except WindumpsError as error:
        print(f"refused: {error}")
        return 0
    row = judged(subject, Row(subject_name, damage, int(number)), answer)
    trial = Trial(subject.truth, answer)
    print("\n".join(f"said: {message}" for message in answer.messages))
    print(f"shown: {answer.shown}, heaps read: {answer.read} of {answer.listed}")
    print("\n".join(f"{command}: {share}" for command, share in answer.shares.items()))
    for heap, part in answer.parts.items():
        lost = [a for a in trial.lost if subject.truth.blocks[a].part == heap]
        size = sum(subject.truth.used[address] for address in lost)
        told = part.unread or f"{part.unwalked} bytes unwalked"
        print(f"heap 0x{heap:x}: {told}; {len(lost)} blocks of {size} bytes lost")
    for criterion in row.broken:
        print(f"BROKEN {criterion}: {row.broken[criterion]}")
        for address in (CRITERIA[criterion](trial) if criterion in CRITERIA else [])[:20]:
            said, so = answer.used.get(address), subject.truth.used.get(address)
            if address < 0:
                said, so = (answer.totals or {}).get(address), subject.truth.totals.get(address)
            print(f"  {named(address)}: said {said}, in truth {so}")
    return 1 if row.broken else 0


def family(subject: str, kind: str) -> str:
    """What a table has one line for: the kind of heap and the system, "nt-lfh of 7"."""
    *_, build, scenario, _ = subject.split("/")
    if "kernel" in subject:
        return f"{kind} of {build}"
    system = next((name for prefix, name in SYSTEMS if build.startswith(prefix)), build)
    return f"{'debug-crt' if scenario.startswith('debug-crt') else kind} of {system}"


def table(rows: list[Row]) -> None:
    """Trials and broken criteria by kind of heap, as a table for the README."""
    names = [LOST_WHOLE, *CRITERIA]
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for kind, count in row.blocks.items():
            line = sums[family(row.subject, kind)]
            line["trials"] += 1
            line["blocks"] += count
            line["lost"] += row.lost.get(kind, 0)
        for name, kinds in row.broken.items():
            for kind, count in kinds.items():
                sums[family(row.subject, kind)][name] += count
                sums[family(row.subject, kind)][f"{name} in"] += 1
    print(f"| kind | trials | blocks | lost | {' | '.join(names)} |")
    print("| --- |" + " --- |" * (3 + len(names)))
    for kind, line in sorted(sums.items()):
        share = f"{line['lost'] / max(line['blocks'], 1):.2%}"
        told = " | ".join(f"{line[name]} ({line[f'{name} in']})" for name in names)
        print(f"| {kind} | {line['trials']} | {line['blocks']} | {share} | {told} |")


def report(rows: list[Row], run: int, shown: int, accepted: Sequence[str] = ()) -> int:
    """Some trials of each criterion that is broken; the last line is the result."""
    broken: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        for name, kinds in row.broken.items():
            broken[name, family(row.subject, next(iter(kinds)))].append(row)
    for (name, kind), bad in sorted(broken.items()):
        print(f"{name}, {kind}: {len(bad)} trials")
        for row in bad[:shown]:
            print(f"    {', '.join(row.examples.get(name, []))}")
            print(f"    python tests/fuzz/honesty.py --seed {run} --replay '{row.name}'")
    failed = sum(bool(row.broken) for row in rows)
    counts = Counter(name for row in rows for name in row.broken)
    told = "".join(f", {name}: {count}" for name, count in sorted(counts.items()))
    print(
        f"honesty: {len(rows)} trials of {len({row.subject for row in rows})} dumps, "
        f"{sum(bool(row.refused) for row in rows)} refused, {failed} with a lie{told}"
    )
    return 1 if counts.keys() - set(accepted) or not rows else 0


def main() -> int:
    """The command line."""
    parser = trial_options(__doc__, "DUMP:DAMAGE:N")
    parser.add_argument("--shown", type=int, default=1, help="trials shown of each lie")
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        choices=CRITERIA,
        help="a criterion that ends no run",
    )
    parser.add_argument(
        "--all-commands", action="store_true", help="each trial of a kernel asks all, not one in 16"
    )
    given = parser.parse_args()
    if given.all_commands:
        KernelSubject.commands_in = 1
    names, damages = chosen(subjects(), given.only), chosen(POOL_DAMAGES, given.damage)
    if given.list:
        print("\n".join(names))
    elif given.table:
        table([Row(**row) for row in read_rows(given.table)])
    elif given.replay:
        return replay(given.replay, given.seed, given.save)
    else:
        rounds = Rounds(given.trials, given.seconds)
        rows = kept(trials(names, damages, given.seed, rounds), given.out)
        return report(rows, given.seed, given.shown, given.accept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
