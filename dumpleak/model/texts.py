"""What kinds of text blocks begin with: an answer that tells nothing of what is written there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest

SAMPLES = 3  # different texts of a site
MOSTLY = 0.5  # share of the blocks that must be text before it is told
WORTH_TELLING = 0.05  # share of the texts that must be of a kind; fewer are among the others


def few(texts: Iterable[str]) -> tuple[str, ...]:
    """The first of some texts, each once."""
    return tuple(dict.fromkeys(texts))[:SAMPLES]


@dataclass(frozen=True)
class Texts:
    """Text in blocks of one group.

    Attributes:
        blocks: Blocks of the group.
        looked_at: Of these, how many were looked at.
        texts: Of these, how many begin with text.
        kinds: Of these, how many are of each kind, by its name: "URLs".
        written: A few of each kind, only where they were asked for; those of no kind under "".
    """

    blocks: int
    looked_at: int
    texts: int
    kinds: dict[str, int] = field(default_factory=dict)
    written: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __add__(self, other: Texts) -> Texts:
        """Of both groups."""
        return Texts(
            self.blocks + other.blocks,
            self.looked_at + other.looked_at,
            self.texts + other.texts,
            dict(Counter(self.kinds) + Counter(other.kinds)),
            {
                kind: few((*self.written.get(kind, ()), *other.written.get(kind, ())))
                for kind in {**self.written, **other.written}
            },
        )

    @property
    def samples(self) -> tuple[str, ...]:
        """A few texts, of as many kinds as can be, those that come most often first."""
        ordered = sorted(self.written, key=lambda kind: (-self.kinds.get(kind, 0), kind))
        rounds = zip_longest(*(self.written[kind] for kind in ordered))
        return tuple(text for one in rounds for text in one if text is not None)[:SAMPLES]

    @property
    def evidence(self) -> tuple[str, ...]:
        """A clause for people; none where most blocks are no text, or of no known kind."""
        told = {
            kind: count
            for kind, count in sorted(self.kinds.items(), key=lambda pair: (-pair[1], pair[0]))
            if count >= WORTH_TELLING * self.texts
        }
        if not told or self.texts < MOSTLY * self.looked_at:
            return ()
        others = self.texts - sum(told.values())
        listed = [f"{count:,} {kind}" for kind, count in told.items()]
        listed += [f"{others:,} other"] * bool(others)
        looked = " looked at" * (self.looked_at < self.blocks)
        return (
            f"text in {self.texts:,} of {self.looked_at:,} blocks{looked}: {', '.join(listed)}",
        )
