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
    OTHER = 4  # other such memory
    STACK = 5  # stacks and registers of threads, and nothing else
    NOBODY = 6


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


@dataclass(frozen=True)
class RegionOwner:
    """Who keeps an allocation.

    Attributes:
        evidence: What points to it.
        names: Of images those with most pointers, most first; of a block its class, of a stack where the
            thread began. Empty where there is no name.
        more: There are more images than are named.
        led: Not to it, but to other such memory, which leads on to it.
        starts_only: Only what points to its very start was taken for a pointer, as below 4 GiB.
    """

    evidence: Evidence
    names: tuple[str, ...] = ()
    more: bool = False
    led: bool = False
    starts_only: bool = False

    @property
    def key(self) -> str:
        """Identity across dumps: which image has most pointers does not matter."""
        parts = [self.evidence.name.lower(), *sorted(name.lower() for name in self.names)]
        parts += ["more"] * self.more + ["led"] * self.led + ["start"] * self.starts_only
        return "|".join(parts)

    @property
    def is_lost(self) -> bool:
        """Nothing points to it, wherever into it that would be."""
        return self.evidence is Evidence.NOBODY and not self.starts_only

    @property
    def holder(self) -> str:
        """Who points to it, as in "held by …"; "" for nobody."""
        match self.evidence:
            case Evidence.IMAGE:
                who = self._data
            case Evidence.BLOCK:
                who = f"blocks of {self.names[0]}" if self.names else "heap blocks"
            case Evidence.UNREAD:
                who = "a heap that could not be read"
            case Evidence.PROCESS:
                who = "TEBs or the PEB"
            case Evidence.OTHER:
                who = "other memory outside heaps"
            case Evidence.STACK:
                who = "stacks of threads alone"
            case Evidence.NOBODY:
                return ""
        return f"memory that hangs on {who}" if self.led else who

    @property
    def told(self) -> str:
        """A clause for people, "app.exe's data points to it"."""
        one, many = ("leads", "lead") if self.led else ("points", "point")
        match self.evidence:
            case Evidence.IMAGE:
                return f"{self._data} {one} to it"
            case Evidence.BLOCK if self.names:
                return f"a block of {self.names[0]} {one} to it"
            case Evidence.BLOCK:
                return f"a heap block {one} to it"
            case Evidence.UNREAD:
                return f"a heap that could not be read {one} to it"
            case Evidence.PROCESS:
                return f"a TEB or the PEB {one} to it"
            case Evidence.OTHER:
                return "other memory outside heaps points to it"
            case Evidence.STACK if self.names:
                return f"only the stack of a thread that began at {self.names[0]} {one} to it"
            case Evidence.STACK:
                return f"only stacks of threads {many} to it"
            case Evidence.NOBODY:
                what = "its start" if self.starts_only else "it"
                return f"nothing in the dump points to {what}"

    @property
    def engine(self) -> str:
        """What compiles while the program runs, when its images do: ".NET"; "" for none."""
        found = (JIT_ENGINES.get(name.lower()) for name in self.names)
        of_image = self.evidence is Evidence.IMAGE
        return next((engine for engine in found if engine), "") if of_image else ""

    @property
    def _data(self) -> str:
        if len(self.names) == 1 and not self.more:
            return f"{self.names[0]}'s data"
        images = ", ".join(self.names) if self.more else " and ".join(self.names)
        return f"data of {images}{' and more images' * self.more}"
