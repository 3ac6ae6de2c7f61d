"""What every kind of dump offers that is damaged and asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fuzz.criteria import Answer, Truth
from fuzz.damages import DAMAGES, Damageable


class Subject(Damageable):
    """A dump that can be damaged and asked.

    Attributes:
        truth: What is in it.
        mistakes: What the answer about the undamaged dump has wrong: missing and extra blocks. These
            are left out of the truth, so that they count once and not in each trial.
        damages: What can be done to it, by name; each takes the subject and dice.
        is_slow: A round of it may end when its time is used up.
    """

    truth: Truth
    mistakes: tuple[list[int], list[int]]
    damages: Mapping[str, Callable[..., Any]] = DAMAGES
    is_slow = False

    def answer(self, data: bytes) -> Answer:
        """What is said of the dump, or of a damaged one.

        Raises:
            WindumpsError: there is no answer.
        """
        raise NotImplementedError

    def leave_out(self, clean: Answer) -> None:
        """Leaves out of the truth what the undamaged answer does not have, and completes the rest."""
        truth = self.truth
        said = {truth.stands_for.get(address, address) for address in clean.used}
        missing = [address for address in truth.used if address not in said]
        known = (truth.used, truth.optional, truth.stands_for)
        extra = [a for a in clean.used if not any(a in addresses for addresses in known)]
        self.mistakes = missing, extra
        for address in missing:
            del truth.used[address]
        truth.optional |= set(extra)
        truth.blocks = {truth.stands_for.get(a, a): found for a, found in clean.used.items()}
        for address, size in truth.used.items():
            if size < 0:
                truth.used[address] = clean.used[address].size
