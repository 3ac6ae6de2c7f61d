"""Who owns a pool tag, as an answer: candidates, the best first, and what speaks for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

STRONG, MEDIUM = 0.7, 0.4


_OR = " or "
CALLER_UNKNOWN = "caller unknown"
CONFIDENCES = ("proven", "strong", "medium", "weak")


@dataclass(frozen=True)
class Owner:
    """One driver that may own a tag.

    Attributes:
        driver: File name.
        score: 0 to 1.
        confidence: "proven" (Driver Verifier), "strong", "medium" or "weak".
        evidence: One clause each, the weightiest first.
    """

    driver: str
    score: float
    confidence: str
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Ownership:
    """What is known of a tag's owner.

    Attributes:
        tag: Four characters.
        owners: Candidates, the best first.
        description: What a `pooltag.txt` says the tag is for; "" when nothing.
        note: What limits the answer; "" when nothing does.
        on_behalf: The routine with which the tag's owner allocates blocks for whoever calls it; "" when the
            owner is who wants them.
        unloaded: Drivers that were unloaded before the dump, where nobody that is loaded owns the tag.
    """

    tag: str
    owners: tuple[Owner, ...] = ()
    description: str = ""
    note: str = ""
    on_behalf: str = ""
    unloaded: tuple[str, ...] = ()

    @property
    def drivers(self) -> tuple[str, ...]:
        """The best candidates, where the evidence is more than weak; several that are equally strong."""
        best = self.owners[0].score if self.owners else 0
        if best < MEDIUM:
            return ()
        return tuple(owner.driver for owner in self.owners if owner.score == best)

    @property
    def driver(self) -> str | None:
        """The best candidates as one text; None where nobody is more than weakly so."""
        return either(self.drivers) or None

    @property
    def named(self) -> str | None:
        """Who is named with the tag: the owner, or that nobody knows who had the blocks allocated."""
        return CALLER_UNKNOWN if self.on_behalf else self.driver

    @property
    def label(self) -> str:
        """For people, with a question mark where the evidence is weak; "" for none."""
        if self.on_behalf or not self.driver:
            return ", ".join(filter(None, (self.named, self._guess and f"{self._guess}?")))
        return self.driver

    @property
    def whose(self) -> str:
        """Said behind a tag."""
        if self.on_behalf:
            guess = f", perhaps {self._guess}" if self._guess else ""
            return f"of an unknown caller of {self.on_behalf}{guess}"
        return f"of {self.label or 'an unknown driver'}"

    @property
    def _guess(self) -> str:
        """The best candidate of whom the evidence is weak; "" for none."""
        rest = self.owners[len(self.drivers) :]
        return rest[0].driver if rest else ""


def either(drivers: Iterable[str]) -> str:
    """Several drivers of whom each may be the owner, as one text."""
    return _OR.join(drivers)


def drivers_named(text: str | None) -> tuple[str, ...]:
    """The drivers in such a text."""
    return tuple(text.split(_OR)) if text else ()
