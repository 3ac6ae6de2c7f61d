"""Pool that a driver left behind when it was unloaded, where the system stopped for it: bug check C4."""

from __future__ import annotations

from dataclasses import dataclass

UNLOADING = 0x61  # it allocated while it was unloaded


@dataclass(frozen=True)
class LeftTag:
    """Blocks of one tag among those that Driver Verifier recorded of the driver."""

    tag: str
    count: int
    bytes: int


@dataclass(frozen=True)
class LeftPool:
    """What the bug check says.

    Attributes:
        reason: Its first parameter.
        driver: File name of the driver; "" when nothing tells.
        blocks: Blocks that were not freed.
        paged_bytes: Their bytes in paged pool; None where the bug check does not say.
        nonpaged_bytes: Their bytes in nonpaged pool; None where the bug check does not say.
        tags: The driver's blocks by tag, the most bytes first, as far as Verifier's records are in the dump.
    """

    reason: int
    driver: str
    blocks: int
    paged_bytes: int | None = None
    nonpaged_bytes: int | None = None
    tags: tuple[LeftTag, ...] = ()

    @property
    def told(self) -> str:
        """A clause."""
        whose = self.driver or "a driver that nothing names"
        many = f"{self.blocks:,} block{'s' * (self.blocks != 1)}"
        did = "was unloaded without freeing"
        if self.reason == UNLOADING:
            did = "allocated pool while it was unloaded, and leaves"
        return f"Bug check C4 ({self.reason:x}): {whose} {did} {many}"
