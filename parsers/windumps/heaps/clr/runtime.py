"""Which .NET runtime a process has, by its images: whether there can be a heap, and of what kind."""

from __future__ import annotations

from dataclasses import dataclass

from windumps.dump import Dump
from windumps.images.modules import Module
from windumps.images.pe_image import HEADER_BYTES, read_image_header

CORE, FRAMEWORK, MAYBE, NONE = "coreclr", "framework", "maybe", "none"
_CORE = ("coreclr.dll", "clrgc.dll", "clrgcexp.dll")
_FRAMEWORK = ("clr.dll", "mscorwks.dll", "mscorsvr.dll")
# A section that every build of the runtime has, the one inside a single-file application included.
_SECTION = b".CLR_UEF"
_POINTER = {"x86": 4, "x64": 8, "arm64": 8}


@dataclass(frozen=True)
class Runtime:
    """The runtime of a process.

    Attributes:
        kind: `CORE`, `FRAMEWORK`, `MAYBE` where the dump does not tell, or `NONE`.
        module: The image that is it; None where none is known.
        architecture: Of its code; "" where it is not known.
        images: (start, end) of the images that the collector's own words may be in; empty where the runtime
            is not known.
    """

    kind: str
    module: Module | None
    architecture: str
    images: tuple[tuple[int, int], ...] = ()

    @property
    def pointer_size(self) -> int:
        """Bytes of a pointer; 0 where it is not known."""
        return _POINTER.get(self.architecture, 0)


def runtime_of(dump: Dump) -> Runtime:
    """The runtime of a process; no memory but that of image headers is looked at."""
    named = {module.name.lower(): module for module in reversed(dump.modules)}
    for names, kind in ((_CORE, CORE), (_FRAMEWORK, FRAMEWORK)):
        module = next((named[name] for name in names if name in named), None)
        if module is not None:
            found = [named[name] for name in names if name in named]
            if kind == CORE and module.name.lower() != _CORE[0]:  # its runtime is in another file
                found += _with_section(dump)
            return Runtime(kind, module, _architecture(dump, module), _spans(found))
    for module in _with_section(dump):
        return Runtime(CORE, module, _architecture(dump, module), _spans([module]))
    unseen = not dump.modules or not dump.modules_whole
    for module in dump.modules:
        raw = dump.memory.read_available(module.base_address, HEADER_BYTES)
        unseen |= not raw and module.name.lower().endswith(".exe")
    return Runtime(MAYBE if unseen else NONE, None, dump.architecture)


def _with_section(dump: Dump) -> list[Module]:
    """Images that have the section of a runtime."""
    return [
        module
        for module in dump.modules
        if _SECTION in dump.memory.read_available(module.base_address, HEADER_BYTES)
    ]


def _spans(modules: list[Module]) -> tuple[tuple[int, int], ...]:
    return tuple((module.base_address, module.end_address) for module in modules)


def _architecture(dump: Dump, module: Module) -> str:
    """Of an image, which in a WoW64 process is another one than the dump's."""
    header = read_image_header(dump.memory, module.base_address)
    return header.architecture if header is not None and header.architecture else dump.architecture
