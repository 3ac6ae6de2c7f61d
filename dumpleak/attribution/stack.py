"""Sites by recorded allocation stack, the best evidence there is.

A key is made of each frame's image (PDB GUID and age, else time stamp and size) and its offset in it, so it
is the same wherever images were loaded. A name is the first frame that is not the allocator's: what people
look for is who called `malloc`, not that `malloc` called ntdll. Frames are left out of the name only; the key
has them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.table import SiteTable
from dumpleak.session import HeapSource, Session
from dumpleak.sites import Site, SiteKind
from windumps.blocks import Blocks
from windumps.windows.modules import Module
from windumps.windows.process import ProcessView
from windumps.windows.stack_traces import CodeMap, StackTraces

# Gives the text behind `module!` for an offset in an image, "Cache::insert+0x41", or None. The offset is a
# return address: the call stands just before it.
Symbolize = Callable[[Module, int], str | None]

NO_IMAGE = "(code outside images)"
DIGEST_BYTES = 16
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
        key: Image identity and offset.
        skipped: Left out of names: the allocator's, or in no image.
    """

    text: str
    key: str
    skipped: bool


def no_symbols(module: Module, rva: int) -> str | None:
    """A `Symbolize` that knows nothing."""
    return None


class FrameNamer:
    """Names code addresses of one dump; each distinct frame once.

    Args:
        code: The images.
        symbolize: Where symbols come from.
        allocators: Patterns of frames that are left out of names.
    """

    def __init__(
        self,
        code: CodeMap,
        symbolize: Symbolize = no_symbols,
        allocators: Sequence[str] = ALLOCATOR_FRAMES,
    ) -> None:
        self._code = code
        self._symbolize = symbolize
        self._allocators = re.compile("|".join(translate(p.lower()) for p in allocators) or "(?!)")
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
            return Frame(NO_IMAGE, "-", True)
        module = self._code.modules[index]
        rva = address - module.base_address
        symbol = self._symbolize(module, rva)
        text = f"{module.name}!{symbol}" if symbol else f"{module.name}+0x{rva:x}"
        return Frame(text, f"{_image_key(module)}+{rva:x}", self.skips(module.name, symbol or ""))

    def skips(self, module_name: str, symbol: str) -> bool:
        """True for an allocator's frame; the symbol may be "" and may have an offset behind it."""
        function = symbol.lower().rsplit("+0x", 1)[0]
        return self._allocators.match(f"{module_stem(module_name).lower()}!{function}") is not None


def module_stem(name: str) -> str:
    """An image's name as debuggers write it before `!`: without its extension."""
    return _EXTENSION.sub("", name)


def stack_key(frames: Iterable[str]) -> str:
    """The key of a stack site, from its frames' keys, innermost first."""
    digest = blake2b("\n".join(frames).encode(), digest_size=DIGEST_BYTES)
    return f"{SiteKind.STACK}|{digest.hexdigest()}"


def _image_key(module: Module) -> str:
    """The image's identity; where it has neither PDB nor time stamp, with its name."""
    if module.timestamp or module.pdb is not None:
        return module.identity
    return f"{module.name.lower()}:{module.identity}"


def stack_site(frames: Sequence[Frame]) -> Site:
    """The site of one stack.

    Args:
        frames: Innermost first, at least one.
    """
    named = next((frame for frame in frames if not frame.skipped), frames[0])
    return Site(
        SiteKind.STACK,
        stack_key(frame.key for frame in frames),
        named.text,
        frames=tuple(frame.text for frame in frames),
    )


class StackAttributor:
    """Names blocks by the stack that was recorded when they were allocated.

    Args:
        session: The dump.
        table: Where sites are numbered.
        symbolize: Where symbols come from.
        allocators: Patterns of frames that are left out of names.
    """

    def __init__(
        self,
        session: Session,
        table: SiteTable,
        symbolize: Symbolize = no_symbols,
        allocators: Sequence[str] = ALLOCATOR_FRAMES,
    ) -> None:
        self._table = table
        self._code = CodeMap(session.dump.modules, session.dump.unloaded_modules)
        self._namer = FrameNamer(self._code, symbolize, allocators)
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
        return self._table.index_of(stack_site(self._namer.frames(stack)))

    def _reader(self, view: ProcessView) -> StackTraces:
        reader = self._readers.get(view.architecture)
        if reader is None:
            reader = self._readers[view.architecture] = StackTraces(
                view.memory, view.architecture, view.build, view.ntdll(), self._code, view.log
            )
        return reader
