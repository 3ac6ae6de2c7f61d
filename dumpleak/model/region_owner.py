"""Who keeps an allocation of address space: what points to it, in words that hold no address."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Evidence(IntEnum):
    """What points to an allocation, the best evidence first."""

    IMAGE = 0  # data of an image
    BLOCK = 1  # a used block of a heap
    UNREAD = 2  # a heap that could not be read
    PROCESS = 3  # TEBs and the PEB
    LED = 4  # other such memory, to which data of an image leads
    OTHER = 5  # other such memory
    STACK = 6  # stacks and registers of threads, and nothing else
    NOBODY = 7


# Images whose runtime compiles while the program runs: code in private memory is theirs.
JIT_ENGINES = {
    "clr.dll": ".NET",
    "clrjit.dll": ".NET",
    "coreclr.dll": ".NET",
    "mscorwks.dll": ".NET",
    "mono-2.0-bdwgc.dll": "Mono",
    "mono-2.0-sgen.dll": "Mono",
    "jvm.dll": "Java",
    "chakra.dll": "JavaScript",
    "chakracore.dll": "JavaScript",
    "jscript9.dll": "JavaScript",
    "mozjs.dll": "JavaScript",
    "node.dll": "JavaScript",
    "node.exe": "JavaScript",
    "v8.dll": "JavaScript",
    "xul.dll": "JavaScript",
    "lua51.dll": "Lua",
}
_FIXED = {
    Evidence.UNREAD: "a heap that could not be read points to it",
    Evidence.PROCESS: "a TEB or the PEB points to it",
    Evidence.OTHER: "other memory outside heaps points to it",
}


@dataclass(frozen=True)
class RegionOwner:
    """Who keeps an allocation.

    Attributes:
        evidence: What points to it.
        names: Of images those with most pointers, most first; of a block its class, of a stack where the
            thread began. Empty where there is no name.
        more: There are more images than are named.
        starts_only: Only what points to its very start was taken for a pointer, as below 4 GiB.
    """

    evidence: Evidence
    names: tuple[str, ...] = ()
    more: bool = False
    starts_only: bool = False

    @property
    def key(self) -> str:
        """Identity across dumps: which image has most pointers does not matter."""
        parts = [self.evidence.name.lower(), *sorted(name.lower() for name in self.names)]
        return "|".join(parts + ["more"] * self.more + ["start"] * self.starts_only)

    @property
    def is_lost(self) -> bool:
        """Nothing points to it, wherever into it that would be."""
        return self.evidence is Evidence.NOBODY and not self.starts_only

    @property
    def holder(self) -> str:
        """Who points to it, as in "held by …"; "" for nobody."""
        match self.evidence:
            case Evidence.IMAGE:
                return self._data
            case Evidence.LED:
                return f"other memory, to which {self._data} leads"
            case Evidence.BLOCK:
                return f"blocks of {self.names[0]}" if self.names else "heap blocks"
            case Evidence.UNREAD:
                return "a heap that could not be read"
            case Evidence.PROCESS:
                return "TEBs or the PEB"
            case Evidence.OTHER:
                return "other memory outside heaps"
            case Evidence.STACK:
                return "stacks of threads alone"
        return ""

    @property
    def told(self) -> str:
        """A clause for people, "app.exe's data points to it"."""
        match self.evidence:
            case Evidence.IMAGE:
                return f"{self._data} points to it"
            case Evidence.LED:
                return f"{self._data} leads to it"
            case Evidence.BLOCK if self.names:
                return f"a block of {self.names[0]} points to it"
            case Evidence.BLOCK:
                return "a heap block points to it"
            case Evidence.STACK if self.names:
                return f"only the stack of a thread that began at {self.names[0]} points to it"
            case Evidence.STACK:
                return "only stacks of threads point to it"
            case Evidence.NOBODY:
                what = "its start" if self.starts_only else "it"
                return f"nothing in the dump points to {what}"
        return _FIXED[self.evidence]

    @property
    def engine(self) -> str:
        """What compiles while the program runs, when its images do: ".NET"; "" for none."""
        found = (JIT_ENGINES.get(name.lower()) for name in self.names)
        of_image = self.evidence in (Evidence.IMAGE, Evidence.LED)
        return next((engine for engine in found if engine), "") if of_image else ""

    @property
    def _data(self) -> str:
        if len(self.names) == 1 and not self.more:
            return f"{self.names[0]}'s data"
        images = ", ".join(self.names) if self.more else " and ".join(self.names)
        return f"data of {images}{' and more images' * self.more}"
