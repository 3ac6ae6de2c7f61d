"""Symbols: PDBs and symbol tables found, fetched and read. Nothing in the analysis needs them."""
