"""Sites by recorded allocation stack, the best evidence there is.

A key is made of each frame's image (PDB GUID and age, else time stamp and size) and its offset in it, so it
is the same wherever images were loaded. A name is the first frame that is not the allocator's: what people
look for is who called `malloc`, not that `malloc` called ntdll. Frames are left out of the name only; the key
has them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.table import SiteTable
from dumpleak.model.sites import Place, Site, SiteKind, image_identity, stack_key
from dumpleak.process.session import HeapSource, Session
from windumps.blocks import Blocks
from windumps.images.modules import Module
from windumps.process.stack_traces import CodeMap, StackTraces
from windumps.process.views import ProcessView

if TYPE_CHECKING:
    from windumps.symbols.functions import Location

# Names an offset in an image, or gives None. The offset is a return address: the call stands just before it.
Symbolize: TypeAlias = "Callable[[Module, int], Location | None]"

NO_IMAGE = "(code outside images)"
SKIPPED_BY_USER, SKIPPED = 1, 2
_EXTENSION = re.compile(r"\.(?:exe|dll|ocx|cpl|drv|sys|ax|scr|acm|pyd|node)$", re.IGNORECASE)

# Frames of allocators, as `module!function` with wildcards, any case; a module without its extension. A row
# with a function only matches once symbols name the frame.
ALLOCATOR_FRAMES: tuple[str, ...] = (
    "ntdll!*",
    "wow64*!*",
    "kernelbase!*",
    "kernel32!*",
    "verifier!*",
    "vrfcore!*",
    "vfbasics!*",
    "vfcompat!*",
    "ucrtbase!*",
    "ucrtbased!*",
    "msvcrt!*",
    "msvcrtd!*",
    "msvcr[0-9]*!*",
    "vcruntime*!*",
    "*!operator new*",
    "*!malloc",
    "*!_malloc_*",
    "*!calloc",
    "*!_calloc_*",
    "*!realloc",
    "*!_realloc_*",
    "*!_recalloc*",
    "*!_aligned_*alloc*",
    "*!_strdup*",
    "*!_wcsdup*",
    "*!*heap_alloc*",
    "*!_nh_malloc*",
    "*!HeapAlloc",
    "*!LocalAlloc",
    "*!GlobalAlloc",
    "*!CoTaskMemAlloc",
    "*!SysAllocString*",
    "*!std::_Allocate*",
    "*!std::allocator<*",
)


class Frame(NamedTuple):
    """One frame, free of load addresses.

    Attributes:
        text: `module+0xRVA`, or `module!symbol+0xOFFSET` where symbols name it.
        key: Image identity and offset, whether symbols name it or not.
        skipped: 0 for the program's own; `SKIPPED_BY_USER`; `SKIPPED` for an allocator's, or one in
            no image. The first frame with the lowest number names a stack.
        place: See `Place`; None where the image's identity is not known.
        line: Source file and line, "" where unknown.
    """

    text: str
    key: str
    skipped: int
    place: Place | None = None
    line: str = ""


def no_symbols(module: Module, rva: int) -> Location | None:
    """A `Symbolize` that knows nothing."""
    return None


class FrameNamer:
    """Names code addresses of one dump; each distinct frame once.

    Args:
        code: The images.
        symbolize: Where symbols come from.
        allocators: Patterns of frames that are left out of names.
        skip_frames: More of them, for which nobody vouches: a stack of nothing else is still named
            by one of these.
    """

    def __init__(
        self,
        code: CodeMap,
        symbolize: Symbolize = no_symbols,
        allocators: Sequence[str] = ALLOCATOR_FRAMES,
        skip_frames: Sequence[str] = (),
    ) -> None:
        self._code = code
        self._symbolize = symbolize
        self._skipped = ((SKIPPED, _any_of(allocators)), (SKIPPED_BY_USER, _any_of(skip_frames)))
        self._frames: dict[int, Frame] = {}

    def frames(self, addresses: Sequence[int]) -> list[Frame]:
        """The frames of return addresses."""
        new = [address for address in addresses if address not in self._frames]
        if new:
            modules = self._code.index_of(np.array(new, np.uint64))
            for address, index in zip(new, modules.tolist(), strict=True):
                self._frames[address] = self._frame(address, index)
        return [self._frames[address] for address in addresses]

    def _frame(self, address: int, index: int) -> Frame:
        if index < 0:
            # Code made at run time. Its address differs between runs and would split the site.
            return Frame(NO_IMAGE, "-", SKIPPED, Place("", "-", 0, "", True))
        module = self._code.modules[index]
        rva = address - module.base_address
        found = self._symbolize(module, rva)
        function = found.function if found else ""
        text = f"{module.name}!{found}" if found else f"{module.name}+0x{rva:x}"
        skipped = self.skips(module.name, function)
        image = image_identity(module)
        place = Place(module.name.lower(), image, rva, function, skipped > 0)
        line = f"{found.file}({found.line})" if found and found.line else ""
        return Frame(text, f"{image}+{rva:x}", skipped, place, line)

    def skips(self, module_name: str, symbol: str) -> int:
        """`Frame.skipped` of a frame; the symbol, without an offset, may be ""."""
        name = f"{module_stem(module_name).lower()}!{symbol.lower()}"
        return next((level for level, pattern in self._skipped if pattern.match(name)), 0)


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(translate(p.lower()) for p in patterns) or "(?!)")


def module_stem(name: str) -> str:
    """An image's name as debuggers write it before `!`: without its extension."""
    return _EXTENSION.sub("", name)


def stack_site(frames: Sequence[Frame], *, cut: bool = False) -> Site:
    """The site of one stack.

    Args:
        frames: Innermost first, at least one.
        cut: Leave out what comes before the frame that names the site, from the key too: then
            stacks that differ only inside the allocator are one site.
    """
    first = min(range(len(frames)), key=lambda index: frames[index].skipped)
    named = frames[first]
    if cut:
        frames = frames[first:]
    places = [frame.place for frame in frames if frame.place is not None]
    return Site(
        SiteKind.STACK,
        stack_key(frame.key for frame in frames),
        named.text,
        frames=tuple(frame.text for frame in frames),
        lines=tuple(f.line for f in frames) if any(f.line for f in frames) else (),
        places=tuple(places) if len(places) == len(frames) else (),
    )


class StackAttributor:
    """Names blocks by the stack that was recorded when they were allocated.

    Args:
        session: The dump.
        table: Where sites are numbered.
        symbolize: Where symbols come from; None for the session's.
        allocators: Patterns of frames that are left out of names, besides the session's own.
        cut: As `stack_site` takes it.
    """

    def __init__(
        self,
        session: Session,
        table: SiteTable,
        symbolize: Symbolize | None = None,
        allocators: Sequence[str] = ALLOCATOR_FRAMES,
        *,
        cut: bool = False,
    ) -> None:
        if symbolize is None:
            symbolize = session.symbols.frame if session.symbols is not None else no_symbols
        self._table = table
        self._cut = cut
        self._code = CodeMap(session.dump.modules, session.dump.unloaded_modules)
        self._namer = FrameNamer(self._code, symbolize, allocators, session.skip_frames)
        # By architecture: the two halves of a WoW64 process have stores and traces of their own.
        self._readers: dict[str, StackTraces] = {}
        self._sites: dict[str, dict[int, int]] = {}

    def assign(self, source: HeapSource, blocks: Blocks) -> NDArray[np.int64]:
        """See `Attributor`; -1 for blocks without a recorded stack or with one that cannot be read."""
        if not blocks.trace.any():
            return np.full(len(blocks), -1, np.int64)
        values, inverse = np.unique(blocks.trace, return_inverse=True)
        known = self._sites.setdefault(source.view.architecture, {0: -1})
        new = [trace for trace in values.tolist() if trace not in known]
        if new:
            stacks = self._reader(source.view).frames(np.array(new, np.uint64))
            for trace, stack in zip(new, stacks, strict=True):
                known[trace] = self._site(stack) if stack else -1
        return np.array([known[trace] for trace in values.tolist()], np.int64)[inverse]

    def _site(self, stack: tuple[int, ...]) -> int:
        return self._table.index_of(stack_site(self._namer.frames(stack), cut=self._cut))

    def _reader(self, view: ProcessView) -> StackTraces:
        reader = self._readers.get(view.architecture)
        if reader is None:
            reader = self._readers[view.architecture] = StackTraces(
                view.memory,
                view.architecture,
                view.build,
                view.ntdll(),
                self._code,
                view.log,
                view.exact_layouts.get("stack traces"),
            )
        return reader
