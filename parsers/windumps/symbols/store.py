"""Finds the PDB of a module along a symbol path: folders, symbol stores, servers.

Layout of stores: Microsoft's "SymStore" and "Custom symbol stores" pages. A file counts as found only
when what is inside it says that it belongs to the image; a file's name and folder prove nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

from windumps.files import DiskRoom, put_in_place, read_head, temporary_beside
from windumps.images.modules import Module, PdbIdentity
from windumps.symbols.cabinet import COMPRESSED_MAGICS, unpack
from windumps.symbols.download import Downloader
from windumps.symbols.errors import (
    CompressedSymbolsError,
    DownloadError,
    NotOnServerError,
    SymbolError,
    UnreachableServerError,
)
from windumps.symbols.folders import MAX_POINTER_BYTES, child, descend, pointed_to
from windumps.symbols.paths import SearchElement
from windumps.symbols.wanted import (
    Status,
    SymbolFile,
    Verdict,
    examine,
    problem_with,
    wanted,
)

# Where debuggers look for name.pdb below a plain folder; "{}" is the image's extension.
_PLAIN_PLACES = ("", "symbols/{}", "{}", "symbols")
_TABLE_PLACES = ("", "windows", "symbols/windows", "isf")
_TABLE_SUFFIXES = (".json.xz", ".json.gz", ".json")


@dataclass
class _Search:
    """What was seen so far on the way along the path."""

    identity: PdbIdentity
    notes: list[str] = field(default_factory=list)
    seen: set[Verdict] = field(default_factory=set)

    def note(self, verdict: Verdict, reason: str) -> None:
        """Keeps why a file was not taken."""
        self.seen.add(verdict)
        self.notes.append(reason)

    @property
    def status(self) -> Status:
        """The status when nothing was found."""
        if Verdict.UNREADABLE in self.seen:
            return Status.UNREADABLE
        return Status.WRONG if self.seen else Status.MISSING


class SymbolStore:
    """Looks along a symbol path.

    Args:
        elements: The path, taken apart.
        downloader: Used for servers; None leaves them out.

    Attributes:
        unreachable: Servers that did not answer, and why; they are not asked again.
    """

    def __init__(
        self, elements: Sequence[SearchElement], downloader: Downloader | None = None
    ) -> None:
        self._elements = list(elements)
        self._downloader = downloader
        self.unreachable: dict[str, str] = {}
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._found: dict[tuple[str, str], SymbolFile] = {}

    def close(self) -> None:
        """Removes what was unpacked for this run only."""
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def __enter__(self) -> SymbolStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def pdb_path(self, module: Module) -> Path | None:
        """The PDB of a module, or None; for `Symbolizer`."""
        return next((self.find(file).path for file in wanted([module])), None)

    def find(self, file: SymbolFile) -> SymbolFile:
        """Looks for a PDB; the answer is kept.

        Returns:
            `file` with status, path and notes filled in.
        """
        key = (file.identity.name.lower(), file.identity.key)
        if key not in self._found:
            self._found[key] = self._look(file)
        return replace(self._found[key], modules=file.modules)

    def find_table(self, identity: PdbIdentity) -> Path | None:
        """A volatility3 symbol table for a PDB, in any folder of the path."""
        if problem_with(identity):
            return None
        stem = f"{identity.guid}-{identity.age}"
        for root in self._roots():
            for place in _TABLE_PLACES:
                for suffix in _TABLE_SUFFIXES:
                    path = descend(root, *place.split("/"), identity.name, stem + suffix)
                    if path is not None and path.is_file():
                        return path
        return None

    def _roots(self) -> list[Path]:
        folders = [f for e in self._elements for f in (*e.stores, e.folder) if f is not None]
        return list(dict.fromkeys(folders))

    def _look(self, file: SymbolFile) -> SymbolFile:
        if problem := problem_with(file.identity):
            return replace(file, status=Status.UNREADABLE, notes=(problem,))
        search = _Search(file.identity)
        path = None
        for element in self._elements:
            path = self._look_in(element, search, file.modules)
            if path is not None:
                break
        status = Status.FOUND if path is not None else search.status
        return replace(file, status=status, path=path, notes=tuple(search.notes))

    def _look_in(
        self, element: SearchElement, search: _Search, modules: tuple[str, ...]
    ) -> Path | None:
        name = search.identity.name
        for store in element.stores:
            if path := self._look_in_store(store, search):
                return path
        if element.folder is not None:
            extensions = dict.fromkeys(m.rpartition(".")[2].lower() for m in modules)
            places = [p.format(e) for p in _PLAIN_PLACES for e in extensions or ("",)]
            for place in dict.fromkeys(places):
                folder = descend(element.folder, *place.split("/"))
                if folder is not None and (path := self._look_in_folder(folder, name, search)):
                    return path
            if path := self._look_in_store(element.folder, search):
                return path
        if element.url in self.unreachable:
            search.notes.append(f"{element.url}: not asked again, it did not answer before")
        elif element.url and self._downloader is not None:
            return self._download(element, search, self._downloader)
        return None

    def _look_in_store(self, store: Path, search: _Search) -> Path | None:
        name = search.identity.name
        roots = [store]
        # A store of two tiers, which this file marks, has folders of the first two letters above.
        if (store / "index2.txt").exists() and (tier := child(store, name[:2])):
            roots.insert(0, tier)
        for root in roots:
            folder = descend(root, name, search.identity.key)
            if folder is None:
                continue
            if path := self._look_in_folder(folder, name, search):
                return path
            pointer = child(folder, "file.ptr")
            target = pointed_to(pointer, search.notes) if pointer is not None else None
            if target is not None and (path := self._accept(target, search)):
                return path
        return None

    def _look_in_folder(self, folder: Path, name: str, search: _Search) -> Path | None:
        for candidate in (name, name[:-1] + "_"):
            path = child(folder, candidate)
            if path is not None and path.is_file() and (path := self._accept(path, search)):
                return path
        return None

    def _accept(self, path: Path, search: _Search) -> Path | None:
        """The file (unpacked) if it belongs to the image; else the reason is noted."""
        try:
            file = self._unpack(path, search.identity) if path.name[-1:] == "_" else path
        except (SymbolError, OSError) as error:
            search.note(Verdict.UNREADABLE, str(error))
            return None
        verdict, reason = examine(file, search.identity, str(path))
        if verdict is Verdict.EXACT:
            return file
        search.note(verdict, reason)
        return None

    def _unpack(self, path: Path, identity: PdbIdentity) -> Path:
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="windumps-symbols-")
        folder = Path(tempfile.mkdtemp(dir=self._scratch.name))
        target = folder / identity.name
        with target.open("xb") as file:
            unpack(path, file, DiskRoom(folder))
        return target

    def _download(
        self, element: SearchElement, search: _Search, downloader: Downloader
    ) -> Path | None:
        identity = search.identity
        target = element.stores[0] / identity.name / identity.key / identity.name
        base = f"{element.url}/{quote(identity.name)}/{identity.key}"
        for name in (identity.name, identity.name[:-1] + "_"):
            url = f"{base}/{quote(name)}"
            try:
                downloader.fetch(url, target, partial(_settle, url, target, search))
            except NotOnServerError as error:
                search.notes.append(str(error))
                continue
            except (SymbolError, OSError) as error:
                # Each further file would cost the same long wait.
                if isinstance(error, UnreachableServerError):
                    self.unreachable[element.url] = str(error)
                search.notes.append(str(error))
                return None
            return target
        self._note_pointer(f"{base}/file.ptr", target.with_name("file.ptr"), search, downloader)
        return None

    def _note_pointer(
        self, url: str, target: Path, search: _Search, downloader: Downloader
    ) -> None:
        """Says where a server's `file.ptr` points.

        It is not followed: it names a path that only the server's own network knows, and a server
        has no business to choose which files here are opened.
        """

        def read(path: Path) -> None:
            text = read_head(path, MAX_POINTER_BYTES).decode("utf-8", "replace")
            raise DownloadError(f"{url}: the server points to {' '.join(text.split())[:200]}")

        try:
            downloader.fetch(url, target, read)
        except (DownloadError, OSError) as error:
            search.notes.append(str(error))


def _settle(url: str, target: Path, search: _Search, path: Path) -> None:
    """Unpacks a downloaded file where it lies and checks that it is the one wanted."""
    if read_head(path, 4) in COMPRESSED_MAGICS:
        try:
            with temporary_beside(target) as (file, unpacked):
                unpack(path, file, DiskRoom(target.parent))
                put_in_place(file, unpacked, path)
        except CompressedSymbolsError as error:
            search.seen.add(Verdict.UNREADABLE)
            raise DownloadError(f"{url}: {error}") from error
    verdict, reason = examine(path, search.identity, url)
    if verdict is not Verdict.EXACT:
        search.seen.add(verdict)
        raise DownloadError(reason)
