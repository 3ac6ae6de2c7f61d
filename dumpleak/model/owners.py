"""Who owns a pool tag, as an answer: candidates, the best first, and what speaks for them."""

from __future__ import annotations

from dataclasses import dataclass

STRONG, MEDIUM = 0.7, 0.4


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
    """

    tag: str
    owners: tuple[Owner, ...] = ()
    description: str = ""
    note: str = ""

    @property
    def driver(self) -> str | None:
        """The best candidate, where the evidence is more than weak."""
        best = self.owners[0] if self.owners else None
        return best.driver if best is not None and best.score >= MEDIUM else None

    @property
    def label(self) -> str:
        """The best candidate for people, with a question mark where the evidence is weak; "" for none."""
        if not self.owners:
            return ""
        return self.owners[0].driver + ("" if self.driver else "?")
