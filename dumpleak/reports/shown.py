"""How much of an answer a reader wants to see."""

from __future__ import annotations

from dataclasses import dataclass

from dumpleak.model.block_filter import NO_FILTER, BlockFilter

CALLERS = 3  # frames shown under a site


@dataclass(frozen=True)
class Shown:
    """What is shown of sites, besides how many.

    Attributes:
        callers: Frames under a site, behind the one that names it; None for all.
        only: Which sites are listed.
    """

    callers: int | None = CALLERS
    only: BlockFilter = NO_FILTER

    def told(self, what: str, listed: int) -> list[str]:
        """Which are listed, in a sentence; none for all.

        Args:
            what: What they are, "groups".
            listed: How many there are.
        """
        named = " and ".join(f"{kind} {text!r}" for kind, text in self.only.texts)
        if not named:
            return []
        if not listed:
            by = "" if self.only.type is None else "; types alone are told by --by type"
            return [f"There are no {what} with {named}{by}."]
        return [f"Only {what} with {named} are listed; totals are of all."]


USUAL = Shown()
