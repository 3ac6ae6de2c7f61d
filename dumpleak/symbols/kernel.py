"""The user's symbols, handed to the kernel of a dump before anything is read with them."""

from __future__ import annotations

from windumps.diagnostics import Diagnostic
from windumps.dumps.kernel.dump import KernelDump
from windumps.symbols.provider import Symbols


def use_symbols(dump: KernelDump, symbols: Symbols | None) -> tuple[Diagnostic, ...]:
    """Lets a kernel use its own PDB or volatility3 table when the symbol path has one.

    Returns:
        What is there and cannot be used.
    """
    image = dump.kernel.image
    if symbols is None or image is None or image.pdb is None:
        return ()
    source = symbols.source(image)
    if source is not None:
        dump.symbols.use(source, f"symbols of {image.pdb.name} {image.pdb.key}")
    return symbols.of(image).diagnostics
