"""Allocation sites: who allocated, keyed so that the same site in two dumps is one.

A key and a name hold no absolute address: code is module + RVA keyed on the module's PDB identity, a heap is
its position in the process's list. Two machines, two boots and two load addresses give the same keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

from windumps.blocks import SIZE_UNKNOWN
from windumps.images.modules import Module

_SIZE_PART = 3
# What names of shapes say of text as BSTRs have it.
LENGTH_PREFIXED = "length-prefixed UTF-16 text"
DIGEST_BYTES = 16


class SiteKind(StrEnum):
    """What names a site, best evidence first."""

    STACK = "stack"
    SOURCE = "source"
    TYPE = "type"
    TAG = "tag"
    SHAPE = "shape"
    GROUP = "group"  # not a site: blocks put together by another key (`--by size`)


def image_identity(module: Module) -> str:
    """The build of an image, for keys; where it has neither PDB nor time stamp, with its name."""
    if module.timestamp or module.pdb is not None:
        return module.identity
    return f"{module.name.lower()}:{module.identity}"


class Place(NamedTuple):
    """Where code or a vftable is: what a key is made of, and the name that outlives a build.

    Attributes:
        module: Name of the image in small letters; "" for code in no image.
        image: Identity of this build of it: PDB GUID and age, else time stamp and size.
        rva: Offset in the image.
        function: The symbol there, without an offset; "" without symbols.
        skipped: The frame is an allocator's (or the user's skip list has it).
    """

    module: str
    image: str
    rva: int
    function: str = ""
    skipped: bool = False


@dataclass(frozen=True)
class Site:
    r"""One allocation site, or another group of blocks.

    Attributes:
        kind: What names it.
        key: Identity across dumps.
        name: For people.
        frames: Call stack, innermost first, for kind `stack`.
        type: Class name, where one is known.
        tag: Pool tag, where there is one.
        driver: Driver that owns the tag.
        lines: Source file and line of each frame, "C:\src\cache.cpp(41)"; "" where unknown. Empty
            when no frame has any.
        places: What ties the key to one build of a module: the place of each frame, or of the
            vftable. Empty where nothing does.
    """

    kind: SiteKind
    key: str
    name: str
    frames: tuple[str, ...] = ()
    type: str | None = None
    tag: str | None = None
    driver: str | None = None
    lines: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()


# What the key of a group of private allocations begins with, and which part of a shape's key is the size.
PRIVATE_KEY = f"{SiteKind.SHAPE}|private|"


def is_private(site: Site) -> bool:
    """True for a group of private memory outside heaps."""
    return site.key.startswith(PRIVATE_KEY)


def allocator_in(key: str) -> str:
    """The allocator in the key of a group of private memory; "" where none was recognised."""
    return key.removeprefix(PRIVATE_KEY).rpartition("|")[0]


def without_allocator(key: str) -> str:
    """The key of the group of private memory before allocators were told apart."""
    return PRIVATE_KEY + key.rpartition("|")[2]


def is_unsized(site: Site) -> bool:
    """True for the site of blocks whose sizes are not known."""
    parts = site.key.split("|")
    return site.kind is SiteKind.SHAPE and parts[_SIZE_PART : _SIZE_PART + 1] == [str(SIZE_UNKNOWN)]


def key_site(label: str, name: str) -> Site:
    """The group of all blocks with one value of a key, "size" and "48"."""
    return Site(SiteKind.GROUP, f"{label}|{name}".lower(), name)


OWN_CODE = " (its own code)"  # behind a program's name: threads that began there
_CUT_NAME = 14  # characters that the kernel keeps of a program's name
_PROGRAM = ".exe"


def process_key(name: str) -> str:
    """The key of all processes of one program, whoever names it: the kernel cuts, lists leave out ".exe"."""
    plain = name.lower()
    endings = [_PROGRAM]
    if len(name) == _CUT_NAME:
        endings += [_PROGRAM[:size] for size in range(len(_PROGRAM) - 1, 0, -1)]
    ending = next((end for end in endings if plain.endswith(end) and plain != end), "")
    return f"name|{plain.removesuffix(ending)}"


def size_name(size: int) -> str:
    """What a group by size is called."""
    return "unknown" if size == SIZE_UNKNOWN else str(size)


def heap_name(label: str, kind: str) -> str:
    """What a group by heap is called."""
    return f"{label} ({kind})"


def stack_key(frames: Iterable[str]) -> str:
    """The key of a stack site, from its frames' keys, innermost first."""
    digest = blake2b("\n".join(frames).encode(), digest_size=DIGEST_BYTES)
    return f"{SiteKind.STACK}|{digest.hexdigest()}"
