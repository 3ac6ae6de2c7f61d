"""What can go wrong with symbols, as types. Nothing here stops an analysis: it goes on without."""

from __future__ import annotations

from windumps.errors import WindumpsError


class SymbolError(WindumpsError):
    """Base of every error about symbols; `str()` of it is one line for people."""


class SymbolPathError(SymbolError):
    """A symbol path that means nothing: wrong usage, not a wrong file."""


class NotSymbolsError(SymbolError):
    """The file is no symbol file of a kind that is read here."""


class UnsupportedSymbolsError(SymbolError):
    """A valid file of a kind that is not read here; the message says what to do."""


class CorruptSymbolsError(SymbolError):
    """A structure of a symbol file is damaged or the file is cut."""

    def __init__(self, file: str, structure: str, reason: str) -> None:
        super().__init__(f"{file}: {structure} is damaged: {reason}; fetch the file again")
        self.structure = structure


class CompressedSymbolsError(SymbolError):
    """A compressed symbol file (`.pd_`) cannot be unpacked."""


class LayoutNotInSymbolsError(SymbolError):
    """The symbols lack structures or fields that a layout needs."""


class DownloadError(SymbolError):
    """A symbol server did not give the file."""


class UnreachableServerError(DownloadError):
    """The server gave no whole answer, however often it was asked."""


class NotOnServerError(DownloadError):
    """The server answered, and has no such file."""
