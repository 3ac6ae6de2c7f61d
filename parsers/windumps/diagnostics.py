"""Diagnostics: what was left out of an answer, and why, as part of the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

# Code of the diagnostic of a file that ends before memory it lists; `bytes_affected` are missing.
MEMORY_CUT = "memory-cut"
HEAP_LIST_CUT = "heap-list-cut"  # code of the diagnostic: the process may have more heaps


class Severity(StrEnum):
    """How much a diagnostic takes away from the answer."""

    INFO = "info"  # how the answer was reached
    WARNING = "warning"  # a part is missing
    ERROR = "error"  # a whole heap or stream is missing


@dataclass(frozen=True)
class Diagnostic:
    """One thing that a reader of the result must know.

    Attributes:
        code: Stable kebab-case name for scripts.
        severity: See `Severity`.
        structure: The structure concerned, under Microsoft's name.
        address: Virtual address in the process, or file offset for structures of the file; None
            when neither.
        message: One line for people.
        bytes_affected: How many bytes of memory the trouble hides; 0 when none or unknown.
    """

    code: str
    severity: Severity
    structure: str
    address: int | None
    message: str
    bytes_affected: int = 0


@dataclass
class DiagnosticLog:
    """Collects diagnostics; the same code on the same structure more than `limit` times is only
    counted.

    A dump with a million broken entries must not give a million lines; what was folded is said by
    `collect`.
    """

    limit: int = 20
    _items: list[Diagnostic] = field(default_factory=list)
    _seen: dict[tuple[str, str], int] = field(default_factory=dict)
    _folded: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def add(
        self,
        code: str,
        severity: Severity,
        structure: str,
        address: int | None,
        message: str,
        bytes_affected: int = 0,
    ) -> None:
        """Records one diagnostic; see `Diagnostic` for the fields."""
        key = (code, structure)
        count = self._seen[key] = self._seen.get(key, 0) + 1
        if count > self.limit:
            folded, lost = self._folded.get(key, (0, 0))
            self._folded[key] = (folded + 1, lost + bytes_affected)
            return
        self._items.append(
            Diagnostic(code, severity, structure, address, message, int(bytes_affected))
        )

    def extend(self, diagnostics: list[Diagnostic]) -> None:
        """Takes over diagnostics collected elsewhere."""
        for item in diagnostics:
            self.add(
                item.code,
                item.severity,
                item.structure,
                item.address,
                item.message,
                item.bytes_affected,
            )

    def collect(self) -> list[Diagnostic]:
        """All diagnostics so far, in order, with one closing line per kind that was folded."""
        folded = [
            Diagnostic(
                code,
                Severity.WARNING,
                structure,
                None,
                f"{count} more of this kind",
                int(lost),
            )
            for (code, structure), (count, lost) in self._folded.items()
        ]
        return self._items + folded
